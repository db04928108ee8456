"""Which pair next: by worth per second, never with a chance of 0, and with the very chance that is written down."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import select
from test_labeling_queue import add_pairs

from rlhf.errors import BadUsage
from rlhf.labeling import next_task
from rlhf.labeling.choosing import (
    Worth,
    disagreement,
    forget_worths,
    keep_worths,
    line_of,
    shares,
)
from rlhf.labeling.rules import LabelRules, rules_of, set_rules
from rlhf.store import Workspace, audit
from rlhf.store.tables import audit as audit_rows
from rlhf.store.tables import leases, pairs


def worth(pair_id: str, doubt: float, effort_s: float = 10.0) -> Worth:
    return Worth(pair_id, doubt, 0.0, 0.0, effort_s)


def with_floor(floor: float) -> LabelRules:
    return LabelRules.model_validate({"floor": floor})


def draws(workspace: Workspace, n: int) -> list[tuple[str, float]]:
    """(pair, acquisition_p) of n labelers' first draws, each from the same state."""
    for i in range(n):
        assert next_task(workspace, f"labeler-{i}") is not None
        with workspace.write() as write:
            write.connection.execute(leases.update().values(expires_at="2000"))
    with workspace.read() as connection:
        return [(row[0], row[1]) for row in connection.execute(select(leases.c.pair_id, leases.c.acquisition_p))]


def test_draws_follow_their_probabilities_and_undo_the_choice(workspace: Workspace) -> None:
    """Frequencies match acquisition_p (chi-square), and the mean of y / p is the pool's sum, which the plain mean misses."""
    made = sorted(pair.id for pair in add_pairs(workspace, 8))
    prefers_a = {pair_id: float(i >= 4) for i, pair_id in enumerate(made)}
    keep_worths(workspace, [worth(pair_id, 0.05 + 0.1 * i) for i, pair_id in enumerate(made)], by="live", n_votes=0)
    n = 600
    drawn = draws(workspace, n)
    said = dict(drawn)
    assert len(said) == 8 and sum(said.values()) == pytest.approx(1.0)
    seen = Counter(pair_id for pair_id, _ in drawn)
    assert sum((seen[i] - n * said[i]) ** 2 / (n * said[i]) for i in made) < 24.3  # 7 degrees of freedom, p = 0.001
    weighted = sum(prefers_a[pair_id] / p for pair_id, p in drawn) / n / len(made)
    plain = sum(prefers_a[pair_id] for pair_id, _ in drawn) / n
    assert weighted == pytest.approx(0.5, abs=0.07)  # sd 0.02
    assert plain > 0.63  # 0.7 expected, sd 0.02


def test_without_worths_the_draw_is_even_among_the_fewest_answers(workspace: Workspace) -> None:
    made = add_pairs(workspace, 4)
    keep_worths(workspace, [worth(pair.id, 0.5 if pair == made[0] else 0.0) for pair in made], by="live", n_votes=3)
    assert forget_worths(workspace) == 4
    assert {p for _, p in draws(workspace, 10)} == {0.25}


def test_a_pair_without_a_row_is_as_likely_as_the_mean_one() -> None:
    assert shares([worth("x", 0.2), None, worth("y", 0.6)], with_floor(0.1)) == pytest.approx(
        [0.1 / 3 + 0.9 / 6, 1 / 3, 0.1 / 3 + 0.9 / 2]
    )


def test_a_slow_pair_is_asked_less_and_nothing_never() -> None:
    quick, slow, idle = shares([worth("q", 0.4, 5), worth("s", 0.4, 20), worth("i", 0.0)], with_floor(0.3))
    assert (quick - 0.1) == pytest.approx(4 * (slow - 0.1))
    assert idle == pytest.approx(0.1)
    assert shares([worth("i", 0.0), worth("j", 0.0)], with_floor(0.2)) == [0.5, 0.5]


def test_rules_are_in_force_at_the_next_draw(workspace: Workspace) -> None:
    made = add_pairs(workspace, 2)
    keep_worths(workspace, [worth(made[0].id, 0.6), worth(made[1].id, 0.0)], by="live", n_votes=0)
    set_rules(workspace, ["floor=1"], "an unbiased sample")
    assert rules_of(workspace).rules == with_floor(1.0)
    assert {p for _, p in draws(workspace, 3)} == {0.5}
    with pytest.raises(BadUsage, match="floor"):
        set_rules(workspace, ["floor=0"], "none at all")


def test_an_erased_pair_with_a_row_is_never_drawn(workspace: Workspace) -> None:
    made = add_pairs(workspace, 3)
    keep_worths(workspace, [worth(pair.id, 1.0) for pair in made], by="live", n_votes=0)
    with workspace.write() as write:
        gone = pairs.update().where(pairs.c.id == made[0].id)
        write.connection.execute(gone.values(prompt=None, reply_a=None, reply_b=None, erased_at="2026"))
    drawn = draws(workspace, 30)
    assert {pair_id for pair_id, _ in drawn} == {made[1].id, made[2].id}
    assert [p for _, p in drawn] == pytest.approx([0.5] * 30)


def test_the_audit_names_the_reward_that_ranks_once(workspace: Workspace) -> None:
    (made,) = add_pairs(workspace, 1)
    for by in ("first", "first", "second"):
        keep_worths(workspace, [worth(made.id, 1.0)], by=by, n_votes=0)
    with workspace.read() as connection:
        audit.verify(connection)
        told = select(audit_rows.c.subject).where(audit_rows.c.action == "label.rank").order_by(audit_rows.c.seq)
        assert list(connection.scalars(told)) == ["first", "second"]


def test_rows_written_again_replace_what_was_there(workspace: Workspace) -> None:
    made = add_pairs(workspace, 2)
    for first, second in ((0.6, 0.1), (0.1, 0.6)):
        keep_worths(workspace, [worth(made[0].id, first), worth(made[1].id, second)], by="live", n_votes=0)
    said = dict(draws(workspace, 12))
    assert said[made[1].id] == pytest.approx(0.1 + 0.8 * 6 / 7)


def test_effort_finds_the_line_through_outliers_and_keeps_its_prior_without_answers() -> None:
    assert line_of([]).seconds(1000) == pytest.approx(23.0)
    steady = [(length, 5 + 0.05 * length) for length in range(100, 2100)]
    found = line_of(steady + [(length, 1500.0) for length in range(100, 2100, 10)])
    assert found.per_character_s == pytest.approx(0.05, rel=0.1)
    assert found.seconds(1000) == pytest.approx(55, rel=0.15)
    assert line_of([(10, 500.0)]).seconds(1000) < 50


def test_disagreement_is_largest_where_answers_are_split() -> None:
    assert [disagreement(c) for c in ({}, {"a": 1}, {"a": 2}, {"a": 1, "b": 1}, {"tie": 2}, {"a": 3, "b": 1})] == [
        0, 0, 0, 1, 1, 0.5,
    ]  # fmt: skip
