"""Versions on a snapshot's held-out pairs: the whole road, with real versions and snapshots, and known scores."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from adapter_folders import published
from snapshot_rows import judged, pair_of, put
from typer.testing import CliRunner

from rlhf import registry, snapshots
from rlhf.errors import BadInput, BadUsage, Damaged, NotFound
from rlhf.evaluation import Report, evaluate, list_reports, open_report
from rlhf.ids import unit_interval
from rlhf.records import Pair, VersionRef
from rlhf.reward.score import PairScore
from rlhf.store import Workspace, audit

EVIL = "<script>alert('x')</script> see http://example.org/"
N = 40


def fill(workspace: Workspace, scratch: Path, *, kind: str = "human", **draft: Any) -> None:
    """hh@1 trained on s@1: 40 pairs of one vote, four with a tie, a skip, a divided vote, no consent to evaluate."""
    texts = [pair_of(i, replies=(f"{EVIL} {i}", f"no {i}")) for i in range(N)]
    rows = [judged(pair, "a" if i % 3 else "b", kind=kind) for i, pair in enumerate(texts)]
    rows += [judged(pair_of(N), "tie", kind=kind), judged(pair_of(N + 1), "skip", kind=kind)]
    rows += [judged(pair_of(N + 2), c, labeler=str(n), kind=kind) for n, c in enumerate("aab")]
    rows += [judged(pair_of(N + 3), "a", consent=("train",), kind=kind)]
    put(workspace, rows)
    cut = snapshots.cut(workspace, "s", holdout=0.5)
    published(workspace, scratch, snapshot_digest=cut.digest, **draft)


class Scorer:
    """Prefers reply a by an amount that its pair's id draws; remembers what it was asked."""

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias
        self.asked: list[str] = []

    def __call__(self, _: Workspace, ref: VersionRef, pairs: Sequence[Pair], on_progress: Any) -> list[PairScore]:
        self.asked.append(str(ref))
        if on_progress:
            on_progress(len(pairs), len(pairs))
        margins = [4 * unit_interval(ref.number, pair.id) - 2 + self.bias for pair in pairs]
        return [PairScore(m / 2, -m / 2, 20, False) for m in margins]


def run(workspace: Workspace, *versions: str, **options: Any) -> Report:
    return evaluate(workspace, versions or ["hh@1"], "s", score=options.pop("score", Scorer()), **options)


def test_every_held_out_pair_is_accounted_for(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    content = run(workspace).content
    assert content["title"] == "hh@1 on snapshot s@1 (test)"
    in_test = list(snapshots.open_snapshot(workspace, "s").rows("test"))
    counted = content["snapshot"]
    assert counted["pairs"] + counted["without_verdict"] + counted["without_consent"] == len(in_test)
    assert content["versions"]["hh@1"]["figures"]["n"] == counted["pairs"] > 10
    skipped = sum(all(j.choice == "skip" for j in row.judgements) for row in in_test)
    assert counted["without_verdict"] == skipped


def test_accuracy_is_what_the_scores_and_votes_say(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    right = []
    for row in snapshots.open_snapshot(workspace, "s").rows("test"):
        votes = [j.choice for j in row.judgements]
        if "a" in votes or "b" in votes:
            a_better = votes.count("a") > votes.count("b")
            right.append((unit_interval(1, row.pair.id) > 0.5) == a_better)
    found = run(workspace).figures["hh@1"]
    assert found["accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-6) and found["n_decided"] == len(right)


def test_the_same_evaluation_gives_the_same_report(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    first, again = run(workspace), run(workspace, "hh@1")
    assert (first.digest, first.path) == (again.digest, again.path) and len(list_reports(workspace)) == 1
    assert first.path.read_bytes() == again.path.read_bytes()
    assert run(workspace, seed=1).digest != first.digest and len(list_reports(workspace)) == 2
    with workspace.read() as connection:
        assert audit.entries(connection, action="report.publish")[0]["subject"] == first.digest


def test_another_workspace_gives_the_same_digest(tmp_path: Path) -> None:
    """Names, numbers and actors differ there; pairs, votes, weights and scores don't."""
    reports = []
    for name, cuts_before in (("one", 0), ("two", 1)):
        workspace = Workspace.create(tmp_path / name, actor=name)
        put(workspace, [judged(pair_of(999), "a", source="other"), *(judged(pair_of(i), "a") for i in range(20))])
        for _ in range(cuts_before):
            snapshots.cut(workspace, "s", sources=["other"], holdout=0.0)
        cut = snapshots.cut(workspace, "s", sources=["s"], holdout=0.5)
        ref = published(workspace, tmp_path / name, name=name, snapshot_digest=cut.digest)
        reports.append(evaluate(workspace, [str(ref)], cut.ref, score=Scorer()))
        workspace.close()
    assert reports[0].digest == reports[1].digest and reports[0].title != reports[1].title


def test_several_versions_are_compared_on_the_same_pairs(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    published(workspace, tmp_path, 1)
    score = Scorer()
    report = run(workspace, "hh@1", "hh@2", score=score)
    assert score.asked == ["hh@1", "hh@2"] and list(report.figures) == ["hh@1", "hh@2"]
    (difference,) = report.content["differences"]
    gap = report.figures["hh@2"]["accuracy"] - report.figures["hh@1"]["accuracy"]
    assert (difference["a"], difference["b"]) == ("hh@2", "hh@1")
    assert difference["accuracy"]["value"] == pytest.approx(gap, abs=1e-5)
    assert "Side by side" in report.path.read_text("utf-8")


def test_a_report_page_is_self_contained_and_runs_nothing(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    html = run(workspace).path.read_text("utf-8")
    assert "&lt;script&gt;" in html and "<script" not in html
    tags = " ".join(re.findall(r"<[^>]*>", html))
    assert "http:" not in tags and "https:" not in tags and "src=" not in tags and "url(http" not in html
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', tags))


def test_a_report_quotes_texts_on_its_page_alone(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    report = run(workspace)
    assert "example.org" in report.path.read_text("utf-8") and "example.org" not in report.json_path.read_text("utf-8")


def test_out_gets_copies_of_both_files(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    report = run(workspace, out=tmp_path / "out" / "here")
    for file in (report.path, report.json_path):
        assert (tmp_path / "out" / "here" / file.name).read_bytes() == file.read_bytes()
    (tmp_path / "taken").write_text("x")
    with pytest.raises(BadInput, match="is a file"):
        run(workspace, out=tmp_path / "taken")
    with pytest.raises(BadUsage, match="looks like a file") as refused:
        run(workspace, out=tmp_path / "report.html")
    assert str(tmp_path / "report") in str(refused.value.fix) and not (tmp_path / "report.html").exists()


def test_training_pairs_are_called_what_they_are(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    held_out, trained = run(workspace), run(workspace, split="train")
    assert held_out.content["versions"]["hh@1"]["seen_openings"] == 0
    assert trained.content["versions"]["hh@1"]["seen_openings"] == trained.figures["hh@1"]["n_groups"]
    assert "held-out pairs" in held_out.path.read_text("utf-8")
    assert "held-out pairs" not in trained.path.read_text("utf-8") and "Caution" in trained.path.read_text("utf-8")


def test_what_a_version_came_from_was_trained_on_counts_as_seen(workspace: Workspace, tmp_path: Path) -> None:
    """A child trained, or calibrated, on another snapshot has still seen what its parent saw."""
    fill(workspace, tmp_path)
    parent = registry.resolve(workspace, "hh@1")
    put(workspace, [judged(pair_of(i), "a", source="other") for i in range(100, 110)])
    other = snapshots.cut(workspace, "other", sources=["other"], holdout=0.5)
    published(workspace, tmp_path, 1, snapshot_digest=other.digest, parents=(("from", parent.digest),))
    child = run(workspace, "hh@2", split="train").content["versions"]["hh@2"]
    assert child["trained_on"] == "other@1" and child["seen_openings"] == child["figures"]["n_groups"]
    assert run(workspace, "hh@2").content["versions"]["hh@2"]["seen_openings"] == 0


def test_simulated_labelers_show_on_the_page(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path, kind="simulated")
    report = run(workspace)
    assert report.content["simulated"] and "SIMULATED" in report.path.read_text("utf-8")


def test_a_version_trained_on_simulated_labelers_shows_on_the_page(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path, simulated=True)
    assert "SIMULATED" in run(workspace).path.read_text("utf-8")


def test_people_are_not_called_simulated(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    assert "SIMULATED" not in run(workspace).path.read_text("utf-8")


def test_what_cannot_be_evaluated_is_refused_before_anything_is_scored(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    published(workspace, tmp_path, 3, "writer", head=False)
    score = Scorer()
    for versions, reason in (
        (["base:tiny"], "no trained reward head"),
        (["writer@1"], "wanted a reward"),
        (["hh@1", "hh@1"], "one version twice"),
        ([], "no version"),
    ):
        with pytest.raises(BadInput, match=reason):
            evaluate(workspace, versions, "s", score=score)
    with pytest.raises(NotFound):
        run(workspace, "hh@9", score=score)
    with pytest.raises(NotFound):
        evaluate(workspace, ["hh@1"], "nowhere", score=score)
    with pytest.raises(BadUsage, match="no split 'dev'"):
        run(workspace, split="dev", score=score)
    assert score.asked == [] and list_reports(workspace) == ()


def test_an_empty_split_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    snapshots.cut(workspace, "whole", holdout=0.0)
    with pytest.raises(BadInput, match="no judged pair in its test split"):
        evaluate(workspace, ["hh@1"], "whole", score=Scorer())


def test_a_version_that_can_score_nothing_is_refused_and_not_called_a_coin(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, tmp_path)

    def too_long(_: Workspace, __: VersionRef, pairs: Sequence[Pair], on_progress: Any) -> list[PairScore]:
        return [PairScore(None, None, 0, False, "too_long") for _ in pairs]

    with pytest.raises(BadInput, match=r"hh@1 can score none of the \d+ judged pairs"):
        run(workspace, score=too_long)
    assert list_reports(workspace) == ()


def test_a_report_that_was_changed_is_not_shown(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    report = run(workspace)
    report.json_path.write_text(report.json_path.read_text("utf-8").replace("0.", "1."), "utf-8")
    with pytest.raises(Damaged, match=r"report\.json"):
        open_report(workspace, report.digest)


def call(workspace: Workspace, *words: str) -> tuple[int, str]:
    """The commands as `rlhf` has them, on an app that holds these alone."""
    import typer

    from rlhf.cli import evaluate as commands

    app = typer.Typer()
    commands.register(app)
    done = CliRunner().invoke(app, [*words, "--workspace", str(workspace.root)])
    return done.exit_code, done.stdout if done.exception is None else str(done.exception)


def test_report_commands_list_show_and_compare(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, tmp_path)
    one, other = run(workspace), run(workspace, score=Scorer(0.7))
    status, text = call(workspace, "report", "list", "--json")
    assert status == 0 and {r["digest"] for r in json.loads(text)["reports"]} == {one.digest, other.digest}
    status, text = call(workspace, "report", "show", one.digest[:8], "--json")
    shown = json.loads(text)
    assert shown["report_digest"] == one.digest and Path(shown["report"]).is_file()
    assert shown["versions"]["hh@1"]["figures"] == one.figures["hh@1"]
    status, text = call(workspace, "report", "diff", one.digest[:12], f"sha256:{other.digest}", "--json")
    found = json.loads(text)
    changes = found["figures"][0]["changes"]["accuracy"]
    assert found["same_pairs"] and changes["change"] == pytest.approx(
        other.figures["hh@1"]["accuracy"] - one.figures["hh@1"]["accuracy"], abs=1e-5
    )
    for words in (("report", "list"), ("report", "show", one.digest), ("report", "diff", one.digest, other.digest)):
        status, text = call(workspace, *words)
        assert status == 0 and "hh@1" in text
    assert "no report" in call(workspace, "report", "show", "abcdef")[1]
    assert "hex digits" in call(workspace, "report", "show", "xyz")[1]


def test_the_command_answers_with_the_contract_keys(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(workspace, tmp_path)
    monkeypatch.setattr("rlhf.reward.score.score_pairs", Scorer())
    status, text = call(workspace, "evaluate", "hh@1", "--snapshot", "s", "--json")
    assert status == 0, text
    answer = json.loads(text)
    assert {"n", "accuracy", "accuracy_low", "accuracy_high", "log_loss", "ece"} <= answer["versions"]["hh@1"].keys()
    assert Path(answer["report"]).name == "report.html" and Path(answer["json"]).is_file()
    assert len(answer["report_digest"]) == 64
    status, text = call(workspace, "evaluate", "hh@1", "--snapshot", "s")
    assert status == 0 and answer["report_digest"][:12] in text and "95 % interval" in text
