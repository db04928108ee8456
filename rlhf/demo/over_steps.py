"""What the known rule says of a policy training, step by step: the truth beside the reward that the training raised.

The run's watch keeps its replies to the same prompts at every measurement; here the rule judges each against the reply of the
same prompt and the same chance at step 0. Neither the reward nor the policy has seen the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf.demo.rule import quality
from rlhf.measures.intervals import wilson
from rlhf.records import Message


def truth_over_steps(
    replies: Iterable[Mapping[str, Any]], prompts: Mapping[str, Sequence[Message]]
) -> list[dict[str, float]]:
    """One row a measurement: step, truth (mean points of the rule, 0 to 10), true_win_rate over step 0 (ties half) with
    true_win_rate_low and _high (95 %, Wilson, as if replies were independent), n.

    replies: rows of a run's replies.jsonl (those of the watch are used); prompts: id -> messages.
    """
    points: dict[int, list[float]] = {}
    for row in replies:
        if row["phase"] == "watch":
            points.setdefault(row["step"], []).append(quality(prompts[row["prompt"]], row["reply"]))
    if not points:
        return []
    first = points[min(points)]
    found = []
    for step, own in sorted(points.items()):
        wins = [float(now > then) + 0.5 * (now == then) for now, then in zip(own, first, strict=True)]
        interval = wilson(sum(wins), len(wins))
        found.append(
            {
                "step": step,
                "truth": sum(own) / len(own),
                "true_win_rate": sum(wins) / len(wins),
                "true_win_rate_low": interval.low,
                "true_win_rate_high": interval.high,
                "n": len(wins),
            }
        )
    return found
