"""The bands: each trips at its own bound, with its reason, and nothing else does."""

from __future__ import annotations

import re

import pytest
from policies import settings

from rlhf.policy.guard import Bands

BANDS = Bands(kl=0.5, length=(0.5, 2.0), cut_off=0.6, doubt=0.3)
FIRST = {"kl_token": 0.0, "tokens": 20.0, "cut_off": 0.2, "doubt": 0.1}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"kl_token": 0.51}, "the KL to the reference is 0.510 nats a token; guard_kl allows 0.5"),
        ({"tokens": 9.9}, "the mean reply has 10 tokens where it had 20 at first; guard_length allows 10 to 40"),
        ({"tokens": 40.1}, "the mean reply has 40 tokens where it had 20 at first; guard_length allows 10 to 40"),
        ({"cut_off": 0.61}, "61% of the replies are cut off; guard_cut_off allows 60%"),
        ({"doubt": 0.31}, "the reward's doubt is 0.310; guard_doubt allows 0.3"),
    ],
)
def test_each_figure_out_of_its_band_is_the_reason(now: dict[str, float], words: str) -> None:
    said = BANDS.broken(FIRST, {**FIRST, **now})
    assert said is not None and re.fullmatch(re.escape(words), said)


def test_what_is_just_inside_every_band_goes_on() -> None:
    for tokens in (10.0, 40.0):
        edge = {"kl_token": 0.5, "tokens": tokens, "cut_off": 0.6, "doubt": 0.3}
        assert BANDS.broken(FIRST, edge) is None
    assert BANDS.broken(FIRST, {**FIRST, "kl_token": -3.0}) is None, "an estimate may be below 0 by chance"


def test_what_was_so_at_first_is_no_fault_of_the_training() -> None:
    first = {**FIRST, "cut_off": 1.0, "doubt": 0.45}
    assert BANDS.broken(first, first) is None
    assert BANDS.broken(first, {**first, "doubt": 0.461}) is not None


def test_a_kl_bound_of_0_is_no_guard_and_length_0_no_lower_bound() -> None:
    assert Bands(0.0, (0.0, 2.0), 1.0, 0.5).broken(FIRST, {**FIRST, "kl_token": 99.0, "tokens": 0.0}) is None


def test_the_bands_are_the_settings() -> None:
    chosen = settings(guard_kl=2.0, guard_length=(0.1, 9.0), guard_cut_off=0.7, guard_doubt=0.2)
    assert Bands.of(chosen) == Bands(2.0, (0.1, 9.0), 0.7, 0.2)
