"""Over-optimisation curves: of a real run on the tiny base, of versions, and of best-of-n; what falls is told, and what is true is
asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_folders import BASE_DIGEST, published
from policies import human, log_of, watch_of, without_page
from test_evaluation_people_judge import label
from written_replies import GOOD, Writer, prompt_of, reply_of, score_plain, two_policies

from rlhf import policy, registry
from rlhf.cli.curve import summary
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.evaluation import Report, Waiting, Where, best_of, judges, open_report, over_run, over_versions
from rlhf.evaluation.curve_page import render, verdict
from rlhf.evaluation.judges import EntryPoint
from rlhf.ids import chance, digest_text, now_text
from rlhf.measures.best_of_n import best_of_n_kl
from rlhf.policy import Prompt, Reply
from rlhf.reward.score import Item, score_items
from rlhf.store import Workspace, runs
from rlhf.store.tables import bases

N = 40


def given(n: int = N) -> Where:
    return Where([prompt_of(i) for i in range(n)])


@pytest.fixture
def based(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Two policies and their reward, with the base that they stand on by name: nobody loads it."""
    digests = {f"{what}_digest": digest_text(f"a {what}") for what in ("tokenizer", "template")}
    row = {"name": "tiny", "digest": BASE_DIGEST, "path": "nowhere", "origin": "{}", "details": json.dumps(digests)}
    with workspace.write() as write:
        write.connection.execute(bases.insert().values(**row, actor="tester", created_at=now_text()))
    two_policies(workspace, tmp_path)
    return workspace


def versions(workspace: Workspace, names: Sequence[str] = ("demo@1", "demo@2"), **options: Any) -> Report:
    options = {"write": Writer(), "score": score_plain, "where": given(), "judge": "demo", **options}
    return over_versions(workspace, list(names), options.pop("judge"), **options)


def trained_with_watch(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    without_page(monkeypatch)
    chosen = {"watch_steps": 1, "watch_prompts": 6, "max_steps": 3, "learning_rate": 1e-2, "max_new_tokens": 8}
    return policy.train(workspace, human(**{**chosen, **more}))


def test_a_run_s_curve_is_what_its_watch_kept(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real training on the tiny base; the truth is another reward, which scores the kept replies itself."""
    trained = trained_with_watch(policies, monkeypatch)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was generated")

    monkeypatch.setattr("rlhf.engine.generation.generate", refuse)
    report = over_run(policies, runs.show(policies, trained.run_id), "r@2")
    points, watched = report.content["points"], watch_of(trained)
    assert [p["name"] for p in points] == [f"step {row['step']}" for row in watched] == [f"step {i}" for i in range(4)]
    assert [p["kl"]["value"] for p in points] == [pytest.approx(row["watch"]["kl"], abs=1e-6) for row in watched]
    logged = log_of(trained, "watch")
    by_step = [[row for row in logged if row["step"] == step] for step in range(4)]
    last = [
        float(a["points"] > b["points"]) + 0.5 * (a["points"] == b["points"])
        for a, b in zip(by_step[3], by_step[0], strict=True)
    ]
    assert points[3]["proxy"]["value"] == pytest.approx(np.mean(last), abs=1e-6) and points[3]["proxy"]["n"] == 12
    words = {p.id: p.messages for p in policy.prompts_of(policies, "polite", "test")}
    other = [
        [
            s["score"]
            for s in score_items(policies, "r@2", [Item(0, words[r["prompt"]], r["reply"] or " ") for r in rows])
        ]
        for rows in (by_step[3], by_step[0])
    ]
    same = [a["reply"] == b["reply"] for a, b in zip(by_step[3], by_step[0], strict=True)]
    true = [0.5 if s else float(a > b) + 0.5 * (a == b) for s, a, b in zip(same, *other, strict=True)]
    assert points[3]["truth"]["value"] == pytest.approx(np.mean(true), abs=1e-6)
    assert points[0]["truth"]["value"] == points[0]["proxy"]["value"] == 0.5
    assert list(report.figures) == [str(trained.version)]
    assert report.figures[str(trained.version)]["true_win_rate"] == points[3]["truth"]["value"]
    html = report.path.read_text("utf-8")
    assert "Over the root of KL" in html and "Krippendorff" in html and "the watch&#39;s" in html
    assert over_run(policies, runs.show(policies, trained.run_id[:12]), "r@2").digest == report.digest


def test_a_run_without_measurements_of_another_kind_or_judged_by_its_own_reward_is_refused(
    policies: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = trained_with_watch(policies, monkeypatch)
    row = runs.show(policies, trained.run_id)
    with pytest.raises(BadUsage, match="r@1 is the proxy itself"):
        over_run(policies, row, "r@1")
    kinds = {one.kind: one for one in runs.list_runs(policies)}
    with pytest.raises(BadInput, match="is of kind reward"):
        over_run(policies, kinds["reward"], "r@2")
    start = next(one for one in runs.list_runs(policies) if one.name == "start")
    with pytest.raises(BadInput, match="kept replies of 0 measurements"):
        over_run(policies, start, "r@2")
    kept = trained.run_folder / "replies.jsonl"
    lines = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    kept.write_text("".join(json.dumps({**one, "prompt": f"gone {one['prompt']}"}) + "\n" for one in lines), "utf-8")
    with pytest.raises(BadInput, match=r"the words of 6 of 6 prompts .* are not here"):
        over_run(policies, row, "r@2")
    found = [Prompt(f"gone {p.id}", p.messages) for p in policy.prompts_of(policies, "polite", "test")]
    assert over_run(policies, row, "r@2", prompts=found).content["prompts"]["n"] == 6


def test_people_say_what_is_true_of_a_run(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = trained_with_watch(policies, monkeypatch, max_steps=2)
    row = runs.show(policies, trained.run_id)
    with pytest.raises(Waiting) as waiting:
        over_run(policies, row, "people")
    label(policies, waiting.value.wanted, choose=lambda _: "tie")
    content = over_run(policies, row, "people").content
    assert [p["truth"]["value"] for p in content["points"]] == [0.5] * 3
    assert content["judge"]["n_judgements"] == waiting.value.wanted and content["judge"]["agreement"] is None


def test_versions_are_points_from_the_base_with_kl_and_intervals(based: Workspace) -> None:
    write = Writer()
    report = versions(based, write=write)
    points = report.content["points"]
    assert [p["name"] for p in points] == ["base:tiny", "demo@1", "demo@2"]
    assert write.asked == [("demo@1", N), ("base:tiny", N), ("demo@2", N)], "the base writes once"
    assert [p["kl"]["value"] for p in points] == [0.0, 3.0, 3.0] and points[1]["sqrt_kl"] == pytest.approx(
        3**0.5, abs=1e-6
    )
    assert points[1]["truth"]["value"] > 0.8 and points[1]["truth"]["low"] > 0.5
    assert abs(points[2]["truth"]["value"] - 0.5) < 0.25
    assert report.content["proxy"]["name"] == "hh@1" and report.figures["demo@1"]["proxy_win_rate"] > 0.5
    assert versions(based).digest == report.digest
    assert "No fall shown" in verdict(report.content) or report.content["fall"] is not None
    assert open_report(based, report.digest[:12]).content == report.content


class Optimised(Writer):
    """demo@1 writes plain words; demo@2 writes what scores most and says nothing."""

    def __call__(
        self, ws: Workspace, version: str, prompts: Any, sampling: Any, *, on_progress: Any = None
    ) -> list[Reply]:
        found = []
        for prompt in prompts:
            dice = chance(sampling.seed, version, prompt.digest)
            words = {"demo@1": GOOD, "demo@2": ("a",)}.get(version, ("unquestionably", "methodology"))
            found.append(
                reply_of(
                    prompt, " ".join(dice.choice(words) for _ in range(8)), kl=4.0 * int(version[-1:] == "2") + 2.0
                )
            )
        return found


def sense(_: Any, a: str, b: str) -> float:
    """Plain words are better, and one word over and over is nothing."""
    points = [(len(set(text.split())) > 2) * (20 - np.mean([len(word) for word in text.split()])) for text in (a, b)]
    return float(points[0] - points[1])


def test_where_the_truth_falls_while_the_proxy_rises_it_is_told(
    based: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = EntryPoint("sense", f"{__name__}:sense", judges.GROUP)
    monkeypatch.setattr(judges, "entry_points", lambda group: [rule])
    report = versions(based, judge="sense", write=Optimised())
    fell = report.content["fall"]
    assert (
        (fell["from"], fell["at"]) == ("demo@1", "demo@2") and fell["truth"] < 0 <= fell["proxy"] and fell["high"] < 0
    )
    said = "Over-optimised from demo@2 on: since demo@1 hh@1 rose by"
    assert said in report.path.read_text("utf-8") and said in summary(report.content)


def test_best_of_one_is_a_coin_and_the_proxy_s_own_curve_is_the_largest_of_n(
    workspace: Workspace, tmp_path: Path
) -> None:
    two_policies(workspace, tmp_path)
    write = Writer(good=("demo@1",))
    report = best_of(workspace, "demo@1", "demo", n_best=8, where=given(), write=write, score=score_plain)
    points = report.content["points"]
    assert [p["name"] for p in points] == [f"best of {n}" for n in (1, 2, 4, 8)] and len(write.asked) == 9
    assert [p["kl"]["value"] for p in points] == [pytest.approx(best_of_n_kl(n), abs=1e-6) for n in (1, 2, 4, 8)]
    for p, n in zip(
        points, (1, 2, 4, 8), strict=True
    ):  # of n draws and one more the largest is among the n by n / (n + 1)
        assert p["proxy"]["value"] == pytest.approx(n / (n + 1), abs=1e-6) and p["proxy"]["low"] is None
    assert points[0]["truth"]["value"] == pytest.approx(0.5, abs=0.1)
    assert all(p["truth"]["low"] <= p["truth"]["value"] <= p["truth"]["high"] for p in points)
    again = best_of(workspace, "demo@1", "demo", n_best=8, where=given(), write=write, score=score_plain)
    assert again.digest == report.digest and len(write.asked) == 9, "what was written is kept"


def test_by_a_judge_with_points_best_of_one_is_a_half_whatever_the_start_was(
    workspace: Workspace, tmp_path: Path
) -> None:
    two_policies(workspace, tmp_path)
    for seed in (9, 10):
        published(workspace, tmp_path, seed, "other")
    report = best_of(workspace, "demo@1", "other@2", n_best=4, where=given(), write=Writer(), score=score_plain)
    first, *later = (p["truth"] for p in report.content["points"])
    assert (first["value"], first["low"]) == (0.5, None) and "same for every prompt" in first["method"]
    assert all(p["low"] < p["value"] < p["high"] for p in later)


def test_what_can_not_be_drawn_is_refused(based: Workspace, tmp_path: Path) -> None:
    published(based, tmp_path, 7, "lone", head=False)
    published(based, tmp_path, 8, "far", head=False, base_name="other", base_digest="5" * 64)
    cases: Sequence[tuple[Sequence[str], dict[str, Any], type[Exception], str]] = (
        (["base:tiny"], {}, BadUsage, "is where the curve starts"),
        (["demo@1", "far@1"], {}, BadInput, "on different bases"),
        (["lone@1"], {}, BadUsage, "no reward stands behind lone@1"),
        (["demo@1"], {"judge": "hh@1"}, BadUsage, "is the proxy itself"),
        (["demo@1"], {"proxy": "demo"}, BadUsage, "the proxy demo is no reward version"),
        (["demo@9"], {}, NotFound, "demo@9"),
    )
    for names, options, kind, said in cases:
        with pytest.raises(kind, match=said):
            versions(based, names, **options)
    with pytest.raises(BadUsage, match="people would have to judge every reply"):
        best_of(based, "demo@1", "people", where=given(), write=Writer(), score=score_plain)
    with pytest.raises(BadUsage, match="there is no best"):
        best_of(based, "demo@1", "demo", n_best=1)
    with pytest.raises(BadUsage, match="in two ways"):
        Where([prompt_of(0)], "s")


def test_names_of_somebody_else_s_rule_are_text_on_the_page(based: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = EntryPoint("<script>x</script>", "rlhf.demo:true_preference", judges.GROUP)
    monkeypatch.setattr(judges, "entry_points", lambda group: [evil])
    html = render(versions(based, judge=evil.name).content)
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert registry.resolve(based, "demo@1").role == "policy"
