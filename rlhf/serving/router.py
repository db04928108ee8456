"""The router: what a request names, resolved once to the digest that answers it, from tables in memory.

A change makes a new table and puts it in the old one's place in one assignment, so a request sees all of a change or nothing of
it. Moves of this process arrive before the call that made them returns (`store.Database.listen`): no request admitted after
`aliases.roll_back(...)` returned goes to the version rolled back from. `following.py` sees other processes' moves.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from rlhf.errors import NotFound
from rlhf.ids import new_id, now, now_text
from rlhf.records import AliasMove
from rlhf.serving.assignment import BUCKETS, COHORT, Plan, assign, bucket_of
from rlhf.serving.following import Effect, Follower
from rlhf.serving.log import Rollout, RolloutEvent
from rlhf.serving.routes import Judge, Retired, Route, Shadow, Unavailable
from rlhf.serving.settings import CONTROL
from rlhf.serving.table import Table, read_table
from rlhf.store import Workspace

DEFAULT_ALIAS = "champion"  # what a bare name means
_SHA = re.compile(r"sha256:[0-9a-fA-F]*")
OTHERS = "(others)"  # cohorts past the first so many, and names that can't be one
_COHORTS, _LONGEST_COHORT = 100, 60
_EFFECTS_KEPT = 1000
_LOOK_AGAIN_S = 0.05  # a name that isn't there is looked for in the store at most so often


class Router:
    """One a process. follow: see other processes' moves too, until `close`."""

    def __init__(self, workspace: Workspace, *, allow_base: bool = False, follow: bool = True) -> None:
        self._workspace = workspace
        self._allow_base = allow_base
        self._table = Table()
        self._failed: dict[str, str] = {}
        self._cohorts: set[str] = set()
        self._gate = threading.Lock()
        self._looked = 0.0
        self.id = new_id()
        self.effects: deque[Effect] = deque(maxlen=_EFFECTS_KEPT)
        self._unwritten: deque[Effect] = deque(maxlen=_EFFECTS_KEPT)
        self._end_listening = workspace.database.listen(self._told)
        self.refresh()
        self._follower = Follower(workspace, self.refresh, self._unwritten, self.id) if follow else None

    def resolve(self, model: str, unit: str | None = None, context: Mapping[str, Any] | None = None) -> Route:
        """What answers a request for `model`: name, name@alias, name@7, sha256:…, or base:NAME where that is allowed.

        unit: from `pseudonym`, the user's, else the session's; None = each request is drawn for itself. context: what audience
        rules read. Raises NotFound, BadUsage for a spelling, Retired, Unavailable for what failed.
        """
        context = context or {}
        try:
            route = self._usable(self._resolved(self._table, model, unit, context))
        except NotFound:
            if not self._look_again():
                raise
            route = self._usable(self._resolved(self._table, model, unit, context))
        cohort = context.get(COHORT)
        return replace(route, cohort=self._cohort(cohort)) if isinstance(cohort, str) and cohort else route

    def apply(self, news: AliasMove | RolloutEvent) -> None:
        """Put a change in force, at once; one that is in force already changes nothing. Never reads the store."""
        with self._gate:
            table = self._table
            self._table = table.moved(news) if isinstance(news, AliasMove) else table.changed(news.rollout, news.kind)

    def refresh(self, how: str | None = None) -> None:
        """Read the store, and put in force what is newer there. how: what told of it (notified, polled); None = nobody waits."""
        with self._workspace.read() as connection:
            seen = read_table(connection)
        with self._gate:
            before = self._table
            self._table = before.merged(seen)
        if how is not None:
            self._note_differences(before, self._table, how)

    def models(self) -> list[str]:
        """What may be named: aliases, then versions that aren't retired."""
        table = self._table
        named = sorted(name for name, digest in table.numbers.items() if digest not in table.retired)
        return [*sorted(table.pointers), *named, *(f"base:{name}" for name in sorted(table.bases) if self._allow_base)]

    def wanted(self) -> frozenset[str]:
        """Digests that requests may be sent to by an alias or a rollout's arm, and rollouts' judges: to be resident."""
        table = self._table
        arms = (digest for rollout in table.rollouts.values() for digest in rollout.arms.values())
        judges = (judge.digest for rollout in table.rollouts.values() if (judge := _judge(rollout)) is not None)
        return frozenset([*(pointer.digest for pointer in table.pointers.values()), *arms, *judges])

    def rollouts(self) -> list[Rollout]:
        """Those in force."""
        return list(self._table.rollouts.values())

    def mark_failed(self, digest: str, reason: str) -> None:
        """This version failed its checks here: requests for it are refused until `mark_whole`."""
        self._failed = {**self._failed, digest: reason}

    def mark_whole(self, digest: str) -> None:
        self._failed = {other: reason for other, reason in self._failed.items() if other != digest}

    def close(self) -> None:
        """Stop listening and following; times to effect that wait are written."""
        self._end_listening()
        if self._follower is not None:
            self._follower.close()

    def _cohort(self, said: str) -> str:
        """The cohort as it is kept and counted: clients make these names up, so no more than some have a count of their own."""
        if said in self._cohorts:
            return said
        if len(self._cohorts) >= _COHORTS or len(said) > _LONGEST_COHORT or not said.isprintable():
            return OTHERS
        self._cohorts.add(said)
        return said

    def _resolved(self, table: Table, model: str, unit: str | None, context: Mapping[str, Any]) -> Route:
        if model.startswith("base:"):
            return self._base(table, model, unit)
        if _SHA.fullmatch(model):
            return self._version(table, table.by_digest(model.removeprefix("sha256:").lower()), model, unit)
        name, at, which = model.partition("@")
        which = which if at else DEFAULT_ALIAS
        if which.isascii() and which.isdigit():
            return self._version(table, table.numbers.get(f"{name}@{int(which)}"), model, unit)
        alias = f"{name}@{which}"
        pointer = table.pointers.get(alias)
        if pointer is None:
            raise table.unknown(model)
        plan = table.plans.get(alias)
        if plan is not None:
            return self._drawn(table, table.rollouts[alias], plan, model, unit, context)
        route = self._version(table, pointer.digest, model, unit)
        return replace(route, alias=alias, rule="alias", reason={"rule": "alias", "because": f"{alias} points at it"})

    def _drawn(
        self, table: Table, rollout: Rollout, plan: Plan, model: str, unit: str | None, context: Mapping[str, Any]
    ) -> Route:
        assigned = assign(plan, unit or new_id(), context)
        route = self._version(table, rollout.arms[assigned.arm or CONTROL], model, unit)
        reason = {"rollout": rollout.id, "arm": assigned.arm, **assigned.reason}
        if unit is None:
            reason["unit"] = "none was said: drawn for this request alone"
        if assigned.arm is None:
            return replace(route, alias=rollout.alias, rule=assigned.rule, reason=reason)
        return replace(
            route,
            alias=rollout.alias,
            arm=assigned.arm,
            rollout_id=rollout.id,
            rollout_seq=rollout.seq,
            rule=assigned.rule,
            propensity=assigned.propensity,
            reason=reason,
            shadows=self._shadows(table, rollout, plan, unit),
            judge=_judge(rollout) if assigned.rule == "weights" else None,
        )

    def _shadows(self, table: Table, rollout: Rollout, plan: Plan, unit: str | None) -> tuple[Shadow, ...]:
        """The shadow arms that this unit's request is computed by too; one that can't be is left out, for nobody waits for it."""
        if rollout.settings.kind != "shadow":
            return ()
        found = []
        for arm, digest in rollout.arms.items():
            share = (rollout.settings.shadowed(arm) or 0.0) / 100
            usable = digest in table.versions and digest not in table.retired and digest not in self._failed
            if usable and bucket_of(f"{plan.salt}\x00{arm}", unit or new_id()) < share * BUCKETS:
                found.append(Shadow(arm, digest, str(table.versions[digest]), share))
        return tuple(found)

    def _version(self, table: Table, digest: str | None, model: str, unit: str | None) -> Route:
        ref = table.versions.get(digest or "")
        if ref is None:
            raise table.unknown(model)
        because = {"rule": "direct", "because": f"{model} names it"}
        return Route(model, ref.digest, str(ref), ref.name, ref.role, unit, reason=because)

    def _usable(self, route: Route) -> Route:
        """The route, unless its version can't answer."""
        table, digest = self._table, route.digest
        if digest in table.retired:
            fix = f"ask for another; {route.name} has {table.names_of(route.name)}"
            raise Retired(f"{route.version} was retired", fix=fix, route=route)
        if digest is not None and (failed := self._failed.get(digest)) is not None:
            fix = "ask for another version, or see the server's log"
            raise Unavailable(f"{route.version} can't answer: {failed}", fix=fix, route=route)
        return route

    def _base(self, table: Table, model: str, unit: str | None) -> Route:
        name = model.removeprefix("base:")
        if not self._allow_base:
            raise Unavailable(f"{model} is a bare base, which this server doesn't answer with", fix="name a version")
        if name not in table.bases:
            raise table.unknown(model)
        because = {"rule": "direct", "because": "the bare base was asked for by name"}
        return Route(model, None, model, name, "policy", unit, reason=because)

    def _look_again(self) -> bool:
        """Another process may just have made what isn't here. False where the store was looked at a moment ago."""
        if time.monotonic() - self._looked < _LOOK_AGAIN_S:
            return False
        self._looked = time.monotonic()
        self.refresh("polled")
        return True

    def _told(self, news: tuple[Any, ...]) -> None:
        """What a write of this process announced, right after its commit."""
        began = time.perf_counter()
        for deed in news:
            if isinstance(deed, AliasMove):
                self.apply(deed)
                self._note(deed.alias, deed.seq, deed.action, time.perf_counter() - began, "told")
            elif isinstance(deed, RolloutEvent):
                self.apply(deed)
                self._note(deed.rollout.id, deed.rollout.seq, deed.kind, time.perf_counter() - began, "told")

    def _note_differences(self, before: Table, after: Table, how: str) -> None:
        moment = now()
        for alias, pointer in after.pointers.items():
            there = before.pointers.get(alias)
            if there is None or there.seq < pointer.seq:
                took = (moment - datetime.fromisoformat(pointer.at)).total_seconds()
                self._note(alias, pointer.seq, pointer.action, max(0.0, took), how)
        for rollout_id, entry in after.entries.items():
            known = before.entries.get(rollout_id)
            if known is None or known.seq < entry.seq:
                took = (moment - datetime.fromisoformat(entry.at)).total_seconds()
                self._note(rollout_id, entry.seq, entry.kind, max(0.0, took), how)

    def _note(self, subject: str, seq: int, action: str, seconds: float, how: str) -> None:
        effect = Effect(subject, seq, action, seconds, how, now_text())
        self.effects.append(effect)
        self._unwritten.append(effect)


def _judge(rollout: Rollout) -> Judge | None:
    judge = rollout.settings.judge
    return None if judge is None else Judge(judge.version.removeprefix("sha256:"), judge.share / 100)
