"""Two reports side by side: both intervals, paired only where the same pairs were scored, and words that claim no test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapter_folders import published
from command_line import CommandLine
from test_evaluation_comparison import run as compare_two
from test_evaluation_held_out import Scorer, fill
from test_evaluation_held_out import run as evaluate_one
from written_replies import Writer, two_policies

from rlhf.cli.report_diff import lines
from rlhf.evaluation import diff
from rlhf.evaluation.report_diff import _of_comparisons
from rlhf.reward.kept import FOLDER
from rlhf.store import Workspace


def test_each_change_has_the_interval_n_and_method_of_both(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    one, other = evaluate_one(workspace), evaluate_one(workspace, score=Scorer(0.7))
    found = diff(workspace, one.digest, other.digest)
    (entry,) = found["figures"]
    change = entry["changes"]["accuracy"]
    for side, report in (("a", one), ("b", other)):
        measure = report.figures["hh@1"]["measures"]["accuracy"]
        for name in ("n", "low", "high", "method"):
            assert change[f"{side}_{name}"] == measure[name]
    assert "accuracy_low" not in entry["changes"] and entry["changes"]["n_ties"]["change"] == 0
    text = "\n".join(lines(found))
    assert f"{change['a_low']:.3f} to {change['a_high']:.3f}" in text and "overlap are no test" in text
    assert entry["paired"] is None and "one version on the same pairs" in text


def test_other_pairs_are_never_paired(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    found = diff(workspace, evaluate_one(workspace).digest, evaluate_one(workspace, split="train").digest)
    assert not found["same_pairs"] and found["figures"][0]["paired"] is None
    assert "a change may come from the data" in "\n".join(lines(found))


def test_two_comparisons_with_one_opponent_are_paired_by_prompt(workspace: Workspace, tmp_path: Path) -> None:
    reward, *_ = two_policies(workspace, tmp_path)
    published(workspace, tmp_path, 3, "demo", head=False, parents=(("reward", reward.digest),))
    write = Writer()
    one, other = (compare_two(workspace, name, "demo@2", write=write) for name in ("demo@1", "demo@3"))
    found = diff(workspace, one.digest, other.digest)
    entry, opponent = found["figures"]
    assert (entry["a"], entry["b"], opponent["a"], opponent["b"]) == ("demo@1", "demo@3", "demo@2", "demo@2")
    measure = entry["paired"]["win_rate"]
    gap = other.figures["demo@3"]["win_rate"] - one.figures["demo@1"]["win_rate"]
    assert measure["value"] == pytest.approx(gap, abs=1e-5) and measure["n"] == one.figures["demo@1"]["n"]
    assert measure["low"] < measure["value"] < measure["high"] < 0, "good words against poor ones"
    assert opponent["paired"]["win_rate"]["value"] == pytest.approx(-measure["value"])
    before = {**one.content, "pairs": [{k: v for k, v in row.items() if k != "group"} for row in one.content["pairs"]]}
    assert "compare again" in str(_of_comparisons(replace(one, content=before), other, "demo@1", "demo@3")[1])


def kept(rlhf: CommandLine, version: str) -> str:
    digest: Any = rlhf.json("evaluate", version, "--snapshot", "polite@1", "--stability", "0")["report_digest"]
    return str(digest)


def test_kept_scores_give_the_difference_that_one_report_of_both_gives(rlhf: CommandLine) -> None:
    both = rlhf.json("evaluate", "hh@1", "hh@2", "--snapshot", "polite@1", "--stability", "0")
    one, other = kept(rlhf, "hh@1"), kept(rlhf, "hh@2")
    (entry,) = rlhf.json("report", "diff", one, other)["figures"]
    (wanted,) = both["differences"]
    assert (wanted["a"], wanted["b"]) == ("hh@2", "hh@1") == (entry["b"], entry["a"])
    assert entry["paired"] == {key: wanted[key] for key in ("accuracy", "log_loss")}
    assert "paired, hh@2 − hh@1: accuracy" in rlhf("report", "diff", one, other).out


def test_scores_that_are_gone_or_others_give_no_pairing_and_are_said(rlhf: CommandLine) -> None:
    one, other = kept(rlhf, "hh@1"), kept(rlhf, "hh@2")
    assert rlhf.root is not None
    for file in (rlhf.root / FOLDER).glob("*.jsonl"):
        file.unlink()
    (entry,) = rlhf.json("report", "diff", one, other)["figures"]
    assert entry["paired"] is None and "evaluate hh@1 and hh@2 in one report" in entry["why_unpaired"]
    assert rlhf("report", "diff", one, "abcdef").status == 1


@pytest.mark.parametrize("low", [None, -0.1])
def test_a_figure_without_interval_has_an_empty_cell(low: float | None) -> None:
    side = {"title": "t", "report": "d" * 64, "seed": 0}
    change = {"a": 0.5, "b": None, "change": None, "a_low": low, "a_high": None if low is None else 0.7, "a_n": 3}
    entry = {"a": "x", "b": "y", "changes": {"accuracy": change}, "paired": None, "why_unpaired": "so"}
    text = list(lines({"a": side, "b": side, "same_pairs": True, "figures": [entry]}))
    (row,) = [line for line in text if line.startswith("  accuracy")]
    assert ("−" in row or "to" in row) == (low is not None) and row.rstrip().endswith("–")
