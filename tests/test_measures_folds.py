from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures.folds import grouped_folds

names = st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=60).filter(lambda found: len(set(found)) > 1)


@given(names, st.integers(2, 7))
def test_no_group_is_in_two_folds_and_folds_hold_equally_many_groups(groups: list[str], n_folds: int) -> None:
    fold_N = grouped_folds(groups, n_folds)
    of = {name: {int(f) for g, f in zip(groups, fold_N, strict=True) if g == name} for name in set(groups)}
    assert all(len(folds) == 1 for folds in of.values())
    counts = np.bincount([next(iter(folds)) for folds in of.values()])
    assert len(counts) == min(n_folds, len(of)) and counts.max() - counts.min() <= 1


@given(names, st.randoms())
def test_the_order_of_the_pairs_does_not_matter(groups: list[str], r: object) -> None:
    of = dict(zip(groups, grouped_folds(groups).tolist(), strict=True))
    r.shuffle(groups)  # type: ignore[attr-defined]
    assert dict(zip(groups, grouped_folds(groups).tolist(), strict=True)) == of


def test_another_seed_deals_otherwise() -> None:
    groups = [str(i) for i in range(40)]
    assert grouped_folds(groups, 5, 0).tolist() != grouped_folds(groups, 5, 1).tolist()


def test_one_group_has_nothing_to_hold_out() -> None:
    with pytest.raises(ValueError, match="1 groups"):
        grouped_folds(["a", "a"])
