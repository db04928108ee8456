"""The watch: what it measures is so, it stops a run out of band, and the last good adapter is the one that is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import human, log_of, manifest, settings, watch_of, weights, without_page

from rlhf import policy, registry, reward
from rlhf.errors import BadInput
from rlhf.measures.text import repetition
from rlhf.policy import watch as watching
from rlhf.reward.score import Item
from rlhf.store import Workspace, runs

WATCHED = {"watch_steps": 1, "watch_prompts": 3, "max_steps": 3}
BANDS = {
    "kl_token": ({"guard_kl": 0.5}, 9.0, "the KL to the reference is 9.000 nats a token; guard_kl allows 0.5"),
    "tokens": ({}, 99.0, "the mean reply has 99 tokens where it had"),
    "cut_off": ({"guard_cut_off": 0.5}, 1.5, "150% of the replies are cut off; guard_cut_off allows 50%"),
    "doubt": ({"guard_doubt": 0.4}, 0.7, "the reward's doubt is 0.700; guard_doubt allows 0.4"),
}


def out_of_band(patch: pytest.MonkeyPatch, key: str, value: float, step: int) -> None:
    """From this step on, one figure is measured as this."""
    measure = watching.Watch._measure

    def measured(self: watching.Watch, at: int) -> dict[str, float]:
        figures = measure(self, at)
        return figures | {key: value} if at >= step else figures

    patch.setattr(watching.Watch, "_measure", measured)


@pytest.mark.parametrize("key", BANDS)
def test_out_of_band_the_run_stops_and_the_last_good_adapter_is_published(
    policies: Workspace, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key != "kl_token":
        without_page(monkeypatch)
    bounds, value, words = BANDS[key]
    out_of_band(monkeypatch, key, value, 3)
    trained = policy.train(policies, human(**{**WATCHED, **bounds, "max_steps": 5}))
    assert trained.stopped is not None and trained.stopped.startswith(f"guard at step 3: {words}")
    assert [row["step"] for row in watch_of(trained)] == [0, 1, 2, 3], "and not one step more"
    kept = manifest(policies, trained.version)
    good = {row["adapter"] for row in log_of(trained, "watch") if row["step"] == 2}
    assert good == {kept["weights_digest"]}
    assert kept["details"]["stopped"] == trained.stopped and kept["details"]["good_step"] == 2
    assert trained.metrics["steps"] == 2 and trained.metrics["reward"] == watch_of(trained)[2]["watch"]["reward"]
    report = json.loads((trained.run_folder / "report.json").read_text("utf-8"))
    assert report["stopped"] == trained.stopped and trained.as_json()["stopped"] == trained.stopped
    if key == "kl_token":
        page = (trained.run_folder / "report.html").read_text("utf-8")
        assert "Stopped by the guard" in page and trained.stopped in page and "watch-kl-token" in page


def test_without_a_good_step_nothing_is_published_and_the_run_failed(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_band(monkeypatch, "doubt", 0.7, 1)
    with pytest.raises(BadInput, match=r"guard at step 1: .*doubt.*nothing is published"):
        policy.train(policies, human(**WATCHED))
    (run,) = [run for run in runs.list_runs(policies) if run.name == "p"]
    assert run.state == "failed" and "doubt" in (run.error or "")
    assert [str(v.ref) for v in registry.list_versions(policies) if v.ref.name == "p"] == []


def test_the_guard_that_never_trips_changes_no_weight(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    without_page(monkeypatch)
    watched, alone = (policy.train(policies, human(**{**WATCHED, "watch_steps": n})) for n in (1, 0))
    one, other = weights(policies, watched.version), weights(policies, alone.version)
    assert all(bool((one[name] == other[name]).all()) for name in one)
    assert log_of(alone) == [] and watch_of(alone) == []


def test_a_real_drift_is_stopped(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate far too high, and the KL that is really measured."""
    without_page(monkeypatch)
    fast = {**WATCHED, "max_steps": 12, "learning_rate": 3e-2, "schedule": "constant"}
    trained = policy.train(policies, human(**fast, guard_kl=0.03))
    assert trained.stopped is not None and "guard_kl allows 0.03" in trained.stopped
    figures = [row["watch"]["kl_token"] for row in watch_of(trained)]
    assert figures[0] == pytest.approx(0.0, abs=1e-6) and figures[-1] > 0.03 >= max(figures[:-1])


def test_a_resumed_run_keeps_its_first_measurement(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bands are about where the run began, not about where it was taken up again."""
    without_page(monkeypatch)
    seen: list[dict[str, float]] = []
    from rlhf.policy.guard import Bands

    broken = Bands.broken

    def noted(self: Bands, first: Any, now: Any) -> str | None:
        seen.append(dict(first))
        if len(seen) == 4:
            raise RuntimeError("power cut")
        return broken(self, first, now)

    monkeypatch.setattr(Bands, "broken", noted)
    more = {**WATCHED, "max_steps": 5, "save_steps": 1}
    with pytest.raises(RuntimeError, match="power cut"):
        policy.train(policies, human(**more))
    trained = policy.train(policies, human(**more), resume=True)
    first = watch_of(trained)[0]
    assert first["step"] == 0 and len(seen) == 4 + 3
    assert all(one == first["watch"] for one in seen)


@pytest.mark.parametrize("parent", [None, "start@1"])
def test_the_figures_are_those_of_the_replies(
    policies: Workspace, parent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recomputed from the reply log and the published version: points, lengths, fluency, KL to the parent or the base."""
    without_page(monkeypatch)
    more = {**WATCHED, "max_steps": 1, "from_version": parent, "learning_rate": 1e-2, "length_penalty": 0.01}
    trained = policy.train(policies, settings(method="dpo", pairs="human", **more))
    figures = watch_of(trained)[-1]["watch"]
    rows = [row for row in log_of(trained, "watch") if row["step"] == 1]
    assert len(rows) == figures["replies"] == 6 and len({row["prompt"] for row in rows}) == 3
    assert figures["reward"] == pytest.approx(np.mean([row["points"] for row in rows]))
    assert figures["tokens"] == np.mean([row["tokens"] for row in rows])
    assert figures["cut_off"] == np.mean([row["cut_off"] for row in rows])
    assert figures["repetition"] == pytest.approx(np.mean([repetition(row["reply"]) for row in rows]))
    prompts = {p.id: p for p in policy.prompts_of(policies, "polite@1", "test")}
    items = [Item(i, prompts[row["prompt"]].messages, row["reply"]) for i, row in enumerate(rows)]
    scores = [row["score"] for row in reward.score_items(policies, "r@1", items)]
    assert [row["scores"][0] for row in rows] == pytest.approx(scores, abs=1e-4)
    assert [row["points"] for row in rows] == pytest.approx(
        [score - 0.01 * row["tokens"] for score, row in zip(scores, rows, strict=True)], abs=1e-4
    )
    margins = [abs(scores[i] - scores[i + 1]) for i in range(0, 6, 2)]
    assert figures["doubt"] == pytest.approx(np.mean([1 / (1 + np.exp(m)) for m in margins]), abs=1e-4)
    assert abs(figures["kl"]) > 0
    assert figures["kl"] / figures["tokens"] == pytest.approx(figures["kl_token"])


def test_fluency_and_kl_are_log_probabilities_of_the_tokens(policies: Workspace, tmp_path: Path) -> None:
    from peft import PeftModel
    from policies import parts

    from rlhf.engine import generation
    from rlhf.engine import policies as engine_policies
    from rlhf.policy import training
    from rlhf.training import Run
    from rlhf.training.progress import StopAtSignal

    chosen = human(**{**WATCHED, "from_version": "start@1"})
    material, setup = parts(policies, tmp_path / "run", chosen)
    _, _, watch = training._trainer(material, setup, Run("x", tmp_path / "run"), StopAtSignal(), lambda _text: None)
    for name, parameter in setup.model.named_parameters():
        if "lora_B.default" in name:
            parameter.data.mul_(-3.0)
    drawn: list[Any] = []
    generate = generation.generate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "generate", lambda *a, **k: drawn.append((a[1], generate(*a, **k))) or drawn[-1][1])
        figures = watch._measure(7)
    ((prompts, sampled),) = drawn
    replies = [s.ids for s in sampled]
    base = engine_policies.bare(material.base, material.place)
    of_base = generation.log_probabilities(base, prompts, replies)
    of_parent = generation.log_probabilities(
        PeftModel.from_pretrained(base, str(material.parent.folder)).eval(),  # type: ignore[union-attr]
        prompts,
        replies,
    )
    own = generation.log_probabilities(setup.model.eval(), prompts, replies)
    n_tokens = sum(map(len, replies))
    assert figures["logp_base"] == pytest.approx(sum(of_base) / n_tokens, abs=1e-5)
    assert figures["kl_token"] == pytest.approx((sum(own) - sum(of_parent)) / n_tokens, abs=1e-5)
    assert abs(sum(of_parent) - sum(of_base)) > 0.1 and abs(sum(own) - sum(of_parent)) > 0.1
