"""How a version was trained, on its reports' pages: from what it keeps, and in words where it keeps nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapter_folders as made
import policies as tiny
import pytest
from test_evaluation_held_out import Scorer, fill

from rlhf import policy
from rlhf.evaluation import compare, evaluate
from rlhf.evaluation.learning import training_section
from rlhf.pages import Section
from rlhf.records import VersionRef
from rlhf.registry import curves, publish
from rlhf.store import Workspace

STEPS = [{"step": n, "loss": 0.7 - n / 200, "accuracy": 0.5 + n / 200, "kl_token": n / 100} for n in range(1, 41)]
WATCH = [{"step": n, "watch": {"reward": n / 10, "kl_token": n / 50, "replies": 32.0}} for n in (0, 20, 40)]


def version(workspace: Workspace, scratch: Path, rows: list[dict[str, Any]], seed: int = 0, **draft: Any) -> VersionRef:
    head = draft.get("role") != "policy"
    staged = made.make(scratch / f"trained-{seed}", seed, head=head)
    curves.write(staged, rows)
    return publish(workspace, staged, made.draft("t", **draft), made.evidence() if head else None)


def section(workspace: Workspace, ref: VersionRef) -> Section:
    return training_section(workspace, ref, "t0", "How it was trained")


def test_a_rewards_curves_are_loss_and_accuracy(workspace: Workspace, tmp_path: Path) -> None:
    found = section(workspace, version(workspace, tmp_path, STEPS, settings={"pairs_per_step": 8}))
    assert found.content.count("<svg") == 2 and 'id="t0-loss' in found.content and "nats a pair" in found.content
    assert "40 logged steps; a step is 8 pairs." in found.intro and "without intervals" in found.intro


def test_a_policys_curves_are_reward_and_kl_where_it_was_watched(workspace: Workspace, tmp_path: Path) -> None:
    own: dict[str, Any] = {"role": "policy", "settings": {"method": "grpo", "pairs_per_step": 4}}
    found = section(workspace, version(workspace, tmp_path, STEPS + WATCH, details={"good_step": 20}, **own))
    assert found.content.count("<svg") == 2 and "KL to the reference" in found.content
    assert "3 measurements, each of 32 replies" in found.intro and "the version is that of step 20" in found.intro
    unwatched = section(workspace, version(workspace, tmp_path, STEPS, 1, **own))
    assert "KL of the rollouts" in unwatched.content and "a step is 4 prompts" in unwatched.intro


@pytest.mark.parametrize(
    ("rows", "draft", "said"),
    [
        ([], {"run_id": "01RUN"}, "rlhf run show 01RUN"),
        ([], {}, "was not trained in this workspace"),
        (STEPS[:1], {}, "a point is no curve"),
    ],
)
def test_where_there_is_no_curve_the_page_says_why(
    workspace: Workspace, tmp_path: Path, rows: list[dict[str, Any]], draft: dict[str, Any], said: str
) -> None:
    found = section(workspace, version(workspace, tmp_path, rows, **draft))
    assert "<svg" not in found.content and said in found.content


def test_a_calibrated_version_shows_its_parents_training(workspace: Workspace, tmp_path: Path) -> None:
    parent = version(workspace, tmp_path, STEPS)
    child = version(workspace, tmp_path, [], 1, parents=(("calibrates", parent.digest),))
    found = section(workspace, child)
    assert f"<h3>{parent}</h3>" in found.content and found.content.count("<svg") == 2
    assert "the version that it calibrates" in found.intro


def test_the_report_is_the_same_whether_curves_are_there_or_not(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    report = evaluate(workspace, ["hh@1"], "s", score=Scorer())
    html = report.path.read_text("utf-8")
    assert "How it was trained" in html and "came without its curves" in html
    assert "curves" not in report.json_path.read_text("utf-8")


def test_what_a_real_training_logged_is_in_the_comparisons_page(policies: Workspace) -> None:
    chosen = tiny.settings(method="grpo", watch_steps=1, watch_prompts=2, max_steps=2)
    trained = policy.train(policies, chosen)
    kept = curves.of_version(policies, trained.version)
    assert kept is not None and [row["step"] for row in kept.watch] == [0, 1, 2] and len(kept.steps) == 2
    for file in trained.run_folder.glob("*.json*"):
        file.unlink()  # the page rests on nothing of the run's
    sampling = policy.Sampling(max_new_tokens=4, seed=0)
    report = compare(policies, str(trained.version), "base:tiny", judge="r@1", sampling=sampling, n=4)
    html = report.path.read_text("utf-8")
    assert f"How {trained.version} was trained" in html and "KL to the reference" in html
