"""Versions on suites: strata and styles in the report, an overlap refused by its rows, a killed evaluation that goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_line import REAL, CommandLine, copy_of
from suite_files import bench_row, seen_suite, style_row, write
from test_evaluation_held_out import Scorer, fill

from rlhf import registry, suites
from rlhf.errors import BadInput, BadUsage
from rlhf.evaluation import evaluate
from rlhf.evaluation.model_card import model_card
from rlhf.evaluation.model_card_page import as_text
from rlhf.evaluation.seen import Overlap
from rlhf.reward.kept import FOLDER
from rlhf.store import Workspace


def suite_of(workspace: Workspace, tmp_path: Path, name: str = "bench", n: int = 60) -> suites.Suite:
    rows = [bench_row(i, "chat" if i % 2 else "code") for i in range(n)] + [{"prompt": "A prompt alone"}]
    return suites.import_files(workspace, name, [write(tmp_path / f"{name}.jsonl", rows)], format="jsonl").suite


def test_a_report_on_a_suite_has_its_strata_its_worst_and_its_digest(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    suite = suite_of(workspace, tmp_path)
    report = evaluate(workspace, ["hh@1"], suite="bench", score=Scorer(), precision=(0.6, 0.8), n_stability=20)
    on, found = report.content["snapshot"], report.figures["hh@1"]
    assert report.title == "hh@1 on suite bench@1"
    assert (on["kind"], on["name"], on["digest"], on["split"]) == ("suite", "suite:bench@1", suite.digest, "test")
    assert set(found["by_subset"]["shown"]) == {"chat", "code"} and found["n"] == 60
    assert found["worst_stratum"] == min(m["value"] for m in found["by_subset"]["shown"].values())
    assert [at["confidence"] for at in found["precision"]] == [0.6, 0.8] and found["stability"]["n"] == 20
    html = report.path.read_text("utf-8")
    for said in (
        "By stratum",
        "Where it is sure",
        "If it might abstain",
        "When nothing that matters changes",
        "worst stratum",
    ):
        assert said in html, said
    again = evaluate(workspace, ["hh@1"], suite="bench@1", score=Scorer(), precision=(0.8, 0.6), n_stability=20)
    assert again.digest == report.digest and again.path.read_bytes() == report.path.read_bytes()


def test_a_style_matrix_is_in_the_report_and_on_its_page(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    suites.import_files(workspace, "styles", [write(tmp_path / "s.jsonl", [style_row(i) for i in range(12)])])
    report = evaluate(workspace, ["hh@1"], suite="styles", score=Scorer())
    matrix = report.figures["hh@1"]["style_matrix"]
    assert all(cell["n"] == 12 for row in matrix["cells"] for cell in row)
    assert 0 <= matrix["hard"] <= 1 and "Style matrix" in report.path.read_text("utf-8")


def test_a_suite_that_a_version_was_trained_on_is_refused_by_its_rows_before_anything_is_scored(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, tmp_path)
    seen_suite(workspace, tmp_path)
    score = Scorer()
    with pytest.raises(
        Overlap, match=r"hh@1 was trained on \d+ of the \d+ rows of suite seen@1: .* and \d+ more"
    ) as refused:
        evaluate(workspace, ["hh@1"], suite="seen", score=score)
    told = refused.value.as_json()
    assert score.asked == [] and len(told["rows"]) == 10 < told["n_rows"] and told["version"] == "hh@1"
    assert all(row["snapshot"] == "s@1" and row["same_pair"] for row in told["rows"])
    suites.cut(workspace, "fair", snapshot="s")
    assert evaluate(workspace, ["hh@1"], suite="fair", score=score).content["versions"]["hh@1"]["seen_openings"] == 0


def test_an_overlap_with_an_ancestors_training_is_refused_too(workspace: Workspace, tmp_path: Path) -> None:
    from adapter_folders import published
    from snapshot_rows import judged, pair_of, put

    from rlhf import snapshots

    fill(workspace, tmp_path)
    parent = registry.resolve(workspace, "hh@1")
    put(workspace, [judged(pair_of(i), "a", source="other") for i in range(300, 320)])
    other = snapshots.cut(workspace, "other", sources=["other"], holdout=0.5)
    published(workspace, tmp_path, 1, snapshot_digest=other.digest, parents=(("from", parent.digest),))
    seen_suite(workspace, tmp_path)
    with pytest.raises(Overlap, match="hh@2 was trained on"):
        evaluate(workspace, ["hh@2"], suite="seen", score=Scorer())


def test_a_suite_declared_not_held_out_is_measured_and_the_report_says_so(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    suites.cut(workspace, "seen", snapshot="s", split="train", held_out=False)
    report = evaluate(workspace, ["hh@1"], suite="seen", score=Scorer())
    assert report.content["snapshot"]["split"] == "not held out"
    assert report.content["versions"]["hh@1"]["seen_openings"] > 0
    html = report.path.read_text("utf-8")
    assert "suite:seen@1 is not held out" in html and "held-out pairs" not in html and "Caution" in html


def test_a_suite_from_a_train_side_is_measured_as_not_held_out_whatever_was_claimed(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, tmp_path)
    suites.cut(workspace, "seen", snapshot="s", split="train")
    report = evaluate(workspace, ["hh@1"], suite="seen", score=Scorer())
    assert report.content["snapshot"]["split"] == "not held out" and report.content["labelers"] == ["human"]


def test_rows_without_a_labeler_are_the_files_and_those_with_one_are_peoples(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, tmp_path)
    suite_of(workspace, tmp_path)
    report = evaluate(workspace, ["hh@1"], suite="bench", score=Scorer())
    assert report.content["labelers"] == ["file"]
    assert "ranked as the suite says" in report.content["method"]["accuracy"]
    html = report.path.read_text("utf-8")
    assert "as the suite says in" in html and "as people did" not in html and "preferred by the labelers" not in html
    (one,) = model_card(workspace, "hh@1")["reports"]
    assert one["labelers"] == ["file"]
    text = as_text(model_card(workspace, "hh@1"))
    assert "the suite's file, which names nobody" in text and "the labelers of the pairs" not in text
    named = [bench_row(i, labeler="ann") for i in range(40)]
    suites.import_files(workspace, "named", [write(tmp_path / "named.jsonl", named)], format="jsonl")
    assert evaluate(workspace, ["hh@1"], suite="named", score=Scorer()).content["labelers"] == ["human"]
    suites.import_files(workspace, "some", [write(tmp_path / "some.jsonl", [*named, bench_row(99)])], format="jsonl")
    assert evaluate(workspace, ["hh@1"], suite="some", score=Scorer()).content["labelers"] == ["file", "human"]
    suites.cut(workspace, "frozen", snapshot="s")
    cut = evaluate(workspace, ["hh@1"], suite="frozen", score=Scorer())
    assert cut.content["labelers"] == ["human"] and "as people did" in cut.path.read_text("utf-8")


def test_the_text_warns_of_pairs_that_are_not_held_out_and_is_silent_on_those_that_are(
    rlhf: CommandLine, tmp_path: Path
) -> None:
    words = ("evaluate", "hh@1", "--stability", "0")
    held_out = rlhf(*words, "--snapshot", "polite@1")
    assert held_out.status == 0 and "Caution" not in held_out.out and "Judged by" not in held_out.out
    trained = rlhf(*words, "--snapshot", "polite@1", "--split", "train")
    shown = rlhf("report", "show", rlhf.json(*words, "--snapshot", "polite@1", "--split", "train")["report_digest"])
    for answer in (trained, shown):
        assert "Caution: the train side of polite@1 is not held out" in answer.out
        assert "of these opening turns were in the training of hh@1" in answer.out
    file = write(tmp_path / "b.jsonl", [bench_row(i) for i in range(40)])
    rlhf.json("suite", "import", "open", file, "--not-held-out")
    found = rlhf(*words, "--suite", "open").out
    assert "Caution: suite:open@1 is not held out" in found and "were in the training" not in found
    assert "Judged by: the suite's file, which names nobody" in found


def test_what_cannot_be_measured_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    suites.import_files(workspace, "prompts", [write(tmp_path / "p.jsonl", [{"prompt": "Only this"}])])
    with pytest.raises(BadInput, match="has no judged pair"):
        evaluate(workspace, ["hh@1"], suite="prompts", score=Scorer())
    for names in ({}, {"snapshot": "s", "suite": "prompts"}):
        with pytest.raises(BadUsage, match="what to measure on"):
            evaluate(workspace, ["hh@1"], score=Scorer(), **names)  # type: ignore[arg-type]
    with pytest.raises(BadUsage, match="a confidence of 1"):
        evaluate(workspace, ["hh@1"], "s", score=Scorer(), precision=(1.0,))


def test_a_report_that_names_a_suite_stays_whole_when_the_suite_is_imported_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, tmp_path)
    suite_of(workspace, tmp_path)
    before = evaluate(workspace, ["hh@1"], suite="bench", score=Scorer())
    suite_of(workspace, tmp_path, n=40)
    assert evaluate(workspace, ["hh@1"], suite="bench@1", score=Scorer()).digest == before.digest
    assert evaluate(workspace, ["hh@1"], suite="bench", score=Scorer()).figures["hh@1"]["n"] == 40


def test_the_command_measures_on_a_suite_and_answers_an_overlap_with_its_rows(
    rlhf: CommandLine, tmp_path: Path
) -> None:
    file = write(tmp_path / "b.jsonl", [bench_row(i) for i in range(40)])
    rlhf.json("suite", "import", "bench", file)
    answer = rlhf.json("evaluate", "hh@1", "--suite", "bench", "--precision", "0.5", "--stability", "8")
    found = answer["versions"]["hh@1"]
    assert found["n"] == 40 and found["precision"][0]["coverage"] == 1.0 and found["stability"]["n"] == 8
    assert found["stability"]["position"]["largest"] < 1e-4  # one scorer: a side means nothing
    workspace = Workspace.open(rlhf.root, actor="tester")
    seen_suite(workspace, tmp_path, "polite@1")
    workspace.close()
    refused = rlhf("evaluate", "hh@1", "--suite", "seen", "--json")
    assert refused.status == 1 and refused.value["error"]["code"] == "overlap" and len(refused.value["rows"]) == 10
    assert rlhf("evaluate", "hh@1", "--suite", "bench", "--precision", "x", "--json").status == 2


def test_an_evaluation_killed_in_the_middle_goes_on_to_the_same_report(trained_root: Path, tmp_path: Path) -> None:
    """The real process on 1,000 replies, kill -9, the same command again; against a workspace where nothing was killed."""
    root = copy_of(trained_root, tmp_path / "ws")
    workspace = Workspace.open(root, actor="tester")
    suites.import_files(workspace, "big", [write(tmp_path / "big.jsonl", [bench_row(i) for i in range(500)])])
    workspace.close()
    shutil.rmtree(root / FOLDER)  # what the workspace was made with scored something already
    untouched = copy_of(root, tmp_path / "untouched")
    words = [*REAL, "evaluate", "hh@1", "--suite", "big", "--stability", "0", "--json", "--workspace"]
    process = subprocess.Popen([*words, str(root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (lines := _lines(root)) or len(lines) < 3:
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = [line for line in _lines(root) if line.endswith(b"\n")]
    assert 3 <= len(kept) < 20, "killed in the middle"
    done, whole = (_answer([*words, str(folder)]) for folder in (root, untouched))
    assert done["report_digest"] == whole["report_digest"] and done["versions"]["hh@1"]["n"] == 500
    after = [line for line in _lines(root) if line.strip()]
    assert after[: len(kept)] == kept, "what was kept was not computed again"
    assert sorted(json.loads(line)["key"] for line in _lines(untouched)) == sorted(_keys(after))


def _keys(lines: list[bytes]) -> list[str]:
    """Of the whole lines: a torn one may stand among them."""
    found = []
    for line in lines:
        try:
            found.append(json.loads(line)["key"])
        except ValueError:
            continue
    return found


def _lines(root: Path) -> list[bytes]:
    return [line for file in (root / FOLDER).glob("*.jsonl") for line in file.read_bytes().splitlines(keepends=True)]


def _answer(words: list[str]) -> dict[str, object]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
