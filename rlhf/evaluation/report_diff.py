"""Two reports side by side: each figure of both with n and interval, and what is left when the same pairs are set one by one.

Two intervals that overlap are no test, and two that don't are a crude one. Where both reports measured the same pairs, and what was
scored is still there, the difference is taken pair by pair, clustered by opening turn; nothing is scored anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhf.errors import BadInput, NotFound, RlhfError
from rlhf.evaluation.estimates import coined, mean, rounded
from rlhf.evaluation.figures import difference
from rlhf.evaluation.material import material
from rlhf.evaluation.reports import Report, data_of, open_report
from rlhf.evaluation.scored import ScoredPair
from rlhf.measures import ranking
from rlhf.store import Workspace

_WON = {"a": 1.0, "b": 0.0, "tie": 0.5, "coin": 0.5}
_BOUNDS = ("_low", "_high")
Found = dict[str, Any]


def diff(workspace: Workspace, one: str, other: str) -> Found:
    """What both measure and each flat figure of both, with the change.

    The first version that only one of them has is set against the other's, and a version of both against itself. `same_pairs`: they
    measured the same pairs or prompts by the same judge; else a change is a change of the data too. Each change has `a`, `b`,
    `change`, and where the reports have them `n`, `low`, `high` and `method` of either side. `paired`: figure -> value of b minus a
    with its interval and n, over the same pairs, or None; `why_unpaired` says why. Raises BadInput for reports of two kinds.
    """
    a, b = open_report(workspace, one), open_report(workspace, other)
    if a.content["kind"] != b.content["kind"]:
        raise BadInput(
            f"report {one} is of kind {a.content['kind']}, {other} of kind {b.content['kind']}: they hold different "
            "figures",
            fix="name two reports of one kind; see: rlhf report list",
        )
    shared = [name for name in a.figures if name in b.figures]
    own = [next((name for name in side.figures if name not in shared), None) for side in (a, b)]
    names = [(own[0], own[1])] if own[0] and own[1] else []
    names += [(name, name) for name in shared]
    same = _identity(a.content) == _identity(b.content)
    entries = []
    for left, right in names:
        paired, why = _paired(workspace, a, b, left, right) if same else (None, "they measured other pairs")
        entry = {"a": left, "b": right, "changes": _changes(a.figures[left], b.figures[right])}
        entries.append({**entry, "paired": paired, "why_unpaired": why})
    return {"a": _side(a), "b": _side(b), "same_pairs": same, "figures": entries}


def _side(report: Report) -> Found:
    content = report.content
    return {
        "report": report.digest,
        "title": report.title,
        **data_of(content),
        "seed": content["seed"],
        "versions": {name: version["digest"] for name, version in content["versions"].items()},
    }


def _identity(content: Mapping[str, Any]) -> list[Any]:
    return [(what, data["digest"], data.get("split")) for what, data in data_of(content).items()]


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Found]:
    """Of each figure that both know; an interval's ends are no figures of their own."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    ends = {f"{key}{end}" for key in a for end in _BOUNDS}
    keys = [key for key in a if key in b and key not in ends and key != "seed" and (number(a[key]) or number(b[key]))]
    return {
        key: {
            "a": a[key],
            "b": b[key],
            "change": round(b[key] - a[key], 6) if number(a[key]) and number(b[key]) else None,
            **_measured("a", a, key),
            **_measured("b", b, key),
        }
        for key in keys
    }


def _measured(side: str, figures: Mapping[str, Any], key: str) -> Found:
    """n, interval and method, as `measures` has them; a count has none."""
    measure = (figures.get("measures") or {}).get(key)
    return {} if measure is None else {f"{side}_{name}": measure[name] for name in ("n", "low", "high", "method")}


def _paired(workspace: Workspace, a: Report, b: Report, left: str, right: str) -> tuple[Found | None, str | None]:
    """The differences, b minus a, or why there are none."""
    digests = [r.content["versions"][name]["digest"] for r, name in ((a, left), (b, right))]
    if a.content["kind"] == "comparison":
        return _of_comparisons(a, b, left, right)
    if a.content["kind"] != "evaluation":
        return None, "such reports keep nothing of single pairs"
    if digests[0] == digests[1]:
        return None, "it is one version on the same pairs"
    try:
        return _of_evaluations(workspace, a, b, left, right)
    except (RlhfError, ValueError) as error:
        return None, f"the pairs can't be read again: {error}"


def _of_comparisons(a: Report, b: Report, left: str, right: str) -> tuple[Found | None, str | None]:
    """By prompt, on the verdicts that both reports keep."""
    kept = [_wins(report.content, name) for report, name in ((a, left), (b, right))]
    prompts = [p for p in kept[0] if p in kept[1]]
    if not prompts:
        return None, "no prompt was judged in both"
    if any("group" not in row for report in (a, b) for row in report.content["pairs"]):
        return None, "one of them is from before opening turns were kept with the verdicts: compare again"
    differences = np.array([kept[1][p][0] - kept[0][p][0] for p in prompts], dtype=np.float64)
    seed = int(a.content["seed"])
    return rounded({"win_rate": mean(differences, [kept[0][p][1] for p in prompts], seed)}), None


def _wins(content: Mapping[str, Any], name: str) -> dict[str, tuple[float, str]]:
    """Prompt -> how the version did and the opening turn, where there is a verdict."""
    is_b = content["between"].index(name) == 1
    found = {}
    for row in content["pairs"]:
        if row["verdict"] is not None:
            won = _WON[row["verdict"]]
            found[row["prompt"]] = (1.0 - won if is_b else won, row.get("group", ""))
    return found


def _of_evaluations(
    workspace: Workspace, a: Report, b: Report, left: str, right: str
) -> tuple[Found | None, str | None]:
    """By pair, on scores that were kept; only where they give each report's own figures again."""
    sides = []
    for report, name in ((a, left), (b, right)):
        scored = _scored_again(workspace, report, name)
        if scored is None:
            return None, f"the scores of {name} aren't kept any more: evaluate {left} and {right} in one report"
        sides.append(scored)
    found = difference(sides[1], sides[0], seed=int(a.content["seed"]))
    return {key: found[key] for key in ("accuracy", "log_loss")}, None


def _scored_again(workspace: Workspace, report: Report, name: str) -> list[ScoredPair] | None:
    from rlhf import registry
    from rlhf.reward.kept import all_kept

    data, version = report.content["snapshot"], report.content["versions"][name]
    is_suite = data.get("kind") == "suite"
    on = f"sha256:{data['digest']}"
    rows = material(workspace, None if is_suite else on, on if is_suite else None, data["split"])
    if len(rows.rows) != data["pairs"]:
        raise NotFound("judgements were taken back since", fix="evaluate again")
    ref = registry.resolve(workspace, f"sha256:{version['digest']}")
    for scores in all_kept(workspace, ref, rows.pairs):
        scored = [used.scored(score) for used, score in zip(rows.rows, scores, strict=True)]
        if _are_these(version["figures"], scored):
            return scored
    return None


def _are_these(figures: Mapping[str, Any], scored: list[ScoredPair]) -> bool:
    """Whether the scores give the report's own figures, to its last digit."""
    margins = coined([pair for pair in scored if not pair.is_tie])
    if not len(margins):
        return False
    again = {"n": len(scored), "n_decided": len(margins)}
    again |= rounded({"accuracy": ranking.accuracy(margins), "log_loss": ranking.log_loss(margins)})
    return all(figures[key] == value for key, value in again.items())
