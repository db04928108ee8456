"""Aliases: movable names over immutable versions, as an append-only log.

A move is a compare-and-set on the alias's last entry: it holds only if nobody moved the alias since the mover last
looked, and who loses is told what is current. A rollback is one more entry; no file, no model, no older entry is
touched, so it costs the same behind a hundred versions as behind two (promise 7).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, Row, select
from sqlalchemy.exc import IntegrityError

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.ids import canonical_json, now_text
from rlhf.records import AliasMove, VersionRef
from rlhf.registry import decision_content, decision_log, gate_log, gates
from rlhf.registry.alias_names import name_of, require_free_word, require_why
from rlhf.registry.gate_trials import Trials
from rlhf.registry.locks import hold
from rlhf.registry.versions import open_version, ref_of, resolve_in
from rlhf.store import Workspace, Write
from rlhf.store.tables import alias_moves, versions


@dataclass(frozen=True, slots=True)
class AliasInForce:
    """An alias and what it points at now; seq counts its moves."""

    alias: str
    version: VersionRef
    seq: int
    who: str
    why: str
    at: str


def move(
    workspace: Workspace,
    alias: str,
    version: str,
    *,
    why: str,
    evidence: Mapping[str, Any] | None = None,
    expect: int | None = None,
    trials: Trials | None = None,
) -> AliasMove:
    """Point `name@alias` at a version of that name. expect: the seq last seen (0 = none); None = as of this call. trials: how a
    canary went, for a gate that asks: `serving.trial_of`.

    Every byte of the version is checked first, and the alias's gate, where it has one; what the gate found goes into the
    move's evidence, under `gate`, and into the decision that is recorded with the move. Raises Conflict where the gate isn't met,
    naming each reason, where somebody moved the alias meanwhile, or where it points there already; BadInput for a version of
    another name or role or a retired one, NotFound for an unknown version, Damaged for one whose files have changed.
    """
    name = name_of(alias)
    require_free_word(alias)
    require_why(why)
    seen = _seq_now(workspace, alias) if expect is None else expect
    to = open_version(workspace, version).ref  # before the lock: reading gigabytes would keep every other writer out
    verdict = gates.check(workspace, alias, to, trials=trials)
    content = decision_content.of_promotion(workspace, alias, to, verdict, evidence or {})
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        last = _require_last(write.connection, alias, seen)
        _require_fits(write.connection, alias, name, to, last)
        if last is not None and last.to_digest == to.digest:
            raise Conflict(f"{alias} points at {to} already", fix="nothing is to be done")
        gates.require_met(write.connection, alias, to, verdict)
        found = {"gate": dict(verdict.evidence)} if verdict.evidence else {}
        review_days = verdict.gate.rules.review_days if verdict.gate else None
        record = {"kind": "promotion", "content": content, "review_days": review_days}
        return _append(
            write, alias, last, to.digest, "set", why, {**(evidence or {}), **found}, record, returns_to=None
        )


def roll_back(
    workspace: Workspace, alias: str, *, to: str | None = None, why: str, expect: int | None = None
) -> AliasMove:
    """Return to what the alias pointed at before the entry in force; repeated, it walks further back. No gate is asked:
    the way back is always open. The decision that is recorded with it names the one that it takes back.

    to: a version that the alias pointed at before. Raises Conflict at the first entry, or where somebody moved it
    meanwhile; BadInput where the alias never pointed at `to`; NotFound for an unknown alias.
    """
    name = name_of(alias)
    require_why(why)
    seen = _seq_now(workspace, alias) if expect is None else expect
    with workspace.write() as write:
        hold(write, f"alias:{name}")
        last = _require_last(write.connection, alias, seen)
        if last is None:
            raise _unknown(write.connection, alias, name)
        target = _one_back(write.connection, last) if to is None else _back_to(write.connection, last, to)
        _require_not_retired(write.connection, alias, target)
        record = {
            "kind": "rollback",
            "content": decision_content.of_rollback(write.connection, alias, target.seq),
            "takes_back": decision_log.of_move(write.connection, alias, last.returns_to or last.seq),
            "review_days": _review_days(write.connection, alias),
        }
        return _append(write, alias, last, target.to_digest, "rollback", why, {}, record, returns_to=target.seq)


def one_back(workspace: Workspace, alias: str) -> AliasMove | None:
    """The entry that a rollback would return to now; None at the first entry. Raises NotFound for an alias that was never set."""
    name = name_of(alias)
    with workspace.read() as connection:
        last = _last(connection, alias)
        if last is None:
            raise _unknown(connection, alias, name)
        return None if _is_first(last) else _move(_one_back(connection, last))


def history(workspace: Workspace, alias: str) -> tuple[AliasMove, ...]:
    """Every move of the alias, first to last. Raises NotFound for an alias that was never set."""
    name = name_of(alias)
    with workspace.read() as connection:
        rows = connection.execute(select(alias_moves).where(alias_moves.c.alias == alias).order_by(alias_moves.c.seq))
        moves = tuple(_move(row) for row in rows)
        if not moves:
            raise _unknown(connection, alias, name)
    return moves


def current(workspace: Workspace, alias: str) -> VersionRef:
    """What the alias points at now. Raises NotFound."""
    name = name_of(alias)
    with workspace.read() as connection:
        last = _last(connection, alias)
        if last is None:
            raise _unknown(connection, alias, name)
        return ref_of(connection.execute(select(versions).where(versions.c.digest == last.to_digest)).one())


def list_aliases(workspace: Workspace) -> tuple[AliasInForce, ...]:
    """Every alias with what it points at, by name."""
    later = alias_moves.alias()
    is_last = ~select(later.c.seq).where(later.c.alias == alias_moves.c.alias, later.c.seq > alias_moves.c.seq).exists()
    query = select(alias_moves, versions.c.name, versions.c.number, versions.c.digest, versions.c.role)
    joined = query.join(versions, versions.c.digest == alias_moves.c.to_digest).where(is_last)
    with workspace.read() as connection:
        rows = connection.execute(joined.order_by(alias_moves.c.alias)).all()
    return tuple(AliasInForce(r.alias, ref_of(r), r.seq, r.who, r.why, r.at) for r in rows)


def last_move(connection: Connection, alias: str) -> AliasMove | None:
    """The alias's last entry, inside a transaction of the caller's; None where it was never set."""
    last = _last(connection, alias)
    return None if last is None else _move(last)


def _review_days(connection: Connection, alias: str) -> int | None:
    """Of the gate in force: what an alias was taken back to wants another look as well."""
    gate = gate_log.in_force(connection, alias)
    return None if gate is None else gate.rules.review_days


def _seq_now(workspace: Workspace, alias: str) -> int:
    with workspace.read() as connection:
        last = _last(connection, alias)
    return last.seq if last is not None else 0


def _last(connection: Connection, alias: str) -> Row[Any] | None:
    query = select(alias_moves).where(alias_moves.c.alias == alias).order_by(alias_moves.c.seq.desc()).limit(1)
    return connection.execute(query).first()


def _require_last(connection: Connection, alias: str, seen: int) -> Row[Any] | None:
    last = _last(connection, alias)
    if (last.seq if last is not None else 0) != seen:
        raise _lost(connection, alias, last)
    return last


def _lost(connection: Connection, alias: str, last: Row[Any] | None) -> Conflict:
    if last is None:
        return Conflict(f"{alias} was expected to be set; it is not", fix=f"look at: rlhf alias history {alias}")
    at = ref_of(connection.execute(select(versions).where(versions.c.digest == last.to_digest)).one())
    return Conflict(
        f"{alias} was moved meanwhile: {last.who} pointed it at {at} (entry {last.seq}, {last.why})",
        fix=f"look at it and move it again if you still want to: rlhf alias history {alias}",
    )


def _require_fits(connection: Connection, alias: str, name: str, to: VersionRef, last: Row[Any] | None) -> None:
    gates.require_fits(connection, alias, name, to)
    before = (
        None
        if last is None
        else connection.execute(select(versions.c.role).where(versions.c.digest == last.to_digest)).scalar_one()
    )
    if before is not None and before != to.role:
        raise BadInput(f"{alias} points at a {before}, {to} is a {to.role}", fix="use another alias for it")


def _one_back(connection: Connection, last: Row[Any]) -> Row[Any]:
    """The entry before the one in force. Sets form a tree: a set's parent is what was in force when it was made, and a
    rollback stands where the set stands that it returned to; so what was rolled back from is never returned to.
    """
    if _is_first(last):
        raise Conflict(
            f"{last.alias} is at its first entry; there is nothing before it",
            fix=f"name a version with: rlhf alias set {last.alias} VERSION; a rollout beside it ends with: rlhf rollout rollback",
        )
    before = _entry(connection, last.alias, (last.returns_to or last.seq) - 1)
    return before if before.returns_to is None else _entry(connection, last.alias, before.returns_to)


def _is_first(last: Row[Any]) -> bool:
    return bool((last.returns_to or last.seq) == 1)


def _back_to(connection: Connection, last: Row[Any], text: str) -> Row[Any]:
    to = resolve_in(connection, text)
    query = select(alias_moves).where(alias_moves.c.alias == last.alias, alias_moves.c.to_digest == to.digest)
    entry = connection.execute(
        query.where(alias_moves.c.returns_to.is_(None)).order_by(alias_moves.c.seq.desc()).limit(1)
    ).first()
    if entry is None:
        raise BadInput(f"{last.alias} never pointed at {to}", fix=f"choose from: rlhf alias history {last.alias}")
    if last.to_digest == to.digest:
        raise Conflict(f"{last.alias} points at {to} already", fix="nothing is to be done")
    return entry


def _require_not_retired(connection: Connection, alias: str, target: Row[Any]) -> None:
    row = connection.execute(select(versions).where(versions.c.digest == target.to_digest)).one()
    if row.retired_at is not None:
        raise BadInput(
            f"{ref_of(row)}, which {alias} would return to, was retired at {row.retired_at}",
            fix=f"name one that is not, with --to; see: rlhf alias history {alias}",
        )


def _entry(connection: Connection, alias: str, seq: int) -> Row[Any]:
    return connection.execute(select(alias_moves).where(alias_moves.c.alias == alias, alias_moves.c.seq == seq)).one()


def _append(
    write: Write,
    alias: str,
    last: Row[Any] | None,
    to_digest: str,
    action: Literal["set", "rollback"],
    why: str,
    evidence: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    returns_to: int | None,
) -> AliasMove:
    found = canonical_json(dict(evidence)).decode()
    moved = AliasMove(
        alias,
        (last.seq if last is not None else 0) + 1,
        last.to_digest if last is not None else None,
        to_digest,
        write.actor,
        why.strip(),
        now_text(),
        action,
        json.loads(found),
    )
    row = {**{f.name: getattr(moved, f.name) for f in fields(moved)}, "evidence": found, "returns_to": returns_to}
    try:
        write.connection.execute(alias_moves.insert().values(**row))
    except IntegrityError:
        raise Conflict(f"{alias} was moved meanwhile", fix=f"look at: rlhf alias history {alias}") from None
    decision_log.record(
        write,
        **record,
        why=why,
        alias=alias,
        alias_seq=moved.seq,
        from_digest=moved.from_digest,
        to_digest=to_digest,
    )
    write.audit(f"alias.{action}", alias, {k: row[k] for k in ("seq", "from_digest", "to_digest", "returns_to", "why")})
    write.announce(f"alias:{alias}", moved)
    return moved


def _move(row: Row[Any]) -> AliasMove:
    return AliasMove(
        row.alias,
        row.seq,
        row.from_digest,
        row.to_digest,
        row.who,
        row.why,
        row.at,
        row.action,
        json.loads(row.evidence),
    )


def _unknown(connection: Connection, alias: str, name: str) -> NotFound:
    known = connection.execute(select(alias_moves.c.alias).distinct().order_by(alias_moves.c.alias)).scalars().all()
    near = [one for one in known if one.startswith(f"{name}@")] or known[:5]
    return NotFound(
        f"there is no alias {alias}",
        fix=f"the aliases are {', '.join(near)}" if near else f"set it: rlhf alias set {alias} VERSION",
    )
