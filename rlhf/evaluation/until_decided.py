"""A comparison that stops as soon as it is decided: batch by batch, with an interval that may be looked at after each.

Opening turns come in the order of their hash, `batch` of them a look; both sides write to their prompts, the judge judges, and the
mean win of each opening turn is one unit. The betting confidence sequence of the mean (`measures/betting.py`) holds the truth at
all looks at once, so stopping by it errs with a chance of alpha at most. Nothing is kept between two calls but what a comparison
keeps anyway (the replies, people's judgements): the same command again takes the same batches to where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.errors import BadUsage
from rlhf.evaluation.estimates import rounded
from rlhf.evaluation.judges import Judge, Judged, Verdict
from rlhf.evaluation.people_judge import Waiting
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.ids import digest_of, unit_interval
from rlhf.measures import sample_size
from rlhf.measures.betting import confidence_sequence

if TYPE_CHECKING:
    from rlhf.policy import Prompt

A, B, NEITHER = "a", "b", "neither"
_STOPPED = "; no interval: the comparison stopped on what it saw, and an interval for a fixed number is not to be read"
METHOD = "always-valid: a betting confidence sequence of the mean over opening turns, exact at every look"


@dataclass(frozen=True, slots=True)
class Stopping:
    """margin: of the win rate around 1/2, that the interval must leave out. alpha: chance of a wrong decision, over all looks.
    effect: of the win rate over 1/2, that the sample size is told for. batch: opening turns a look."""

    margin: float = 0.0
    alpha: float = 0.05
    effect: float = 0.1
    batch: int = 20

    def __post_init__(self) -> None:
        wanted = (
            ("margin", self.margin, 0 <= self.margin < 0.5, "0 to below 0.5"),
            ("alpha", self.alpha, 0 < self.alpha < 1, "between 0 and 1, such as 0.05"),
            ("effect", self.effect, self.margin < self.effect < 0.5, "above the margin and below 0.5"),
            ("batch", self.batch, self.batch >= 1, "1 or more"),
        )
        for name, value, is_sound, words in wanted:
            if not is_sound:
                raise BadUsage(f"--{name} is {value:g}; wanted {words}", fix=f"leave --{name} out, or change it")

    def planned(self) -> dict[str, int]:
        """Opening turns by which the effect is found with a chance of 80 %: at a fixed number, and when looked at as here."""
        wins = 0.5 + self.effect - self.margin
        sizes = {"fixed": False, "looks": True}
        return {name: sample_size.win_rate(wins, alpha=self.alpha, looks=looks) for name, looks in sizes.items()}

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "planned": self.planned()}


@dataclass(frozen=True, slots=True)
class Look:
    """What was known after a batch: opening turns and pairs by then, the mean win of side a over opening turns, its interval."""

    n_units: int
    n_pairs: int
    win_rate: float
    low: float
    high: float

    def decision(self, margin: float) -> str | None:
        """Which side is better by more than the margin, `neither` where the difference is within it, None where that is open."""
        if self.low > 0.5 + margin or self.high < 0.5 - margin:
            return A if self.low > 0.5 else B
        return NEITHER if 0.5 - margin < self.low <= self.high < 0.5 + margin else None


@dataclass(frozen=True)
class Decided:
    """pairs, judged: of the batches that it took. facts: for the report."""

    pairs: list[ReplyPair]
    judged: Judged
    facts: Mapping[str, Any]


def until_decided(
    prompts: Sequence[Prompt],
    stopping: Stopping,
    judge: Judge,
    write: Callable[[Sequence[Prompt]], Sequence[ReplyPair]],
    *,
    seed: int = 0,
) -> Decided:
    """Batch after batch until a look decides or no prompt is left. write: both sides' replies to some of the prompts.

    Raises Waiting where people haven't judged a batch; it then says what was known before (`Waiting.so_far`).
    """
    batches = in_batches(prompts, stopping.batch, seed)
    n_available = len({prompt.group for prompt in prompts})
    done: list[tuple[Sequence[ReplyPair], Judged]] = []
    looks: list[Look] = []
    for batch in batches:
        pairs = write(batch)
        try:
            done.append((pairs, judge.judge(pairs)))
        except Waiting as waiting:
            waiting.so_far = _facts(stopping, looks, n_available)
            raise
        looks = _looks(done, stopping.alpha)
        if looks and looks[-1].decision(stopping.margin) is not None:
            break
    every = [pair for pairs, _ in done for pair in pairs]
    return Decided(every, _merged([judged for _, judged in done]), _facts(stopping, looks, n_available))


def in_batches(prompts: Sequence[Prompt], size: int, seed: int) -> list[list[Prompt]]:
    """The prompts of `size` opening turns a batch, in the order of the opening turns' hash: those of one stay together."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda p: p.digest):
        groups.setdefault(prompt.group, []).append(prompt)
    order = sorted(groups, key=lambda group: (unit_interval(seed, f"look {group}"), group))
    lots = [order[start : start + size] for start in range(0, len(order), size)]
    return [[prompt for group in lot for prompt in groups[group]] for lot in lots]


def with_always_valid(figures: dict[str, Any], facts: Mapping[str, Any], *, turned: bool) -> dict[str, Any]:
    """A side's figures with the interval that may be read: the win rate's is the last look's, and those for a fixed number, which
    stopping made too narrow, are taken out. turned: side b's."""
    last = facts["looks"][-1] if facts["looks"] else None
    measures = dict(figures["measures"])
    for name in ("length_controlled_win_rate", "win_rate_longer", "win_rate_shorter", "mean_score"):
        if name in measures:
            said = measures[name]["method"] or ""
            measures[name] = {**measures[name], "low": None, "high": None, "level": None, "method": f"{said}{_STOPPED}"}
    if last is not None:
        value, low, high = last["win_rate"], last["low"], last["high"]
        if turned:
            value, low, high = 1 - value, 1 - high, 1 - low
        measures["win_rate"] = {
            **measures["win_rate"],
            "value": value,
            "low": low,
            "high": high,
            "level": 1 - facts["alpha"],
            "method": METHOD,
        }
    flat = {
        key: measures[name][end]
        for name in measures
        for key, end in ((name, "value"), (f"{name}_low", "low"), (f"{name}_high", "high"))
    }
    result: dict[str, Any] = rounded({**figures, **flat, "measures": measures})
    return result


def _looks(done: Sequence[tuple[Sequence[ReplyPair], Judged]], alpha: float) -> list[Look]:
    """One a batch that somebody judged anything of; an opening turn of which nothing was judged is no unit."""
    units: list[float] = []
    ends: list[tuple[int, int]] = []
    n_pairs = 0
    for pairs, judged in done:
        own, n = _units(pairs, judged.verdicts)
        units += own
        n_pairs += n
        if own:
            ends.append((len(units), n_pairs))
    bounds = confidence_sequence(np.array(units), [n for n, _ in ends], alpha)
    means = [float(np.mean(units[:n])) for n, _ in ends]
    return [
        Look(n, pairs, value, low, high)
        for (n, pairs), value, (low, high) in zip(ends, means, bounds, strict=True)
    ]  # fmt: skip


def _units(pairs: Sequence[ReplyPair], verdicts: Sequence[Verdict]) -> tuple[list[float], int]:
    wins: dict[str, list[float]] = {}
    for pair, verdict in zip(pairs, verdicts, strict=True):
        if verdict.win is not None:
            wins.setdefault(pair.group, []).append(verdict.win)
    return [float(np.mean(own)) for own in wins.values()], sum(map(len, wins.values()))


def _merged(judged: Sequence[Judged]) -> Judged:
    """One judge's word on all batches."""
    digests = list(dict.fromkeys(one.digest for one in judged))
    facts: dict[str, Any] = dict(judged[-1].facts)
    if "n_judgements" in facts:
        labelers = frozenset[tuple[str, str]]().union(*(one.labelers for one in judged))
        facts["n_judgements"] = sum(one.facts["n_judgements"] for one in judged)
        facts |= {"n_labelers": len(labelers), "jobs": [one.facts["job"] for one in judged]}
    digest = digests[0] if len(digests) == 1 else digest_of({"batches": [one.digest for one in judged]})
    return Judged([v for one in judged for v in one.verdicts], digest, facts)


def _facts(stopping: Stopping, looks: Sequence[Look], n_available: int) -> dict[str, Any]:
    last = looks[-1] if looks else None
    facts: dict[str, Any] = rounded(
        {
            **stopping.as_json(),
            "decision": None if last is None else last.decision(stopping.margin),
            "n_units": 0 if last is None else last.n_units,
            "n_available": n_available,
            "looks": [asdict(look) for look in looks],
            "method": METHOD,
        }
    )
    return facts
