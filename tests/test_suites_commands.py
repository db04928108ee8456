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
