"""What came in lately against what there was: how far a feature moved, whether chance does that, and when to say so.

A p-value alone raises its alarm on any large sample, so an alarm takes three things: enough groups on both sides
(`LEAST_GROUPS`), a change that chance rarely makes (permutations of whole groups, held against all features at once by Benjamini
& Hochberg 1995), and a change that matters, with its whole interval beyond `LEAST_EFFECT` or `LEAST_DISTANCE`.

A number's effect is its standardised difference, (mean now - mean then) / sd, with a cluster bootstrap's interval. A change of
shape alone is told by the Jensen-Shannon distance between the two distributions (square root of the divergence in bits: 0 alike,
1 without overlap; Lin 1991), over tenths of all the numbers, or over words; what is beyond the distance that permutations reach
in 95 % of cases counts. The population stability index of the same tenths stands beside it, for those who are used to it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.ids import chance
from rlhf.measures.agreement import alpha_with_interval

LEAST_GROUPS = 50  # on either side, before anything is said
LEAST_EFFECT = 0.2  # standard deviations: Cohen's "small"
LEAST_DISTANCE = 0.1  # of the Jensen-Shannon distance, beyond chance
LEAST_AGREEMENT = 0.1  # of Krippendorff's alpha
RATE = 0.05  # of false discoveries among the features that raise an alarm
_BINS, _PERMUTATIONS, _BOOT = 10, 499, 500
_CELLS_AT_ONCE = 4_000_000
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Shift:
    """One feature. n_*, groups_*: rows and the groups that they belong to, then and now. effect, low, high: standardised
    difference (or alpha's, for agreement) with its 95 % interval; None where it is only told by its distribution, or not at all.
    distance: Jensen- Shannon's; by_chance: what permutations reach in 95 % of cases. p, q: before and after all features are held
    together. why: in words, why there is an alarm or none."""

    name: str
    n_reference: int
    n_window: int
    groups_reference: int
    groups_window: int
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    distance: float | None = None
    by_chance: float | None = None
    psi: float | None = None
    p: float | None = None
    q: float | None = None
    alarm: bool = False
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def numbers(
    name: str,
    reference_R: ArrayLike,
    window_W: ArrayLike,
    reference_groups_R: Sequence[Hashable] | None = None,
    window_groups_W: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> Shift:
    """A feature that is a number a row. groups: rows of one pair, opening turn or user aren't independent."""
    sides = [np.asarray(side, dtype=np.float64) for side in (reference_R, window_W)]
    codes = [
        _codes(groups, len(side)) for groups, side in zip((reference_groups_R, window_groups_W), sides, strict=True)
    ]
    shift = _counted(name, codes)
    if shift.why:
        return shift
    if not all(np.isfinite(side).all() for side in sides):
        raise ValueError(f"{name}: a value is not finite")
    effect, low, high = _standardised(sides, codes, seed)
    edges = np.unique(np.quantile(np.concatenate(sides), np.linspace(0, 1, _BINS + 1)[1:-1]))
    binned = [np.searchsorted(edges, side, "right") for side in sides]
    counts = [_counts(column, own, len(edges) + 1) for column, own in zip(binned, codes, strict=True)]
    distance, by_chance, p = _permuted(counts[0], counts[1], seed)
    psi = stability_index(counts[0].sum(axis=0), counts[1].sum(axis=0))
    return replace(shift, effect=effect, low=low, high=high, distance=distance, by_chance=by_chance, psi=psi, p=p)


def words(
    name: str,
    reference_R: Sequence[Sequence[int]],
    window_W: Sequence[Sequence[int]],
    n_words: int,
    reference_groups_R: Sequence[Hashable] | None = None,
    window_groups_W: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> Shift:
    """A feature that is a bag of words a row, each a number below `n_words`."""
    codes = [_codes(reference_groups_R, len(reference_R)), _codes(window_groups_W, len(window_W))]
    shift = _counted(name, codes)
    if shift.why:
        return shift
    counts = []
    for bags, own in zip((reference_R, window_W), codes, strict=True):
        of_row = np.repeat(own, [len(bag) for bag in bags])
        counts.append(
            _counts(np.array([word for bag in bags for word in bag], dtype=np.intp), of_row, n_words, own.max() + 1)
        )
    if not all(side.sum() for side in counts):
        return replace(shift, why="one side has no words")
    distance, by_chance, p = _permuted(counts[0], counts[1], seed)
    return replace(shift, distance=distance, by_chance=by_chance, p=p)


def agreement(
    name: str,
    reference: Sequence[Sequence[Hashable | None]],
    window: Sequence[Sequence[Hashable | None]],
    *,
    seed: int = 0,
) -> Shift:
    """Krippendorff's alpha now less then: units of labels, those with two or more counted. The interval is normal, from the
    standard errors of two bootstraps over units."""
    told = [[unit for unit in side if sum(label is not None for label in unit) > 1] for side in (reference, window)]
    shift = _counted(name, [np.arange(len(side)) for side in told])
    if shift.why:
        return shift
    found = [alpha_with_interval(side, n_boot=_BOOT, seed=seed + i) for i, side in enumerate(told)]
    if found[0] is None or found[1] is None:
        return replace(shift, why="one side has one label alone, so agreement isn't defined")
    z = NormalDist().inv_cdf(0.975)
    se = math.hypot(*((one[1].high - one[1].low) / (2 * z) for one in found if one is not None))
    effect = found[1][0] - found[0][0]
    p = 2 * NormalDist().cdf(-abs(effect) / se) if se > 0 else float(effect == 0)
    return replace(shift, effect=effect, low=effect - z * se, high=effect + z * se, p=p)


def judged(
    shifts: Sequence[Shift], *, rate: float = RATE, agreements: Sequence[str] = ("agreement",)
) -> tuple[Shift, ...]:
    """All features held together: q (Benjamini & Hochberg), and which raise an alarm. agreements: names whose effect is alpha's."""
    from scipy.stats import false_discovery_control

    tested = [shift for shift in shifts if shift.p is not None]
    q_of = dict(
        zip(
            [one.name for one in tested],
            false_discovery_control([one.p for one in tested]) if tested else [],
            strict=True,
        )
    )
    return tuple(_judged(shift, q_of.get(shift.name), rate, shift.name in agreements) for shift in shifts)


def _judged(shift: Shift, q: float | None, rate: float, is_agreement: bool) -> Shift:
    if q is None:
        return shift
    least = LEAST_AGREEMENT if is_agreement else LEAST_EFFECT
    near = (
        0.0
        if shift.low is None or shift.high is None or shift.low <= 0 <= shift.high
        else min(abs(shift.low), abs(shift.high))
    )
    beyond = 0.0 if shift.distance is None or shift.by_chance is None else shift.distance - shift.by_chance
    shift = replace(shift, q=float(q))
    if q > rate:
        return replace(shift, why=f"chance does as much: q = {q:.3g}, wanted {rate:g} or less")
    if near < least and beyond < LEAST_DISTANCE:
        return replace(shift, why=f"it moved (q = {q:.3g}), too little to matter")
    moved = "it moved" if near >= least else "its distribution changed"
    return replace(shift, alarm=True, why=f"{moved} by more than matters and chance does that seldom: q = {q:.3g}")


def stability_index(reference_B: ArrayLike, window_B: ArrayLike) -> float:
    """PSI = sum (now - then) log(now / then) over bins, of counts; an empty bin counts as half a row."""
    then, now = (np.maximum(np.asarray(side, dtype=np.float64), 0.5) for side in (reference_B, window_B))
    then, now = then / then.sum(), now / now.sum()
    return float(((now - then) * np.log(now / then)).sum())


def jensen_shannon(one_B: ArrayLike, other_B: ArrayLike) -> Floats:
    """Distance of two distributions, given as counts above 0 in all along the last axis: sqrt of the divergence in bits, in [0,
    1]."""
    p, q = (np.asarray(side, dtype=np.float64) for side in (one_B, other_B))
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    middle = (p + q) / 2
    divergence = (_bits(p, middle) + _bits(q, middle)) / 2
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _bits(p: Floats, middle: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=-1))


def _codes(groups: Sequence[Hashable] | None, n: int) -> Codes:
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} rows")
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(group, len(number)) for group in groups], dtype=np.intp)


def _counted(name: str, codes: Sequence[Codes]) -> Shift:
    then, now = (int(own.max()) + 1 if own.size else 0 for own in codes)
    few = min(then, now) < LEAST_GROUPS
    why = f"{now} now and {then} then are too few: {LEAST_GROUPS} of each are wanted" if few else ""
    return Shift(name, len(codes[0]), len(codes[1]), then, now, why=why)


def _counts(column: Codes, own: Codes, n_bins: int, n_groups: int | None = None) -> Floats:
    """(G, B) rows of each group in each bin."""
    groups = int(own.max()) + 1 if n_groups is None else n_groups
    return np.bincount(own * n_bins + column, minlength=groups * n_bins).reshape(groups, n_bins).astype(np.float64)


def _standardised(sides: Sequence[Floats], codes: Sequence[Codes], seed: int) -> tuple[float, float, float]:
    """Difference of means over the pooled sd; interval: percentiles over drawn groups, both sides anew."""
    generator = np.random.default_rng(chance(seed, "drift bootstrap").getrandbits(64))
    drawn = []
    for side, own in zip(sides, codes, strict=True):
        sums = np.stack([np.bincount(own), np.bincount(own, side), np.bincount(own, side**2)], axis=1)
        parts, step = [], max(1, _CELLS_AT_ONCE // len(sums))
        for start in range(0, _BOOT, step):
            chosen = generator.integers(0, len(sums), (min(step, _BOOT - start), len(sums)))
            parts.append(sums[chosen].sum(axis=1))
        drawn.append(np.concatenate([sums.sum(axis=0)[None], *parts]))
    (n_then, t_then, s_then), (n_now, t_now, s_now) = drawn[0].T, drawn[1].T
    m_then, m_now = t_then / n_then, t_now / n_now
    within = (s_then - n_then * m_then**2) + (s_now - n_now * m_now**2)
    sd = np.sqrt(np.maximum(within / (n_then + n_now), 0.0))
    effects = np.where(sd > 1e-12, (m_now - m_then) / np.where(sd > 1e-12, sd, 1.0), 0.0)
    low, high = np.quantile(effects[1:], [0.025, 0.975])
    return float(effects[0]), float(low), float(high)


def _permuted(then_GB: Floats, now_GB: Floats, seed: int) -> tuple[float, float, float]:
    """The distance, what permutations of whole groups reach in 95 % of cases, and p: (1 + those at least as far) / (1 + all)."""
    both = np.concatenate([then_GB, now_GB])
    total, n_now = both.sum(axis=0), len(now_GB)
    seen = float(jensen_shannon(then_GB.sum(axis=0), now_GB.sum(axis=0)))
    generator = np.random.default_rng(chance(seed, "drift permutations").getrandbits(64))
    found, step = [], max(1, _CELLS_AT_ONCE // len(both))
    for start in range(0, _PERMUTATIONS, step):
        chosen = np.zeros((min(step, _PERMUTATIONS - start), len(both)))
        chosen[:, :n_now] = 1.0
        now = generator.permuted(chosen, axis=1) @ both
        now = np.maximum(now, 1e-9)  # a draw of groups without a word
        found.append(jensen_shannon(np.maximum(total - now, 1e-9), now))
    distances = np.concatenate(found)
    p = (1 + int((distances >= seen - 1e-12).sum())) / (1 + len(distances))
    return seen, float(np.quantile(distances, 0.95)), p
