"""Cohorts: who answered what and agreed with whom, by the tag that a source gives its people; nobody alone.

A cohort of fewer than `MIN_PEOPLE` is hidden, and so is the smallest of the others where the totals would give the hidden one
away: what is hidden is at least two cohorts and `MIN_PEOPLE` people together. A tag belongs to a judgement, so that one person
may stand in several cohorts and is counted in each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import BadInput, NotFound
from rlhf.feedback import current_judgements
from rlhf.measures import intervals
from rlhf.people import took_back, withdrawn
from rlhf.records import PAGE_SOURCE, Judgement
from rlhf.store import Workspace

MIN_PEOPLE = 5
UNTAGGED = "(none given)"
_N_BOOT = 500
_SUM_OFF = 0.01  # shares written with two digits
Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cohort:
    """choices: shares of its judgements that are a choice between the two, tie, both_bad and skip. within, across: of the other
    answers to the same pairs, from the same cohort and from all others, the share that is the same; intervals 95 %, bootstrap
    over people. share, share_interval: of the people with a tag (Wilson); target: what was asked for."""

    name: str
    n_people: int
    n_answers: int
    choices: Mapping[str, float]
    within: float | None
    within_interval: Ends | None
    across: float | None
    across_interval: Ends | None
    share: float | None
    share_interval: Ends | None
    target: float | None

    @property
    def is_off(self) -> bool:
        """The target is outside the interval."""
        return bool(self.target is not None and self.share_interval) and not (
            self.share_interval[0] <= self.target <= self.share_interval[1]  # type: ignore[index, operator]
        )

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "off_target": self.is_off}


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Of a source's named people. cohorts: the visible ones, the biggest first; hidden: names of the others; n_people: different
    people, each counted once. absent: cohorts of the target that nobody is in."""

    source: str
    cohorts: tuple[Cohort, ...]
    hidden: tuple[str, ...]
    absent: tuple[str, ...]
    n_people: int
    n_answers: int

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "cohorts": [one.as_json() for one in self.cohorts], "min_people": MIN_PEOPLE}


def cohorts(
    workspace: Workspace, source: str = PAGE_SOURCE, *, target: Mapping[str, float] | None = None, seed: int = 0
) -> Cohorts:
    """Cohorts of a source's human labelers. target: share wanted, by cohort.

    Raises NotFound where nobody of the source has a tag, or where so few people answered that all of them are hidden.
    """
    with workspace.read() as connection:
        gone = withdrawn(connection)
        said = [
            j
            for _, j in current_judgements(connection, sources=[source])
            if j.kind == "human" and j.labeler is not None and not took_back(j, gone)
        ]
    of: dict[str, list[Judgement]] = defaultdict(list)
    for j in said:
        of[j.cohort or UNTAGGED].append(j)
    if not of.keys() - {UNTAGGED}:
        raise NotFound(f"nobody of the source '{source}' has a cohort", fix="import votes with a field `cohort`")
    people = {name: len({j.labeler for j in own}) for name, own in of.items()}
    hidden = hidden_of(people)
    n_people = len({j.labeler for j in said})
    if n_people < MIN_PEOPLE:
        raise NotFound(
            f"the source '{source}' has fewer than {MIN_PEOPLE} people, and figures of so few would name them",
            fix="ask again when more have answered",
        )
    n_tagged = sum(n for name, n in people.items() if name != UNTAGGED)
    likeness = _likeness(said)
    shown = [
        _cohort(name, of[name], people[name], n_tagged, likeness[name], (target or {}).get(name), seed)
        for name in people
        if name not in hidden
    ]
    return Cohorts(
        source,
        tuple(sorted(shown, key=lambda one: (-one.n_people, one.name))),
        tuple(sorted(hidden)),
        tuple(sorted((target or {}).keys() - people.keys())),
        n_people,
        len(said),
    )


def hidden_of(people: Mapping[str, int]) -> set[str]:
    """Names of the cohorts to hide: the small ones, and then the next smallest until what the totals leave is two cohorts and
    `MIN_PEOPLE` people, or nothing is left to hide."""
    ordered = sorted(people, key=lambda name: (people[name], name))
    hidden = [name for name in ordered if people[name] < MIN_PEOPLE]
    for name in ordered[len(hidden) :]:
        if not hidden or (len(hidden) > 1 and sum(people[one] for one in hidden) >= MIN_PEOPLE):
            break
        hidden.append(name)
    return set(hidden)


def read_target(file: Path) -> dict[str, float]:
    """A YAML file of `cohort: share`. Raises BadInput where it can't be read, or the shares are none or don't add up to 1."""
    try:
        said = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"no file at {file}", fix="check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"{file} can't be read: {said}", fix="give --target a UTF-8 YAML file") from None
    if not isinstance(said, Mapping) or not said:
        raise BadInput(f"{file} holds no shares", fix="write lines of `cohort: share`, for instance `women: 0.5`")
    shares = {str(name): share for name, share in said.items()}
    bad = [n for n, s in shares.items() if isinstance(s, bool) or not isinstance(s, int | float) or not 0 <= s <= 1]
    if bad:
        raise BadInput(f"{file}: {bad[0]!r} has no share from 0 to 1", fix="write lines of `cohort: share`")
    if abs(sum(shares.values()) - 1) > _SUM_OFF:
        raise BadInput(f"{file}: the shares add up to {sum(shares.values()):.3g}", fix="make them add up to 1")
    return {name: float(share) for name, share in shares.items()}


def _cohort(
    name: str,
    own: list[Judgement],
    n_people: int,
    n_tagged: int,
    likeness: Mapping[str, list[tuple[str, float]]],
    target: float | None,
    seed: int,
) -> Cohort:
    counted = Counter("choice" if j.choice in "ab" else j.choice for j in own)
    within, across = (_mean(likeness[which], seed) for which in ("within", "across"))
    is_tag = name != UNTAGGED
    share = intervals.wilson(n_people, n_tagged) if is_tag else None
    return Cohort(
        name,
        n_people,
        len(own),
        {word: counted[word] / len(own) for word in ("choice", "tie", "both_bad", "skip")},
        *within,
        *across,
        n_people / n_tagged if is_tag else None,
        (share.low, share.high) if share else None,
        target,
    )


def _likeness(said: Iterable[Judgement]) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Cohort → within and across → (labeler, share of those other answers to the same pair that are the same)."""
    on_pair: dict[str, list[Judgement]] = defaultdict(list)
    for j in said:
        if j.choice != "skip":
            on_pair[j.pair_id].append(j)
    found: dict[str, dict[str, list[tuple[str, float]]]] = defaultdict(lambda: {"within": [], "across": []})
    for answers in on_pair.values():
        everybody = Counter(j.choice for j in answers)
        of_cohort: dict[str, Counter[str]] = defaultdict(Counter)
        for j in answers:
            of_cohort[j.cohort or UNTAGGED][j.choice] += 1
        for j in answers:
            name = j.cohort or UNTAGGED
            own, n_own = of_cohort[name], of_cohort[name].total()
            if n_own > 1:
                found[name]["within"].append((str(j.labeler), (own[j.choice] - 1) / (n_own - 1)))
            if len(answers) > n_own:
                alike = (everybody[j.choice] - own[j.choice]) / (len(answers) - n_own)
                found[name]["across"].append((str(j.labeler), alike))
    return found


def _mean(shares: Collection[tuple[str, float]], seed: int) -> tuple[float | None, Ends | None]:
    """Mean and interval; nothing where fewer than `MIN_PEOPLE` people stand behind it."""
    if len({labeler for labeler, _ in shares}) < MIN_PEOPLE:
        return None, None
    values = [share for _, share in shares]
    interval = intervals.share(values, groups_N=[labeler for labeler, _ in shares], n_boot=_N_BOOT, seed=seed)
    return sum(values) / len(values), (interval.low, interval.high)
