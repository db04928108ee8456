"""Holds: pairs that stay out of training until an expert has cleared them.

An open safety item (`rlhf.board`) holds its pair, or the pairs that were made of its comment. A hold is an entry in the item's log,
and ends with a later entry `clear` of the same item; a pair that two items hold waits for both.
"""

from __future__ import annotations

import json

from sqlalchemy import ColumnElement, Connection, FromClause, and_, not_, or_, select

from rlhf.records import Message, Pair
from rlhf.store.tables import comments, item_events, items, pairs


def is_open(hold: FromClause) -> ColumnElement[bool]:
    """This entry of an item's log is a hold that nobody has cleared."""
    clear = item_events.alias()
    cleared = select(clear.c.seq).where(
        clear.c.item_id == hold.c.item_id, clear.c.action == "clear", clear.c.seq > hold.c.seq
    )
    return and_(hold.c.action == "hold", not_(cleared.exists()))


def is_held(pair_id: ColumnElement[str]) -> ColumnElement[bool]:
    """An open hold names the pair."""
    hold = item_events.alias()
    return select(hold.c.seq).where(hold.c.pair_id == pair_id, is_open(hold)).exists()


def held_pairs(connection: Connection) -> frozenset[str]:
    """Every held pair, with those that were made of a held comment after it was held."""
    hold = item_events.alias()
    query = select(hold.c.pair_id, items.c.comment).join(items, items.c.id == hold.c.item_id).where(is_open(hold))
    rows = connection.execute(query).all()
    held = {row.pair_id for row in rows if row.pair_id is not None}
    for digest in sorted({row.comment for row in rows if row.comment is not None}):
        held.update(pairs_of_comment(connection, digest))
    return frozenset(held)


def pairs_of_comment(connection: Connection, digest: str) -> list[str]:
    """The pairs in which the reply that a comment is about stands, under the same prompt; in the order of their ids."""
    said = connection.execute(select(comments).where(comments.c.digest == digest)).first()
    if said is None or said.prompt is None or said.reply is None:
        return []
    turns = json.loads(said.prompt)
    group = Pair("", tuple(Message(turn["role"], turn["content"]) for turn in turns), said.reply, "").group
    query = select(pairs.c.id, pairs.c.prompt).where(
        pairs.c.group_digest == group,
        pairs.c.erased_at.is_(None),
        or_(pairs.c.reply_a == said.reply, pairs.c.reply_b == said.reply),
    )
    return sorted(row.id for row in connection.execute(query) if json.loads(row.prompt) == turns)
