"""Is the judge to be believed? How far a reward or a rule says what people said of the same pairs, in this workspace.

Held against it are pairs that people judged and that it wasn't trained on: by its lineage neither the pair nor its opening turn
stands on the train side of a snapshot behind it. `MOST` of them, as many of each source and of each `MIN_SHOWN` at least (of very
many sources the first), in order of their ids, which are digests: a sample by hash in which a big source drowns no small one. A
reward's scores of them are kept as others are, so that the next comparison by the same judge costs nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from rlhf.evaluation.estimates import MIN_SHOWN, mean, nothing, rounded
from rlhf.evaluation.judges import Judge, RewardJudge, RuleJudge
from rlhf.evaluation.wording import number, percent, range_of
from rlhf.feedback import current_judgements
from rlhf.feedback.reading import pair_from, sources_of
from rlhf.measures.agreement import alpha_with_interval
from rlhf.measures.votes import majority
from rlhf.records import PAGE_SOURCE, Judgement, Pair
from rlhf.store import Workspace
from rlhf.store.tables import judgements, pairs
from rlhf.suites import TrainSide, train_side

MOST = 200  # pairs
_AT_ONCE = 500
METHOD = (
    "share of the pairs on which the judge takes the side of most people, half where it takes none; interval over opening turns; "
    "alpha: Krippendorff's, nominal, of people's majority and the judge, ties a side of their own"
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A pair, what most people said of it, and where it comes from."""

    pair: Pair
    said: str  # a, b or tie
    source: str


def agreement(workspace: Workspace, judge: Judge, *, seed: int = 0) -> dict[str, Any] | None:
    """What a comparison's report holds of its judge; None for people, who are what is held against.

    n: pairs held against it; n_ties: of these, how many are ties to people and tell of alpha alone; n_seen: pairs passed over
    because it was trained on them; training_known: False where a snapshot behind it isn't in this workspace, so that more of them
    may have been. agreement, alpha: value, low, high, n, level, method; a value of None = no pair tells it.
    by_source: the agreement on the pairs of each source of MIN_SHOWN or more, and how many pairs other sources have.
    """
    if not isinstance(judge, RewardJudge | RuleJudge):
        return None
    sides, is_known = _trainings(workspace, judge)
    with workspace.read() as connection:
        found, n_seen = _sample(connection, sides)
    points = judge.differences([one.pair for one in found])
    said = [None if p is None else "a" if p > 0 else "b" if p < 0 else "tie" for p in points]
    decided = [(one, own) for one, own in zip(found, said, strict=True) if one.said != "tie"]
    right = np.array([0.5 if own in (None, "tie") else float(own == one.said) for one, own in decided])
    told = alpha_with_interval(
        [(one.said, own) for one, own in zip(found, said, strict=True)],
        groups=[one.pair.group for one in found],
        seed=seed,
    )
    result: dict[str, Any] = rounded(
        {
            "n": len(found),
            "n_ties": len(found) - len(decided),
            "n_seen": n_seen,
            "training_known": is_known,
            "agreement": mean(right, [one.pair.group for one, _ in decided], seed, share=True),
            "by_source": _by_source([one for one, _ in decided], right, seed),
            "alpha": nothing() if told is None else {"value": told[0], **told[1].as_json(), "n": len(found)},
            "method": METHOD,
        }
    )
    return result


def in_words(judge: Mapping[str, Any]) -> str:
    """What a reader must know before believing the judge. judge: as in report.json; nothing for people and in older reports."""
    if (known := judge.get("agreement")) is None:
        return ""
    name, measure, alpha = judge["name"], known["agreement"], known["alpha"]
    if measure["value"] is None:
        why = "that it was not trained on" if known["n_seen"] else "that can be held against it"
        return f"Nobody has checked this judge: people have judged no pair here {why}. Whether they agree with {name} is unknown."
    sure = "no interval can be formed" if measure["low"] is None else f"95 % interval {range_of(measure, '%')}"
    more = "" if alpha["value"] is None else f"; Krippendorff's alpha {number(alpha['value'], '2')}"
    words = (
        f"{name} agrees with people on {percent(measure['value'])} % of {measure['n']:,} pairs that they judged here and it was "
        f"not trained on ({sure}{more})."
    )
    words += _sources_in_words(known.get("by_source"))
    if verdict := _against_a_coin(measure):
        words += f" {'Over all of them it' if known.get('by_source') else 'That'} is {verdict}: rest no decision on this judge."
    if not known["training_known"]:
        words += " A snapshot behind it is not in this workspace, so it may have learnt from some of them."
    return words


def _by_source(decided: Sequence[_Known], right: NDArray[np.float64], seed: int) -> dict[str, Any] | None:
    """None where all pairs are of one source."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(decided):
        places[one.source].append(place)
    if len(places) < 2:
        return None
    shown = {
        source: mean(right[own], [decided[i].pair.group for i in own], seed, share=True)
        for source, own in sorted(places.items())
        if len(own) >= MIN_SHOWN
    }
    few = [len(own) for own in places.values() if len(own) < MIN_SHOWN]
    return {"shown": shown, "hidden": {"parts": len(few), "pairs": sum(few), "below": MIN_SHOWN}}


def _sources_in_words(by: Mapping[str, Any] | None) -> str:
    """Sources may have little in common, so that one number for all of them tells of none. Nothing in older reports."""
    if by is None:
        return ""
    hidden = by["hidden"]
    said = [_source_in_words(source, m) for source, m in by["shown"].items()]
    if hidden["parts"]:
        of = "one source" if hidden["parts"] == 1 else f"{hidden['parts']} sources"
        said.append(f"{hidden['pairs']:,} of {of} with fewer than {hidden['below']}, too few to tell")
    return f" By source: {'; '.join(said)}."


def _source_in_words(source: str, measure: Mapping[str, Any]) -> str:
    interval = "no interval" if measure["low"] is None else range_of(measure, "%")
    verdict = _against_a_coin(measure)
    said = f"{source or 'not named'} {percent(measure['value'])} % of {measure['n']:,} ({interval})"
    return f"{said}, {verdict}" if verdict else said


def _against_a_coin(measure: Mapping[str, Any]) -> str:
    """Nothing where it is shown to be better."""
    if measure["high"] is not None and measure["high"] < 0.5:
        return "shown to be worse than a coin"
    return "not shown to be better than a coin" if measure["low"] is None or measure["low"] <= 0.5 else ""


def _trainings(workspace: Workspace, judge: RewardJudge | RuleJudge) -> tuple[Sequence[TrainSide], bool]:
    """What the judge was trained on, and whether that is all of it."""
    from rlhf import registry

    if isinstance(judge, RuleJudge):
        return (), True
    line = registry.lineage(workspace, judge.ref)
    sides = [train_side(workspace, origin.digest) for origin in line.snapshots]
    known = [side for side in sides if side is not None]
    return known, bool(known) and len(known) == len(sides) and not line.absent


def _sample(connection: Connection, sides: Sequence[TrainSide]) -> tuple[list[_Known], int]:
    people = select(judgements.c.source).where(judgements.c.kind == "human")
    names = list(connection.scalars(people.distinct().order_by(judgements.c.source)))
    found: dict[str, _Known] = {}
    seen: set[str] = set()
    for place, name in enumerate(names[: 2 * MOST // MIN_SHOWN]):  # what one source lacks, those after it may have
        room = max(MIN_SHOWN, (MOST - len(found)) // (len(names) - place))
        for one in _by_people(connection, name):
            if any(one.pair.id in side.pairs or one.pair.group in side.groups for side in sides):
                seen.add(one.pair.id)
            elif one.pair.id not in found:
                found[one.pair.id] = one
                room -= 1
            if not room:
                break
    return sorted(found.values(), key=lambda one: one.pair.id), len(seen)


def _by_people(connection: Connection, source: str) -> Iterator[_Known]:
    """Pairs that people judged under this source, on which all people's judgements that may be used to evaluate say a side or a
    tie; in order of their ids."""
    after = ""
    own = (judgements.c.kind == "human") & (judgements.c.source == source)
    while True:
        query = select(judgements.c.pair_id).where(own, judgements.c.pair_id > after)
        ids = list(connection.scalars(query.distinct().order_by(judgements.c.pair_id).limit(_AT_ONCE)))
        if not ids:
            return
        said: dict[str, list[Judgement]] = {}
        for _, judgement in current_judgements(connection, pair_ids=ids):
            if judgement.kind == "human" and "evaluate" in judgement.consent:
                said.setdefault(judgement.pair_id, []).append(judgement)
        live = select(pairs).where(pairs.c.id.in_(ids), pairs.c.prompt.is_not(None), pairs.c.erased_at.is_(None))
        named = sources_of(connection, ids)
        for row in connection.execute(live.order_by(pairs.c.id)):
            side = majority(j.choice for j in said.get(row.id, ()))
            if side is not None:
                yield _Known(pair_from(row), side, _origin(named.get(row.id, ())))
        after = ids[-1]


def _origin(sources: Sequence[str]) -> str:
    """Where a pair comes from; that it was judged on the labeler's page too is no origin."""
    return " + ".join([source for source in sources if source != PAGE_SOURCE] or sources)
