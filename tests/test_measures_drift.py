"""Drift: what moved is found with its size, what didn't raises no alarm, and size of sample alone raises none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from rlhf.measures import drift
from rlhf.measures.drift import Shift, agreement, jensen_shannon, judged, numbers, stability_index, words


def alarms(*shifts: Shift) -> list[str]:
    return [shift.name for shift in judged(shifts) if shift.alarm]


def test_what_did_not_move_raises_no_alarm() -> None:
    """15 looks at six features of which two belong together by user: alarms take chance and size, so there are hardly any."""
    found, discovered = 0, 0
    for seed in range(15):
        draw = np.random.default_rng(seed)
        users = [np.repeat(np.arange(80), draw.integers(1, 8, 80)) for _ in range(2)]
        tastes = [draw.normal(size=80)[own] + draw.normal(size=len(own)) for own in users]
        shifts = [
            numbers(f"taste {i}", *(side + i for side in tastes), *(own.tolist() for own in users), seed=seed)
            for i in range(2)
        ]
        shifts += [numbers(f"single {i}", draw.normal(size=200), draw.normal(size=150), seed=seed) for i in range(4)]
        told = judged(shifts)
        found += any(shift.alarm for shift in told)
        discovered += any(shift.q is not None and shift.q <= 0.05 for shift in told)
    assert discovered <= 3 and found <= 1


def test_a_large_sample_alone_is_no_alarm() -> None:
    """A twelfth of a standard deviation in 40,000 rows: p is as small as it can be, and it doesn't matter."""
    draw = np.random.default_rng(1)
    (told,) = judged([numbers("length", draw.normal(size=15_000), draw.normal(0.08, 1, 15_000))])
    assert told.p == pytest.approx(0.002) and told.q is not None and told.q < 0.05
    assert not told.alarm and "too little to matter" in told.why


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (lambda draw: draw.normal(size=400), lambda draw: draw.normal(0.6, 1, 300)),
        (lambda draw: draw.normal(size=400), lambda draw: draw.normal(0, 4, 300)),
        (lambda draw: np.zeros(400), lambda draw: np.full(300, 2.0)),
        (lambda draw: draw.random(400) < 0.1, lambda draw: draw.random(300) < 0.4),
    ],
    ids=["mean", "spread", "constants", "rate"],
)
def test_what_moved_raises_one(then: object, now: object) -> None:
    draw = np.random.default_rng(2)
    assert alarms(numbers("x", then(draw), now(draw))) == ["x"]  # type: ignore[operator]


def test_the_effect_is_the_standardised_difference_and_its_interval_holds_it() -> None:
    held = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        found = numbers("x", draw.normal(size=120), draw.normal(0.5, 1, 100), seed=seed)
        assert found.low is not None and found.high is not None
        held += found.low <= 0.5 <= found.high
    assert held > 88
    then, now = np.arange(60.0), np.arange(60.0) + 30
    assert numbers("x", then, now).effect == pytest.approx(30 / then.std())


def test_rows_of_one_user_are_not_taken_for_many() -> None:
    draw = np.random.default_rng(3)
    users = [np.repeat(np.arange(60), 40) for _ in range(2)]
    sides = [draw.normal(size=60)[own] + 0.2 * draw.normal(size=len(own)) for own in users]
    alone, grouped = numbers("x", *sides), numbers("x", *sides, *(own.tolist() for own in users))
    assert alone.p is not None and grouped.p is not None and alone.p <= 0.004 < grouped.p
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)  # type: ignore[operator]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_then_and_now_swapped_turn_the_sign(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.normal(size=90), draw.normal(0.3, 1, 70)
    there, back = numbers("x", one, other), numbers("x", other, one)
    assert there.effect == pytest.approx(-back.effect)  # type: ignore[operator]


def _texts(draw: np.random.Generator, chances: NDArray[np.float64], n: int) -> list[list[int]]:
    return [draw.choice(len(chances), draw.integers(3, 12), p=chances).tolist() for _ in range(n)]


def test_other_words_are_found_and_the_same_ones_are_not() -> None:
    draw = np.random.default_rng(4)
    usual = np.full(50, 0.02)
    new = np.concatenate([np.full(25, 0.035), np.full(25, 0.005)])
    then, same, other = _texts(draw, usual, 300), _texts(draw, usual, 200), _texts(draw, new, 200)
    assert alarms(words("same", then, same, 50), words("other", then, other, 50)) == ["other"]
    empty = words("none", [[]] * 60, [[]] * 60, 50)
    assert empty.p is None and "no words" in empty.why


def test_agreement_that_falls_is_found() -> None:
    draw = np.random.default_rng(5)

    def labels(n: int, right: float) -> list[list[str | None]]:
        truth = draw.random(n) < 0.5
        return [["a" if (draw.random() < right) == t else "b" for _ in range(3)] for t in truth]

    then, same, worse = labels(300, 0.9), labels(200, 0.9), labels(200, 0.65)
    (steady,) = judged([agreement("agreement", then, same)])
    (fell,) = judged([agreement("agreement", then, worse)])
    assert not steady.alarm and fell.alarm and fell.effect is not None and fell.effect < -0.3
    assert agreement("agreement", then, [["a", None]] * 90).why.startswith("0 now")
    assert "isn't defined" in agreement("agreement", then, [["a", "a"]] * 90).why


def test_distances_are_the_textbooks() -> None:
    draw = np.random.default_rng(6)
    p, q = draw.integers(0, 9, 12) + 0.0, draw.integers(1, 9, 12) + 0.0
    assert float(jensen_shannon(p, q)) == pytest.approx(jensenshannon(p, q, base=2))
    assert float(jensen_shannon([1, 0], [0, 1])) == 1.0 and float(jensen_shannon(p, p)) == 0.0
    assert stability_index([50, 50], [90, 10]) == pytest.approx(0.4 * math.log(9), abs=1e-9)
    assert math.isfinite(stability_index([50, 0], [0, 50]))


def test_few_are_said_to_be_few() -> None:
    few = numbers("x", np.zeros(300), np.ones(20))
    assert few.p is None and "20 now and 300 then are too few" in few.why and judged([few]) == (few,)
    same_user = numbers("x", np.zeros(300), np.ones(300), window_groups_W=["ann"] * 300)
    assert "1 now" in same_user.why
    with pytest.raises(ValueError, match="finite"):
        numbers("x", np.full(60, math.nan), np.ones(60))
    with pytest.raises(ValueError, match="groups"):
        numbers("x", np.ones(60), np.ones(60), ["a"])


def test_alarms_among_many_features_are_held_together() -> None:
    """Benjamini & Hochberg: what alone would be under 0.05 isn't, among nine that chance explains."""
    found = [
        Shift(f"f{i}", 100, 100, 100, 100, 0.5, 0.4, 0.6, p=p) for i, p in enumerate([0.04, *np.linspace(0.3, 0.9, 9)])
    ]
    assert not any(shift.alarm for shift in judged(found)) and judged(found[:1])[0].alarm
    assert judged(found)[0].q == pytest.approx(0.4)
    assert drift.LEAST_EFFECT < 0.4
