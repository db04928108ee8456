"""What a run reports, and to whom: metrics.jsonl always, and any tracker that the Trainer knows."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from policies import human, lines, settings, without_page

from rlhf import policy
from rlhf.errors import BadUsage
from rlhf.store import Workspace

STEPS = {"max_steps": 2}


class Noted(transformers.TrainerCallback):
    """A tracker as the Trainer's own are: it is told of every log."""

    seen: list[tuple[int, dict[str, float]]] = []
    run_name = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Noted.run_name = args.run_name

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        Noted.seen.append((state.global_step, dict(logs)))


@pytest.mark.parametrize("method", ["dpo", "grpo", "rloo"])
def test_a_tracker_that_the_trainer_knows_is_told_what_the_file_holds(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from transformers.integrations import integration_utils

    without_page(monkeypatch)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "noted", Noted)
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["noted"])
    Noted.seen = []
    chosen = human(**STEPS) if method == "dpo" else settings(method=method, **STEPS)
    trained = policy.train(policies, chosen.model_copy(update={"report_to": "noted"}))
    assert Noted.run_name == f"p-{trained.run_folder.name}"
    told = {step: logs for step, logs in Noted.seen if "loss" in logs}
    rows = [row for row in lines(trained.run_folder / "metrics.jsonl") if "loss" in row]
    assert sorted(told) == [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert told[row["step"]]["loss"] == row["loss"]
        if method != "dpo":
            assert told[row["step"]]["kl_token"] == row["kl_token"]


def test_a_tracker_that_is_not_here_is_refused_before_a_run_is_started(policies: Workspace) -> None:
    runs = len(list((policies.root / "runs").iterdir()))
    with pytest.raises(BadUsage, match="zork"):
        policy.train(policies, human(report_to="zork"))
    assert len(list((policies.root / "runs").iterdir())) == runs


def test_tensorboard_gets_the_curves_of_a_run(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    without_page(monkeypatch)
    trained = policy.train(policies, human(report_to="tensorboard", **STEPS))
    assert list(trained.run_folder.rglob("events.out.tfevents.*"))
