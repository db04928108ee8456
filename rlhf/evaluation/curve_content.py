"""What the report of an over-optimisation curve holds: its points, whether the truth fell, who judged, and how far that is
believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.evaluation import reports
from rlhf.evaluation.curve_page import render
from rlhf.evaluation.curve_points import Point
from rlhf.evaluation.estimates import Floats, mean, rounded
from rlhf.evaluation.judge_agreement import agreement
from rlhf.evaluation.judges import Judge, Judged, RewardJudge
from rlhf.evaluation.reports import Report
from rlhf.evaluation.sides import Side
from rlhf.ids import digest_of
from rlhf.measures.over_optimisation import fall
from rlhf.store import Workspace
from rlhf.store.runs import RunRow

SCHEMA_VERSION = 1
METHOD = {
    "win_rate": "mean over replies of the win over the start's reply to the same prompt, a tie half; interval over opening turns",
    "kl": "mean of log p(version) - log p(bare base) over its own replies, nats a reply; of a run, to its reference, as its watch "
    "had it",
    "best_of_n": "unbiased over all draws of n from the pool and, by a judge that gives points, of the reply that it is held "
    "against; KL at most log n - (n - 1) / n, from what was sampled",
    "fall": "from the point of the highest true win rate to the first later one that is lower while the proxy is not; paired "
    "bootstrap, Bonferroni over all pairs of points",
}


def head(
    of: str,
    what: str,
    points: Sequence[Point],
    proxies: Sequence[Sequence[float]] | Floats,
    wins: Sequence[Sequence[float]] | Floats,
    seed: int,
) -> dict[str, Any]:
    """What all three kinds of curve have: points, and whether the truth fell."""
    groups = [pair.group for pair in points[0].pairs]
    found = fall(proxies, wins, groups, seed=seed)
    rows = [
        {
            "name": point.name,
            "digest": point.digest,
            "kl": dict(point.kl),
            "sqrt_kl": sqrt(max(0.0, point.kl["value"])),
            "proxy": mean(np.array(proxy), groups, seed, share=True),
            "truth": mean(np.array(own), groups, seed, share=True),
        }
        for point, proxy, own in zip(points, proxies, wins, strict=True)
    ]
    fell = None if found is None else {
        "from": points[found.best].name, "at": points[found.at].name, "proxy": found.proxy, "truth": found.truth,
        **{end: getattr(found.interval, end) for end in ("low", "high", "level", "method")},
    }  # fmt: skip
    head: dict[str, Any] = rounded(
        {"kind": "curve", "schema_version": SCHEMA_VERSION, "of": of, "what": what, "points": rows, "fall": fell}
    )
    return {**head, "n_replies": len(groups), "n_groups": len(set(groups)), "seed": seed, "method": METHOD}


def publish(workspace: Workspace, content: dict[str, Any], out: Path | None) -> Report:
    proxy, judge = content["proxy"], content["judge"]
    content["title"] = f"{content['what']}: {proxy['name']} against {judge['name']}, over {content['of']}"
    kept = ("kind", "schema_version", "of", "points", "fall", "seed", "method", "sampling", "prompts")
    content["digest"] = digest_of(
        {
            **{key: content[key] for key in kept},
            "judges": [[who["kind"], who["digest"], who["agreement"]] for who in (proxy, judge)],
        }
    )
    report = reports.publish(workspace, content, render(content))
    if out is not None:
        reports.copy(report, out)
    return report


def who(workspace: Workspace, judge: Judge, judged: Judged | None, seed: int) -> dict[str, Any]:
    digest = judged.digest if judged else judge.ref.digest if isinstance(judge, RewardJudge) else ""
    facts = dict(judged.facts) if judged else {}
    believed = agreement(workspace, judge, seed=seed)
    return {"kind": judge.kind, "name": judge.name, "digest": digest, "agreement": believed, **facts}


def published(workspace: Workspace, run: RunRow, points: Sequence[Point], head: Mapping[str, Any]) -> dict[str, Any]:
    """The version that the run published, with the figures of the last point of its weights; none where no measurement is of
    them."""
    from rlhf import registry

    if run.version_digest is None:
        return {}
    ref = registry.resolve(workspace, f"sha256:{run.version_digest}")
    weights = registry.show(workspace, ref).manifest["weights_digest"]
    own = [row for point, row in zip(points, head["points"], strict=True) if point.digest == weights]
    return {str(ref): {"digest": ref.digest, "figures": _figures(own[-1])}} if own else {}


def with_figures(sides: Sequence[Side], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        side.ref.text: {"digest": side.ref.digest, "figures": _figures(row)}
        for side, row in zip(sides, rows, strict=True)
    }


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Flat, for programs."""
    named = {"kl": row["kl"], "proxy_win_rate": row["proxy"], "true_win_rate": row["truth"]}
    ends = {"": "value", "_low": "low", "_high": "high"}
    flat = {f"{name}{end}": m[key] for name, m in named.items() for end, key in ends.items()}
    return {"n": row["truth"]["n"], **flat}


def is_simulated(workspace: Workspace, judges: Sequence[Judge]) -> bool:
    from rlhf import registry

    refs = [judge.ref for judge in judges if isinstance(judge, RewardJudge)]
    return any(registry.show(workspace, ref).manifest["simulated"] for ref in refs)
