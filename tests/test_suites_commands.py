"""`rlhf suite …`, as people call it."""

from __future__ import annotations

from pathlib import Path

from command_line import CommandLine
from suite_files import bench_row, style_row, write


def test_import_cut_list_show_and_check_answer(rlhf: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "bench.jsonl", [bench_row(i) for i in range(4)])
    made = rlhf.json("suite", "import", "bench", file)
    assert made["ref"] == "bench@1" and made["accepted"] == 4 and made["held_out"] and made["strata"] == {"chat": 4}
    assert rlhf.json("suite", "import", "bench", file, "--not-held-out")["ref"] == "bench@2"
    styles = write(tmp_path / "styles.jsonl", [style_row(1)])
    assert rlhf.json("suite", "import", "styles", styles, "--format", "rmbench")["pairs"] == 9
    cut = rlhf.json("suite", "cut", "frozen", "--snapshot", "polite@1")
    assert cut["pairs"] > 0
    refs = [one["ref"] for one in rlhf.json("suite", "list")["suites"]]
    assert refs == ["bench@1", "bench@2", "frozen@1", "styles@1"]
    shown = rlhf.json("suite", "show", "styles")
    assert shown["strata"] == {"chat": 9, "easy": 3, "hard": 3, "normal": 3} and len(shown["styles"]) == 9
    checked = rlhf.json("suite", "check", "frozen")
    seen = {ref: found["rows"] for ref, found in checked["overlaps"].items()}
    assert checked["rows"] == cut["pairs"] and seen["polite@1"] == 0 < seen["polite@2"]


def test_a_suite_from_a_train_side_is_said_to_be_not_held_out_by_every_command(rlhf: CommandLine) -> None:
    words = ("--snapshot", "polite@1", "--split", "train")
    assert rlhf.json("suite", "cut", "trainside", *words)["held_out"] is False
    assert rlhf.json("suite", "check", "trainside")["held_out"] is False
    assert rlhf.json("suite", "show", "trainside")["held_out"] is False
    assert [one["held_out"] for one in rlhf.json("suite", "list")["suites"]] == [False]
    for answer in (
        rlhf("suite", "cut", "trainside", *words),
        rlhf("suite", "list"),
        rlhf("suite", "show", "trainside"),
        rlhf("suite", "check", "trainside"),
    ):
        assert "not held out: the train side of polite@1" in answer.out, answer.out


def test_a_pair_in_two_subsets_is_said_to_be_one_pair(rlhf: CommandLine, tmp_path: Path) -> None:
    rows = [bench_row(i) for i in range(4)]
    rows += [{**rows[0], "subset": "code"}, {**rows[1], "subset": "code"}, rows[2]]
    file = write(tmp_path / "bench.jsonl", rows)
    made = rlhf.json("suite", "import", "bench", file)
    assert (made["pairs"], made["accepted"], made["again"], made["duplicates"]) == (4, 6, 2, 1)
    assert made["strata"] == {"chat": 4, "code": 2}
    assert "2 of the accepted repeat a pair of an earlier row" in rlhf("suite", "import", "bench", file).out
    plain = write(tmp_path / "plain.jsonl", [bench_row(9)])
    assert "an earlier row" not in rlhf("suite", "import", "plain", plain).out
