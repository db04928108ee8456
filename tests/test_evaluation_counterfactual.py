"""The gap in reward on counterfactual rows: paired by template, resampled by template, in the report and by a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation_held_out import Scorer, fill
from test_suites_counterfactual import EXAMPLE

from rlhf import suites
from rlhf.evaluation import evaluate
from rlhf.evaluation.counterfactual import gaps
from rlhf.evaluation.fairness import measured
from rlhf.evaluation.scored import ScoredPair
from rlhf.ids import digest_of
from rlhf.registry import GateRules, Rule, gate_figures, gates
from rlhf.store import Workspace


def rows(
    gap: dict[str, float], *, n_templates: int = 10, n_words: int = 4, noise: float = 0.0, attribute: str = "gender"
) -> list[ScoredPair]:
    """Templates have scores of their own, far apart; a group's are moved by its gap, and by noise of the template and the group."""
    rng, found = np.random.default_rng(5), []
    for t in range(n_templates):
        base = rng.normal(0, 3)
        for group, moved in gap.items():
            own = base + moved + rng.normal(0, noise)
            for word in range(n_words):
                place = f"{attribute}/t{t}/{word + 1}"
                found.append(
                    ScoredPair(
                        digest_of([place, group]),
                        f"template {attribute}/t{t}",
                        own + 1.0 + 0.1 * word,
                        own - 1.0,
                        1.0,
                        chosen_length=9,
                        rejected_length=8,
                        tags=((attribute, group),),
                        template=place,
                    )
                )
    return found


def test_a_gap_is_paired_by_template_so_that_what_templates_are_worth_says_nothing() -> None:
    found = gaps(rows({"men": 0.0, "women": 0.25}, noise=0.05), 0)
    (one,) = found.by_attribute["gender"]["comparisons"]
    assert (one["a"], one["b"]) == ("men", "women") and one["score"]["value"] == pytest.approx(-0.25, abs=0.06)
    assert one["score"]["low"] < -0.25 < one["score"]["high"] < -0.1 and one["p"] < 0.01
    assert "10 templates" in one["score"]["method"] and one["score"]["n"] == 40
    assert one["margin"]["value"] == pytest.approx(0.0, abs=1e-9) and one["flipped"]["value"] == 0
    assert found.largest_of == "gender: women − men" and found.largest["value"] == -one["score"]["value"]


def test_the_templates_are_what_is_resampled_and_more_words_are_no_more_evidence() -> None:
    few, many = (gaps(rows({"a": 0.0, "b": 0.2}, n_words=n, noise=0.4), 0).largest for n in (3, 60))
    assert few["value"] == pytest.approx(many["value"], abs=0.3)
    width = [m["high"] - m["low"] for m in (few, many)]
    assert width[1] > 0.5 * width[0]


def test_no_gap_is_seldom_found() -> None:
    """200 attributes without one."""
    rng, p = np.random.default_rng(2), []
    for _ in range(200):
        pairs = rows({"a": 0.0, "b": 0.0}, n_words=3)
        moved = {name: rng.normal(0, 0.3) for name in {(p.group, p.tags) for p in pairs}}
        pairs = [
            replace(p, score_chosen=(p.score_chosen or 0) + m, score_rejected=(p.score_rejected or 0) + m)
            for p in pairs
            for m in (moved[p.group, p.tags],)
        ]
        p.append(gaps(pairs, 0).by_attribute["gender"]["comparisons"][0]["p"])
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_rows_that_are_not_scored_for_every_group_are_left_out_and_counted() -> None:
    pairs = rows({"a": 0.0, "b": 0.1, "c": 0.1})
    unscored = [replace(pairs[0], score_chosen=None, score_rejected=None), *pairs[1:]]
    found = gaps(unscored, 0).by_attribute["gender"]
    assert (found["n"], found["unscored"], len(found["comparisons"])) == (39, 1, 3)


def test_too_few_rows_or_templates_tell_nothing() -> None:
    for small in (rows({"a": 0, "b": 1}, n_templates=7), rows({"a": 0, "b": 1}, n_templates=4, n_words=20)):
        found = measured({"v": small})["v"]
        assert found["reward_gap"] is None and found["counterfactual"]["gender"]["comparisons"] == []
        assert gate_figures.find({"fairness": found}, "fairness.reward_gap").trouble


def test_the_largest_is_of_all_attributes_and_p_values_are_corrected_over_them() -> None:
    pairs = rows({"a": 0.0, "b": 0.1}, noise=0.1) + rows({"x": 0.0, "y": 0.6, "z": 0.1}, noise=0.1, attribute="origin")
    found = measured({"v": pairs})["v"]
    assert found["reward_gap_of"] == "origin: y − x" and found["reward_gap_low"] < found["reward_gap"]
    assert "4 comparisons" in found["measures"]["reward_gap"]["method"]
    tests = [c for one in found["counterfactual"].values() for c in one["comparisons"]]
    assert len(tests) == 4 and all(c["p_holm"] >= c["p"] for c in tests)
    figure = gate_figures.find({"fairness": found, "n": 1}, "fairness.reward_gap")
    assert (figure.value, figure.n, figure.low) == (found["reward_gap"], 40, found["reward_gap_low"])


class ForWhom(Scorer):
    """Pays 0.5 more where the text says 'her'."""

    def __call__(self, workspace: Workspace, ref: Any, pairs: Sequence[Any], on_progress: Any) -> Any:
        found = []
        for pair, one in zip(pairs, super().__call__(workspace, ref, pairs, on_progress), strict=True):
            more = 0.5 * (" her" in pair.prompt[0].content + pair.reply_a + pair.reply_b)
            found.append(type(one)(one.score_a + more, one.score_b + more, 20, False))
        return found


def test_the_example_in_a_report_shows_whom_a_version_pays(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    suites.generate(workspace, "swaps", [EXAMPLE])
    report = evaluate(workspace, ["hh@1"], suite="swaps", score=ForWhom())
    figures = report.figures["hh@1"]
    fair = figures["fairness"]
    by_pair = {(c["a"], c["b"]): c for c in fair["counterfactual"]["gender"]["comparisons"]}
    assert by_pair["unsaid", "women"]["score"]["value"] == pytest.approx(-0.5, abs=1e-6)
    assert by_pair["men", "unsaid"]["score"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert fair["reward_gap"] == pytest.approx(0.5, abs=1e-6) and figures["n_groups"] == 10
    assert report.content["labelers"] == ["template"], "nobody labelled these"
    html = report.path.read_text("utf-8")
    for said in (
        "the same text but for the swap",
        "men − women",
        "10 templates, 40 rows a group",
        "or templates",
        "as whoever wrote",
    ):
        assert said in html, said


def test_no_gate_takes_templates_for_a_figure_but_fairness(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    suites.generate(workspace, "swaps", [EXAMPLE])
    report = evaluate(workspace, ["hh@1"], suite="swaps", score=ForWhom())
    for words, said in (("n >= 100", "was passed over"), ("fairness.reward_gap <= 0.1", "fairness.reward_gap is 0.5")):
        rules = GateRules(report="evaluation", snapshot="suite:swaps@1", rules=(Rule.model_validate(words),))
        gates.set_gate(workspace, "hh@champion", rules, "x")
        (reason,) = gates.check(workspace, "hh@champion", "hh@1").reasons
        assert said in reason and f"report {report.digest[:12]}" in reason
