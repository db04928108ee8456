"""What a round measures: its reward on held-out pairs, its policy on held-out prompts. Of each report what a decision needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlhf.rounds.settings import LoopSettings
from rlhf.store import Workspace
from rlhf.store.heavy import heavy

Say = Callable[[str], None]
Result = dict[str, Any]
_FIGURES = ("n", "n_decided", "accuracy", "accuracy_low", "accuracy_high", "log_loss")
_COMPARED = (
    "n", "win_rate", "win_rate_low", "win_rate_high", "length_controlled_win_rate", "length_controlled_win_rate_low",
    "length_controlled_win_rate_high", "kl", "mean_tokens", "cut_off", "repetition", "log_likelihood_base",
)  # fmt: skip


def evaluated(workspace: Workspace, versions: list[str], snapshot: str, seed: int, say: Say) -> Result:
    """Reward versions on a snapshot's test side. change: accuracy of the last minus the first, paired; None for one version."""
    from rlhf import evaluation

    with heavy(workspace, f"loop: {versions[-1]} on {snapshot}", wait=True, say=say):
        report = evaluation.evaluate(workspace, versions, snapshot, seed=seed)
    change = next(
        ({key: d["accuracy"][key] for key in ("value", "low", "high", "n")} for d in report.content["differences"]),
        None,
    )
    figures = {name: {key: own.get(key) for key in _FIGURES} for name, own in report.figures.items()}
    return {
        "report": report.digest,
        "snapshot": report.content["snapshot"]["name"],
        "digest": report.content["snapshot"]["digest"],
        "figures": figures,
        "change": change,
        "simulated": report.content["simulated"],
    }


def compared(
    workspace: Workspace, settings: LoopSettings, candidate: Mapping[str, Any], snapshot: str, other: str, say: Say
) -> Result:
    """A policy against another on a snapshot's test side, which the report names, by the judge of the settings. candidate: what
    its training gave. Raises Waiting until people have judged enough."""
    from rlhf import evaluation, policy

    chosen = settings.policy_settings(candidate["reward"], None, "exploit")
    assert chosen is not None
    with heavy(workspace, f"loop: {candidate['version']} against {other}", wait=True, say=say):
        report = evaluation.compare(
            workspace,
            candidate["version"],
            other,
            snapshot=snapshot,
            judge=settings.judge,
            sampling=policy.Sampling(chosen.max_new_tokens, settings.compare_temperature, 1.0, settings.seed),
            n=settings.compare_prompts,
            min_judged=settings.min_judged,
            seed=settings.seed,
        )
    judge = report.content["judge"]
    return {
        "report": report.digest,
        "other": other,
        "snapshot": report.content["prompts"]["snapshot"],
        "figures": {name: {key: own.get(key) for key in _COMPARED} for name, own in report.figures.items()},
        "judge": {"kind": judge["kind"], "name": judge["name"], "flatters": judge["flatters"]},
        "simulated": report.content["simulated"],
    }
