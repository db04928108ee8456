"""Items: what somebody said about the model or the data, and where it stands, read from the log of what was done about it.

An item's row never changes. Each entry of its log holds the item as it is from there on, so the state is the last entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, not_, or_, select

from rlhf.errors import BadUsage, NotFound
from rlhf.feedback.holds import is_open as holds_still
from rlhf.records import Message
from rlhf.store import Workspace
from rlhf.store.tables import comments, item_events, items, pairs

ItemKind = Literal["preference", "bug", "safety", "feature"]
Risk = Literal["low", "medium", "high"]
Status = Literal["new", "triaged", "in_progress", "done", "declined"]
KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
RISKS: tuple[Risk, ...] = get_args(Risk)
STATUSES: tuple[Status, ...] = get_args(Status)
CLOSED: tuple[Status, ...] = ("done", "declined")
SCALE = (1, 2, 3, 4, 5)  # of impact and effort


@dataclass(frozen=True, slots=True)
class Item:
    """An item as its last entry (number `seq`) leaves it. channel: where it came in; about: pair, comment or text.

    impact, effort: 1 small to 5 large, None = nobody has said. given_by, owner: pseudonyms. shown: 'ba' = who gave it saw reply b
    as the first. rule: what guessed the kind; None = a
    person said it. is_held: what it is about stays out of training until an expert has cleared it.
    """

    id: str
    kind: ItemKind
    risk: Risk
    impact: int | None
    effort: int | None
    status: Status
    owner: str | None
    channel: str
    about: str
    pair_id: str | None
    comment: str | None
    shown: str | None
    text: str | None
    given_by: str | None
    rule: str | None
    is_held: bool
    seq: int
    created_at: str
    changed_at: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of an item's log. changes: field: (before, after); of the first entry before is None."""

    seq: int
    action: str
    changes: dict[str, tuple[Any, Any]]
    pair_id: str | None
    link: str | None
    who: str
    why: str | None
    at: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "changes": {field: list(values) for field, values in self.changes.items()}}


STATE = ("kind", "risk", "impact", "effort", "status", "owner")


def get(workspace: Workspace, item: str) -> Item:
    """The item of this id, or of the one id that begins so. Raises NotFound."""
    with workspace.read() as connection:
        return get_in(connection, item)


def get_in(connection: Connection, item: str) -> Item:
    """`get` inside the caller's transaction."""
    found = connection.execute(_query(items.c.id.startswith(item.lower(), autoescape=True)).limit(2)).all()
    if len(found) != 1 or not item:
        seen = f"several items begin with {item}" if found else f"there is no item {item:.40}"
        raise NotFound(seen, fix="see: rlhf board list")
    return _item(found[0])


def list_items(
    workspace: Workspace,
    *,
    kind: str | None = None,
    statuses: Iterable[str] = (),
    given_by: str | None = None,
    is_held: bool | None = None,
    is_open: bool | None = None,
    item: str | None = None,
    limit: int = 500,
) -> tuple[Item, ...]:
    """Items, what is held first, then the newest; statuses: empty = all; given_by: under this account's name, not a
    source's own; is_open: neither done nor declined, or held whatever its status; item: this one alone, by its whole id.

    Raises BadUsage on a kind or status that isn't one.
    """
    asked = tuple(statuses)
    for word, known in ((kind, KINDS), *((status, STATUSES) for status in asked)):
        if word is not None and word not in known:
            raise BadUsage(f"{word!r:.60} is none of {', '.join(known)}", fix="use one of them")
    where: list[ColumnElement[bool]] = []
    if kind is not None:
        where.append(item_events.c.kind == kind)
    if asked:
        where.append(item_events.c.status.in_(asked))
    if given_by is not None:
        where += [items.c.given_by == given_by, items.c.rule.is_(None)]
    if item is not None:
        where.append(items.c.id == item)
    if is_held is not None:
        where.append(_held() if is_held else not_(_held()))
    if is_open is not None:
        still = or_(item_events.c.status.not_in(CLOSED), _held())
        where.append(still if is_open else not_(still))
    query = _query(*where).order_by(case((_held(), 0), else_=1), items.c.id.desc()).limit(limit)
    with workspace.read() as connection:
        return tuple(_item(row) for row in connection.execute(query))


def count(workspace: Workspace) -> dict[str, dict[str, int]]:
    """kind: status: how many items."""
    counted: dict[str, dict[str, int]] = {kind: dict.fromkeys(STATUSES, 0) for kind in KINDS}
    query = select(item_events.c.kind, item_events.c.status, func.count()).where(_is_last())
    with workspace.read() as connection:
        for kind, status, n in connection.execute(query.group_by(item_events.c.kind, item_events.c.status)):
            counted[kind][status] = n
    return counted


def words_about(connection: Connection, item: Item) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The prompt, and the replies in the order in which who gave it saw them; empty where it is about neither, or they were
    erased."""
    replies: tuple[str | None, ...]
    if item.pair_id is not None:
        pair = connection.execute(select(pairs).where(pairs.c.id == item.pair_id)).one()
        prompt, replies = pair.prompt, (pair.reply_a, pair.reply_b)
        replies = replies[::-1] if item.shown == "ba" else replies
    elif item.comment is not None:
        said = connection.execute(select(comments).where(comments.c.digest == item.comment)).one()
        prompt, replies = said.prompt, (said.reply,)
    else:
        return (), ()
    turns = tuple(Message(turn["role"], turn["content"]) for turn in json.loads(prompt or "[]"))
    return turns, tuple(reply for reply in replies if reply is not None)


def log(connection: Connection, item: str) -> tuple[Event, ...]:
    """Everything that was done about an item, in order."""
    rows = connection.execute(
        select(item_events).where(item_events.c.item_id == item).order_by(item_events.c.seq)
    ).all()
    found, before = [], None
    for row in rows:
        changes = {
            field: (getattr(before, field, None), getattr(row, field))
            for field in STATE
            if getattr(before, field, None) != getattr(row, field)
        }
        found.append(Event(row.seq, row.action, changes, row.pair_id, row.link, row.who, row.why, row.at))
        before = row
    return tuple(found)


def _query(*where: ColumnElement[bool]) -> Select[Any]:
    return (
        select(
            items,
            comments.c.body.label("said"),
            *(item_events.c[field] for field in STATE),
            item_events.c.seq,
            item_events.c.at,
            _held().label("is_held"),
        )
        .join(item_events, item_events.c.item_id == items.c.id)
        .outerjoin(comments, comments.c.digest == items.c.comment)
        .where(_is_last(), *where)
    )


def _is_last() -> ColumnElement[bool]:
    later = item_events.alias()
    return not_(
        select(later.c.seq).where(later.c.item_id == item_events.c.item_id, later.c.seq > item_events.c.seq).exists()
    )


def _held() -> ColumnElement[bool]:
    hold = item_events.alias()
    return select(hold.c.seq).where(hold.c.item_id == items.c.id, holds_still(hold)).exists()


def _item(row: Row[Any]) -> Item:
    return Item(
        id=row.id,
        kind=row.kind,
        risk=row.risk,
        impact=row.impact,
        effort=row.effort,
        status=row.status,
        owner=row.owner,
        channel=row.channel,
        about=row.about,
        pair_id=row.pair_id,
        comment=row.comment,
        shown=row.shown,
        text=row.said if row.comment is not None else row.body,
        given_by=row.given_by,
        rule=row.rule,
        is_held=bool(row.is_held),
        seq=row.seq,
        created_at=row.created_at,
        changed_at=row.at,
    )
