"""Who can be trusted is told from votes alone, and nobody is judged by a handful."""

from __future__ import annotations

from random import Random

import pytest

from rlhf.measures.reliability import LEAST, Vote, estimate


def crowd(n_pairs: int = 300, *, ties: float = 0.0, seed: int = 0) -> list[Vote]:
    """Every pair is voted on by careful (right in 95 %), average (75 %) and a guesser."""
    random = Random(seed)
    votes: list[Vote] = []
    for pair in range(n_pairs):
        truth = "tie" if random.random() < ties else random.choice("ab")
        others = ["a", "b", "tie"] if ties else ["a", "b"]
        for who, right in (("careful", 0.95), ("average", 0.75), ("another", 0.75), ("guesser", 1 / len(others))):
            wrong = random.choice([choice for choice in others if choice != truth])
            votes.append((str(pair), who, truth if random.random() < right else wrong))
    return votes


@pytest.mark.parametrize("ties", [0.0, 0.2])
def test_a_careful_labeler_weighs_more_than_one_who_guesses(ties: float) -> None:
    found = estimate(crowd(ties=ties))
    weights = found.weights
    assert weights["careful"] > weights["average"] > 2 * weights["guesser"] > 0
    # A vote is part of its own verdict: everybody looks a little better than they are.
    assert found.accuracy["careful"] == pytest.approx(0.95, abs=0.06)


def test_the_mean_vote_weighs_one() -> None:
    votes = crowd() + [(str(i), None, "a") for i in range(40)]
    found = estimate(votes)
    assert sum(found.weight(who) for _, who, _ in votes) / len(votes) == pytest.approx(1.0)


def test_unknown_labelers_weigh_what_the_pool_does() -> None:
    found = estimate(crowd())
    assert found.weight(None) == found.weight("never seen") == found.pool
    assert min(found.weights.values()) < found.pool < max(found.weights.values())


def test_few_votes_move_a_labeler_little_from_the_pool() -> None:
    votes = crowd() + [(str(i), "newcomer", "a") for i in range(2)]
    found = estimate(votes)
    assert found.pool_accuracy is not None
    assert abs(found.accuracy["newcomer"] - found.pool_accuracy) < 0.15


def test_a_skip_is_no_vote_and_both_bad_is_a_tie() -> None:
    votes = crowd(ties=0.2)
    same = [(p, who, "both_bad" if what == "tie" else what) for p, who, what in votes] + [("0", "careful", "skip")]
    assert estimate(same) == estimate(votes)


def test_nothing_can_be_told_where_no_pair_was_voted_on_twice() -> None:
    found = estimate([("p", "one", "a"), ("q", "two", "b"), ("r", None, "a")])
    assert (found.weights, found.pool, found.pool_accuracy, found.n_shared) == ({"one": 1.0, "two": 1.0}, 1.0, None, 0)
    assert estimate([]).weight("anybody") == 1.0


def test_nobody_is_silenced() -> None:
    """One who always says the opposite of the others is the least heard, and still heard."""
    votes = crowd()
    flipped = {(pair, "careful"): what for pair, who, what in votes if who == "careful"}
    votes += [(pair, "contrary", "b" if what == "a" else "a") for (pair, _), what in flipped.items()]
    found = estimate(votes)
    assert 0 < found.weights["contrary"] == min(found.weights.values())
    assert found.weights["contrary"] / max(found.weights.values()) == pytest.approx(LEAST, abs=0.02)


def test_the_manifest_names_nobody() -> None:
    told = estimate(crowd()).as_json()
    assert "careful" not in str(told) and told["labelers"] == 4
