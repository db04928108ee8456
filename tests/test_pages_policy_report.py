"""A policy training's page: its curves, why it stopped, and nothing made up where nothing was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rlhf.pages.policy_report import render_policy, write_policy_report

WATCH = [
    {
        "step": step,
        "reward": -1.0 + step / 10,
        "logp_base": -5.5,
        "kl_token": step / 100,
        "tokens": 20.0 + step,
        "cut_off": 0.5,
        "repetition": 0.01,
        "doubt": 0.4,
        "replies": 32.0,
    }
    for step in (0, 10, 20)
]
STEPS = [
    {"step": n, "loss": 0.7 - n / 500, "margin": n / 10, "learning_rate": 1e-4, "grad_norm": 1.0} for n in range(1, 21)
]


def report(**changed: Any) -> dict[str, Any]:
    facts = {"version": "p@1", "method": "dpo", "<b>": "<i>"}
    return {"version": "p@1", "facts": facts, "metrics": {}, "stopped": None, "steps": STEPS, "watch": WATCH, **changed}


def page(simulated: bool = False, **changed: Any) -> str:
    return render_policy(title="Policy training p@1", report=report(**changed), simulated=simulated)


def test_every_measured_figure_has_its_curve_and_its_row() -> None:
    html = page()
    assert html.count("<svg") == 7 + 4
    for words in ("Reward", "Fluency", "KL to the reference", "Length", "Cut off", "Repetition", "Doubt"):
        assert html.count(words) >= 2, words
    assert "+2.00" in html and "from -1.00 to 1.00" in html, "what was gained"
    assert "32 replies to the same prompts" in html and "step 20" in html
    assert "<i>" not in html and "&lt;i&gt;" in html


def test_a_stop_by_the_guard_comes_first_with_its_reason() -> None:
    assert "Stopped by the guard" not in page()
    html = page(stopped="guard at step 20: the KL is 3 & more than <1>")
    assert "guard at step 20: the KL is 3 &amp; more than &lt;1&gt;." in html
    assert html.index("Stopped by the guard") < html.index("Over the steps")


def test_a_run_without_a_watch_has_its_training_alone() -> None:
    html = page(watch=[])
    assert html.count("<svg") == 4 and "Over the steps" not in html and "points of the reward" not in html
    assert "<svg" not in page(watch=[], steps=[])


def test_one_measurement_is_no_gain() -> None:
    assert "points of the reward that trained it" not in page(watch=WATCH[:1])


def test_what_is_not_finite_or_not_there_is_passed_over() -> None:
    odd = [{**row, "reward": None, "doubt": math.nan} for row in WATCH]
    html = page(watch=odd, steps=[{"step": 1, "loss": math.inf}])
    assert html.count("<svg") == 5 and "points of the reward" not in html
    assert ">nan<" not in html.lower() and "inf" not in html.lower().replace("info", "")


def test_simulated_labelers_are_said_on_the_page() -> None:
    assert "SIMULATED" in page(simulated=True) and "SIMULATED" not in page()


def test_the_same_run_gives_the_same_page_in_its_folder(tmp_path: Path) -> None:
    path = write_policy_report(tmp_path, title="Policy training p@1", report=report())
    assert path == tmp_path / "report.html" and [f.name for f in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text("utf-8") == page()
