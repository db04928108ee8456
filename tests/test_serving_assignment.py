"""Assignment: buckets that are nested, arms that keep their users, audiences and toggles, every arm explained."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.errors import BadInput
from rlhf.serving.assignment import BUCKETS, Allocation, Plan, assign, bucket_of
from rlhf.serving.audience import read_rule

CONTROL = "control"
UNITS = [f"user-{n}" for n in range(4000)]


def _plan(weights: dict[str, int], **changed: Any) -> Plan:
    fields: dict[str, Any] = {"salt": "s", "audience": None, "toggles": {}, **changed}
    return Plan(allocation=Allocation.whole(CONTROL).moved_to(weights), **fields)


def _arms(allocation: Allocation) -> dict[str, str]:
    plan = Plan("s", allocation, None, {})
    return {unit: assign(plan, unit, {}).arm or "" for unit in UNITS}


@st.composite
def _weights(draw: st.DrawFn) -> dict[str, int]:
    arms = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=4))
    cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=len(arms), max_size=len(arms))))
    parts = [later - before for before, later in pairwise([0, *cuts, BUCKETS])]
    return dict(zip([CONTROL, *arms], parts, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(_weights(), min_size=1, max_size=6))
def test_weights_are_exact_and_no_bucket_moves_that_needn_t(steps: list[dict[str, int]]) -> None:
    now = Allocation.whole(CONTROL)
    for weights in steps:
        after = now.moved_to(weights)
        assert {arm: n for arm, n in after.weights.items() if n} == {arm: n for arm, n in weights.items() if n}
        assert Counter(after.owners) == {arm: n for arm, n in weights.items() if n}
        moved = [(a, b) for a, b in zip(now.owners, after.owners, strict=True) if a != b]
        lost = {arm: max(0, n - weights.get(arm, 0)) for arm, n in now.weights.items()}
        assert Counter(a for a, _ in moved) == {arm: n for arm, n in lost.items() if n}, "only from arms that shrank"
        assert len(moved) == sum(lost.values())
        assert Allocation.of(after.as_json()) == after
        now = after


def test_from_5_to_10_percent_only_newcomers_move_and_back_the_same_ones_leave() -> None:
    before = Allocation.whole(CONTROL).moved_to({CONTROL: 9000, "other": 500, "new": 500})
    grown = before.moved_to({CONTROL: 8500, "other": 500, "new": 1000})
    first, second = _arms(before), _arms(grown)
    changed = {unit for unit in UNITS if first[unit] != second[unit]}
    assert changed and all((first[u], second[u]) == (CONTROL, "new") for u in changed)
    assert _arms(grown.moved_to({CONTROL: 9000, "other": 500, "new": 500})) == first


def test_a_ramp_is_nested_all_the_way_up_and_down() -> None:
    ramp = [100, 500, 1000, 2500, 5000, 10_000]
    now, inside = Allocation.whole(CONTROL), [set[int]()]
    for points in ramp:
        now = now.moved_to({CONTROL: BUCKETS - points, "new": points})
        inside.append({bucket for bucket, arm in enumerate(now.owners) if arm == "new"})
    assert all(before < after for before, after in pairwise(inside))
    for points, before in zip(reversed(ramp[:-1]), reversed(inside[1:-1]), strict=True):
        now = now.moved_to({CONTROL: BUCKETS - points, "new": points})
        assert {bucket for bucket, arm in enumerate(now.owners) if arm == "new"} == before


@settings(max_examples=30, deadline=None)
@given(_weights().filter(lambda w: len(w) > 2), st.data())
def test_dropping_an_arm_moves_only_its_own_users(weights: dict[str, int], data: st.DataObject) -> None:
    now = Allocation.whole(CONTROL).moved_to(weights)
    dropped = data.draw(st.sampled_from([arm for arm in weights if arm != CONTROL]))
    rest = {arm: n for arm, n in weights.items() if arm != dropped}
    heir = data.draw(st.sampled_from(sorted(rest)))
    after = now.moved_to({**rest, heir: rest[heir] + weights[dropped]})
    pairs = zip(now.owners, after.owners, strict=True)
    assert all(b == (heir if a == dropped else a) for a, b in pairs)


def test_a_unit_stays_and_the_shares_are_met() -> None:
    plan = _plan({CONTROL: 7000, "b": 3000})
    found = Counter(assign(plan, unit, {}).arm for unit in UNITS)
    assert abs(found["b"] / len(UNITS) - 0.3) < 4 * (0.3 * 0.7 / len(UNITS)) ** 0.5
    assert all(assign(plan, unit, {}) == assign(plan, unit, {"anything": 1}) for unit in UNITS[:50])


def test_two_salts_draw_independently() -> None:
    one, other = ([bucket_of(salt, unit) < BUCKETS // 2 for unit in UNITS] for salt in ("a", "b"))
    both = sum(a and b for a, b in zip(one, other, strict=True)) / len(UNITS)
    assert abs(both - 0.25) < 0.03
    assert all(0 <= bucket_of("a", unit) < BUCKETS for unit in ("", "\x00", "ü" * 500))


def test_every_assignment_says_rule_arm_and_reason() -> None:
    plan = _plan(
        {CONTROL: 5000, "b": 5000}, audience=read_rule({"field": "country", "in": ["AT"]}), toggles={"staff": "b"}
    )
    drawn = assign(plan, "u", {"country": "AT"})
    assert (drawn.rule, drawn.propensity, drawn.bucket) == ("weights", 0.5, bucket_of("s", "u"))
    assert f"bucket {drawn.bucket}" in drawn.because and "50 %" in drawn.because
    outside = assign(plan, "u", {"country": "DE", "cohort": "staff"})
    assert (outside.arm, outside.rule) == (None, "audience") and "country is one of ['AT']" in outside.because
    toggled = assign(plan, "u", {"country": "AT", "cohort": "staff"})
    assert (toggled.arm, toggled.rule, toggled.propensity) == ("b", "toggle", 1.0) and "staff" in toggled.because
    assert drawn.reason == {"rule": "weights", "bucket": drawn.bucket, "because": drawn.because}


@pytest.mark.parametrize("weights", [{CONTROL: 9999}, {CONTROL: 10_001, "b": -1}, {CONTROL: 10_001}])
def test_weights_that_are_not_everything_are_refused(weights: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Allocation.whole(CONTROL).moved_to(weights)


@pytest.mark.parametrize(
    ("rule", "context", "holds"),
    [
        ({"field": "a", "equals": 1}, {"a": 1.0}, True),
        ({"field": "a", "equals": 1}, {"a": True}, False),
        ({"field": "a", "equals": "1"}, {"a": 1}, False),
        ({"field": "a", "in": ["x", 2]}, {"a": 2}, True),
        ({"field": "a", "not_in": ["x"]}, {"a": "y"}, True),
        ({"field": "a", "not_in": ["x"]}, {}, False),
        ({"field": "a", "prefix": "de-"}, {"a": "de-AT"}, True),
        ({"field": "a", "prefix": "de-"}, {"a": 7}, False),
        ({"field": "a", "less": 3}, {"a": 2}, True),
        ({"field": "a", "less": 3}, {"a": 3}, False),
        ({"field": "a", "at_least": 3}, {"a": 3}, True),
        ({"field": "a", "at_least": 3}, {"a": True}, False),
        ({"field": "a", "exists": True}, {"a": None}, True),
        ({"field": "a", "exists": False}, {}, True),
        ({"all": [{"field": "a", "equals": 1}, {"field": "b", "equals": 2}]}, {"a": 1}, False),
        ({"any": [{"field": "a", "equals": 1}, {"field": "b", "equals": 2}]}, {"a": 1}, True),
    ],
)
def test_operators_mean_what_they_say(rule: dict[str, Any], context: dict[str, Any], holds: bool) -> None:
    assert read_rule(rule).holds(context) is holds


def test_bad_rules_are_refused_with_all_errors_at_once() -> None:
    bad = {
        "all": [
            {"field": "a", "like": "x"},
            {"field": "", "equals": 1},
            {"any": []},
            {"field": "b", "less": "three"},
            {"field": "c", "in": [], "equals": 1},
            "free text",
        ]
    }
    with pytest.raises(BadInput) as refused:
        read_rule(bad)
    for said in (
        "all[0].like is no operator",
        "all[1].field",
        "all[2].any",
        "all[3].less",
        "has 2 operators",
        "all[5]",
    ):
        assert said in refused.value.message
    assert "at_least" in refused.value.fix


def test_rules_without_end_are_refused() -> None:
    deep: Any = {"field": "a", "equals": 1}
    for _ in range(50):
        deep = {"all": [deep]}
    with pytest.raises(BadInput, match="deeper than"):
        read_rule(deep)
    with pytest.raises(BadInput, match="more than 100 rules"):
        read_rule({"any": [{"field": "a", "equals": n} for n in range(200)]})
