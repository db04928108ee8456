"""The training's page: curves from what was logged, and nothing made up where nothing was."""

from __future__ import annotations

import math
from pathlib import Path

from rlhf.pages import write_run_report

METRICS = [
    {
        "step": n,
        "loss": 0.7 - n / 500,
        "accuracy": 0.5 + n / 500,
        "learning_rate": 1e-4,
        "pairs_per_s": 20.0,
        **({"eval_loss": 0.66} if n == 50 else {}),
    }
    for n in range(1, 101)
]
FIGURES = {
    "n": 520,
    "n_decided": 500,
    "accuracy": 0.665,
    "accuracy_low": 0.62,
    "accuracy_high": 0.71,
    "log_loss": 0.61,
    "seed": 0,
    "measures": {"accuracy": {}},
}


def written(folder: Path, **changed: object) -> str:
    values: dict = {
        "title": "hh",
        "facts": {"base": "tiny", "learning rate": 2e-4, "<b>": "<i>"},
        "metrics": METRICS,
        "figures": FIGURES,
        **changed,
    }
    path = write_run_report(folder, **values)
    assert path == folder / "report.html" and [f.name for f in folder.iterdir()] == ["report.html"]
    return path.read_text("utf-8")


def test_a_run_report_shows_its_curves_and_held_out_figures(tmp_path: Path) -> None:
    html = written(tmp_path)
    assert html.count("<svg") == 4
    assert "66.5 %" in html and "62.0 to 71.0" in html and "of 500 held-out pairs" in html
    assert "<i>" not in html and "0.0002" in html


def test_a_run_report_of_a_run_without_figures_says_that_none_were_measured(tmp_path: Path) -> None:
    assert "nothing was measured on held-out pairs" in written(tmp_path, figures=None)


def test_a_run_report_passes_over_what_is_not_finite(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": math.nan}, {"step": 2, "loss": 0.5, "accuracy": math.inf}, {"loss": 0.1}]
    html = written(tmp_path, metrics=rows, figures={"accuracy": None, "n": 0})
    assert html.count("<svg") == 0 and "nan" not in html.lower().replace("nanosecond", "") and "0.500" in html


def test_what_was_fitted_at_once_has_figures_and_no_curve(tmp_path: Path) -> None:
    row = {"step": 1, "loss": 0.498, "accuracy": 0.79, "eval_loss": 0.604}
    html = written(tmp_path, metrics=[row], figures={"left_out_log_loss": 0.604, "n_test": 0})
    assert "<svg" not in html and "training loss" in html and "0.790" in html
    assert "opening turns left out of the fit" in html


def test_a_run_report_of_nothing_is_a_page(tmp_path: Path) -> None:
    assert "<svg" not in written(tmp_path, metrics=[], figures=None)


def test_a_simulated_run_says_so(tmp_path: Path) -> None:
    assert "SIMULATED" in written(tmp_path, simulated=True)
    assert "SIMULATED" not in written(tmp_path)


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    assert written(tmp_path) == written(tmp_path)
