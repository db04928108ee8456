"""Comparisons that stop when they are decided: soon where the effect is large, seldom wrongly, the same way twice, and with
people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation_people_judge import label
from written_replies import Writer, pairs_of, prompt_of, score_plain, two_policies, verdicts_of

from rlhf import labeling
from rlhf.errors import BadUsage
from rlhf.evaluation import Report, Stopping, Waiting, compare
from rlhf.evaluation.judges import Judged, RuleJudge
from rlhf.evaluation.until_decided import Look, in_batches, until_decided
from rlhf.feedback import receipts
from rlhf.ids import digest_text, unit_interval
from rlhf.labeling.comparisons import COMPARISON
from rlhf.policy import Prompt
from rlhf.registry import gate_figures
from rlhf.store import Workspace


def run(workspace: Workspace, n: int = 100, **options: Any) -> Report:
    options = {"write": Writer(), "score": score_plain, "stopping": Stopping(batch=10), **options}
    return compare(workspace, "demo@1", "demo@2", prompts=[prompt_of(i) for i in range(n)], **options)


def coin(_: Any, a: str, b: str) -> float:
    return unit_interval(0, a + b) - 0.5


def test_a_large_effect_is_decided_soon_and_no_more_is_written(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    write = Writer()
    report = run(workspace, write=write)
    s, f = report.content["sequential"], report.figures["demo@1"]
    assert s["decision"] == "a" and s["n_units"] < 100 == s["n_available"]
    assert sum(n for _, n in write.asked) == 2 * s["n_units"] == 2 * f["n_prompts"]
    assert [look["n_units"] for look in s["looks"]] == list(range(10, s["n_units"] + 1, 10))
    assert s["planned"]["fixed"] < s["planned"]["looks"]
    html = report.path.read_text("utf-8")
    assert f"decided after {s['n_units']} opening turns, at look {len(s['looks'])}" in html
    assert "Look by look" in html and "is not to be read" in html and "always-valid 95 % interval" in html


def test_the_interval_of_the_report_is_the_always_valid_one_and_others_are_taken_out(
    workspace: Workspace, tmp_path: Path
) -> None:
    two_policies(workspace, tmp_path)
    report = run(workspace)
    last = report.content["sequential"]["looks"][-1]
    a, b = report.figures.values()
    assert (a["win_rate"], a["win_rate_low"], a["win_rate_high"]) == (last["win_rate"], last["low"], last["high"])
    assert b["win_rate_high"] == pytest.approx(1 - a["win_rate_low"], abs=1e-6)
    assert a["measures"]["win_rate"]["level"] == 0.95 and "betting" in a["measures"]["win_rate"]["method"]
    for name in ("length_controlled_win_rate", "win_rate_longer", "mean_score"):
        assert a[f"{name}_low"] is None and "not to be read" in a["measures"][name]["method"]
    gate = gate_figures.find(a, "win_rate_low")
    assert gate.value == last["low"], "what a gate reads"
    assert "not to be read" not in a["measures"]["kl"]["method"], "which isn't looked at"


def test_the_same_command_again_is_the_same_report_and_another_seed_another_order(
    workspace: Workspace, tmp_path: Path
) -> None:
    two_policies(workspace, tmp_path)
    first, again, turned = run(workspace), run(workspace), run(workspace, seed=3)
    assert first.digest == again.digest != turned.digest
    fixed = run(workspace, stopping=None)
    assert "sequential" not in fixed.content and fixed.digest != first.digest


def test_no_difference_is_said_to_be_open_after_all_prompts(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    judge = RuleJudge("coin", coin, digest_text("coin"))
    prompts = [prompt_of(i) for i in range(60)]
    pairs = {p.prompt.digest: p for p in pairs_of([(f"one {i}", f"two {i}") for i in range(60)])}
    done = until_decided(prompts, Stopping(batch=20), judge, lambda some: [pairs[p.digest] for p in some])
    assert done.facts["decision"] is None and len(done.facts["looks"]) == 3 and len(done.pairs) == 60
    report = run(workspace, 30, write=Writer(good=()), stopping=Stopping(batch=20))
    assert "Not decided after 30 of 30 opening turns" in report.path.read_text("utf-8")


def test_of_many_comparisons_without_a_difference_at_most_one_in_twenty_is_decided() -> None:
    """The road itself, judged by a rule that flips a coin by hash."""
    n_false = 0
    for number in range(80):
        texts = [(f"{number} one {i}", f"{number} two {i}") for i in range(60)]
        pairs = {p.prompt.digest: p for p in pairs_of(texts)}
        judge = RuleJudge("coin", coin, "0" * 64)
        prompts = [pair.prompt for pair in pairs.values()]
        done = until_decided(prompts, Stopping(batch=20), judge, lambda some, own=pairs: [own[p.digest] for p in some])
        n_false += done.facts["decision"] is not None
    assert n_false <= 4


def test_an_opening_turn_is_one_unit_and_stays_in_one_batch() -> None:
    prompts = [Prompt(f"p{i}", (*prompt_of(0, f"Opening {i // 3}").messages[:1],)) for i in range(12)]
    from rlhf.records import Message

    prompts = [Prompt(p.id, (*p.messages, Message("assistant", "?"), Message("user", p.id))) for p in prompts]
    batches = in_batches(prompts, 2, 0)
    assert [len({p.group for p in batch}) for batch in batches] == [2, 2]
    assert sorted(p.id for batch in batches for p in batch) == sorted(p.id for p in prompts)
    assert in_batches(prompts[::-1], 2, 0) == batches

    class Alternating:
        kind, name = "rule", "alternating"

        def judge(self, pairs: Any) -> Judged:
            return Judged(verdicts_of([1.0, 0.0, 1.0] * (len(pairs) // 3)), "0" * 64)

    from written_replies import reply_of

    from rlhf.evaluation.reply_pairs import ReplyPair

    done = until_decided(
        prompts,
        Stopping(batch=2),
        Alternating(),  # type: ignore[arg-type]
        lambda some: [ReplyPair(p, reply_of(p, "a"), reply_of(p, "b")) for p in some],
    )
    assert [look["n_units"] for look in done.facts["looks"]] == [2, 4]
    assert [look["n_pairs"] for look in done.facts["looks"]] == [6, 12]
    assert done.facts["looks"][-1]["win_rate"] == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "margin", "decision"),
    [
        (0.51, 0.7, 0.0, "a"),
        (0.51, 0.7, 0.05, None),
        (0.2, 0.44, 0.05, "b"),
        (0.46, 0.54, 0.05, "neither"),
        (0.49, 0.51, 0.0, None),
    ],
)
def test_a_look_decides_once_the_interval_lies_on_one_side_of_the_margin(
    low: float, high: float, margin: float, decision: str | None
) -> None:
    assert Look(20, 20, 0.5, low, high).decision(margin) == decision


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"margin": 0.5}, "--margin is 0.5"),
        ({"alpha": 1.0}, "--alpha"),
        ({"effect": 0.0}, "--effect"),
        ({"batch": 0}, "--batch"),
    ],
)
def test_words_that_can_not_be_stopped_by_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(BadUsage, match=said):
        Stopping(**words)


def test_people_are_asked_batch_by_batch_and_no_more_once_it_is_decided(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    options: dict[str, Any] = {"judge": "people", "stopping": Stopping(batch=4)}
    jobs, told = [], []
    for _ in range(6):
        try:
            report = run(workspace, 40, **options)
            break
        except Waiting as waiting:
            jobs.append(waiting.job)
            told.append(waiting.so_far)
            assert waiting.progress()["wanted"] == 4
            with pytest.raises(Waiting, match="0 of 4"):  # nothing judged: the same batch
                run(workspace, 40, **options)
            label(workspace, 4)
    s, judge = report.content["sequential"], report.content["judge"]
    assert s["decision"] == "a" and s["n_units"] == 4 * len(jobs) < 40 and judge["jobs"] == jobs
    assert (judge["n_judgements"], judge["n_labelers"], judge["agreement"]) == (s["n_units"], 1, None)
    assert [len(one["looks"]) for one in told if one] == list(range(len(jobs)))
    offered = {r.source for r in receipts(workspace) if r.source.startswith(COMPARISON)}
    assert offered == set(jobs), "decided, so nothing more is offered"
    assert run(workspace, 40, **options).digest == report.digest
    task = labeling.next_task(workspace, "ada")
    assert task is None or not task.prompt[0].content.startswith("Tell me about matter")


def test_an_unjudged_remainder_has_no_place_in_it(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(BadUsage, match="--until-decided waits for the whole of each batch"):
        run(workspace, judge="people", min_judged=3)


def test_the_planned_number_is_larger_where_it_is_looked_at_and_for_a_smaller_effect() -> None:
    sizes = [Stopping(effect=effect).planned() for effect in (0.05, 0.1, 0.2)]
    assert all(one["fixed"] < one["looks"] for one in sizes)
    assert np.all(np.diff([one["looks"] for one in sizes]) < 0)
    assert Stopping(margin=0.05, effect=0.1).planned() == Stopping(effect=0.05).planned()
