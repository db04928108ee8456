"""Rollouts: start, advance, pause, complete, roll back; each an entry in the log, its audit entry in the same transaction.

A rollout tries versions beside what its alias points at (the arm `control`). The alias itself moves once, at the end, through
`aliases.move` with its gate. To roll a rollout back is one append: everybody is back on the alias's version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.errors import BadInput, BadUsage, Conflict
from rlhf.ids import canonical_json, new_id, now_text
from rlhf.records import VersionRef
from rlhf.registry import aliases, gates, open_version, show
from rlhf.registry.alias_names import name_of, require_free_word, require_why
from rlhf.registry.locks import hold
from rlhf.serving import log
from rlhf.serving.assignment import BUCKETS, Allocation
from rlhf.serving.log import Rollout
from rlhf.serving.settings import CONTROL, RolloutSettings
from rlhf.serving.trials import trial_of
from rlhf.store import Workspace, Write
from rlhf.store.tables import rollouts

# What a door must ask of who calls (`people/roles.py`).
PERMISSION_OF = {
    "start": "promote",
    "advance": "promote",
    "complete": "promote",
    "pause": "roll_back",
    "rollback": "roll_back",
    "status": "evaluate",
}


def start(workspace: Workspace, alias: str, settings: RolloutSettings, *, why: str, pending: bool = False) -> Rollout:
    """Begin a rollout of `name@alias`; every byte of every arm is checked first. pending: nobody is served before `advance`.

    Raises NotFound for an unknown alias or version, Conflict where the alias has a rollout in force or was moved meanwhile,
    BadInput for a version of another name or role, a retired one, or one that stands twice, and for a judge that can't judge;
    Damaged.
    """
    name = name_of(alias)
    require_free_word(alias)
    require_why(why, "the rollout starts")
    seen = aliases.history(workspace, alias)[-1]
    control = aliases.current(workspace, alias)
    arms = {CONTROL: control, **{arm: open_version(workspace, of.version).ref for arm, of in settings.arms.items()}}
    settings = _with_judge_fixed(workspace, settings, control)
    at = now_text()
    everybody = Allocation.whole(CONTROL)
    begun = everybody if pending else everybody.moved_to(settings.weights_at(0))
    digests = {arm: ref.digest for arm, ref in arms.items()}
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        if aliases.last_move(write.connection, alias) != seen:
            raise Conflict(f"{alias} was moved meanwhile", fix=f"look at: rlhf alias history {alias}")
        if (there := log.live(write.connection).get(alias)) is not None:
            raise Conflict(
                f"{alias} has a rollout already ({there.id[:10]}, {there.status}, by {there.started_by})",
                fix=f"complete it or roll it back first; see: rlhf rollout status {alias}",
            )
        _require_usable(write, alias, arms)
        rollout = Rollout(
            new_id(),
            alias,
            settings,
            digests,
            seen.seq,
            write.actor,
            at,
            0,
            "pending",
            begun,
            0,
            at,
            (),
            (),
            "",
            "",
            at,
        )
        spec = canonical_json({"settings": settings.model_dump(mode="json"), "arms": digests}).decode()
        row = {"id": rollout.id, "alias": alias, "kind": settings.kind, "alias_seq": seen.seq, "spec": spec}
        row |= {"who": write.actor, "why": why.strip(), "created_at": at}
        write.connection.execute(rollouts.insert().values(**row))
        return log.append(write, rollout, "start", "pending" if pending else "running", why)


def advance(
    workspace: Workspace,
    which: str,
    *,
    why: str,
    figures: Mapping[str, Any] | None = None,
    expect: int | None = None,
) -> Rollout:
    """One step on: a pending rollout begins, a paused one runs again where it stood (past the signals that paused it), a running
    canary takes its next stage. which: name@alias, or the rollout's id. expect: the entry last seen. figures: what it is decided
    by, for the audit log.

    Raises NotFound, Conflict where there is no next step or somebody was first.
    """
    require_why(why, "the rollout advances")
    with workspace.write() as write:
        rollout = _held(write, which, expect)
        at = now_text()
        if rollout.status == "pending":
            begun = rollout.allocation.moved_to(rollout.settings.weights_at(0))
            return log.append(write, rollout, "begin", "running", why, allocation=begun, stage_at=at)
        if rollout.status == "paused":
            past = tuple(sorted({*rollout.signals, *rollout.fired}))
            return log.append(write, rollout, "resume", "running", why, fired=(), signals=past, stage_at=at)
        _require_next_stage(rollout)
        stage = rollout.stage + 1
        weights = rollout.settings.weights_at(stage)
        grown = rollout.allocation.moved_to(weights)
        return log.append(
            write, rollout, "advance", "running", why, figures=figures, allocation=grown, stage=stage, stage_at=at
        )


def weigh(
    workspace: Workspace, which: str, weights: Mapping[str, int], *, why: str, expect: int | None = None
) -> Rollout:
    """New shares (basis points, 10,000 in all) for a running bandit; the fewest units move. Raises BadInput, Conflict."""
    with workspace.write() as write:
        rollout = _held(write, which, expect)
        if rollout.settings.kind != "bandit" or rollout.status != "running":
            raise Conflict(f"{rollout.alias} has no running bandit", fix=f"see: rlhf rollout status {rollout.alias}")
        if set(weights) != set(rollout.arms):
            raise BadInput(f"weights for {', '.join(weights)}", fix=f"give one for each of {', '.join(rollout.arms)}")
        if sum(weights.values()) != BUCKETS or min(weights.values()) < 0:
            raise BadInput(
                f"shares of {sum(weights.values()) / 100:g} % in all, the least {min(weights.values()) / 100:g} %",
                fix="give shares of 0 or more that come to 100 %",
            )
        if weights[CONTROL] == BUCKETS:
            raise BadInput(
                f"{CONTROL} would have 100 %, and the other arms nobody",
                fix=f"end it with: rlhf rollout rollback {rollout.alias} --why TEXT",
            )
        moved = rollout.allocation.moved_to(weights)
        return log.append(write, rollout, "weigh", "running", why, allocation=moved, stage_at=now_text())


def pause(
    workspace: Workspace,
    which: str,
    *,
    why: str,
    fired: Sequence[str] = (),
    figures: Mapping[str, Any] | None = None,
    expect: int | None = None,
) -> Rollout:
    """The shares stand where they are until somebody advances. fired: signals that say so. Raises NotFound, Conflict."""
    require_why(why, "the rollout is paused")
    with workspace.write() as write:
        rollout = _held(write, which, expect)
        if rollout.status != "running":
            raise Conflict(
                f"the rollout of {rollout.alias} is {rollout.status}, wanted running", fix="nothing is to be paused"
            )
        return log.append(write, rollout, "pause", "paused", why, figures=figures, fired=tuple(fired))


def roll_back(
    workspace: Workspace,
    which: str,
    *,
    why: str,
    figures: Mapping[str, Any] | None = None,
    expect: int | None = None,
) -> Rollout:
    """Everybody back on what the alias pointed at when the rollout began: one append. Of a completed rollout, whose alias moved,
    it is the alias's rollback (`aliases.roll_back`).

    Raises NotFound, Conflict where it ended otherwise.
    """
    require_why(why, "the rollout is rolled back")
    with workspace.write() as write:
        rollout = _held(write, which, expect, live_only=False)
        if rollout.is_live:
            back = Allocation.whole(CONTROL)
            return log.append(write, rollout, "roll_back", "rolled_back", why, figures=figures, allocation=back)
        moved = aliases.last_move(write.connection, rollout.alias)
    if rollout.status != "completed" or moved is None or moved.evidence.get("rollout") != rollout.id:
        raise _ended(rollout)
    aliases.roll_back(workspace, rollout.alias, why=why, expect=moved.seq)
    return status(workspace, rollout.id)


def complete(
    workspace: Workspace, which: str, *, why: str, arm: str | None = None, expect: int | None = None
) -> Rollout:
    """End it with an arm: the alias moves there, if its gate is met; `control` leaves it where it is.

    arm: None = a canary's (which must be at 100 %) or a shadow's control. Raises Conflict where the gate isn't met, where somebody
    was first, or where a canary isn't at its end; BadUsage where an arm must be named.
    """
    require_why(why, "the rollout is completed")
    with workspace.write() as write:
        rollout = _held(write, which, expect)
        winner = _winner(rollout, arm)
        if winner == CONTROL:
            back = Allocation.whole(CONTROL)
            return log.append(write, rollout, "complete", "completed", why, allocation=back)
    moved = aliases.move(
        workspace,
        rollout.alias,
        f"sha256:{rollout.arms[winner]}",
        why=why,
        evidence={"rollout": rollout.id, "arm": winner},
        expect=rollout.alias_seq,
        trials=trial_of,
    )
    with workspace.write() as write:
        hold(write, f"alias:{name_of(rollout.alias)}")
        now = log.get(write.connection, rollout.id)
        if now.status == "completed":  # by the alias's own entry
            everybody = now.allocation.moved_to({CONTROL: 0, winner: 10_000})
            return log.append(write, now, "complete", "completed", why, allocation=everybody)
    # Rolled back in the moment between: that stands.
    aliases.roll_back(workspace, rollout.alias, why=f"its rollout was {now.status}: {now.why}", expect=moved.seq)
    raise _ended(now)


def status(workspace: Workspace, which: str) -> Rollout:
    """How it stands. which: name@alias (its newest rollout), or the rollout's id. Raises NotFound."""
    with workspace.read() as connection:
        return log.find(connection, which)


def in_force(workspace: Workspace) -> tuple[Rollout, ...]:
    """The rollouts that are pending, running or paused, by alias."""
    with workspace.read() as connection:
        found = log.live(connection)
    return tuple(found[alias] for alias in sorted(found))


def _held(write: Write, which: str, expect: int | None, *, live_only: bool = True) -> Rollout:
    """The rollout, nobody else moving it or its alias until the transaction ends."""
    found = log.find(write.connection, which)
    hold(write, f"alias:{name_of(found.alias)}")
    rollout = log.get(write.connection, found.id)
    if expect is not None and rollout.seq != expect:
        raise log.lost(rollout.alias)
    if live_only and not rollout.is_live:
        raise _ended(rollout)
    return rollout


def _ended(rollout: Rollout) -> Conflict:
    return Conflict(
        f"the rollout of {rollout.alias} is {rollout.status}: {rollout.who}, {rollout.why}",
        fix=f"start another: rlhf rollout start {rollout.alias} VERSION",
    )


def _winner(rollout: Rollout, arm: str | None) -> str:
    kind = rollout.settings.kind
    if arm is None and kind in ("canary", "shadow"):
        arm = CONTROL if kind == "shadow" else next(iter(rollout.settings.arms))
    if arm is None or arm not in rollout.arms:
        seen = "no arm is named" if arm is None else f"there is no arm {arm!r:.60}"
        raise BadUsage(seen, fix=f"name one with --arm: {', '.join(rollout.arms)}")
    if kind == "canary" and arm != CONTROL and rollout.allocation.weights.get(arm) != 10_000:
        share = rollout.allocation.weights.get(arm, 0) / 100
        raise Conflict(
            f"the canary of {rollout.alias} is at {share:g} %, wanted 100",
            fix=f"go on with: rlhf rollout advance {rollout.alias} --why TEXT",
        )
    return arm


def _require_next_stage(rollout: Rollout) -> None:
    alias, settings = rollout.alias, rollout.settings
    if settings.kind != "canary":
        raise Conflict(
            f"the rollout of {alias} is a running {settings.kind}: it has no stages",
            fix=f"end it with: rlhf rollout complete {alias} --arm ARM --why TEXT",
        )
    if rollout.stage + 1 >= len(settings.stages):
        raise Conflict(
            f"the canary of {alias} is at its last stage", fix=f"end it with: rlhf rollout complete {alias} --why TEXT"
        )


def _with_judge_fixed(workspace: Workspace, settings: RolloutSettings, control: VersionRef) -> RolloutSettings:
    """With the judge's digest in its name's place: an alias that moves would change the scale in the middle. Raises BadInput."""
    judge = settings.judge
    if judge is None:
        return settings
    opened = open_version(workspace, judge.version)
    if opened.ref.role != "reward" or control.role != "policy":
        raise BadInput(
            f"{opened.ref} is a {opened.ref.role} that should judge the replies of a {control.role}",
            fix="name a reward version, in a rollout of policies",
        )
    theirs, own = (one.manifest["base"] for one in (opened, show(workspace, control)))
    if theirs["digest"] != own["digest"]:
        raise BadInput(
            f"{opened.ref} is for the base {theirs['name']}, {control} for {own['name']}",
            fix="name a reward of the same base: one server has one in memory",
        )
    fixed = judge.model_copy(update={"version": f"sha256:{opened.ref.digest}"})
    return settings.model_copy(update={"judge": fixed})


def _require_usable(write: Write, alias: str, arms: Mapping[str, VersionRef]) -> None:
    seen: dict[str, str] = {}
    for arm, ref in arms.items():
        gates.require_fits(write.connection, alias, name_of(alias), ref)
        if (other := seen.setdefault(ref.digest, arm)) != arm:
            raise BadInput(f"{arm} and {other} are both {ref}", fix="give each arm another version")
        if ref.role != arms[CONTROL].role:
            raise BadInput(f"{alias} points at a {arms[CONTROL].role}, {ref} is a {ref.role}", fix="use another alias")
