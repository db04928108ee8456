"""Training rows: no pair is lost, no reply is cut, the budget only cuts micro-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer, shortened, split_at_common_prefix
from rlhf.records import Judgement, Message, Pair, SnapshotRow
from rlhf.reward.rows import TrainRow, micro_batches, training_rows
from rlhf.reward.targets import target_of


def renderer(folder: Path, limit: int) -> Renderer:
    return Renderer(Base("tiny", "0" * 64, folder, "", "", {}, {}).tokenizer(), limit)


def row(prompt: str, one: str, other: str, *choices: str) -> SnapshotRow:
    pair = Pair.of([Message("user", prompt)], one, other)
    judgements = tuple(Judgement(pair.id, choice, "s", f"l{i}") for i, choice in enumerate(choices))  # type: ignore[arg-type]
    return SnapshotRow(pair, judgements, "train", ("s",), pair.id)


def test_every_pair_is_accounted_for(tiny_folder: Path) -> None:
    rows = [
        row("p", "yes", "no", "a"),
        row("q", "yes", "x" * 500, "b"),
        row("r", "yes", "no", "skip"),
        row("s", "yes", "no", "tie"),
    ]
    taken, counts = training_rows(rows, renderer(tiny_folder, 200), "soft", 0.0)
    assert (counts.pairs, counts.trained_on, counts.too_long, counts.undecided, counts.ties) == (4, 2, 1, 1, 1)
    assert len(taken) == 2


def test_the_chosen_reply_is_the_judged_one(tiny_folder: Path) -> None:
    r = renderer(tiny_folder, 500)
    for choice in ("a", "b"):
        one = row("p", "first", "second", choice)
        taken, _ = training_rows([one], r, "majority", 0.0)
        text = r.tokenizer.decode(taken[0].prefix + taken[0].chosen)
        assert (one.pair.reply_a if choice == "a" else one.pair.reply_b) in text


@pytest.mark.parametrize(
    ("choices", "soft", "majority"),
    [
        ("a", 1.0, 1.0),
        ("aab", 2 / 3, 1.0),
        ("ab", 0.5, 0.5),
        ("a,tie", 0.75, 1.0),
        ("both_bad", 0.5, 0.5),
        ("skip", None, None),
        ("b,skip", 0.0, 0.0),
    ],
)
def test_targets(choices: str, soft: float | None, majority: float | None) -> None:
    said = choices.split(",") if choices in ("a,tie", "b,skip", "both_bad", "skip") else list(choices)
    judgements = [Judgement("p", c, "s", str(i)) for i, c in enumerate(said)]  # type: ignore[arg-type]
    assert target_of(judgements, "soft") == (pytest.approx(soft) if soft is not None else None)
    assert target_of(judgements, "majority") == majority


def test_oldest_turns_go_first_and_the_last_user_turn_stays() -> None:
    turns = [
        Message("system", "s"),
        Message("user", "1"),
        Message("assistant", "2"),
        Message("user", "3"),
        Message("assistant", "4"),
        Message("user", "5"),
    ]
    kept = [" ".join(m.content for m in messages) for messages, _ in shortened(turns)]
    assert kept == ["s 1 2 3 4 5", "s 3 4 5", "s 5"]


def test_a_reply_is_never_cut(tiny_folder: Path) -> None:
    assert renderer(tiny_folder, 100).pair(Pair.of([Message("user", "hi")], "short", "long " * 60)) == "too_long"


@given(st.lists(st.integers(0, 3), min_size=1), st.lists(st.integers(0, 3), min_size=1))
def test_prefix_and_sides_are_the_two_renderings(a: list[int], b: list[int]) -> None:
    split = split_at_common_prefix(a, b)
    assert [*split.prefix, *split.a] == a and [*split.prefix, *split.b] == b
    assert split.a and split.b


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(3, 60))
def test_micro_batches_keep_every_row_in_order(lengths: list[int], budget: int) -> None:
    rows = [TrainRow(str(i), (), (0,) * n, (0,), 1.0, 0.0) for i, n in enumerate(lengths)]
    cut = micro_batches(rows, budget)
    assert [r for part in cut for r in part] == rows
    assert all(len(part) == 1 or sum(r.n_tokens for r in part) <= budget for part in cut)
