"""Sequential tests: looked at after every row, they raise no more false alarms than they say, and they find harm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.measures import sequential
from rlhf.measures.sequential import higher_scores, higher_values, last, mismatch, more_events, peak

RUNS, ALPHA = 600, 0.05
MOST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)  # what 600 runs of exactly alpha may show


def _false_alarms(peaks: list[float]) -> float:
    return float(np.mean([one >= 1 / ALPHA for one in peaks]))


@pytest.mark.parametrize(("share", "tolerance"), [(0.5, 0.0), (0.05, 0.0), (0.2, 0.1)])
def test_events_raise_no_more_false_alarms_than_alpha_at_any_look(share: float, tolerance: float) -> None:
    """On the edge of no harm: the treated rate is exactly what is tolerated. `peak` is a look after every event."""
    draw = np.random.default_rng(1)
    peaks = []
    for _ in range(RUNS):
        treated = draw.random(4000) < share
        is_event = draw.random(4000) < np.where(treated, 0.05 * (1 + tolerance), 0.05)
        peaks.append(peak(more_events(treated[is_event], np.full(is_event.sum(), share), tolerance)))
    assert _false_alarms(peaks) <= MOST


def test_a_rate_that_changes_over_the_day_and_a_share_that_grows_are_no_harm() -> None:
    """A ramp from 5 to 50 % while errors rise for everybody: pooled rates differ (Simpson), the bet doesn't fall for it."""
    draw = np.random.default_rng(2)
    share, rate = np.repeat([0.05, 0.5], 1500), np.repeat([0.01, 0.1], 1500)
    peaks, pooled = [], []
    for _ in range(RUNS):
        treated, is_event = draw.random(3000) < share, draw.random(3000) < rate
        peaks.append(peak(more_events(treated[is_event], share[is_event])))
        pooled.append(is_event[treated].mean() / is_event[~treated].mean())
    assert np.mean(pooled) > 1.5 and _false_alarms(peaks) <= MOST


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_values_raise_no_more_false_alarms_than_alpha_at_any_look(share: float) -> None:
    """Latencies with outliers, drifting for both arms."""
    draw = np.random.default_rng(3)
    peaks = []
    for _ in range(RUNS):
        treated = draw.random(1000) < share
        values = np.exp(draw.standard_cauchy(1000).clip(-20, 20)) + np.linspace(0, 3, 1000)
        peaks.append(peak(higher_values(treated, np.full(1000, share), values)))
    assert _false_alarms(peaks) <= MOST


def test_shares_as_drawn_raise_no_more_false_alarms_than_alpha_at_any_look() -> None:
    draw = np.random.default_rng(4)
    peaks = []
    for _ in range(RUNS):
        arm = np.concatenate([draw.choice(3, 300, p=[0.9, 0.05, 0.05]), draw.choice(3, 300, p=[0.5, 0.3, 0.2])])
        shares = np.repeat([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]], 300, axis=0)
        peaks.append(peak(mismatch(arm, shares, np.repeat([1, 2], 300))))
    assert _false_alarms(peaks) <= MOST


def test_harm_is_found_and_its_opposite_is_not() -> None:
    draw = np.random.default_rng(5)
    treated, share = draw.random(4000) < 0.3, np.full(4000, 0.3)
    worse = draw.random(4000) < np.where(treated, 0.15, 0.05)
    better = draw.random(4000) < np.where(treated, 0.01, 0.05)
    assert peak(more_events(treated[worse], share[worse])) > 1e4
    assert peak(more_events(treated[better], share[better])) < 20
    latency = draw.gamma(2, 1, 4000)
    assert peak(higher_values(treated, share, latency * np.where(treated, 1.4, 1))) > 1e4
    assert peak(higher_values(treated, share, latency * np.where(treated, 0.7, 1))) < 20
    thumbs = np.where(draw.random(4000) < np.where(treated, 0.5, 0.3), 1.0, -1.0)
    assert peak(higher_scores(treated, share, thumbs)) > 1e4 > 20 > peak(higher_scores(treated, share, -thumbs))


def test_a_broken_assignment_is_found() -> None:
    draw = np.random.default_rng(6)
    arm = (draw.random(3000) < 0.44).astype(int)
    assert peak(mismatch(arm, np.full((3000, 2), 0.5), np.zeros(3000))) > 1e3
    assert peak(mismatch([0, 1], [[1.0, 0.0], [1.0, 0.0]], [1, 1])) > 1e100, "an arm that had no share"


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_one_bet_is_fair_where_there_is_no_harm_and_pays_less_below(
    share: float, tolerance: float, less: float
) -> None:
    """The mean factor over the draw of one row's arm, for each test: at most 1, and 1 on the edge."""
    fair = share * (1 + tolerance) / (share * (1 + tolerance) + 1 - share)
    for p in (fair, fair * less):
        factors = [math.exp(more_events([is_treated], [share], tolerance)[0]) for is_treated in (True, False)]
        assert p * factors[0] + (1 - p) * factors[1] <= 1 + 1e-9
    edge = [math.exp(higher_scores([is_treated], [share], [0.8])[0]) for is_treated in (True, False)]
    assert share * edge[0] + (1 - share) * edge[1] == pytest.approx(1)


def test_events_path_equals_the_product_written_out() -> None:
    """The slow twin: likelihood ratios multiplied one by one, in plain floats."""
    draw = np.random.default_rng(7)
    treated, share = draw.random(60) < 0.5, draw.uniform(0.1, 0.9, 60)
    products, slow = [1.0] * len(sequential.RATIOS), []
    for is_treated, p in zip(treated, share, strict=True):
        for k, ratio in enumerate(sequential.RATIOS):
            bet = p * ratio / (p * ratio + 1 - p)
            products[k] *= bet / p if is_treated else (1 - bet) / (1 - p)
        slow.append(math.log(sum(products) / len(products)))
    assert np.allclose(more_events(treated, share), slow)


def test_ranks_beyond_the_pool_are_told_among_its_values() -> None:
    values = np.random.default_rng(8).normal(size=2500)
    places = sequential._places(values)
    slow = [0.0] + [np.mean(np.sign(values[i] - values[: min(i, 2000)])) for i in range(1, 2500)]
    assert np.allclose(places, slow)


def test_nothing_is_no_evidence_and_nonsense_is_refused() -> None:
    assert peak(more_events([], [])) == last(higher_values([], [], [])) == peak(mismatch([], [], [])) == 1.0
    with pytest.raises(ValueError, match="one arm alone"):
        more_events([True], [1.0])
    with pytest.raises(ValueError, match="finite"):
        higher_values([True], [0.5], [math.nan])
    with pytest.raises(ValueError, match="scores"):
        higher_scores([True], [0.5], [1.5])
