"""Quality: what the answers say of those who gave them. Which side they like, how fast they are, whether others agree.

Nothing here judges anybody: figures with their 95 % intervals, and `notes` where one of 99.9 % leaves no doubt: of a thousand
labelers who like no side, one is noted.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlhf.errors import NotFound
from rlhf.feedback import current_judgements
from rlhf.labeling import checks
from rlhf.labeling.pauses import paused
from rlhf.measures import intervals
from rlhf.measures.agreement import alpha_with_interval
from rlhf.measures.intervals import Interval
from rlhf.measures.reliability import estimate
from rlhf.people import took_back, withdrawn
from rlhf.records import PAGE_SOURCE, Judgement
from rlhf.store import Workspace

MIN_SHOWN = 10  # answers below which an interval says nothing, and invites stories
_N_BOOT = 500
_STATES = {"pause": "paused", "appeal": "appealed", "uphold": "upheld"}
_NOTED = 0.999
_HASTE = 0.25  # of the median labeler's seconds


@dataclass(frozen=True, slots=True)
class LabelerQuality:
    """One labeler's answers in force, skips apart.

    left_share: of their choices between the two, how many were the left reply; agreement: of others' answers to the same pairs, how
    many were theirs; reliability: chance that an answer is the pair's verdict (Dawid and Skene, see `measures.reliability`). None
    where there are fewer than `MIN_SHOWN`. gold_accuracy: of the pairs with a known answer, how many were answered so; consistency:
    of their own pairs that came back with the sides swapped, how many were answered as before. state: at work, paused, appealed,
    upheld. Intervals are 95 %.
    """

    labeler: str
    n: int
    median_seconds: float | None
    left_share: float | None
    left_interval: tuple[float, float] | None
    agreement: float | None
    agreement_interval: tuple[float, float] | None
    n_shared: int
    reliability: float | None
    notes: tuple[str, ...]
    n_gold: int = 0
    gold_accuracy: float | None = None
    gold_interval: tuple[float, float] | None = None
    n_repeats: int = 0
    consistency: float | None = None
    consistency_interval: tuple[float, float] | None = None
    state: str = "at work"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Quality:
    """Of all labelers of a source, the busiest first.

    alpha: Krippendorff's, with its interval over pairs; None where no pair has two answers or all are alike.
    """

    source: str
    labelers: tuple[LabelerQuality, ...]
    n_answers: int
    n_shared_pairs: int
    alpha: float | None
    alpha_interval: tuple[float, float] | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "labelers": [one.as_json() for one in self.labelers]}


def quality(workspace: Workspace, source: str = PAGE_SOURCE, *, seed: int = 0) -> Quality:
    """Quality of a source's named human labelers. Raises NotFound where it has none."""
    states = {log[-1].labeler: _STATES[log[-1].action] for log in paused(workspace)}
    with workspace.read() as connection:
        gone = withdrawn(connection)
        checked = checks.counts(connection)
        said = [
            judgement
            for _, judgement in current_judgements(connection, sources=[source])
            if judgement.labeler is not None
            and judgement.kind == "human"
            and judgement.choice != "skip"
            and not took_back(judgement, gone)
        ]
    if not said:
        raise NotFound(f"no named person has answered anything in the source '{source}'", fix="see: rlhf feedback list")
    on_pair: dict[str, list[Judgement]] = defaultdict(list)
    by_labeler: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in said:
        on_pair[judgement.pair_id].append(judgement)
        by_labeler[str(judgement.labeler)].append(judgement)
    trust = estimate((j.pair_id, j.labeler, j.choice) for j in said)
    usual = [seconds for own in by_labeler.values() if (seconds := _median_seconds(own)) is not None]
    found = [
        replace(
            _labeler(name, own, on_pair, trust.accuracy.get(name), statistics.median(usual) if usual else None, seed),
            **(_checked(name, checked) | {"state": states.get(name, "at work")} if source == PAGE_SOURCE else {}),
        )
        for name, own in by_labeler.items()
    ]
    shared = [[j.choice for j in own] for own in on_pair.values() if len(own) > 1]
    alpha = alpha_with_interval(shared, n_boot=_N_BOOT, seed=seed) if shared else None
    return Quality(
        source,
        tuple(sorted(found, key=lambda one: (-one.n, one.labeler))),
        len(said),
        len(shared),
        alpha[0] if alpha else None,
        _ends(alpha[1]) if alpha else None,
    )


def _labeler(
    name: str,
    own: list[Judgement],
    on_pair: Mapping[str, list[Judgement]],
    reliability: float | None,
    usual_seconds: float | None,
    seed: int,
) -> LabelerQuality:
    sides = [
        judgement.choice == judgement.shown[0] for judgement in own if judgement.choice in "ab" and judgement.shown
    ]
    with_others = [
        shares for judgement in own if (shares := _agreeing(judgement, on_pair[judgement.pair_id])) is not None
    ]
    left = intervals.wilson(sum(sides), len(sides)) if len(sides) >= MIN_SHOWN else None
    agreed = intervals.share(with_others, n_boot=_N_BOOT, seed=seed) if len(with_others) >= MIN_SHOWN else None
    seconds, notes = _median_seconds(own), []
    if left is not None and 0.5 not in (sure := intervals.wilson(sum(sides), len(sides), _NOTED)):
        notes.append(f"chooses the {'left' if sure.low > 0.5 else 'right'} reply too often")
    if seconds is not None and usual_seconds and len(own) >= MIN_SHOWN and seconds < _HASTE * usual_seconds:
        notes.append("answers in less than a quarter of the usual time")
    return LabelerQuality(
        name,
        len(own),
        seconds,
        sum(sides) / len(sides) if left else None,
        _ends(left),
        statistics.fmean(with_others) if agreed else None,
        _ends(agreed),
        len(with_others),
        reliability if len(with_others) >= MIN_SHOWN else None,
        tuple(notes),
    )


def _checked(name: str, found: Mapping[tuple[str, str], checks.Checked]) -> dict[str, Any]:
    """The figures of a labeler's checks."""
    told: dict[str, Any] = {}
    for kind, n, share, ends in (
        ("gold", "n_gold", "gold_accuracy", "gold_interval"),
        ("repeat", "n_repeats", "consistency", "consistency_interval"),
    ):
        one = found.get((name, kind))
        if one is not None:
            told[n] = one.n
            if one.n >= MIN_SHOWN:
                told |= {share: one.n_right / one.n, ends: _ends(one.interval)}
    return told


def _agreeing(judgement: Judgement, answers: Iterable[Judgement]) -> float | None:
    """Of the others' answers to this pair, the share that is this one; None where nobody else has answered."""
    others = [other.choice == judgement.choice for other in answers if other.labeler != judgement.labeler]
    return statistics.fmean(others) if others else None


def _median_seconds(own: Iterable[Judgement]) -> float | None:
    seconds = [judgement.seconds for judgement in own if judgement.seconds is not None]
    return round(statistics.median(seconds), 1) if seconds else None


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None or interval.is_degenerate else (interval.low, interval.high)
