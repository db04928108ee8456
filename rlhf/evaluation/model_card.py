"""A version's model card (Mitchell et al. 2019, "Model Cards for Model Reporting"): what the store knows, and what it doesn't.

A view of the store as it is now: nothing is written, and the same state gives the same card and the same digest. Every text of a
person in it was recorded with a deed: why an alias moved, why a version was retired. `model_card_page.py` makes a page of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from rlhf.evaluation.groups import COHORT
from rlhf.evaluation.model_card_data import data_behind
from rlhf.evaluation.wording import caution_of
from rlhf.ids import digest_of
from rlhf.store import Workspace
from rlhf.store.tables import reports

if TYPE_CHECKING:
    from rlhf.records import VersionRef
    from rlhf.registry import Lineage, VersionRow

SCHEMA_VERSION = 1
# Figures of a comparison that a card repeats; the report has the others.
_OF_COMPARISON = (
    "win_rate", "length_controlled_win_rate", "kl", "mean_tokens", "refusal", "repetition", "distinct_2",
)  # fmt: skip


def model_card(workspace: Workspace, version: str) -> dict[str, Any]:
    """Everything that the card says, as JSON; `digest` is over all of it. Raises what `registry.resolve` raises, Damaged where a
    report or a snapshot behind it was changed."""
    from rlhf import registry

    ref = registry.resolve(workspace, version)
    row, line = registry.show(workspace, ref), registry.lineage(workspace, ref)
    card: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "version": str(ref),
        "details": _details(row),
        "data": data_behind(workspace, line),
        "reports": list(_reports(workspace, ref)),
        "signoffs": [dict(signed) for signed in row.signoffs],
        "aliases": list(row.aliases),
        "decisions": _decisions(workspace, ref),
        "lineage": _lineage(line),
    }
    card["limits"] = list(_limits(card))
    return {**card, "digest": digest_of(card)}


def _details(row: VersionRow) -> dict[str, Any]:
    m = row.manifest
    return {
        "digest": row.ref.digest,
        "role": row.ref.role,
        "kind": row.kind,
        "base": dict(m["base"]),
        "tokenizer_digest": m["tokenizer_digest"],
        "template_digest": m["template_digest"],
        "settings": m["settings"],
        "seeds": m["seeds"],
        "figures_at_publication": m["metrics"],
        "simulated": m["simulated"],
        "run": m["run_id"],
        "imported_from": (m["details"] or {}).get("imported_from"),
        "published_by": row.actor,
        "published_at": row.created_at,
        "retired_at": row.retired_at,
    }


def _reports(workspace: Workspace, ref: VersionRef) -> Iterator[dict[str, Any]]:
    """Each report that measures the version, oldest first, with the figures of it that a card repeats."""
    from rlhf.evaluation.reports import JSON_FILE

    named = json.dumps(str(ref))  # figures are kept by name; the digest in the file decides
    query = select(reports).where(reports.c.figures.contains(named, autoescape=True))
    with workspace.read() as connection:
        for row in connection.execute(query.order_by(reports.c.created_at, reports.c.digest)).all():
            content = json.loads(workspace.artifacts.read_file(connection, f"{row.path}/{JSON_FILE}"))
            own = next((v for v in content["versions"].values() if v["digest"] == ref.digest), None)
            if own is not None:
                yield _report(content, own, str(ref), row.digest)


def _gap(fairness: Mapping[str, Any]) -> dict[str, Any] | None:
    """The largest gap in score between rows of one template, and of which groups; None where none was measured."""
    measure = (fairness.get("measures") or {}).get("reward_gap")
    return None if measure is None or measure["value"] is None else {**measure, "of": fairness["reward_gap_of"]}


def _report(content: Mapping[str, Any], own: Mapping[str, Any], name: str, digest: str) -> dict[str, Any]:
    figures = own.get("figures") or {}
    measures = figures.get("measures") or {}
    kept = {key: dict(m) for key, m in measures.items() if content["kind"] != "comparison" or key in _OF_COMPARISON}
    cohorts = figures.get("by_cohort") or {}
    fairness = figures.get("fairness") or {}
    return {
        "report": digest,
        "kind": content["kind"],
        "title": content.get("title", ""),
        "seen_openings": own.get("seen_openings"),
        "split": (content.get("snapshot") or {}).get("split"),
        "against": [other for other in content["versions"] if other != name],
        "judge": {key: content["judge"][key] for key in ("kind", "name", "digest")} if "judge" in content else None,
        "labelers": list(content.get("labelers", ())),
        "flatters": name in (content.get("judge") or {}).get("flatters", ()),
        "measures": kept,
        "length_guess_side": figures.get("length_guess_side"),
        "by_cohort": dict(cohorts.get("shown") or {}),
        "by_group": {
            attribute: {name: dict(group["accuracy"]) for name, group in one["groups"].items()}
            for attribute, one in (fairness.get("attributes") or {}).items()
            if attribute != COHORT and one["groups"]
        },
        "worst_gap": fairness.get("worst_gap"),
        "reward_gap": _gap(fairness),
        "stability_measured": bool(figures.get("stability")),
    }


def _decisions(workspace: Workspace, ref: VersionRef) -> list[dict[str, Any]]:
    """What was decided of it, without what depends on today's date."""
    from rlhf import registry

    kept = ("decision", "kind", "title", "who", "why", "at", "in_force", "taken_back_by", "digest")
    return [
        {key: told[key] for key in kept}
        for one in registry.decisions.list_decisions(workspace)
        if ref.digest in (one.decision.from_digest, one.decision.to_digest)
        for told in (one.as_json(),)
    ]


def _lineage(line: Lineage) -> dict[str, Any]:
    told = line.as_json()
    return {key: told[key] for key in ("ancestors", "descendants", "absent")}


def _limits(card: Mapping[str, Any]) -> Iterator[str]:
    """Where its figures end: what they rest on, and what nobody measured."""
    details, found = card["details"], card["reports"]
    if details["simulated"]:
        yield (
            "SIMULATED: judgements behind it come from a program, not from people. Its figures say that the method works, and "
            "nothing about human preferences."
        )
    if not found:
        yield "Nobody has measured it: no report names it. The figures at publication are a quick look of its own training."
    for one in found:
        yield from _of_report(one)
    if not any(one["by_cohort"] or one["worst_gap"] is not None for one in found):
        yield f"Fairness was not measured: no report shows figures by cohort or group. {_why_unfair(card)}".strip()
    if not any(one["stability_measured"] for one in found) and details["role"] == "reward":
        yield "How often small changes of a chat turn its preference was not measured."
    if not card["signoffs"]:
        yield "Nobody has signed it."
    if card["lineage"]["absent"] or any(data["name"] is None for data in card["data"]):
        yield "Part of what it stands on is not in this workspace: an overlap of its training with a test set can't be ruled out."
    if not card["data"]:
        yield "What it was trained on is not recorded: it came from elsewhere, or learnt from a file of prompts alone."
    yield (
        f"What its base {details['base']['name']} read in its own training is not recorded here, nor under which licence it may be "
        "used."
    )


def _of_report(one: Mapping[str, Any]) -> Iterator[str]:
    short = one["report"][:12]
    if said := caution_of(one["split"], one["seen_openings"]):
        yield f"Report {short}. {said}"
    if one["seen_openings"] is None and one["kind"] in ("evaluation", "comparison"):
        yield f"Report {short}: whether it was trained on these pairs or prompts can't be told."
    if one["flatters"]:
        yield f"Report {short}: the judge is a reward that it was trained on, and flatters it."


def _why_unfair(card: Mapping[str, Any]) -> str:
    """The same as the snapshot's datasheet says, where it is so."""
    known = [data for data in card["data"] if data["name"] is not None]
    if known and not any(data["cohorts"] for data in known):
        return "Nothing is recorded about who the labelers are, so over cohorts of them it can't be."
    return ""
