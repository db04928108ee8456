"""Words of served replies, and whose they are: what an erasure must reach beside the pairs and comments that came of them.

A user of the server is known by a keyed pseudonym alone; `name_of` is what they are called where their votes are judgements and
their prompts are somebody's words. The rows stay, as counts; prompt, reply, note and pseudonym go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from rlhf.ids import canonical_json, now_text
from rlhf.store import Write
from rlhf.store.tables import exposures, outcomes, pairs

SERVED = "served"  # the source of judgements that came of served replies
_NAME = re.compile(r"user-([0-9a-f]{16})")


def name_of(unit: str) -> str:
    """A served user as a labeler or a subject. unit: their pseudonym, 64 hex digits, of which 16 tell users apart."""
    return f"user-{unit[:16]}"


def was_served(connection: Connection, name: str) -> bool:
    """Somebody of this name was answered here and is still known by their pseudonym."""
    mine = _of_user(name)
    return (
        mine is not None and connection.execute(select(exposures.c.request_id).where(mine).limit(1)).first() is not None
    )


def null_user(write: Write, name: str) -> int:
    """Everything of a served user's but that there was a reply; how many."""
    mine = _of_user(name)
    return 0 if mine is None else _null(write, mine, unit=None)


def null_on(write: Write, pair_ids: Sequence[str]) -> int:
    """Words of replies that these pairs were made of, or that say the same; before the pairs lose theirs. How many."""
    n = 0
    for row in write.connection.execute(select(pairs).where(pairs.c.id.in_(pair_ids))).all():
        same: ColumnElement[bool] = exposures.c.served_pair_id == row.id
        if row.prompt is not None:
            prompt = canonical_json(json.loads(row.prompt)).decode()
            words = and_(exposures.c.prompt == prompt, exposures.c.reply.in_([row.reply_a, row.reply_b]))
            same = or_(same, words)
        n += _null(write, same)
    return n


def _null(write: Write, which: ColumnElement[bool], **more: Any) -> int:
    of_them = outcomes.c.request_id.in_(select(exposures.c.request_id).where(which))
    write.connection.execute(outcomes.update().values(note=None, **more).where(of_them))
    gone = {"prompt": None, "reply": None, "consent": "", "erased_at": now_text(), **more}
    return write.connection.execute(exposures.update().values(gone).where(which)).rowcount


def _of_user(name: str) -> ColumnElement[bool] | None:
    found = _NAME.fullmatch(name)
    return None if found is None else exposures.c.unit.startswith(found[1])
