"""Small changes of the chat, and swapped sides: what they flip is counted on the labelers' side of nothing, only against itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from snapshot_rows import pair_of

from rlhf.evaluation import stability
from rlhf.ids import unit_interval
from rlhf.records import Message, Pair
from rlhf.reward.score import PairScore


def scores(pairs: Sequence[Pair]) -> list[PairScore]:
    """Of each reply by its own text alone, however it is dressed: nothing can flip."""
    return [PairScore(*(unit_interval(0, reply.strip()) for reply in (p.reply_a, p.reply_b)), 9, False) for p in pairs]


def test_a_scorer_that_reads_replies_alone_is_flipped_by_nothing() -> None:
    pairs = [pair_of(i) for i in range(40)]
    found = stability.measured(pairs, scores(pairs), scores, 0)
    assert found is not None and found["n"] == 40 and set(found["variants"]) == set(stability.VARIANTS)
    for measure in (*found["variants"].values(), found["position"]):
        assert measure["flipped"]["value"] == 0.0 and measure["largest"] == 0.0 and measure["unscored"] == 0


def test_a_scorer_that_hangs_on_the_system_message_or_on_the_side_is_found_out() -> None:
    pairs = [pair_of(i) for i in range(40)]

    def by_system(asked: Sequence[Pair]) -> list[PairScore]:
        return [
            PairScore(s.score_a, s.score_b, 9, False)
            if p.prompt[0].role == "system"
            else PairScore(s.score_b, s.score_a, 9, False)
            for p, s in zip(asked, scores(asked), strict=True)
        ]

    found = stability.measured(pairs, by_system(pairs), by_system, 0)
    assert found is not None and found["variants"]["system"]["flipped"]["value"] == 1.0 == found["most_flipped"]
    assert found["variants"]["prompt_newline"]["flipped"]["value"] == 0.0

    def by_side(asked: Sequence[Pair]) -> list[PairScore]:
        return [PairScore(1.0, 0.0, 9, False) for _ in asked]

    sided = stability.measured(pairs, by_side(pairs), by_side, 0)
    assert sided is not None and sided["position"]["flipped"]["value"] == 1.0 and sided["position"]["largest"] == 2.0


@pytest.mark.parametrize("variant", stability.VARIANTS)
def test_a_variant_changes_the_pair_and_keeps_track_of_its_sides(variant: str) -> None:
    for i in range(20):
        pair = pair_of(i)
        made, same = stability.changed(pair, variant)
        assert made.id != pair.id
        first = made.reply_a if same else made.reply_b
        assert first.strip() == pair.reply_a
    bare = Pair.of((Message("user", "Hello"),), "one", "two")
    dressed, _ = stability.changed(bare, "system")
    assert dressed.prompt[0].role == "system" and len(dressed.prompt) == 2


def test_the_same_pairs_are_drawn_whatever_their_order() -> None:
    pairs = [pair_of(i) for i in range(50)]
    assert stability.drawn(pairs, 10, 0) == stability.drawn(pairs[::-1], 10, 0) != stability.drawn(pairs, 10, 1)
    unscored = [PairScore(None, None, 0, False, "too_long") for _ in pairs]
    assert stability.measured(pairs, unscored, scores, 0) is None
