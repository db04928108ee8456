"""How much must come in before an effect of a stated size is found: two rates, and the win rate of paired replies.

Normal approximations (Fleiss, Levin & Paik 2003, ch. 4), rounded up. `looks=True`: for the always-valid test planned at that very
size, whose interval is wider by about half because it may be looked at after every batch; it often ends sooner where the effect
is larger.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from rlhf.measures.always_valid import half_width


def two_rates(base: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, looks: bool = False) -> int:
    """Units of each of two arms, so that rates `base` and `base + effect` are told apart with a chance of `power`:

    n = (z_a sqrt(2 p (1 - p)) + z_b sqrt(p1 (1 - p1) + p2 (1 - p2)))² / effect², p the mean of both. Where units have several
    replies, multiply by 1 + (replies - 1) times their correlation within a unit. Raises ValueError for no effect or rates outside
    (0, 1)."""
    other, critical, of_power = base + effect, _critical(alpha, looks), _of_power(power, alpha)
    if not (0 < base < 1 and 0 < other < 1) or effect == 0:
        raise ValueError(f"rates {base} and {other}; wanted two that differ, each between 0 and 1")
    middle = (base + other) / 2
    spread = math.sqrt(base * (1 - base) + other * (1 - other))
    return math.ceil((critical * math.sqrt(2 * middle * (1 - middle)) + of_power * spread) ** 2 / effect**2)


def two_means(sd: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, looks: bool = False) -> int:
    """Units of each of two arms for means that differ by `effect`, each unit's value with this standard deviation."""
    if not sd > 0 or effect == 0:
        raise ValueError(f"sd = {sd}, effect = {effect}; wanted an sd above 0 and an effect")
    return math.ceil(2 * ((_critical(alpha, looks) + _of_power(power, alpha)) * sd / effect) ** 2)


def win_rate(wins: float, ties: float = 0.0, *, alpha: float = 0.05, power: float = 0.8, looks: bool = False) -> int:
    """Pairs of replies to the same prompts, so that a win rate (ties count half) is told from 1/2. wins: the rate that is to be
    found; ties: the share of pairs that are ties, which count half and tell nothing: a pair varies by (1 - ties) / 4 under no
    difference.

    Raises ValueError for 1/2 itself and for a rate that these ties rule out."""
    edge = wins - 0.5
    if not 0 <= ties < 1:
        raise ValueError(f"a share of ties of {ties}; wanted one from 0 on and below 1")
    if edge == 0:
        raise ValueError("a win rate of 0.5, which is no difference; wanted one above or below it")
    if abs(edge) > (1 - ties) / 2:
        raise ValueError(
            f"a win rate of {wins} with {ties:.0%} ties; wanted one between {ties / 2:g} and {1 - ties / 2:g}"
        )
    none = math.sqrt((1 - ties) / 4)
    some = math.sqrt((1 - ties) / 4 - edge**2)
    return math.ceil(((_critical(alpha, looks) * none + _of_power(power, alpha) * some) / edge) ** 2)


def _critical(alpha: float, looks: bool) -> float:
    """Standard errors that the estimate must be away."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}; wanted between 0 and 1, such as 0.05")
    return float(half_width(1.0, 1.0, 1.0, alpha)) if looks else NormalDist().inv_cdf(1 - alpha / 2)


def _of_power(power: float, alpha: float) -> float:
    if not 0 < power < 1:
        raise ValueError(f"power = {power}; wanted between 0 and 1, such as 0.8")
    if power <= alpha:
        raise ValueError(
            f"power = {power} with alpha = {alpha}; wanted a power above alpha, which chance alone reaches"
        )
    return NormalDist().inv_cdf(power)
