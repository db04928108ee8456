"""Quality: figures of labelers with their intervals, and notes only where no doubt is left."""

from __future__ import annotations

import pytest
from test_labeling_queue import add_pairs

from rlhf import ids, labeling
from rlhf.errors import NotFound
from rlhf.labeling import answer, next_task, quality
from rlhf.store import Workspace


def label(workspace: Workspace, who: str, word: str, n: int, seconds: float = 10.0) -> None:
    """n answers; 'true' prefers the reply that says `one`, 'coin' tosses."""
    dice = ids.chance(0, "quality", who)
    for _ in range(n):
        task = next_task(workspace, who, overlap=9)
        assert task is not None
        side = word if word in ("left", "right", "tie") else "left" if task.left.endswith("one") else "right"
        if word == "coin":
            side = dice.choice(["left", "right"])
        answer(workspace, who, task.lease, side, seconds=seconds)  # type: ignore[arg-type]


def test_who_always_takes_a_side_or_hurries_is_noted_and_who_does_neither_is_not(workspace: Workspace) -> None:
    add_pairs(workspace, 40)
    for who, word, seconds in (
        ("ada", "true", 10.0),
        ("bob", "true", 12.0),
        ("cid", "left", 11.0),
        ("dan", "coin", 1.0),
    ):
        label(workspace, who, word, 40, seconds)
    label(workspace, "eve", "tie", 3)
    found = quality(workspace)
    by_name = {one.labeler: one for one in found.labelers}
    assert by_name["cid"].notes == ("chooses the left reply too often",) and by_name["cid"].left_share == 1.0
    assert by_name["dan"].notes == ("answers in less than a quarter of the usual time",)
    assert by_name["ada"].notes == by_name["bob"].notes == ()
    assert by_name["ada"].reliability is not None and by_name["dan"].reliability is not None
    assert by_name["ada"].reliability > by_name["dan"].reliability
    assert by_name["ada"].agreement is not None and by_name["ada"].agreement_interval is not None
    low, high = by_name["ada"].agreement_interval
    assert low < by_name["ada"].agreement < high
    eve = by_name["eve"]
    assert (eve.n, eve.left_share, eve.agreement, eve.reliability, eve.notes) == (3, None, None, None, ())


def test_alpha_is_one_where_all_agree_and_near_nothing_where_all_guess(workspace: Workspace) -> None:
    add_pairs(workspace, 60)
    for who in ("ada", "bob"):
        label(workspace, who, "true", 60)
    sure = quality(workspace)
    assert sure.alpha == 1.0 and sure.n_shared_pairs == 60
    for who in ("cid", "dan", "eve"):
        label(workspace, who, "coin", 60)
    unsure = quality(workspace)
    assert unsure.alpha is not None and unsure.alpha_interval is not None
    low, high = unsure.alpha_interval
    assert low <= unsure.alpha <= high and 0 < unsure.alpha < 0.4
    assert labeling.quality(workspace) == unsure, "seeded"


def test_a_source_without_named_people_is_told(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    with pytest.raises(NotFound, match="no named person"):
        quality(workspace)
