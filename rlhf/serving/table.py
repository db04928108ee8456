"""The router's table: everything that a request needs, as of one moment, frozen.

Each of `moved`, `changed` and `merged` gives a new one. Of two answers about one alias or rollout the one with the higher entry
stands, so that a slow read never undoes a move.
"""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, func, select

from rlhf.errors import BadUsage, NotFound
from rlhf.people import is_token
from rlhf.records import AliasMove, VersionRef
from rlhf.registry.versions import MIN_HEX, ref_of
from rlhf.serving import log
from rlhf.serving.assignment import Plan
from rlhf.serving.log import Entry, Rollout
from rlhf.store import audit
from rlhf.store.tables import alias_moves, bases, versions


@dataclass(frozen=True, slots=True)
class Pointer:
    """An alias's last entry."""

    seq: int
    digest: str
    action: str
    at: str


@dataclass(frozen=True)
class Table:
    """mark: the audit log's length when it was read. entries: the highest entry seen of each rollout, ended ones too. plans: of the
    rollouts that serve."""

    mark: int = 0
    versions: Mapping[str, VersionRef] = field(default_factory=dict)  # by digest
    numbers: Mapping[str, str] = field(default_factory=dict)  # name@7 -> digest
    digests: tuple[str, ...] = ()  # sorted
    retired: frozenset[str] = frozenset()
    bases: frozenset[str] = frozenset()
    pointers: Mapping[str, Pointer] = field(default_factory=dict)  # by alias
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)  # by alias, those in force
    plans: Mapping[str, Plan] = field(default_factory=dict)  # by alias
    entries: Mapping[str, Entry] = field(default_factory=dict)  # by rollout

    def moved(self, move: AliasMove) -> Table:
        """With the alias where the move put it, and without the rollout that this ends."""
        there = self.pointers.get(move.alias)
        if there is not None and there.seq >= move.seq:
            return self
        pointer = Pointer(move.seq, move.to_digest, move.action, move.at)
        after = replace(self, pointers={**self.pointers, move.alias: pointer})
        rollout = self.rollouts.get(move.alias)
        return after._without(move.alias) if rollout is not None and rollout.alias_seq < move.seq else after

    def changed(self, rollout: Rollout, kind: str = "") -> Table:
        """With the rollout as it stands now."""
        if _seq(self, rollout.id) >= rollout.seq:
            return self
        entry = Entry(rollout.seq, kind, rollout.at)
        after = replace(self, entries={**self.entries, rollout.id: entry})
        pointer = self.pointers.get(rollout.alias)
        if not rollout.is_live or (pointer is not None and pointer.seq > rollout.alias_seq):
            there = self.rollouts.get(rollout.alias)
            return after._without(rollout.alias) if there is not None and there.id == rollout.id else after
        after = after._without(rollout.alias)
        return after._with(rollout, _ready(rollout.plan) if rollout.serves else None)

    def merged(self, seen: Table) -> Table:
        """What was read, but for aliases and rollouts of which later entries are here already."""
        if seen.mark < self.mark:
            return self
        pointers = {**seen.pointers}
        for alias, pointer in self.pointers.items():
            if alias not in pointers or pointers[alias].seq < pointer.seq:
                pointers[alias] = pointer
        after = replace(seen, pointers=pointers, rollouts={}, plans={}, entries=self.entries)
        for rollout in self.rollouts.values():
            mine = seen.rollouts.get(rollout.alias)
            is_same = mine is not None and mine.id == rollout.id and mine.seq == rollout.seq
            is_ahead = _seq(self, rollout.id) > _seq(seen, rollout.id)
            if (is_same or is_ahead) and pointers[rollout.alias].seq <= rollout.alias_seq:
                after = after._with(rollout, self.plans.get(rollout.alias))
        for rollout in seen.rollouts.values():
            after = after.changed(rollout)
        ahead = {one: entry for one, entry in after.entries.items() if entry.seq > _seq(seen, one)}
        return replace(after, entries={**seen.entries, **ahead})

    def by_digest(self, digits: str) -> str | None:
        """The one digest that begins so. Raises BadUsage for too few digits, NotFound where it could be several."""
        if not MIN_HEX <= len(digits) <= 64:
            raise BadUsage(
                f"sha256:{digits:.64} has {len(digits)} hex digits, wanted {MIN_HEX} to 64", fix="copy the digest whole"
            )
        at = bisect.bisect_left(self.digests, digits)
        found = [one for one in self.digests[at : at + 2] if one.startswith(digits)]
        if len(found) > 1:
            raise NotFound(f"sha256:{digits} could be several versions", fix="give more digits")
        return found[0] if found else None

    def names_of(self, name: str) -> str:
        """What may be asked for under this name, in words."""
        named = [alias for alias in self.pointers if alias.startswith(f"{name}@")]
        named += [one for one, d in self.numbers.items() if one.startswith(f"{name}@") and d not in self.retired][-5:]
        return ", ".join(named) or "nothing"

    def unknown(self, model: str) -> NotFound:
        """The refusal of a name that nothing here answers to."""
        if is_token(model):  # said without the word: what is refused is logged
            return NotFound(
                "a token stands where the model's name should", fix="send it as Authorization: Bearer, and name a model"
            )
        name = model.partition("@")[0]
        names = sorted({ref.name for ref in self.versions.values()})
        if name in names:
            return NotFound(f"there is no model {model:.300}", fix=f"{name} has {self.names_of(name)}")
        near = difflib.get_close_matches(name[:100], names, n=3) or names[:3]
        return NotFound(
            f"there is no model {model:.300}",
            fix=f"the nearest names are {', '.join(near)}" if near else "train one (rlhf policy train) or import one",
        )

    def _with(self, rollout: Rollout, plan: Plan | None) -> Table:
        """A rollout of which an arm was retired serves nobody: everybody is on the alias."""
        serves = plan is not None and self.retired.isdisjoint(rollout.arms.values())
        plans = {**self.plans, rollout.alias: plan} if plan is not None and serves else self.plans
        return replace(self, rollouts={**self.rollouts, rollout.alias: rollout}, plans=plans)

    def _without(self, alias: str) -> Table:
        return replace(
            self,
            rollouts={other: rollout for other, rollout in self.rollouts.items() if other != alias},
            plans={other: plan for other, plan in self.plans.items() if other != alias},
        )


def read_table(connection: Connection) -> Table:
    """The store's, in the one view of the caller's transaction."""
    rows = connection.execute(select(versions)).all()
    refs = {row.digest: ref_of(row) for row in rows}
    in_force = log.live(connection)
    entries = log.last_entries(connection)
    return Table(
        mark=audit.length(connection),
        versions=refs,
        numbers={str(ref): digest for digest, ref in refs.items()},
        digests=tuple(sorted(refs)),
        retired=frozenset(row.digest for row in rows if row.retired_at is not None),
        bases=frozenset(connection.execute(select(bases.c.name)).scalars()),
        pointers=_pointers(connection),
        rollouts=in_force,
        entries=entries,
    )


def _pointers(connection: Connection) -> dict[str, Pointer]:
    newest = select(alias_moves.c.alias, func.max(alias_moves.c.seq).label("seq")).group_by(alias_moves.c.alias)
    last = newest.subquery()
    joined = alias_moves.join(last, (last.c.alias == alias_moves.c.alias) & (last.c.seq == alias_moves.c.seq))
    return {
        row.alias: Pointer(row.seq, row.to_digest, row.action, row.at)
        for row in connection.execute(select(alias_moves).select_from(joined))
    }


def _seq(table: Table, rollout_id: str) -> int:
    entry = table.entries.get(rollout_id)
    return entry.seq if entry is not None else 0


def _ready(plan: Plan) -> Plan:
    """With what requests will ask of it computed, so that no request waits for it."""
    _ = plan.allocation.owners, plan.allocation.weights
    return plan
