"""How often the statistics of live experiments are wrong: simulated experiments in which the truth is known.

    .venv/bin/python scripts/table_statistics.py                 the tables of docs/statistics.md
    .venv/bin/python scripts/table_statistics.py --runs 200      quicker and rougher

False positives of the always-valid test beside a fixed-sample test that is looked at as often, coverage of intervals, false
alarms of the shares' check, CUPED's bias and gain, bias and coverage of the off-policy estimates, false alarms of drift, when a
comparison is decided. Every simulation is seeded. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from rlhf.measures import betting, drift, intervals, off_policy, sample_ratio, sample_size, sequential, two_arms
from rlhf.measures.two_arms import Difference, Sums

RUNS, ALPHA = 2000, 0.05
BATCH, LOOKS = 100, 50  # units a look, looks
Z = 1.959963984540054
_AT_ONCE = 100  # experiments in memory
_RESAMPLES = 1000
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="simulated experiments of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="some of " + ",".join(TABLES))
    words = parser.parse_args()
    tables = {}
    chosen = words.only.split(",") if words.only else list(TABLES)
    if unknown := sorted({*chosen} - {*TABLES}):
        parser.error(f"--only {','.join(unknown)}: there is no such table; use some of {','.join(TABLES)}")
    for name in chosen:
        tables[name] = TABLES[name](words.runs, words.seed)
        print(f"\n{name}\n{markdown(tables[name])}", flush=True)
    nulls = tables.get("nulls", [])
    worst, peeked = (
        max((row[way] for row in nulls), default=None) for way in ("always valid", "fixed test, every look")
    )
    line = {"name": "table_statistics", "ours": worst, "peer": peeked, "ratio": peeked / worst if worst else None}
    unit = "false positives of the worst null, looked at after every batch; goal 0.05"
    print(json.dumps({**line, "unit": unit, "runs": words.runs, **tables}))


# What a unit shows, and the treated arm's share.
KINDS: dict[str, tuple[Draw, float]] = {
    "thumbs, half up": (lambda draw, shape: (draw.random(shape) < 0.5).astype(float), 0.5),
    "errors, 2 %, a tenth treated": (lambda draw, shape: (draw.random(shape) < 0.02).astype(float), 0.1),
    "rewards, normal": (lambda draw, shape: draw.normal(size=shape), 0.5),
    "latency, lognormal (sd 1 of the log)": (lambda draw, shape: np.exp(draw.normal(size=shape)), 0.2),
}
# What is added for the treated, by chance where the outcome is a share.
EFFECTS: dict[str, tuple[Draw, Draw, float, float]] = {
    "thumbs, 0.50 to 0.55": (
        lambda draw, shape: (draw.random(shape) < 0.50).astype(float),
        lambda draw, shape: (draw.random(shape) < 0.55).astype(float),
        0.5,
        0.05,
    ),
    "errors, 0.02 to 0.04, a tenth treated": (
        lambda draw, shape: (draw.random(shape) < 0.02).astype(float),
        lambda draw, shape: (draw.random(shape) < 0.04).astype(float),
        0.1,
        0.02,
    ),
    "rewards, 0.1 sd": (
        lambda draw, shape: draw.normal(size=shape),
        lambda draw, shape: draw.normal(0.1, 1.0, size=shape),
        0.5,
        0.1,
    ),
}


def null_looks(name: str, *, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """A/A experiments looked at after every batch: how many ever "find" something."""
    draw_value, share = KINDS[name]
    counts = [_decided(looked) for looked in _experiments(draw_value, draw_value, share, runs, seed)]
    return {"units show": name, **_rates(counts, runs)}


def effect_looks(name: str, *, runs: int = RUNS, seed: int = 0) -> dict[str, Any]:
    """A/B experiments with an effect: found by the end, when, and how often the interval holds it at all looks."""
    draw_control, draw_treated, share, effect = EFFECTS[name]
    found, units, missed, missed_fixed = 0, [], 0, 0
    for looked in _experiments(draw_control, draw_treated, share, runs, seed):
        told = two_arms.sequence(looked, planned=BATCH * LOOKS)
        is_found = told.p <= ALPHA
        found += int(is_found[:, -1].sum())
        units += [(int(np.argmax(row)) + 1) * BATCH for row in is_found if row[-1]]
        missed += int(((told.low > effect) | (told.high < effect)).any(axis=1).sum())
        missed_fixed += int((np.abs(looked.value - effect) > Z * looked.se).any(axis=1).sum())
    return {
        "effect": name,
        "found by the end": found / runs,
        "units when found (median)": float(np.median(units)) if units else None,
        "interval holds it at all looks": 1 - missed / runs,
        "fixed interval, all looks": 1 - missed_fixed / runs,
    }


def _experiments(control: Draw, treated: Draw, share: float, runs: int, seed: int) -> Iterator[Difference]:
    """Differences (experiments, looks), a unit a reply."""
    draw = np.random.default_rng(seed)
    for start in range(0, runs, _AT_ONCE):
        shape = (min(_AT_ONCE, runs - start), LOOKS, BATCH)
        is_treated = draw.random(shape) < share
        value = np.where(is_treated, treated(draw, shape), control(draw, shape))
        yield two_arms.difference(_so_far(value, is_treated), _so_far(value, ~is_treated))


def _so_far(value: Floats, inside: NDArray[np.bool_], before: Floats | None = None) -> Sums:
    """Sums of the units up to each look."""
    batches = two_arms.sums(value * inside, inside, before)
    return Sums(*(np.cumsum(getattr(batches, name), axis=-1) for name in Sums.__slots__))


def _decided(looked: Difference) -> tuple[int, int, int]:
    """How many of these find something: always valid; a fixed test at every look; the same at the last look alone."""
    told = two_arms.sequence(looked, planned=BATCH * LOOKS)
    beyond = np.abs(looked.value) > Z * looked.se
    return int((told.p[:, -1] <= ALPHA).sum()), int(beyond.any(axis=1).sum()), int(beyond[:, -1].sum())


def _rates(counts: list[tuple[int, int, int]], runs: int) -> dict[str, float]:
    always, peeked, once = (sum(column) / runs for column in zip(*counts, strict=True))
    return {"always valid": always, "fixed test, every look": peeked, "fixed test, the last look alone": once}


def returning(
    runs: int = RUNS, seed: int = 0, n_units: int = 1000, looks: int = 40, at_once: int = 25
) -> dict[str, Any]:
    """A/A where users come back: a unit's outcome is its replies' mean, which goes on changing, and heavy users have a taste."""
    draw, counts = np.random.default_rng(seed), []
    for start in range(0, runs, at_once):
        r = min(at_once, runs - start)
        is_treated = draw.random((r, n_units)) < 0.5
        taste, eager = draw.random((r, 1, n_units)), draw.gamma(0.5, 0.6, (r, 1, n_units))
        first = draw.integers(0, looks, (r, 1, n_units))
        since = np.arange(looks)[:, None] - first
        visits = (since >= 0) * draw.poisson(eager, (r, looks, n_units)) + (since == 0)
        totals, so_far = draw.binomial(visits, taste).cumsum(axis=1), visits.cumsum(axis=1)
        arms = [two_arms.sums(totals * arm[:, None], so_far * arm[:, None]) for arm in (is_treated, ~is_treated)]
        counts.append(_decided(two_arms.difference(*arms)))
    return {"units show": f"thumbs of {n_units} users who come back, by user", **_rates(counts, runs)}


def shares(runs: int = RUNS, seed: int = 0, n: int = 1000) -> list[dict[str, Any]]:
    """Sample-ratio mismatch: a look after every unit, and chi-square after every batch and once; where there is none, and one."""
    rows = []
    for name, is_as_drawn in (("as drawn, 50 : 50", True), ("broken, 44 : 56", False)):
        draw = np.random.default_rng(seed)
        found, peeked, once = 0, 0, 0
        for _ in range(runs):
            arm = (draw.random(n) < (0.5 if is_as_drawn else 0.44)).astype(int)
            peak = sequential.peak(sequential.mismatch(arm, np.full((n, 2), 0.5), np.zeros(n)))
            ones = np.cumsum(arm)[BATCH - 1 :: BATCH].tolist()
            p = [sample_ratio.p_value([BATCH * (i + 1) - k, k], [0.5, 0.5]) for i, k in enumerate(ones)]
            found, peeked, once = found + (peak >= 1 / ALPHA), peeked + (min(p) <= ALPHA), once + (p[-1] <= ALPHA)
        rows.append(
            {
                f"units, {n}": name,
                "sequential, every unit": found / runs,
                f"chi-square, every {BATCH}": peeked / runs,
                "chi-square, once": once / runs,
            }
        )
    return rows


def cuped(rho: float, runs: int = RUNS, seed: int = 0, n: int = 400, effect: float = 0.2) -> dict[str, Any]:
    """The difference with and without what units were before, correlated by rho: bias in standard errors, variance, coverage."""
    draw = np.random.default_rng(seed)
    is_treated = draw.random((runs, n)) < 0.5
    before = draw.normal(size=(runs, n))
    value = rho * before + math.sqrt(1 - rho**2) * draw.normal(size=(runs, n)) + effect * is_treated
    known = two_arms.centred(np.where(draw.random((runs, n)) < 0.9, before, np.nan))
    found: list[Difference] = []
    for past in (None, known):
        arms = [two_arms.sums(value * arm, arm, past) for arm in (is_treated, ~is_treated)]
        found.append(two_arms.difference(*arms))
    plain, adjusted = found
    error = adjusted.value - effect
    return {
        "correlation with the past": rho,
        "bias without": float(plain.value.mean() - effect),
        "bias with CUPED": float(error.mean()),
        "its standard error": float(error.std() / math.sqrt(runs)),
        "variance left": float(adjusted.value.var() / plain.value.var()),
        "said to be left": float(adjusted.kept.mean()),
        "95 % interval holds": float((np.abs(error) <= Z * adjusted.se).mean()),
    }


CHANCES = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])  # of the logger, by context
RATES = np.array([[0.1, 0.3, 0.5], [0.4, 0.2, 0.1]])  # of the reward


def bandit_log(n: int, seed: int) -> off_policy.Log:
    draw = np.random.default_rng(seed)
    context = draw.integers(0, 2, n)
    action = (draw.random((n, 1)) > CHANCES[context].cumsum(axis=1)[:, :-1]).sum(axis=1)
    reward = (draw.random(n) < RATES[context, action]).astype(float)
    return off_policy.Log(action, context, reward, CHANCES[context, action], ["x", "y", "z"], ["left", "right"])


def estimates(runs: int = RUNS, seed: int = 0, n: int = 500) -> list[dict[str, Any]]:
    """The uniform policy's value (0.267) from a logger that prefers one action in each context."""
    truth = float(RATES.mean())
    values, held = np.zeros((runs, 3)), np.zeros(3)
    for run in range(runs):
        log = bandit_log(n, seed * runs + run)
        found = off_policy.evaluate(log, off_policy.uniform(log), n_boot=300, seed=run)
        three = [one for one in (found.ips, found.snips, found.dr) if one is not None]
        values[run] = [one.value for one in three]
        held += [truth in one.interval for one in three]
    rows = []
    for i, name in enumerate(("IPS", "SNIPS", "doubly robust")):
        row = {"estimate": name, "bias": float(values[:, i].mean() - truth)}
        row |= {
            "standard error of the bias": float(values[:, i].std() / math.sqrt(runs)),
            "sd": float(values[:, i].std()),
        }
        rows.append({**row, "95 % interval holds": float(held[i] / runs)})
    return rows


def coverage(runs: int = RUNS, seed: int = 0) -> list[dict[str, Any]]:
    """95 % intervals at one look, and how often they hold the truth: as they are told, and beside the cluster bootstraps the plain
    2.5 and 97.5 percentiles of the same resamples."""
    draw = np.random.default_rng(seed)
    held: dict[str, int] = defaultdict(int)
    plain: dict[str, int] = defaultdict(int)
    for run in range(runs):
        held["Wilson, 60 pairs at 0.8"] += 0.8 in intervals.wilson(int(draw.binomial(60, 0.8)), 60)
        single = intervals.bootstrap(draw.normal(size=60), n_boot=_RESAMPLES, seed=run)
        held["bootstrap of a mean, 60 normal values"] += 0.0 in single
        for n_users in (40, 20, 10, 6):
            users = np.repeat(np.arange(n_users), draw.integers(1, 10, n_users))
            values = draw.normal(size=n_users)[users] + draw.normal(size=len(users))
            name = f"cluster bootstrap, {n_users} users of 1 to 9 replies"
            held[name] += 0.0 in intervals.bootstrap(values, groups_N=users, n_boot=_RESAMPLES, seed=run)
            level = _level_of_plain_percentiles(n_users)
            plain[name] += 0.0 in intervals.bootstrap(values, groups_N=users, n_boot=_RESAMPLES, level=level, seed=run)
            if n_users == 40:
                alone = intervals.bootstrap(values, n_boot=_RESAMPLES, seed=run)
                held["the same 40, taken for single replies"] += 0.0 in alone
    return [
        {"interval": name, "holds": n / runs, "with plain percentiles": plain[name] / runs if name in plain else "–"}
        for name, n in held.items()
    ]


def _level_of_plain_percentiles(n_groups: int) -> float:
    """The level at which `intervals.tail` is 0.025."""
    return float(2 * stdtr(n_groups - 1, Z * math.sqrt((n_groups - 1) / n_groups)) - 1)


def false_drifts(runs: int = RUNS, seed: int = 0) -> list[dict[str, Any]]:
    """Two windows of the same users' kind, ten features: how often anything is called a change, or an alarm is raised; `runs` / 20
    windows, for each takes thousands of resamples."""
    draw, windows = np.random.default_rng(seed), max(1, runs // 20)
    discovered, alarms, naive = 0, 0, 0
    for window in range(windows):
        users = [np.repeat(np.arange(n), draw.integers(1, 8, n)) for n in (120, 80)]
        shifts = []
        for feature in range(10):
            sides = [draw.normal(size=int(own.max()) + 1)[own] + draw.normal(size=len(own)) for own in users]
            shifts.append(drift.numbers(str(feature), *sides, *(own.tolist() for own in users), seed=window))
            then, now = sides
            se = math.hypot(then.std() / math.sqrt(len(then)), now.std() / math.sqrt(len(now)))
            naive += abs(now.mean() - then.mean()) > Z * se
        told = drift.judged(shifts)
        discovered += any(shift.q is not None and shift.q <= drift.RATE for shift in told)
        alarms += any(shift.alarm for shift in told)
    row = {"windows in which nothing drifted": windows, "any feature called a change": discovered / windows}
    return [{**row, "any alarm": alarms / windows, "a z-test by reply, a feature": float(naive / windows / 10)}]


def comparisons(runs: int = RUNS, seed: int = 0, batch: int = 20) -> list[dict[str, Any]]:
    """`rlhf compare --until-decided`: opening turns until the bets refute a half, of up to four times the planned number."""
    rows = []
    for effect in (0.0, 0.05, 0.1, 0.2, 0.3):
        sizes = [sample_size.win_rate(0.5 + (effect or 0.1), looks=looks) for looks in (False, True)]
        draw = np.random.default_rng([seed, int(effect * 100)])
        looks = range(batch, 4 * sizes[1] + batch, batch)
        found = []
        for _ in range(runs):
            wins = (draw.random(looks[-1]) < 0.5 + effect).astype(float)
            capitals = ((n, max(_capital(wins[:n]), _capital(1 - wins[:n]))) for n in looks)
            found.append(next((n for n, capital in capitals if capital >= math.log(2 / ALPHA)), math.inf))
        after, planned = np.array(found), math.ceil(sizes[1] / batch) * batch
        rows.append(
            {
                "win rate": 0.5 + effect,
                "decided at all": float(np.isfinite(after).mean()),
                "planned, fixed": sizes[0],
                "planned, looks": sizes[1],
                "decided by then": float((after <= planned).mean()),
                "opening turns when decided (median)": float(np.median(after[np.isfinite(after)])),
            }
        )
    return rows


def _capital(values: Floats) -> float:
    return betting.log_capital(values, 0.5)


TABLES: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
    "nulls": lambda runs, seed: [*(null_looks(name, runs=runs, seed=seed) for name in KINDS), returning(runs, seed)],
    "effects": lambda runs, seed: [effect_looks(name, runs=runs, seed=seed) for name in EFFECTS],
    "shares": shares,
    "cuped": lambda runs, seed: [cuped(rho, runs, seed) for rho in (0.0, 0.5, 0.8)],
    "off_policy": estimates,
    "intervals": coverage,
    "drift": false_drifts,
    "comparisons": comparisons,
}


def markdown(rows: list[dict[str, Any]]) -> str:
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join(lines + [f"| {' | '.join(_cell(row[head]) for head in heads)} |" for row in rows])


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


if __name__ == "__main__":
    main()
