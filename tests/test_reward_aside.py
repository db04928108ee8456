"""What a training leaves for calibration: the same pairs for every version, by prompt group, counted and never lost."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.ids import unit_interval
from rlhf.records import Judgement, Message, Pair, SnapshotRow
from rlhf.reward.aside import is_aside
from rlhf.reward.rows import training_rows

GROUPS = [f"{i:064x}" for i in range(4000)]


def rows() -> list[SnapshotRow]:
    found = []
    for i in range(60):
        pair = Pair.of([Message("user", f"question {i // 2}")], f"yes {i}", "no")
        found.append(SnapshotRow(pair, (Judgement(pair.id, "a", "s"),), "train", ("s",), pair.id))
    return found


def test_a_share_of_nothing_leaves_nothing() -> None:
    assert not any(is_aside(group, 0.0) for group in GROUPS)


@given(st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_larger_share_holds_every_pair_of_a_smaller_one(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert all(is_aside(group, large) for group in GROUPS[:200] if is_aside(group, small))


def test_the_share_is_kept_among_groups_that_any_split_leaves_on_the_train_side() -> None:
    """Under the split's own hash a share below the holdout would lie on the test side alone."""
    for seed in (0, 7):
        train = [group for group in GROUPS if unit_interval(seed, group) >= 0.2]
        assert 0.08 < sum(is_aside(group, 0.1) for group in train) / len(train) < 0.12


def test_every_pair_is_trained_on_or_set_aside_with_its_whole_group(tiny_folder: Path) -> None:
    renderer = Renderer(Base("tiny", "0" * 64, tiny_folder, "", "", {}, {}).tokenizer(), 500)
    every, left = rows(), {}
    for how in ("soft", "majority"):
        taken, counts = training_rows(every, renderer, how, 0.0, set_aside=0.3)  # type: ignore[arg-type]
        assert counts.trained_on + counts.set_aside == counts.pairs == 60 and 0 < counts.set_aside < 60
        left[how] = {row.pair.id for row in every} - {row.pair_id for row in taken}
    assert left["soft"] == left["majority"]
    groups = {row.pair.group for row in every if row.pair.id in left["soft"]}
    assert left["soft"] == {row.pair.id for row in every if row.pair.group in groups}
