"""The data behind a version, as its card tells it: sources, consent, labelers, what was masked, what was taken out since."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from rlhf.errors import NotFound
from rlhf.labeling.cohorts import MIN_PEOPLE, hidden_of
from rlhf.pages.document import Block, Facts, Table
from rlhf.people import took_back
from rlhf.records import PAGE_SOURCE
from rlhf.snapshots import Snapshot, open_snapshot
from rlhf.snapshots.rows import judgements_of, read_columns
from rlhf.store import Workspace
from rlhf.store.tables import agreements, texts

if TYPE_CHECKING:
    from rlhf.registry import Lineage, SnapshotOrigin

# As a cut's manifest has them.
_COPIED = (
    "pairs",
    "splits",
    "judgements",
    "kinds",
    "choices",
    "consents",
    "labelers",
    "guidelines",
    "agreement",
    "masked",
)


def data_behind(workspace: Workspace, line: Lineage) -> list[dict[str, Any]]:
    """One entry for each snapshot behind the version, the nearest first; `name` None where it isn't in this workspace."""
    return [_of(workspace, origin) for origin in line.snapshots]


def _of(workspace: Workspace, origin: SnapshotOrigin) -> dict[str, Any]:
    told: dict[str, Any] = {"digest": origin.digest, "of": list(origin.of), "name": None}
    try:
        cut = open_snapshot(workspace, f"sha256:{origin.digest}")
    except NotFound:
        return told
    manifest = cut.manifest
    cohorts, n_taken_back = _cohorts(cut)
    return {
        **told,
        "name": cut.ref,
        "sources": manifest.get("by_source") or manifest.get("sources"),
        **{key: manifest.get(key) for key in _COPIED},
        "consent_texts": _consent_texts(workspace, manifest),
        "cohorts": cohorts,
        "erased_rows": cut.n_erased,
        "judgements_taken_back": n_taken_back,
    }


def _cohorts(cut: Snapshot) -> tuple[dict[str, Any] | None, int]:
    """Judgements and people of each cohort that is large enough, and how many judgements were taken back since. None where no
    judgement names a cohort. Each judgement is read only where there is something to find in it."""
    manifest = cut.manifest
    if not manifest.get("cohorts") and not cut.withdrawn:
        return None, 0
    people: dict[str, set[tuple[str, str]]] = defaultdict(set)
    n_of: Counter[str] = Counter()
    n_taken_back = 0
    for pair_id, said in read_columns(cut.shards, ("pair_id", "judgements")):
        for judgement in judgements_of(said, pair_id):
            if took_back(judgement, cut.withdrawn):
                n_taken_back += 1
            elif judgement.cohort:
                n_of[judgement.cohort] += 1
                if judgement.labeler is not None:
                    people[judgement.cohort].add((judgement.source, judgement.labeler))
    if not n_of:
        return None, n_taken_back
    hidden = hidden_of({name: len(people[name]) for name in n_of})
    shown = {
        name: {"judgements": n, "people": len(people[name])} for name, n in sorted(n_of.items()) if name not in hidden
    }
    return {"shown": shown, "hidden": len(hidden), "below_people": MIN_PEOPLE}, n_taken_back


def _consent_texts(workspace: Workspace, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The consent texts that people of this workspace's labeling page agreed to, where the page's judgements are in the data:
    number, digest, legal basis, purposes, and how many people's latest word is an agreement to it."""
    if PAGE_SOURCE not in (manifest.get("sources") or {}):
        return []
    with workspace.read() as connection:
        latest = {row.account: row for row in connection.execute(select(agreements).order_by(agreements.c.id))}
        known = {
            row.digest: row for row in connection.execute(select(texts).where(texts.c.kind == "consent"))
        }  # the one that comes with rlhf has no row
    agreed = Counter(row.consent for row in latest.values() if row.action == "agree")
    scopes = {row.consent: row.scopes for row in latest.values()}
    return [
        {
            "digest": digest,
            "number": known[digest].number if digest in known else 0,
            "basis": known[digest].basis if digest in known else "consent",
            "purposes": sorted(filter(None, scopes[digest].split(","))),
            "people": n,
        }
        for digest, n in sorted(agreed.items())
    ]


def data_blocks(behind: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """Of `data_behind`, as the card shows it."""
    if not behind:
        yield "No snapshot is recorded behind it."
    for data in behind:
        of = ", ".join(data["of"])
        if data["name"] is None:
            yield f"{of}: snapshot sha256:{data['digest']}, which is not in this workspace; nothing more can be told of it."
            continue
        yield Facts(tuple(_of_snapshot(data, of)))
        rows = tuple(_of_source(name, n) for name, n in (data["sources"] or {}).items())
        yield Table(("source", "pairs", "judgements", "known labelers", "judgements of unknown"), rows, (1, 2, 3, 4))
        if data["cohorts"]:
            cohorts = data["cohorts"]
            rows = tuple(
                (name, f"{n['judgements']:,}", f"{n['people']:,}" if n["people"] else "not named")
                for name, n in cohorts["shown"].items()
            )
            if rows:
                yield Table(("cohort of labelers", "judgements", "people"), rows, (1, 2))
            if cohorts["hidden"]:
                yield f"Not shown: {cohorts['hidden']:,} cohorts, as one of fewer than {cohorts['below_people']} people would show."


def _of_snapshot(data: Mapping[str, Any], of: str) -> Iterator[tuple[str, str]]:
    yield "Snapshot", f"{data['name']}, sha256:{data['digest']}; behind {of}"
    yield (
        "Size",
        (
            f"{data['pairs']:,} pairs, {data['judgements']:,} judgements ({_counted(data['kinds'])}); "
            f"{data['splits']['train']:,} pairs to train on, {data['splits']['test']:,} held out"
        ),
    )
    yield "Consent, judgements by purposes", _counted({key or "none": n for key, n in data["consents"].items()})
    for text in data["consent_texts"]:
        yield (
            "Consent text",
            (
                f"number {text['number']} (sha256:{text['digest'][:12]}), basis: {text['basis']}, for "
                f"{' and '.join(text['purposes'])}; in force for {text['people']:,} people of the labeling page"
            ),
        )
    if not data["consent_texts"]:
        yield "Consent text", "none recorded here: the purposes are what was declared when the judgements were imported"
    yield (
        "Taken out since",
        (f"{data['erased_rows']:,} rows were erased, {data['judgements_taken_back']:,} judgements were taken back"),
    )
    yield (
        "Anonymisation",
        f"replaced by pattern at import: {_counted(data['masked'] or {}) or 'nothing'}; names may remain",
    )
    yield (
        "Labelers",
        (
            f"{data['labelers']['known']:,} known by a pseudonym; "
            f"{data['labelers']['judgements_of_unknown']:,} judgements of unknown"
        ),
    )
    yield "Agreement between them", _agreement(data["agreement"])
    yield "Guidelines", _counted({key[:12]: n for key, n in data["guidelines"].items()}) or "no judgement names one"
    if not data["cohorts"]:
        yield "Cohorts", "nothing is recorded about who the labelers are"


def _agreement(found: Mapping[str, Any]) -> str:
    alpha, n = found["krippendorff_alpha"], found["pairs"]
    if alpha is not None:
        return f"Krippendorff's alpha (nominal) {alpha:.3f}, {n:,} pairs with two or more votes, no interval kept"
    return f"undefined: {n:,} pairs with two or more votes hold one choice" if n else "unknown: no pair has two votes"


def _of_source(name: str, n: Any) -> tuple[str, ...]:
    if not isinstance(n, Mapping):  # cut before sources were counted one by one
        return (name, f"{n:,}", "–", "–", "–")
    return (name, *(f"{n[key]:,}" for key in ("pairs", "judgements", "labelers", "judgements_of_unknown")))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())
