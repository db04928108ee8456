"""Two policies on the same prompts: the whole road, with real versions and snapshots, and replies without a model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from adapter_folders import published
from written_replies import Writer, prompt_of, score_plain, two_policies

from rlhf import snapshots
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.evaluation import Report, compare, diff, evaluate, list_reports, open_report
from rlhf.policy import Prompt, Sampling
from rlhf.reward.score import PairScore
from rlhf.store import Workspace, audit

EVIL = "<script>alert('x')</script> see http://example.org/"


def run(workspace: Workspace, a: str = "demo@1", b: str = "demo@2", **options: Any) -> Report:
    options = {"write": Writer(), "score": score_plain, **options}
    return compare(workspace, a, b, **options)


def some_prompts(n: int = 30) -> list[Prompt]:
    return [prompt_of(i) for i in range(n)]


def test_both_sides_write_to_the_held_out_prompts_and_the_reward_behind_them_judges(
    workspace: Workspace, tmp_path: Path
) -> None:
    reward, one, other = two_policies(workspace, tmp_path)
    write = Writer()
    report = run(workspace, write=write)
    held_out = {row.pair.group for row in snapshots.open_snapshot(workspace, "s").rows("test")}
    assert write.asked == [("demo@1", len(held_out)), ("demo@2", len(held_out))]
    content = report.content
    assert content["title"] == "demo@1 against demo@2 on the test side of s@1, judged by hh@1"
    assert content["between"] == list(report.figures) == ["demo@1", "demo@2"]
    assert {v["digest"] for v in content["versions"].values()} == {one.digest, other.digest}
    assert content["judge"].pop("agreement")["n"] == 26  # test_evaluation_judge_agreement.py
    assert content["judge"] == {
        "kind": "reward",
        "name": "hh@1",
        "digest": reward.digest,
        "flatters": ["demo@1", "demo@2"],
    }
    assert [v["seen_openings"] for v in content["versions"].values()] == [0, 0]
    a, b = report.figures.values()
    assert a["win_rate"] > 0.8 and a["win_rate_low"] > 0.5 and b["win_rate"] == pytest.approx(1 - a["win_rate"])
    assert a["n"] == len(held_out) == content["prompts"]["n"]


def test_the_same_comparison_gives_the_same_report_and_writes_nothing_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    two_policies(workspace, tmp_path)
    write = Writer()
    first = run(workspace, write=write)
    again = run(workspace, write=write)
    assert (first.digest, first.path) == (again.digest, again.path) and len(list_reports(workspace)) == 1
    assert len(write.asked) == 2
    assert open_report(workspace, first.digest[:12]).content == first.content
    with workspace.read() as connection:
        (entry,) = audit.entries(connection, action="report.publish")
    assert entry["subject"] == first.digest


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"sampling": Sampling(max_new_tokens=64)}, {"judge": "demo"}, {"prompts": some_prompts()}]
)
def test_what_was_compared_how_decides_the_report(workspace: Workspace, tmp_path: Path, change: dict[str, Any]) -> None:
    two_policies(workspace, tmp_path)
    assert run(workspace).digest != run(workspace, **change).digest


def test_kept_replies_that_were_changed_are_written_anew(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    first = run(workspace)
    for file in (workspace.root / "cache" / "replies").iterdir():
        file.write_text(file.read_text().replace('."', '!"'))
    write = Writer()
    assert run(workspace, write=write).digest == first.digest and len(write.asked) == 2


def test_another_workspace_gives_the_same_digest(tmp_path: Path) -> None:
    """Names and numbers differ there; weights, prompts and replies don't."""
    digests = []
    for name in ("one", "two"):
        workspace = Workspace.create(tmp_path / name)
        refs = [published(workspace, tmp_path / name, seed, f"{name}-{seed}", head=False) for seed in (1, 2)]
        write = Writer()
        texts = write.asked

        def renamed(ws: Workspace, version: str, *rest: Any, write: Writer = write, **more: Any) -> Any:
            return write(ws, f"demo@{version.partition('@')[0][-1]}", *rest, **more)

        report = run(workspace, *map(str, refs), prompts=some_prompts(), judge="demo", write=renamed)
        assert len(texts) == 2
        digests.append(report.digest)
        workspace.close()
    assert digests[0] == digests[1]


def test_the_json_holds_no_text_and_the_page_shows_both_replies(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    report = run(workspace, prompts=[prompt_of(i, f"{EVIL} {i}?") for i in range(24)])
    html, stored = report.path.read_text("utf-8"), report.json_path.read_text("utf-8")
    assert "methodology" in html and "example.org" in html and 'class="beside"' in html
    assert "methodology" not in stored and "example.org" not in stored
    assert "&lt;script&gt;" in html and "<script" not in html
    tags = " ".join(re.findall(r"<[^>]*>", html))
    assert "http:" not in tags and "src=" not in tags
    rows = report.content["pairs"]
    assert len(rows) == 24 and all(len(row["prompt"]) == len(row["pair"]) == 64 for row in rows)
    assert sum(row["verdict"] == "a" for row in rows) == report.figures["demo@1"]["n_wins"]


def test_the_page_warns_of_a_judge_that_the_policy_was_trained_on(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    assert "is flattered" in run(workspace).path.read_text("utf-8")
    assert "is flattered" not in run(workspace, judge="demo").path.read_text("utf-8")


def test_a_program_s_judgements_behind_the_judge_are_called_simulated(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path, simulated=True)
    report = run(workspace)
    assert report.content["simulated"] and "SIMULATED" in report.path.read_text("utf-8")


def test_identical_replies_are_ties_whatever_the_judge(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)

    def same(ws: Workspace, version: str, *rest: Any, **more: Any) -> Any:
        return Writer()(ws, "demo@1", *rest, **more)

    for judge in ("demo", "hh@1"):
        report = run(workspace, prompts=some_prompts(), judge=judge, write=same)
        f = report.figures["demo@1"]
        assert (f["win_rate"], f["n_identical"], f["n_ties"]) == (0.5, 30, 30)
        assert "all length differences are equal" in f["length_controlled_why"]
        assert "No difference shown" in report.path.read_text("utf-8")


def test_of_many_prompts_so_many_are_drawn_and_a_repeated_one_counts_once(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    prompts = some_prompts(30)
    report = run(workspace, prompts=[*prompts, Prompt("again", prompts[3].messages)], n=12)
    asked = report.content["prompts"]
    assert (asked["n"], asked["n_given"], asked["n_repeated"]) == (12, 31, 1)
    drawn = [row["prompt"] for row in report.content["pairs"]]
    in_order = [prompt.digest for prompt in prompts]
    assert drawn == sorted(drawn, key=in_order.index) != in_order[:12]
    others = [row["prompt"] for row in run(workspace, prompts=prompts, n=12, seed=5).content["pairs"]]
    assert set(others) != set(drawn)


def test_progress_counts_the_replies_of_both_sides(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    told: list[tuple[int, int]] = []
    run(workspace, prompts=some_prompts(), on_progress=lambda done, of: told.append((done, of)))
    assert told == [(30, 60), (60, 60)]


def test_two_names_of_one_version_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(BadInput, match=r"demo@1 and sha256:.* are one version, demo@1"):
        run(workspace, "demo@1", f"sha256:{run(workspace).content['versions']['demo@1']['digest'][:16]}")


def test_what_can_not_be_compared_is_refused_before_anything_is_written(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    published(workspace, tmp_path, 7, "lone", head=False)
    published(workspace, tmp_path, 8, "lone", head=False)
    write = Writer()
    cases: Sequence[tuple[tuple[str, str], dict[str, Any], type[Exception], str]] = (
        (("demo@1", "hh@1"), {}, BadInput, "hh@1"),
        (("demo@1", "demo@9"), {}, NotFound, "demo@9"),
        (("demo@1", "demo@2"), {"judge": "nobody"}, NotFound, "no judge 'nobody'"),
        (("demo@1", "demo@2"), {"prompts": []}, BadInput, "no prompts"),
        (("demo@1", "demo@2"), {"n": 0}, BadUsage, "0 prompts"),
        (("demo@1", "demo@2"), {"min_judged": 3}, BadUsage, "--min-judged is for --judge people"),
        (("lone@1", "lone@2"), {}, BadUsage, "no reward stands behind lone@1 or lone@2"),
        (("lone@1", "lone@2"), {"judge": "demo"}, BadInput, "no snapshot is behind them"),
    )
    for sides, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            run(workspace, *sides, write=write, **options)
    assert write.asked == [] and list_reports(workspace) == ()


def test_a_reply_of_no_finite_likelihood_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(BadInput, match="demo@1 wrote a reply with the log-probabilities nan"):
        run(workspace, write=Writer(kl=float("nan")))
    assert not (workspace.root / "cache" / "replies").exists()


def test_out_gets_copies_of_both_files(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    report = run(workspace, out=tmp_path / "out")
    assert (tmp_path / "out" / "report.json").read_bytes() == report.json_path.read_bytes()


def test_reports_of_one_kind_are_set_side_by_side_and_of_two_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    one, other = run(workspace), run(workspace, judge="demo")
    found = diff(workspace, one.digest, other.digest)
    assert found["same_pairs"] is False and found["a"]["judge"]["name"] == "hh@1"
    assert "win_rate" in found["figures"][0]["changes"]
    assert diff(workspace, one.digest, one.digest)["same_pairs"] is True
    measured = evaluate(
        workspace, ["hh@1"], "s", score=lambda _, __, pairs, on_progress: [PairScore(1.0, 0.0, 9, False) for _ in pairs]
    )
    with pytest.raises(BadInput, match=r"is of kind evaluation.* of kind comparison"):
        diff(workspace, measured.digest, one.digest)


def test_sides_on_different_bases_are_told_apart(workspace: Workspace, tmp_path: Path, tiny_base: Any) -> None:
    two_policies(workspace, tmp_path, base_name="another")
    report = run(workspace, "demo@1", "base:tiny")
    assert report.content["same_base"] is False and "different bases" in report.path.read_text("utf-8")
    base = report.content["versions"]["base:tiny"]
    assert base["is_base"] and report.figures["base:tiny"]["kl"] == 0.0
    assert "adapter sign demo@1" in report.path.read_text("utf-8")
    assert "adapter sign base:tiny" not in report.path.read_text("utf-8")
    stored = json.loads(report.json_path.read_text("utf-8"))
    assert stored["digest"] == report.digest
