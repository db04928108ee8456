"""Fairness by group: against what the margins say by hand, small cells hidden, corrected over the report, and read by a gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from suite_files import bench_row, write
from test_evaluation_held_out import Scorer, fill
from test_evaluation_parts import pair, right

from rlhf import suites
from rlhf.evaluation import evaluate
from rlhf.evaluation.estimates import MIN_SHOWN
from rlhf.evaluation.fairness import measured
from rlhf.evaluation.groups import FIGURES
from rlhf.evaluation.scored import CohortVote, ScoredPair
from rlhf.ids import unit_interval
from rlhf.measures import ranking
from rlhf.registry import gate_figures, gates, read_rules
from rlhf.store import Workspace


def told(pairs: list[ScoredPair]) -> dict[str, Any]:
    return measured({"v": pairs})["v"]


def tagged(n: int, n_right: int, start: int = 0, **tags: str) -> list[ScoredPair]:
    return right(n, n_right, start, tags=tuple(sorted(tags.items())))


def voted(i: int, margin: float, target: float, cohort: str, n_people: int = 7) -> ScoredPair:
    return pair(i, margin, cohorts=(CohortVote(cohort, target, (f"s w{i % n_people}",)),))


def test_groups_gaps_and_ratios_are_what_the_margins_say() -> None:
    found = told(tagged(60, 54, dialect="north") + tagged(60, 36, 100, dialect="south"))
    one = found["attributes"]["dialect"]
    assert {name: g["accuracy"]["value"] for name, g in one["groups"].items()} == {"north": 0.9, "south": 0.6}
    assert one["differences"]["accuracy"]["value"] == pytest.approx(0.3)
    assert one["ratios"]["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-6) and one["below_four_fifths"] is True
    assert (found["worst_gap"], found["worst_gap_of"]) == (pytest.approx(0.3), "dialect: north − south")
    assert 0.1 < found["worst_gap_low"] < 0.3 < found["worst_gap_high"] < 0.5
    assert found["measures"]["worst_gap"]["n"] == 120 and "clusters" in found["measures"]["worst_gap"]["method"]
    north, south = (one["groups"][name]["against_others"] for name in ("north", "south"))
    assert north["value"] == pytest.approx(0.3) == -south["value"] and north["low"] == -south["high"]
    assert north["p"] < 0.01 and north["p"] == north["p_holm"] and found["comparisons"] == 1


def test_every_figure_of_a_group_is_its_mean_over_the_group() -> None:
    rng = np.random.default_rng(0)
    margins, longer = rng.normal(0.4, 1.0, 80), rng.integers(-5, 6, 80)
    pairs = [
        pair(i, m, tags=(("d", "xy"[i % 2]),), chosen_length=10 + int(k), rejected_length=10)
        for i, (m, k) in enumerate(zip(margins, longer, strict=True))
    ]
    group, m, k = told(pairs)["attributes"]["d"]["groups"]["y"], margins[1::2], longer[1::2]
    hits = ranking.hits(m)
    wanted = {
        "accuracy": hits.mean(),
        "log_loss": ranking.log_loss(m),
        "brier": ranking.squared_errors(m).mean(),
        "margin": m.mean(),
        "overconfidence": (1 / (1 + np.exp(-abs(m))) - hits).mean(),
        "prefers_longer": np.where(k == 0, 0.5, (m > 0) == (k > 0)).mean(),
    }
    assert wanted.keys() == set(FIGURES)
    for figure, value in wanted.items():
        assert group[figure]["value"] == pytest.approx(value, abs=1e-6), figure
        assert group[figure]["low"] < value < group[figure]["high"] and group[figure]["n"] == 40


def test_small_cells_are_hidden_and_are_nobodys_others() -> None:
    pairs = tagged(40, 30, d="x") + tagged(40, 24, 100, d="y") + tagged(MIN_SHOWN - 1, 0, 200, d="few")
    few_openings = [pair(300 + i, 1.0, group=f"o{i % 4}", tags=(("d", "alike"),)) for i in range(50)]
    found = told(pairs + few_openings)
    one = found["attributes"]["d"]
    assert set(one["groups"]) == {"x", "y"} and one["hidden"]["groups"] == 2
    assert one["groups"]["x"]["against_others"]["value"] == pytest.approx(0.15)
    assert one["groups"]["x"]["against_others"]["n"] == 80 and found["worst_gap"] == pytest.approx(0.15)


def test_a_cohort_is_measured_by_its_own_votes_and_hidden_below_five_people() -> None:
    pairs = [voted(i, 1.0 if i % 4 else -1.0, 1.0, "for") for i in range(60)]
    pairs += [voted(100 + i, 1.0 if i % 4 else -1.0, 0.0, "against") for i in range(60)]
    pairs += [voted(200 + i, 1.0, 1.0, "tiny", n_people=4) for i in range(60)]
    one = told(pairs)["attributes"]["cohort"]
    assert {name: g["accuracy"]["value"] for name, g in one["groups"].items()} == {"against": 0.25, "for": 0.75}
    assert one["groups"]["for"]["people"] == 7 and one["hidden"]["groups"] == 1
    assert one["groups"]["for"]["margin"]["value"] == -one["groups"]["against"]["margin"]["value"]


def test_a_pair_that_two_cohorts_judged_is_one_cluster_for_both() -> None:
    votes = tuple(CohortVote(c, t, tuple(f"{c} {k}" for k in range(6))) for c, t in (("x", 1.0), ("y", 1.0)))
    pairs = [pair(i, 1.0 if i % 3 else -1.0, cohorts=votes) for i in range(60)]
    found = told(pairs)  # the same pairs, the same verdicts: no difference at all, whatever is drawn
    assert (found["worst_gap"], found["worst_gap_low"], found["worst_gap_high"]) == (0.0, 0.0, 0.0)


def test_two_attributes_are_crossed_where_every_cell_is_large_enough() -> None:
    cells = {("x", "p"): 30, ("x", "q"): 24, ("y", "p"): 24, ("y", "q"): 12}
    pairs = [p for k, ((d, t), n) in enumerate(cells.items()) for p in tagged(36, n, 100 * k, dialect=d, topic=t)]
    found = told(pairs)
    crossed = found["attributes"]["dialect × topic"]["groups"]
    assert {name: g["n"] for name, g in crossed.items()} == dict.fromkeys(("x × p", "x × q", "y × p", "y × q"), 36)
    assert found["worst_gap_of"] == "dialect × topic: x × p − y × q" and found["worst_gap"] == pytest.approx(0.5)
    assert "dialect × topic" not in told(pairs[:-7])["attributes"]


def test_a_cohort_crossed_with_a_tag_keeps_its_votes_whatever_the_tag_is_called() -> None:
    pairs = []
    for i in range(160):
        votes = (CohortVote("c", float(i % 2), (f"s {i % 9}",)), CohortVote("d", 1.0, (f"s {i % 9}",)))
        pairs.append(pair(i, 1.0, tags=(("age", "old" if i % 4 < 2 else "young"),), cohorts=votes))
    crossed = told(pairs)["attributes"]["cohort × age"]["groups"]
    assert crossed["c × old"]["accuracy"]["value"] == 0.5 and crossed["d × old"]["accuracy"]["value"] == 1.0
    assert set(crossed) == {"c × old", "c × young", "d × old", "d × young"}


def test_strata_are_groups_where_there_are_no_tags_and_levels_of_a_style_matrix_are_not() -> None:
    by_strata = right(40, 30, strata=("chat",)) + right(40, 20, 100, strata=("code",))
    assert set(told(by_strata)["attributes"]["stratum"]["groups"]) == {"chat", "code"}
    levels = [
        *right(40, 30, strata=("hard", "chat"), styles=("0>1",)),
        *right(40, 30, 100, strata=("easy", "code"), styles=("1>0",)),
    ]
    assert set(told(levels)["attributes"]["stratum"]["groups"]) == {"chat", "code"}
    assert told(right(40, 30, strata=("chat",)))["attributes"] == {}, "one stratum is everything, which is no group"
    assert set(told(tagged(40, 30, d="x") + right(40, 9, 100, strata=("code",)))["attributes"]) == {"d"}


def test_the_interval_of_the_widest_gap_grows_with_what_was_searched() -> None:
    two = tagged(60, 48, g="a") + tagged(60, 36, 100, g="b")
    more = two + [p for k in range(6) for p in tagged(60, 42, 200 + 100 * k, g=f"c{k}")]
    one, other = told(two), told(more)
    assert one["worst_gap"] == other["worst_gap"] == pytest.approx(0.2)
    assert other["worst_gap_low"] < one["worst_gap_low"] and other["worst_gap_high"] > one["worst_gap_high"]
    assert "28 comparisons" in other["measures"]["worst_gap"]["method"]


def test_p_values_are_corrected_over_all_versions_and_attributes_of_the_report() -> None:
    pairs = [p for k, g in enumerate("abc") for p in tagged(60, 50 - 5 * k, 100 * k, g=g)]
    alone, both = measured({"v": pairs})["v"], measured({"v": pairs, "w": pairs})["v"]
    assert (alone["comparisons"], both["comparisons"]) == (3, 6)
    smallest = min((g["against_others"] for g in alone["attributes"]["g"]["groups"].values()), key=lambda t: t["p"])
    again = min((g["against_others"] for g in both["attributes"]["g"]["groups"].values()), key=lambda t: t["p"])
    assert smallest["p_holm"] == pytest.approx(3 * smallest["p"], abs=1e-5)
    assert again["p_holm"] == pytest.approx(6 * smallest["p"], abs=1e-5)


def test_groups_drawn_at_random_are_seldom_found_to_differ() -> None:
    """50 reports of four random groups; the family-wise rate is 0.05."""
    rng, wrong = np.random.default_rng(4), 0
    for run in range(50):
        pairs = [pair(1000 * run + i, rng.normal(0.5), tags=(("g", "abcd"[rng.integers(4)]),)) for i in range(240)]
        groups = told(pairs)["attributes"]["g"]["groups"]
        wrong += min(g["against_others"]["p_holm"] for g in groups.values()) < 0.05
    assert wrong <= 2.5 + 3 * np.sqrt(50 * 0.05 * 0.95)


def test_without_two_groups_nothing_is_told() -> None:
    for pairs in (right(50, 30), tagged(50, 30, d="only"), tagged(9, 3, d="x") + tagged(9, 3, 50, d="y")):
        found = told(pairs)
        assert (found["worst_gap"], found["worst_gap_of"], found["reward_gap"]) == (None, None, None)
        assert (
            gate_figures.find({"fairness": found, "n": 50}, "fairness.worst_gap").trouble
            == "gives no fairness.worst_gap"
        )


class BySide(Scorer):
    """Right on all but a share of the south's pairs."""

    def __init__(self, share_wrong: float) -> None:
        super().__init__()
        self.share_wrong = share_wrong

    def __call__(self, workspace: Workspace, ref: Any, pairs: Any, on_progress: Any) -> Any:
        found = []
        for one, score in zip(pairs, super().__call__(workspace, ref, pairs, on_progress), strict=True):
            is_wrong = "south" in one.prompt[0].content and unit_interval(7, one.id) < self.share_wrong
            size = 1.0 if one.reply_a.startswith("Begin") != is_wrong else -1.0
            found.append(type(score)(size, -size, 20, False))
        return found


def suite_of(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        bench_row(i, prompt=f"{side} asks number {i}", tags={"dialect": side})
        for i in range(160)
        for side in (("north", "south")[i % 2],)
    ]
    suites.import_files(workspace, "sides", [write(tmp_path / "s.jsonl", rows)])


@pytest.mark.parametrize(("share_wrong", "passes"), [(0.0, True), (0.3, False)])
def test_a_gate_on_the_widest_gap_passes_and_fails_by_it(
    workspace: Workspace, tmp_path: Path, share_wrong: float, passes: bool
) -> None:
    fill(workspace, tmp_path)
    suite_of(workspace, tmp_path)
    rules = tmp_path / "gate.yaml"
    rules.write_text(yaml.safe_dump({"report": "evaluation", "rules": ["fairness.worst_gap <= 0.05 of 100"]}), "utf-8")
    gates.set_gate(workspace, "hh@champion", read_rules(rules), "fair")
    report = evaluate(workspace, ["hh@1"], suite="sides", score=BySide(share_wrong))
    verdict = gates.check(workspace, "hh@champion", "hh@1")
    (result,) = verdict.results
    found = report.figures["hh@1"]["fairness"]
    assert verdict.passed is passes, verdict.reasons
    assert (result["value"], result["low"], result["high"]) == (
        found["worst_gap"],
        found["worst_gap_low"],
        found["worst_gap_high"],
    )
    assert result["n"] == 160 and "bootstrap-t over 160 clusters" in result["method"]
    html = report.path.read_text("utf-8")
    for said in ("Fairness: by group", "By dialect", "a prompt to look, not a verdict", "Widest gap in accuracy"):
        assert said in html, said
