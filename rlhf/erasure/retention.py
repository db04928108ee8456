"""How long a source's feedback may be kept, and erasing what is over.

A limit is an entry in the audit log, the last one of a source in force: who set it, why and when can't be lost. What is over is
erased by `expire` like anything else: tables, shards, kept states, reports, exports in the workspace. Nothing goes by itself: a
snapshot that held it can't be read any more, and that is for somebody to decide or for a timer that they set.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from rlhf.erasure.steps import Erasure, Say, erase_target
from rlhf.errors import BadInput, NotFound
from rlhf.feedback import erasing
from rlhf.feedback.erasing import Target
from rlhf.ids import now
from rlhf.records import PAGE_SOURCE
from rlhf.store import Workspace, audit

_ACTION = "feedback.retain"
_MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Limit:
    """Feedback of `source` goes `days` after it came."""

    source: str
    days: int
    who: str
    why: str
    at: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def set_limit(workspace: Workspace, source: str, days: int | None, *, why: str) -> None:
    """Keep a source's feedback for so many days; None = for ever again.

    Raises NotFound for a source that nothing came from, BadInput for days that can't be or where nobody says why.
    """
    if source == PAGE_SOURCE:
        raise BadInput(
            "what people label on the page goes with its pair", fix="limit the source that the pairs came from"
        )
    with workspace.read() as connection:
        known = erasing.known_sources(connection)
    if source not in known:
        raise NotFound(f"nothing here came from the source '{source:.100}'", fix="see: rlhf feedback list")
    if days is not None and not 1 <= days <= _MOST_DAYS:
        raise BadInput(f"{days} days are no limit", fix=f"give 1 to {_MOST_DAYS:,} days, or off")
    if not why.strip():
        raise BadInput("why the limit changes is not said", fix="say it with --why, for whoever reads the history")
    with workspace.write() as write:
        write.audit(_ACTION, source, {"days": days, "why": why.strip()})


def limits(workspace: Workspace) -> list[Limit]:
    """Those in force, by source."""
    last: dict[str, Limit | None] = {}
    with workspace.read() as connection:
        for entry in audit.entries(connection, action=_ACTION):
            days, why = entry["details"]["days"], entry["details"]["why"]
            known = None if days is None else Limit(entry["subject"], days, entry["actor"], why, entry["at"])
            last[entry["subject"]] = known
    return [limit for _, limit in sorted(last.items()) if limit is not None]


def expired(workspace: Workspace) -> Target:
    """What is over now, and not erased yet."""
    before = {
        limit.source: (now() - timedelta(days=limit.days)).isoformat(timespec="microseconds")
        for limit in limits(workspace)
    }
    with workspace.read() as connection:
        return erasing.find_expired(connection, before)


def expire(workspace: Workspace, *, say: Say | None = None) -> Erasure | None:
    """Erase what is over; None where nothing is. Killed halfway, the same call goes on.

    Raises Conflict while a training runs on some of it.
    """
    workspace.artifacts.settle_rewrites(workspace.database)
    target = expired(workspace)
    if not target.pair_ids and not target.comments:
        return None
    days = {limit.source: limit.days for limit in limits(workspace)}
    return erase_target(workspace, target, why=f"over its limit in days: {json.dumps(days)}", say=say)
