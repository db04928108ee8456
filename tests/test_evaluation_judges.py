"""Judges: a reward, a rule by its name, and what they make of what they can't judge."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from adapter_folders import published
from written_replies import pairs_of, score_plain

from rlhf.demo import true_preference
from rlhf.errors import BadInput, NotFound
from rlhf.evaluation import judges
from rlhf.evaluation.judges import RewardJudge, RuleJudge, open_judge, rules
from rlhf.store import Workspace

TEXTS = [("you can go", "methodology considered"), ("plain words", "plain words"), ("unscored", "plain")]


def installed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    found = [*judges.entry_points(group=judges.GROUP), EntryPoint(name, value, judges.GROUP)]
    monkeypatch.setattr(judges, "entry_points", lambda group: found)


def test_the_demo_s_rule_is_a_judge_by_its_name(workspace: Workspace) -> None:
    judge = open_judge(workspace, "demo")
    assert isinstance(judge, RuleJudge) and judge.rule is true_preference and "demo" in rules()
    found = judge.judge(pairs_of(TEXTS))
    (pair, *_) = pairs_of(TEXTS)
    points = true_preference(pair.prompt.messages, pair.a.text, pair.b.text)
    assert found.verdicts[0].difference == points and found.verdicts[0].win == float(points > 0)
    assert found.verdicts[1].win == 0.5


def test_a_reward_judges_by_its_scores(workspace: Workspace, tmp_path: Path) -> None:
    ref = published(workspace, tmp_path)
    judge = open_judge(workspace, "hh@1", score_plain)
    assert isinstance(judge, RewardJudge) and judge.ref == ref
    found = judge.judge(pairs_of(TEXTS))
    first, same, unscored = found.verdicts
    assert first.win == 1.0 and first.score_a is not None and first.score_b is not None
    assert first.difference == first.score_a - first.score_b
    assert first.p_a == pytest.approx(1 / (1 + math.exp(-first.difference)))
    assert (same.p_a, unscored.p_a) == (0.5, None)
    assert (same.win, same.difference, same.coin) == (0.5, 0.0, False)
    assert (unscored.win, unscored.difference, unscored.coin) == (0.5, None, True)
    assert found.digest == ref.digest


def test_a_reward_that_gives_no_number_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    published(workspace, tmp_path)

    def broken(*_: Any) -> Any:
        return [{"id": i, "score": float("nan")} for i in range(6)]

    with pytest.raises(BadInput, match="gives the score nan"):
        RewardJudge(workspace, open_judge(workspace, "hh@1").ref, broken).judge(pairs_of(TEXTS))  # type: ignore[union-attr]


def test_an_unknown_judge_is_told_what_there_is(workspace: Workspace, tmp_path: Path) -> None:
    published(workspace, tmp_path)
    with pytest.raises(NotFound, match=r"no judge 'dmeo'.*did you mean demo") as refused:
        open_judge(workspace, "dmeo")
    assert all(word in refused.value.fix for word in ("demo", "people", "hh@1"))
    with pytest.raises(NotFound, match="hh@9"):
        open_judge(workspace, "hh@9")
    with pytest.raises(BadInput, match="no reward head"):
        open_judge(workspace, "base:tiny")


def test_a_policy_is_no_judge(workspace: Workspace, tmp_path: Path) -> None:
    published(workspace, tmp_path, 1, "demo", head=False)
    with pytest.raises(BadInput, match="demo@1 is a policy, wanted a reward"):
        open_judge(workspace, "demo@1")


def test_a_rule_of_another_package_that_fails_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "theirs", "math:sqrt")  # takes one number: our three arguments are too many
    with pytest.raises(BadInput, match="the judge 'theirs' failed on the prompt p0: TypeError"):
        open_judge(workspace, "theirs").judge(pairs_of(TEXTS))  # type: ignore[union-attr]
    installed(monkeypatch, "gone", "no_such_module:rule")
    with pytest.raises(BadInput, match="'gone' can't be loaded: no_such_module:rule raises ModuleNotFoundError"):
        open_judge(workspace, "gone")
    installed(monkeypatch, "pi", "math:pi")
    with pytest.raises(BadInput, match="is no function"):
        open_judge(workspace, "pi")


def test_a_rule_that_gives_no_finite_number_is_refused() -> None:
    judge = RuleJudge("odd", lambda *_: float("inf"), "0" * 64)
    with pytest.raises(BadInput, match="'odd' gives inf"):
        judge.judge(pairs_of(TEXTS))


def test_a_changed_rule_is_another_judge(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for number, text in enumerate(("return 1.0", "return 2.0")):
        module = f"some_rule_{number}"
        (tmp_path / f"{module}.py").write_text(f"def rule(prompt, a, b):\n    {text}\n")
        installed(monkeypatch, "mine", f"{module}:rule")
        digests.append(open_judge(workspace, "mine").digest)  # type: ignore[union-attr]
    assert digests[0] != digests[1]
