"""Is the judge to be believed: held against people's judgements that it didn't learn from, and said at the top where nobody
knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapter_folders import published
from snapshot_rows import judged, pair_of, put
from written_replies import Writer, prompt_of, score_plain, two_policies

from rlhf import snapshots
from rlhf.demo import true_preference
from rlhf.evaluation import compare, judge_agreement
from rlhf.evaluation.judge_agreement import MOST, agreement, in_words
from rlhf.evaluation.judges import RewardJudge, RuleJudge, open_judge
from rlhf.evaluation.people_judge import PeopleJudge
from rlhf.ids import unit_interval
from rlhf.records import PAGE_SOURCE, Message
from rlhf.registry import resolve
from rlhf.store import Workspace


def longer(_: object, a: str, b: str) -> float:
    return len(a) - len(b)


LONGER = RuleJudge("longer", longer, "0" * 64)


def told(workspace: Workspace, judge: RuleJudge | RewardJudge = LONGER) -> dict[str, object]:
    found = agreement(workspace, judge)
    assert found is not None
    return found


def long_side(i: int) -> str:
    pair = pair_of(i)
    return "a" if len(pair.reply_a) > len(pair.reply_b) else "b"


def test_a_rule_that_says_what_people_say_agrees_and_one_that_says_the_opposite_does_not(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), long_side(i)) for i in range(40)])
    found = told(workspace)
    assert (found["n"], found["agreement"]["value"], found["alpha"]["value"]) == (40, 1.0, 1.0)  # type: ignore[index]
    assert found["agreement"]["low"] < 1.0, "40 of 40 is not certainty"  # type: ignore[index]
    opposite = told(workspace, RuleJudge("shorter", lambda *words: -longer(*words), "1" * 64))
    assert opposite["agreement"]["value"] == 0.0 and opposite["alpha"]["value"] < 0  # type: ignore[index]
    words = in_words({"name": "shorter", "agreement": opposite})
    assert "0.0 % of 40 pairs" in words and "That is shown to be worse than a coin: rest no decision" in words
    assert "a coin" not in in_words({"name": "longer", "agreement": found}) and found["by_source"] is None
    coin = told(workspace, RuleJudge("first", lambda _, a, b: 1.0 if hash_of(a) else -1.0, "4" * 64))
    assert "That is not shown to be better than a coin" in in_words({"name": "first", "agreement": coin})


def hash_of(text: str) -> bool:
    return unit_interval(0, text) < 0.5


def test_sources_are_told_apart_and_small_ones_counted(workspace: Workspace) -> None:
    """In one source people prefer the longer reply, in the other the shorter: over both a coin, in neither."""
    with_them = [judged(pair_of(i), long_side(i), source="hh") for i in range(40)]
    against = [judged(pair_of(100 + i), "ab".replace(long_side(100 + i), ""), source="convarg") for i in range(40)]
    few = [judged(pair_of(200 + i), "a", source=f"few{i % 2}") for i in range(6)]
    on_the_page = [judged(pair_of(i), long_side(i), source=PAGE_SOURCE) for i in range(20)]
    put(workspace, [*with_them, *against, *few, *on_the_page])
    found = told(workspace)
    by = found["by_source"]
    assert {source: (m["value"], m["n"]) for source, m in by["shown"].items()} == {
        "convarg": (0.0, 40),
        "hh": (1.0, 40),
    }  # type: ignore[index]
    assert by["hidden"] == {"parts": 2, "pairs": 6, "below": 30}  # type: ignore[index]
    words = in_words({"name": "longer", "agreement": found})
    assert (
        "By source: convarg 0.0 % of 40 (0.0 to " in words
        and "), shown to be worse than a coin; hh 100.0 % of 40 (" in words
    )
    assert "; 6 of 2 sources with fewer than 30, too few to tell." in words
    assert "Over all of them it is not shown to be better than a coin: rest no decision on this judge." in words


def test_agreement_from_before_sources_were_told_apart_reads_as_it_did(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), long_side(i)) for i in range(40)])
    old = {key: value for key, value in told(workspace).items() if key != "by_source"}
    assert "100.0 % of 40 pairs" in in_words({"name": "longer", "agreement": old})


def test_a_majority_decides_ties_tell_of_alpha_alone_and_a_judge_without_a_side_is_half_right(
    workspace: Workspace,
) -> None:
    votes = [judged(pair_of(0), c, labeler=f"l{k}") for k, c in enumerate(("a", "a", "b"))]
    put(workspace, [*votes, judged(pair_of(1), "tie"), judged(pair_of(2), "b"), judged(pair_of(3), "skip")])
    found = told(workspace, RuleJudge("none", lambda *_: 0.0, "2" * 64))
    assert (found["n"], found["n_ties"]) == (3, 1)
    assert (found["agreement"]["n"], found["agreement"]["value"]) == (2, 0.5)  # type: ignore[index]


def test_pairs_and_opening_turns_that_a_reward_learnt_from_are_passed_over(
    workspace: Workspace, tmp_path: Path
) -> None:
    reward, *_ = two_policies(workspace, tmp_path)
    cut = snapshots.open_snapshot(workspace, "s")
    sides = {side: {row.pair.id for row in cut.rows(side)} for side in ("train", "test")}
    again = next(iter(cut.rows("train"))).pair
    twin = pair_of(0, opening=again.prompt[-1].content, replies=("another", "pair of one opening turn"))
    put(workspace, [judged(twin, "a")])
    found = told(workspace, RewardJudge(workspace, reward, score_plain))
    assert found["n"] == len(sides["test"]) and found["n_seen"] == len(sides["train"]) + 1
    assert found["training_known"] is True
    assert told(workspace)["n"] == len(sides["train"] | sides["test"]) + 1, "a rule learnt from nothing"


def test_only_people_whose_answers_may_evaluate_are_asked(workspace: Workspace) -> None:
    put(
        workspace,
        [
            judged(pair_of(0), "a", kind="simulated"),
            judged(pair_of(1), "a", kind="model"),
            judged(pair_of(2), "a", consent=("train",)),
        ],
    )
    found = told(workspace)
    assert found["n"] == 0 and found["agreement"]["value"] is None  # type: ignore[index]
    assert in_words({"name": "longer", "agreement": found}).startswith("Nobody has checked this judge")


def test_of_many_pairs_a_sample_by_hash_is_taken(workspace: Workspace) -> None:
    pairs = [pair_of(i) for i in range(MOST + 60)]
    put(workspace, [judged(pair, "a") for pair in pairs])
    asked: list[str] = []

    def seen(prompt: tuple[Message, ...], a: str, b: str) -> float:
        asked.append(prompt[-1].content)
        return 1.0

    assert told(workspace, RuleJudge("seen", seen, "3" * 64))["n"] == MOST
    lowest = sorted(pairs, key=lambda pair: pair.id)[:MOST]
    assert asked == [pair.prompt[-1].content for pair in lowest]


def test_a_big_source_drowns_no_small_one(workspace: Workspace) -> None:
    big = [judged(pair_of(i), "a", source="big") for i in range(MOST + 60)]
    small = [judged(pair_of(1000 + i), "b", source="small") for i in range(45)]
    put(workspace, [*big, *small])
    found = told(workspace, RuleJudge("first", lambda *_: 1.0, "3" * 64))
    by = {source: (m["value"], m["n"]) for source, m in found["by_source"]["shown"].items()}  # type: ignore[index]
    assert by == {"big": (1.0, MOST // 2), "small": (0.0, 45)} and found["n"] == MOST // 2 + 45


def test_a_snapshot_that_is_not_here_is_told(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace, [judged(pair_of(i), long_side(i)) for i in range(12)])
    reward = published(workspace, tmp_path, snapshot_digest="9" * 64)
    found = told(workspace, RewardJudge(workspace, reward, score_plain))
    assert found["n"] == 12 and found["training_known"] is False
    assert "may have learnt from some of them" in in_words({"name": "hh@1", "agreement": found})


def test_people_are_what_is_held_against_not_held(workspace: Workspace) -> None:
    assert agreement(workspace, PeopleJudge(workspace, ("a" * 64, "b" * 64))) is None
    assert in_words({"name": "people", "agreement": None}) == in_words({"name": "hh@1"}) == ""


def test_a_comparison_says_at_the_top_whether_its_judge_is_believed(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    prompts = [prompt_of(i) for i in range(12)]
    known = compare(workspace, "demo@1", "demo@2", prompts=prompts, write=Writer(), score=score_plain)
    html = known.path.read_text("utf-8")
    said = f"hh@1 agrees with people on {known.content['judge']['agreement']['agreement']['value']:.1%}".rstrip("%")
    assert said in html and html.index(said) < html.index("<h2")
    rest = Workspace.create(tmp_path / "rest", actor="tester")
    two_policies(rest, tmp_path / "more", n=30)
    with rest.write() as write:
        from rlhf.store.tables import judgements

        write.connection.execute(judgements.update().values(kind="simulated"))
    unknown = compare(rest, "demo@1", "demo@2", prompts=prompts, write=Writer(), score=score_plain, judge="demo")
    html = unknown.path.read_text("utf-8")
    assert html.index("Nobody has checked this judge") < html.index("<h2")
    put(rest, [judged(pair_of(900 + i), "a") for i in range(9)])
    later = compare(rest, "demo@1", "demo@2", prompts=prompts, write=Writer(), score=score_plain, judge="demo")
    assert later.digest != unknown.digest and later.content["judge"]["agreement"]["n"] == 9
    rest.close()


def test_a_reward_scores_the_pairs_once(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real reward on the tiny base: its scores are kept, so the next comparison loads no model for this."""
    judge = open_judge(policies, "r@1")
    assert isinstance(judge, RewardJudge)
    first = agreement(policies, judge)
    assert first is not None and first["n"] > 5 and first["n_seen"] > first["n"] / 20

    def refuse(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr("rlhf.reward.kept.open_reward", refuse)
    assert agreement(policies, judge) == first
    held_out = {row.pair.id for row in snapshots.open_snapshot(policies, "polite").rows("test")}
    assert first["n"] == len(held_out) and resolve(policies, "r@1").digest == judge.ref.digest


def test_the_demo_rule_is_one_that_can_be_checked(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(3)])
    judge = open_judge(workspace, "demo")
    assert isinstance(judge, RuleJudge)
    pairs = [pair_of(i) for i in range(3)]
    assert judge.differences(pairs) == [true_preference(p.prompt, p.reply_a, p.reply_b) for p in pairs]
    assert judge_agreement.METHOD in str(told(workspace, judge))
