"""Drift: what an alias served lately against the snapshot that its models learnt from, and what follows from an alarm.

Compared are prompts (length, turns, script, words), replies (length, words), rewards and how far labelers agree. Words are those
that users let be kept; lengths are there for every reply. A snapshot holds no rewards of served replies, so those that were told
are compared with the same alias's replies before these; with a judge, its points are compared with what it gives the snapshot's
replies (`drift_judged.py`). Agreement in the snapshot is compared with judgements that came since it was cut. How far each
moved, with its interval, and when that is an alarm: `measures/drift.py`. An alarm opens an item on the board with the slice in
which it is strongest and request ids of examples, never their words, which an erasure could not reach there; with `pause` it
pauses the rollout in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rlhf import registry
from rlhf.board import Item
from rlhf.board.changing import add_in
from rlhf.errors import Conflict
from rlhf.ids import digest_of
from rlhf.measures import drift
from rlhf.measures.drift import Shift
from rlhf.registry.alias_names import name_of
from rlhf.serving import drift_judged, rollouts
from rlhf.serving import log as logs
from rlhf.serving.log import Rollout
from rlhf.serving.said import NUMBERS, WORDS, Said, bags, frozen, labels_since, served
from rlhf.snapshots import open_snapshot
from rlhf.snapshots.names import find as find_snapshot
from rlhf.store import Workspace

CHANNEL, SIGNAL = "drift", "drift"
LAST = 2000  # newest replies that are looked at
_EXAMPLES, _LEAST_SLICE = 5, 30


@dataclass(frozen=True, slots=True)
class Slice:
    """Where a feature moved most: rows of which `by` is `value`, their effect, and request ids of those farthest out."""

    feature: str
    by: str | None
    value: str | None
    n: int
    effect: float | None
    examples: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "examples": list(self.examples)}


@dataclass(frozen=True, slots=True)
class Drift:
    """shifts: every feature, alarm or not. item: on the board, where there was an alarm. paused: the rollout that was."""

    snapshot: str
    alias: str
    n_window: int
    since: str
    shifts: tuple[Shift, ...]
    slices: tuple[Slice, ...]
    item: Item | None = None
    paused: str | None = None
    not_paused: str | None = None

    @property
    def alarms(self) -> tuple[Shift, ...]:
        return tuple(shift for shift in self.shifts if shift.alarm)

    def as_json(self) -> dict[str, Any]:
        return {
            "snapshot": self.snapshot,
            "alias": self.alias,
            "n": self.n_window,
            "since": self.since,
            "alarm": bool(self.alarms),
            "features": [shift.as_json() for shift in self.shifts],
            "slices": [one.as_json() for one in self.slices],
            "item": None if self.item is None else self.item.id,
            "paused": self.paused,
            "not_paused": self.not_paused,
        }


def look(
    workspace: Workspace,
    snapshot: str,
    alias: str,
    *,
    judge: str | None = None,
    last: int = LAST,
    pause: bool = False,
    seed: int = 0,
) -> Drift:
    """Compare the newest `last` replies of `name@alias` with the snapshot. An alarm opens one item, and none anew for the same
    replies; judge: a reward version that reads replies of both; pause: pauses the alias's rollout in force too, unless somebody
    resumed it past a drift.

    Raises NotFound for an unknown snapshot, alias or judge, or where nothing was served; BadInput for a judge that is no reward.
    """
    name_of(alias)
    cut = open_snapshot(workspace, snapshot)
    ref = None if judge is None else registry.resolve(workspace, judge, role="reward")
    with workspace.read() as connection:
        cut_at = find_snapshot(connection, cut.ref).created_at
        window, before = served(connection, alias, last)
        since_cut = labels_since(connection, cut_at)
    reference, frozen_labels = frozen(cut)
    numbers = {name: _Sides(reference, window, value_of) for name, value_of in NUMBERS.items()}
    numbers["reward"] = _Sides(before, window, _reward)
    if ref is not None:
        numbers["judged_reward"] = _Sides(*drift_judged.points(workspace, ref, cut, window), _reward)
    agreement = drift.agreement("agreement", frozen_labels, since_cut, seed=seed)
    found = drift.judged([*_shifts(numbers, reference, window, seed), agreement])
    slices = tuple(_slice(shift, numbers.get(shift.name), window) for shift in found if shift.alarm)
    seen = Drift(cut.ref, alias, len(window), window[-1].at, found, slices)
    return _acted(workspace, seen, cut.digest, window[0].id, pause) if seen.alarms else seen


@dataclass(frozen=True, slots=True)
class _Sides:
    """Where a number is read from: what it is held against, and what is looked at."""

    then: Sequence[Said]
    now: Sequence[Said]
    value_of: Callable[[Said], float | None]


def _shifts(
    numbers: Mapping[str, _Sides], reference: Sequence[Said], window: Sequence[Said], seed: int
) -> Iterator[Shift]:
    """Every feature of prompts, replies and rewards, not yet held together."""
    for name, sides in numbers.items():
        told = [
            [(value, said.group) for said in side if (value := sides.value_of(said)) is not None]
            for side in (sides.then, sides.now)
        ]
        values = [[value for value, _ in side] for side in told]
        groups = [[group for _, group in side] for side in told]
        yield drift.numbers(name, values[0], values[1], groups[0], groups[1], seed=seed)
    for name, text_of in WORDS.items():
        then, now = ([said for said in side if text_of(said)] for side in (reference, window))
        counted, n_words = bags([[text_of(said) or "" for said in side] for side in (then, now)])
        groups = [[said.group for said in side] for side in (then, now)]
        yield drift.words(name, counted[0], counted[1], n_words, groups[0], groups[1], seed=seed)


def _slice(shift: Shift, sides: _Sides | None, window: Sequence[Said]) -> Slice:
    """The part of the window in which a number moved most; of words and agreement only examples of the window."""
    if sides is None:
        return Slice(shift.name, None, None, shift.n_window, None, tuple(said.id for said in window[:_EXAMPLES]))
    then = [value for said in sides.then if (value := sides.value_of(said)) is not None]
    mean, sd = float(np.mean(then)), float(np.std(then)) or 1.0
    told = [(said, value) for said in sides.now if (value := sides.value_of(said)) is not None]
    sign = 1.0 if np.mean([value for _, value in told]) >= mean else -1.0
    best: tuple[float, str | None, str | None, list[tuple[Said, float]]] = (0.0, None, None, told)
    for by in ("version", "conversation"):
        values = {said.slices.get(by) for said, _ in told} - {None}
        for part in sorted(str(one) for one in values) if len(values) > 1 else ():
            inside = [(said, x) for said, x in told if said.slices.get(by) == part]
            moved = sign * (float(np.mean([x for _, x in inside])) - mean) / sd
            if len(inside) >= _LEAST_SLICE and moved > best[0]:
                best = (moved, by, part, inside)
    _, by_best, value_best, inside = best
    effect = (float(np.mean([x for _, x in inside])) - mean) / sd
    far = sorted(inside, key=lambda one: (-sign * one[1], one[0].id))[:_EXAMPLES]
    return Slice(shift.name, by_best, value_best, len(inside), effect, tuple(said.id for said, _ in far))


def _reward(said: Said) -> float | None:
    return said.reward


def _acted(workspace: Workspace, seen: Drift, digest: str, newest: str, pause: bool) -> Drift:
    """One item for these replies, and the rollout paused where that was asked for."""
    text = _text(seen)
    once = digest_of(["item", CHANNEL, seen.alias, digest, newest, [shift.name for shift in seen.alarms]])
    with workspace.write() as write:
        item = add_in(
            write,
            kind="bug",
            risk="medium",
            channel=CHANNEL,
            pair_id=None,
            comment=None,
            body=text,
            given_by=write.actor,
            once=once,
            rule="drift",
        )
        live = logs.live(write.connection).get(seen.alias)
    seen = replace(seen, item=item)
    if not pause:
        return seen
    if (why_not := _why_not(live)) is not None:
        return replace(seen, not_paused=why_not)
    assert live is not None
    why = f"drift of {', '.join(shift.name for shift in seen.alarms)} against {seen.snapshot}; item {item.id[:10]}"
    figures = {"drift": [shift.as_json() for shift in seen.alarms]}
    try:
        rollouts.pause(workspace, live.id, why=why, fired=(SIGNAL,), figures=figures, expect=live.seq)
    except Conflict as error:
        return replace(seen, not_paused=error.message)
    return replace(seen, paused=live.id)


def _why_not(live: Rollout | None) -> str | None:
    if live is None:
        return "no rollout is in force"
    if live.status != "running":
        return f"the rollout is {live.status} already"
    if SIGNAL in live.signals:
        return "somebody resumed it past a drift"
    return None


def _text(seen: Drift) -> str:
    lines = [f"Drift at {seen.alias} against {seen.snapshot}, newest {seen.n_window} replies since {seen.since[:19]}."]
    of = {one.feature: one for one in seen.slices}
    for shift in seen.alarms:
        size = "" if shift.effect is None else f" {shift.effect:+.2f} [{shift.low:.2f}, {shift.high:.2f}]"
        far = "" if shift.distance is None else f", distance {shift.distance:.2f} (by chance {shift.by_chance:.2f})"
        lines.append(f"{shift.name}:{size}{far}; n {shift.n_window} against {shift.n_reference}, q {shift.q:.3g}.")
        one = of[shift.name]
        where = (
            "everywhere alike"
            if one.by is None
            else f"most where {one.by} is {one.value} (n {one.n}, {one.effect:+.2f})"
        )
        lines.append(f"  {where}; for instance requests {', '.join(one.examples)}.")
    return "\n".join(lines)
