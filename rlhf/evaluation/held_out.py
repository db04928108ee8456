"""Reward versions on a snapshot's held-out pairs: the main road from names to a published report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.evaluation import reports
from rlhf.evaluation.figures import LEVEL, N_BINS, N_BOOT, N_BOOT_SLOW, difference, figures
from rlhf.evaluation.page import render
from rlhf.evaluation.reports import Report
from rlhf.evaluation.scored import PairScore, ScoredPair, scored_pair
from rlhf.records import Judgement, Pair, SnapshotRow, VersionRef
from rlhf.store import Workspace

Score = Callable[..., Sequence[PairScore]]
SCHEMA_VERSION = 1
SPLITS = ("train", "test")
METHOD = {
    "accuracy": "share of decided pairs ranked as the labelers did; one without scores, or with equal ones, counts 0.5",
    "intervals": f"{LEVEL:.0%} percentile bootstrap, {N_BOOT} resamples of opening turns "
    f"({N_BOOT_SLOW} for ECE and length correlation)",
    "calibration": f"orientation drawn at random, {N_BINS} equal-mass bins; test: Kolmogorov-Smirnov on cumulative differences, "
    "least sure first, which takes pairs for independent",
    "length_correlation": "Spearman (linear: Pearson), each pair taken both ways round",
}


@dataclass(frozen=True, slots=True)
class _Judged:
    """The rows of a split that have a verdict, and what became of the others."""

    rows: tuple[tuple[SnapshotRow, float, tuple[Judgement, ...]], ...]  # row, P(a better), the judgements used
    n_undecided: int
    n_no_consent: int
    kinds: tuple[str, ...]

    @property
    def pairs(self) -> list[Pair]:
        return [row.pair for row, _, _ in self.rows]


def evaluate(
    workspace: Workspace,
    versions: Sequence[str],
    snapshot: str,
    *,
    split: str = "test",
    out: Path | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    score: Score | None = None,
) -> Report:
    """Score every judged pair of the split with each version and publish figures, differences and the page as a report.

    versions: reward versions (`name@7`, `name@alias`, `sha256:...`). out: a folder that gets copies of report.json and
    report.html too. seed: of the resampling and the drawn orientation. score: another scorer than the reward room's
    `score_pairs(workspace, version, pairs, on_progress=...)`.
    The same evaluation again returns the report that is there. Raises NotFound for an unknown version or snapshot,
    BadInput for a version that is no reward, a repeated version or a split without a judged pair, BadUsage for an unknown split.
    """
    from rlhf.snapshots import open_snapshot

    refs = _rewards(workspace, versions)
    if split not in SPLITS:
        raise BadUsage(f"a snapshot has no split '{split}'", fix="use --split test (held out) or --split train")
    if out is not None:
        reports.check_out(out)
    cut = open_snapshot(workspace, snapshot)
    judged = _judged(cut.rows("train" if split == "train" else "test"))
    if not judged.rows:
        raise BadInput(
            f"{cut.name}@{cut.number} has no judged pair in its {split} split "
            f"({judged.n_undecided} without a verdict, {judged.n_no_consent} without consent to evaluate)",
            fix="cut one with a larger --holdout, or name another snapshot",
        )
    score = score or _reward_scorer()
    scored = {str(ref): _scored(workspace, ref, judged, score, on_progress) for ref in refs}
    content: dict[str, Any] = {
        "kind": "evaluation",
        "schema_version": SCHEMA_VERSION,
        "title": f"{', '.join(scored)} on snapshot {cut.name}@{cut.number} ({split})",
        "versions": _versions(workspace, refs, scored, judged, seed),
        "differences": _differences(scored, seed),
        "snapshot": {
            "name": f"{cut.name}@{cut.number}",
            "digest": cut.digest,
            "split": split,
            "pairs": len(judged.rows),
            "without_verdict": judged.n_undecided,
            "without_consent": judged.n_no_consent,
        },
        "labelers": list(judged.kinds),
        "seed": seed,
        "method": METHOD,
    }
    content["simulated"] = "simulated" in judged.kinds or any(v["simulated"] for v in content["versions"].values())
    content["digest"] = _content_digest(content)
    report = reports.publish(workspace, content, render(content, scored))
    if out is not None:
        reports.copy(report, out)
    return report


def _rewards(workspace: Workspace, versions: Sequence[str]) -> list[VersionRef]:
    from rlhf import registry

    if not versions:
        raise BadInput("no version to evaluate", fix="name at least one, such as hh@1")
    for text in versions:
        if text.startswith("base:"):
            raise BadInput(
                f"{text} has no trained reward head, so it gives no scores to evaluate",
                fix="name a reward version such as hh@1; bare bases are compared by the replies that they write",
            )
    refs = [registry.resolve(workspace, text, role="reward") for text in versions]
    if len({ref.digest for ref in refs}) < len(refs):
        raise BadInput(f"{', '.join(versions)} name one version twice", fix="name each version once")
    return refs


def _judged(rows: Iterable[SnapshotRow]) -> _Judged:
    """Only judgements whose labeler agreed to evaluation count; a pair that is left without any is counted, not
    forgotten."""
    from rlhf.reward.targets import target_of

    used, n_undecided, n_no_consent, kinds = [], 0, 0, set()
    for row in rows:
        allowed = tuple(j for j in row.judgements if "evaluate" in j.consent)
        target = target_of(allowed, "soft") if allowed else None
        if target is None:
            n_no_consent += bool(row.judgements) and not allowed
            n_undecided += bool(allowed) or not row.judgements
            continue
        used.append((row, float(target), allowed))
        kinds |= {j.kind for j in allowed}
    return _Judged(tuple(used), n_undecided, n_no_consent, tuple(sorted(kinds)))


def _reward_scorer() -> Score:
    """The reward room's scorer; imported here, for it brings torch."""
    from rlhf.reward import score_pairs

    return score_pairs


def _scored(
    workspace: Workspace, ref: VersionRef, judged: _Judged, score: Score, on_progress: Callable[[int, int], None] | None
) -> list[ScoredPair]:
    scores = score(workspace, ref, judged.pairs, on_progress=on_progress)
    assert len(scores) == len(judged.rows), "a scorer gives one score a pair"
    found = [scored_pair(row, target, used, s) for (row, target, used), s in zip(judged.rows, scores, strict=True)]
    if all(pair.margin is None for pair in found):
        raise BadInput(
            f"{ref} can score none of the {len(found)} judged pairs: they are longer than it reads, or its template refuses them",
            fix="train it with a larger max_length, or name another snapshot",
        )
    return found


def _versions(
    workspace: Workspace,
    refs: Sequence[VersionRef],
    scored: Mapping[str, Sequence[ScoredPair]],
    judged: _Judged,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Each version's identity and figures, and how many of the evaluated opening turns it, or what it came from, was trained on.

    Splits are a hash of the opening turn, so these are 0 unless another seed, another holdout or the train split was
    used; None where a snapshot behind it can't be read in this workspace.
    """
    from rlhf import registry

    groups = {row.pair.group for row, _, _ in judged.rows}
    lines = {str(ref): registry.lineage(workspace, ref) for ref in refs}
    trained = {o.digest: _training(workspace, o.digest) for line in lines.values() for o in line.snapshots}
    found = {}
    for ref in refs:
        manifest = registry.show(workspace, ref).manifest
        line = lines[str(ref)]
        training = trained.get(manifest.get("snapshot_digest") or "")
        known = [one for origin in line.snapshots if (one := trained[origin.digest]) is not None]
        is_known = bool(known) and len(known) == len(line.snapshots) and not line.absent
        found[str(ref)] = {
            "digest": ref.digest,
            "kind": manifest["kind"],
            "base": manifest["base"]["name"],
            "base_digest": manifest["base"]["digest"],
            "simulated": bool(manifest.get("simulated", False)),
            "trained_on": training[0] if training else None,
            "trained_on_digest": manifest.get("snapshot_digest"),
            "seen_openings": len(groups & set().union(*(one[1] for one in known))) if is_known else None,
            "figures": figures(scored[str(ref)], seed=seed),
        }
    return found


def _training(workspace: Workspace, digest: str) -> tuple[str, set[str]] | None:
    """Name of the snapshot with this digest and the opening turns of its train split; None where it isn't in this
    workspace."""
    from rlhf.snapshots import open_snapshot

    try:
        snapshot = open_snapshot(workspace, f"sha256:{digest}")
    except NotFound:
        return None
    return f"{snapshot.name}@{snapshot.number}", {row.pair.group for row in snapshot.rows("train")}


def _differences(scored: Mapping[str, Sequence[ScoredPair]], seed: int) -> list[dict[str, Any]]:
    """Every two versions, the later named minus the earlier: paired, as the pairs are the same."""
    names = list(scored)
    return [
        {"a": a, "b": b, **difference(scored[a], scored[b], seed=seed)}
        for i, b in enumerate(names)
        for a in names[i + 1 :]
    ]


def _content_digest(content: Mapping[str, Any]) -> str:
    """Over versions by digest, figures, snapshot by digest, seed and method. Names and numbers are a workspace's
    own."""
    from rlhf.ids import digest_of

    name_to_digest = {name: v["digest"] for name, v in content["versions"].items()}
    return digest_of(
        {
            "kind": content["kind"],
            "versions": [
                {"digest": v["digest"], "figures": v["figures"], "seen_openings": v["seen_openings"]}
                for v in content["versions"].values()
            ],
            "differences": [
                d | {"a": name_to_digest[d["a"]], "b": name_to_digest[d["b"]]} for d in content["differences"]
            ],
            "snapshot": content["snapshot"]["digest"],
            "split": content["snapshot"]["split"],
            "seed": content["seed"],
            "method": content["method"],
            "schema_version": content["schema_version"],
        }
    )
