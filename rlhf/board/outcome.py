"""What became of an item: the snapshots that hold its pair, the versions that learnt from these, the aliases on them now.

Computed from the frozen rows and the lineage each time, so that nobody has to keep it up. A pair on a snapshot's test side was
measured on and taught nothing. A training may have taken fewer rows than its snapshot holds; here every version counts that was
trained on a snapshot whose train side holds the pair, and every version that came of one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf.board.items import Event, Item
from rlhf.feedback.holds import pairs_of_comment
from rlhf.registry import descendants
from rlhf.registry.versions import aliases_in_force
from rlhf.snapshots import holding
from rlhf.store import Workspace
from rlhf.store.tables import versions

_STANDS = {
    "new": "nobody has looked at it yet",
    "triaged": "it was looked at and waits for its turn",
    "in_progress": "somebody is at work on it",
    "done": "it is done",
    "declined": "it was declined",
}


@dataclass(frozen=True, slots=True)
class InSnapshot:
    """names: every cut of the same rows. split: the side on which the pair stands there."""

    names: tuple[str, ...]
    split: str
    cut_at: str


@dataclass(frozen=True, slots=True)
class Learnt:
    """A version that a pair had a part in. of: the snapshot. relation: trained-on, or what led from there. aliases: now."""

    version: str
    relation: str
    of: str
    aliases: tuple[str, ...]
    made_at: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a pair, oldest first."""

    snapshots: tuple[InSnapshot, ...] = ()
    versions: tuple[Learnt, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "snapshots": [{"names": list(s.names), "split": s.split, "cut_at": s.cut_at} for s in self.snapshots],
            "versions": [
                {
                    "version": v.version,
                    "relation": v.relation,
                    "of": v.of,
                    "aliases": list(v.aliases),
                    "made_at": v.made_at,
                }
                for v in self.versions
            ],
        }


def pairs_of(connection: Connection, item: Item) -> tuple[str, ...]:
    """The pairs that an item is about."""
    if item.pair_id is not None:
        return (item.pair_id,)
    return tuple(pairs_of_comment(connection, item.comment)) if item.comment is not None else ()


def outcomes(workspace: Workspace, found: Collection[Item]) -> dict[str, Outcome]:
    """By item id."""
    with workspace.read() as connection:
        named = {item.id: pairs_of(connection, item) for item in found}
        pointing = aliases_in_force(connection)
        made_at = {
            row.digest: row.created_at for row in connection.execute(select(versions.c.digest, versions.c.created_at))
        }
    held = holding(workspace, {pair_id for ids in named.values() for pair_id in ids})
    digests = {one.digest for ones in held.values() for one in ones if one.split == "train"}
    came_of = {digest: descendants(workspace, snapshot=f"sha256:{digest}") for digest in sorted(digests)}
    told: dict[str, Outcome] = {}
    for item, ids in named.items():
        ones = sorted(
            {one for pair_id in ids for one in held.get(pair_id, ())}, key=lambda one: (one.cut_at, one.digest)
        )
        learnt: dict[str, Learnt] = {}
        for one in ones:
            for relative in came_of.get(one.digest, ()) if one.split == "train" else ():
                digest = relative.version.digest
                of = one.names[-1] if relative.relation == "trained-on" else relative.of
                entry = Learnt(
                    str(relative.version), relative.relation, of, pointing.get(digest, ()), made_at.get(digest, "")
                )
                learnt.setdefault(digest, entry)
        told[item] = Outcome(
            tuple(InSnapshot(one.names, one.split, one.cut_at) for one in ones),
            tuple(sorted(learnt.values(), key=lambda v: (v.made_at, v.version))),
        )
    return told


def told(item: Item, events: Sequence[Event], outcome: Outcome) -> list[str]:
    """What became of it, in plain words, for the one who gave it: no names of people, no ids of pairs."""
    lines = [f"Given on {_day(item.created_at)}: {_STANDS[item.status]}."]
    said = [event.why for event in events if event.why and event.action == "set" and "status" in event.changes]
    if item.status in ("done", "declined") and said and item.rule is None:
        lines.append(f"Why: {said[-1]}")
    cleared = [event for event in events if event.action == "clear"]
    if item.is_held:
        lines.append("An expert has to clear it first: until then the pair is in no new snapshot.")
    elif cleared:
        last = cleared[-1]
        lines.append(f"Cleared by an expert on {_day(last.at)}" + (f": {last.why}" if last.why else "."))
    for one in outcome.snapshots:
        use = "to learn from" if one.split == "train" else "to measure with"
        lines.append(f"The pair is part of the snapshot {one.names[-1]}, {use}, since {_day(one.cut_at)}.")
    for version in outcome.versions:
        now = f"; {', '.join(version.aliases)} is that version now" if version.aliases else ""
        lines.append(f"The model {version.version} learnt from it, on {_day(version.made_at)}{now}.")
    return lines + [f"It went into the {event.link}." for event in events if event.link]


def _day(at: str) -> str:
    return at[:10]
