"""Who may judge a comparison that a gate reads: people, an installed rule, a reward version or alias.

Kept here because a gate is set before a comparison is made, and a judge that nothing answers to would keep its alias shut for
ever. An alias means the version that it points at when the gate is checked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import NotFound, RlhfError
from rlhf.registry.versions import ref_of, resolve_in
from rlhf.store.tables import alias_moves, versions

PEOPLE = "people"
GROUP = "rlhf.judges"  # entry points: rules by name
_KINDS = ("reward", "rule")  # a report's judge is matched by kind too: any reward, any rule
_SHOWN = 8  # known judges in an error


def require_known(connection: Connection, judge: str) -> None:
    """Raises NotFound with the nearest known name where nothing answers to this one."""
    known = [PEOPLE, *sorted(entry.name for entry in entry_points(group=GROUP)), *_rewards(connection)]
    if judge in (*known, *_KINDS) or digest_of_judge(connection, judge) is not None:
        return
    near = difflib.get_close_matches(judge, known, n=1)
    raise NotFound(
        f"no judge answers to '{judge}'" + (f" (nearest: '{near[0]}')" if near else ""),
        fix=f"name people, a rule or a reward version or alias; there are {', '.join(known[:_SHOWN])}"
        + (" and more: rlhf adapter list" if len(known) > _SHOWN else ""),
    )


def digest_of_judge(connection: Connection, judge: str | None) -> str | None:
    """The digest of the reward version that the name means now; None for other judges and for what is no reward (any more)."""
    if judge is None or not ("@" in judge or judge.startswith("sha256:")):
        return None
    try:
        ref = resolve_in(connection, judge)
    except RlhfError:
        return None
    return ref.digest if ref.role == "reward" else None


def judged_by(judge: Mapping[str, Any], wanted: str | None, digest: str | None) -> bool:
    """Whether a report's judge is the one that a gate wants. digest: what `digest_of_judge` gave for it."""
    if wanted is None or wanted in (judge["name"], judge["kind"]):
        return True
    return digest is not None and (judge["kind"], judge.get("digest")) == ("reward", digest)


def _rewards(connection: Connection) -> list[str]:
    """Reward versions, the newest first, and aliases that point at one."""
    rows = connection.execute(
        select(versions).where(versions.c.role == "reward").order_by(versions.c.created_at.desc())
    )
    refs = {ref.digest: str(ref) for ref in map(ref_of, rows)}
    last: dict[str, str] = {}
    for move in connection.execute(select(alias_moves.c.alias, alias_moves.c.to_digest).order_by(alias_moves.c.seq)):
        last[move.alias] = move.to_digest
    return [*refs.values(), *sorted(alias for alias, digest in last.items() if digest in refs)]
