"""Tombstones: what was erased doesn't come back. Only a keyed digest is kept, which tells nothing without the
workspace's key.

A labeler is a pseudonym inside a source, so a labeler's tombstone names both; one with the source '' holds for every
source. Each of their votes has one of those: the same file under another name is refused, somebody of that name elsewhere isn't.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from sqlalchemy import Connection, select

from rlhf.store.tables import tombstones

_CHUNK = 500


def key(workspace_key: str, what: str, value: str, source: str = "") -> str:
    """HMAC-SHA-256 of what ('pair', 'labeler', 'subject' or 'vote'), its source and its value under the workspace's key; 64
    hex digits.
    """
    return hmac.new(workspace_key.encode(), "\x00".join((what, source, value)).encode(), hashlib.sha256).hexdigest()


def vote(pair_id: str, labeler: str) -> tuple[str, str, str]:
    """An erased labeler's vote on a pair, as a thing that may have a tombstone."""
    return "vote", f"{pair_id} {labeler}", ""


def buried(
    connection: Connection, workspace_key: str, things: Iterable[tuple[str, str, str]]
) -> set[tuple[str, str, str]]:
    """Which of these (what, value, source) have a tombstone. Costs one query where there are no tombstones at all."""
    if connection.execute(select(tombstones.c.key).limit(1)).first() is None:
        return set()
    keyed: dict[str, list[tuple[str, str, str]]] = {}
    for thing in set(things):
        what, value, source = thing
        for name in {source, ""}:
            keyed.setdefault(key(workspace_key, what, value, name), []).append(thing)
    found: set[tuple[str, str, str]] = set()
    names = list(keyed)
    for start in range(0, len(names), _CHUNK):
        query = select(tombstones.c.key).where(tombstones.c.key.in_(names[start : start + _CHUNK]))
        for row in connection.execute(query):
            found.update(keyed[row.key])
    return found
