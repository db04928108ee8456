"""Adding an item and doing something about it: each deed is an entry in its log, with who and why, and in the audit log.

A safety item holds what it is about from its first entry on. The hold ends by an entry `clear` alone, which takes somebody with the
permission `review` who neither reported the item nor made it a safety item; to call it anything but safety is to clear it, too.
Whether an item is done or declined doesn't end its hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from rlhf.board.items import CLOSED, KINDS, RISKS, SCALE, STATE, STATUSES, Item, get_in, log
from rlhf.errors import BadInput, BadUsage, Conflict, Forbidden, NotFound, RlhfError
from rlhf.feedback.anonymise import mask
from rlhf.feedback.drafts import Rejected
from rlhf.feedback.fields import check_text
from rlhf.feedback.holds import pairs_of_comment
from rlhf.ids import digest_of, new_id, now, now_text
from rlhf.people import accounts
from rlhf.records import PAGE_SOURCE
from rlhf.registry.versions import resolve_in
from rlhf.snapshots import names
from rlhf.store import Workspace, Write
from rlhf.store.tables import comments, item_events, items, leases, pairs

MAX_CHARS = 4000
MAX_REPORTS_AN_HOUR = 60
RISK_OF = {"safety": "high", "bug": "medium", "feature": "low", "preference": "low"}  # until a person says another
SETTABLE = ("kind", "risk", "impact", "effort", "status", "owner", "snapshot", "version", "cleared")
_MIN_HEX = 12


class TooManyReports(RlhfError):
    """More reports than a person writes."""

    code = "too_often"
    http_status = 429


def add(
    workspace: Workspace,
    *,
    kind: str,
    text: str | None = None,
    pair: str | None = None,
    comment: str | None = None,
    given_by: str | None = None,
    risk: str | None = None,
    channel: str = "command line",
) -> Item:
    """A new item about a pair, a comment (their ids, or 12 or more of their digits) or what the text says; the same again is the
    one that is there. given_by: a pseudonym; None = the workspace's actor. The text is masked.

    Raises BadUsage on a word that isn't known, BadInput on a text that can't be kept or none where it is all there is, NotFound.
    """
    with workspace.write() as write:
        pair_id = _found(write.connection, pairs, pairs.c.id, pair, "pair") if pair else None
        digest = _found(write.connection, comments, comments.c.digest, comment, "comment") if comment else None
        giver = given_by or write.actor
        accounts.check_name(giver)
        body = _masked(text)
        if body is None and digest is None and (pair_id is None or kind != "safety"):
            raise BadInput("the item says nothing", fix="give a text: --text WORDS")
        once = digest_of(["item", channel, pair_id, digest, giver, kind, body])
        return add_in(
            write,
            kind=kind,
            risk=risk,
            channel=channel,
            pair_id=pair_id,
            comment=digest,
            body=body,
            given_by=giver,
            once=once,
        )


def report(workspace: Workspace, labeler: str, lease: str, kind: str, text: str | None) -> Item:
    """What a labeler says of the pair that they were given under this lease: a safety incident, with words if they like, or a bug.

    Raises NotFound for a lease that isn't theirs, BadInput, TooManyReports.
    """
    if kind not in ("safety", "bug"):
        raise BadInput(f"{kind!r:.60} is nothing to report from the page", fix="report safety or bug")
    with workspace.as_actor(labeler).write() as write:
        given = write.connection.execute(
            select(leases.c.pair_id, leases.c.shown).where(leases.c.id == lease, leases.c.labeler == labeler)
        ).first()
        if given is None:
            raise NotFound("no pair was given to you under this lease", fix="load the next pair")
        pair_id = given.pair_id
        body = _masked(text)
        if body is None and kind == "bug":
            raise BadInput("the report says nothing", fix="say what is wrong")
        once = digest_of(["item", PAGE_SOURCE, pair_id, None, labeler, kind, body])
        if write.connection.scalar(select(items.c.id).where(items.c.once == once)) is None:
            _require_pace(write.connection, labeler)
        return add_in(
            write,
            kind=kind,
            risk=None,
            channel=PAGE_SOURCE,
            shown=given.shown,
            pair_id=pair_id,
            comment=None,
            body=body,
            given_by=labeler,
            once=once,
        )


def add_in(
    write: Write,
    *,
    kind: str,
    risk: str | None,
    channel: str,
    pair_id: str | None,
    comment: str | None,
    body: str | None,
    given_by: str | None,
    once: str,
    rule: str | None = None,
    shown: str | None = None,
) -> Item:
    """`add` inside the caller's transaction, its texts masked and its ids known. rule: what guessed the kind."""
    state = _checked({"kind": kind, "risk": risk or RISK_OF.get(kind, "low")})
    there = write.connection.scalar(select(items.c.id).where(items.c.once == once))
    if there is not None:
        return get_in(write.connection, there)
    item, at = new_id(), now_text()
    about = "pair" if pair_id else "comment" if comment else "text"
    write.connection.execute(
        items.insert().values(
            id=item,
            once=once,
            channel=channel,
            about=about,
            pair_id=pair_id,
            comment=comment,
            shown=shown,
            body=body,
            given_by=given_by,
            rule=rule,
            actor=write.actor,
            created_at=at,
        )
    )
    state = {**dict.fromkeys(STATE), **state, "status": "new"}
    _append(write, item, 0, "set", state, why=f"guessed by the rule {rule}" if rule else None)
    if kind == "safety":
        _hold(write, get_in(write.connection, item), state, why=None)
    write.audit("board.add", item, {"kind": kind, "channel": channel, "about": about, "pair": pair_id, "rule": rule})
    return get_in(write.connection, item)


def change(
    workspace: Workspace, item: str, changes: Mapping[str, Any], *, why: str | None, expect: int | None = None
) -> Item:
    """Do something about an item: any of kind, risk, impact, effort, status, owner (none = nobody); `snapshot` or `version` links
    what it went into; `cleared` = yes ends a safety item's hold. expect: the entry that one has seen as the last.

    Raises BadUsage on a field or value that isn't one, BadInput where what is done, declined or cleared doesn't say why, NotFound,
    Conflict where somebody was there first or nothing would change, Forbidden where clearing takes somebody else.
    """
    unknown = [field for field in changes if field not in SETTABLE]
    if unknown or not changes:
        seen = f"an item has no {', '.join(unknown)}" if unknown else "nothing is to be set"
        raise BadUsage(seen, fix=f"set any of {', '.join(SETTABLE)}, for instance status=triaged")
    reason = _masked(why)
    with workspace.write() as write:
        seen_item = get_in(write.connection, item)
        write.connection.execute(select(items.c.id).where(items.c.id == seen_item.id).with_for_update())
        before = get_in(write.connection, seen_item.id)
        if expect is not None and expect != before.seq:
            raise Conflict(
                f"{before.id} was changed meanwhile: it is {before.status}, {before.kind} now", fix="look at it again"
            )
        state = {field: getattr(before, field) for field in STATE}
        after = {**state, **_checked(changes)}
        if after["owner"] is not None and after["owner"] != before.owner:
            _require_person(write.connection, after["owner"])
        clears = _is_yes(changes["cleared"]) if "cleared" in changes else False
        clears = clears or (before.is_held and after["kind"] != "safety")
        links = [_linked(write.connection, kind, changes[kind]) for kind in ("snapshot", "version") if kind in changes]
        if after == state and not clears and not links:
            raise Conflict(f"{before.id} is like that already", fix="nothing is left to do")
        if clears:
            if not before.is_held:
                raise Conflict(f"{before.id} holds nothing", fix="nothing is left to clear")
            _require_expert(write.connection, write.actor, before, reason)
        if after["status"] in CLOSED and after["status"] != before.status and not reason:
            raise BadInput(f"{after['status']} says why", fix="give a reason, which who gave the item will read")
        seq = before.seq
        if clears:
            seq = _append(write, before.id, seq, "clear", after, why=reason)
        elif after != state:
            seq = _append(write, before.id, seq, "set", after, why=reason)
        for link in links:
            seq = _append(write, before.id, seq, "link", after, why=reason, link=link)
        if after["kind"] == "safety" and before.kind != "safety":
            _hold(write, get_in(write.connection, before.id), after, why=reason)
        told = {field: after[field] for field in STATE if after[field] != state[field]}
        write.audit("board.clear" if clears else "board.set", before.id, {**told, "links": links})
        return get_in(write.connection, before.id)


def _hold(write: Write, item: Item, state: Mapping[str, Any], *, why: str | None) -> None:
    """From here on every pair that the item is about is held; where there is none yet, the item alone says so."""
    named = [item.pair_id] if item.pair_id else pairs_of_comment(write.connection, item.comment) if item.comment else []
    seq = item.seq
    held: list[str | None] = [*named] or [None]
    for pair_id in held:
        seq = _append(write, item.id, seq, "hold", state, why=why, pair_id=pair_id)


def _append(
    write: Write,
    item: str,
    after: int,
    action: str,
    state: Mapping[str, Any],
    *,
    why: str | None,
    pair_id: str | None = None,
    link: str | None = None,
) -> int:
    row = {"item_id": item, "seq": after + 1, "action": action, "pair_id": pair_id, "link": link, **state}
    write.connection.execute(item_events.insert().values(**row, who=write.actor, why=why, at=now_text()))
    return after + 1


def _require_expert(connection: Connection, who: str, item: Item, why: str | None) -> None:
    account = accounts.of(connection, who)
    if account is None or account.disabled_at is not None or "review" not in account.permissions:
        raise Forbidden(
            f"'{who}' may not clear a safety item: that takes somebody with the permission review",
            fix="let a reviewer do it; one is made by: rlhf people add NAME --role reviewer",
        )
    called_it_so = {
        event.who
        for event in log(connection, item.id)
        if event.changes.get("kind", ("", ""))[1] == "safety" and (event.seq > 1 or item.rule is None)
    }
    if who == item.given_by or who in called_it_so:
        raise Forbidden(
            f"{who} reported {item.id}, and nobody clears what they reported", fix="let another reviewer look at it"
        )
    if not why:
        raise BadInput("clearing says why", fix="give a reason, which who reported it will read")


def _require_person(connection: Connection, name: str) -> None:
    account = accounts.of(connection, name)
    if account is None or account.disabled_at is not None:
        raise NotFound(f"nobody here is called '{name:.100}'", fix="see: rlhf people list")


def _require_pace(connection: Connection, labeler: str) -> None:
    since = (now() - timedelta(hours=1)).isoformat(timespec="microseconds")
    recent = select(func.count()).where(items.c.given_by == labeler, items.c.created_at > since)
    if connection.execute(recent).scalar_one() >= MAX_REPORTS_AN_HOUR:
        raise TooManyReports(
            f"you have sent {MAX_REPORTS_AN_HOUR} reports within an hour", fix="tell whoever runs this what is wrong"
        )


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are fields of the state, as they are stored."""
    state: dict[str, Any] = {}
    for field, known in (("kind", KINDS), ("risk", RISKS), ("status", STATUSES)):
        if field in changes:
            if changes[field] not in known:
                raise BadUsage(f"{field} = {changes[field]!r:.60} is none of {', '.join(known)}", fix="use one of them")
            state[field] = changes[field]
    for field in ("impact", "effort"):
        if field in changes:
            state[field] = _from_1_to_5(field, changes[field])
    if "owner" in changes:
        owner = changes["owner"]
        state["owner"] = None if owner in (None, "", "none") else str(owner)
    return state


def _from_1_to_5(field: str, value: Any) -> int | None:
    if value in (None, "", "none"):
        return None
    if isinstance(value, bool) or str(value) not in [str(n) for n in SCALE]:
        raise BadUsage(
            f"{field} = {value!r:.60}; wanted 1 (small) to 5 (large), or none", fix=f"for instance {field}=3"
        )
    return int(value)


def _is_yes(value: Any) -> bool:
    if value is True or str(value).lower() in ("yes", "true"):
        return True
    raise BadUsage(f"cleared = {value!r:.60}; wanted yes", fix="to hold it again, set kind=safety on a new item")


def _linked(connection: Connection, kind: str, name: Any) -> str:
    """The full name of a snapshot or version that is here."""
    return (
        f"snapshot {names.find(connection, str(name)).ref}"
        if kind == "snapshot"
        else f"version {resolve_in(connection, str(name))}"
    )


def _masked(text: str | None) -> str | None:
    """None where there are no words. Raises BadInput where they can't be kept."""
    if text is None or not text.strip():
        return None
    try:
        clean = mask(check_text("text", text.strip()))[0]
    except Rejected as verdict:
        raise BadInput(str(verdict), fix="correct the text and send it again") from None
    if len(clean) > MAX_CHARS:
        raise BadInput(f"the text has {len(clean):,} characters, over the limit of {MAX_CHARS:,}", fix="shorten it")
    return clean


def _found(connection: Connection, table: Any, column: Any, digits: str, what: str) -> str:
    lowered = digits.lower()
    if len(lowered) < _MIN_HEX:
        raise BadUsage(f"{digits!r:.60} is too short to name a {what}", fix=f"give {_MIN_HEX} digits or more")
    found = (
        connection.execute(select(column).where(column.startswith(lowered, autoescape=True)).limit(2)).scalars().all()
    )
    if len(found) != 1:
        seen = f"several {what}s begin with {digits:.80}" if found else f"there is no {what} {digits:.80}"
        raise NotFound(seen, fix="see: rlhf feedback list")
    return str(found[0])
