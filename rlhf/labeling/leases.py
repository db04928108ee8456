"""A lease: one pair, promised to one labeler for half an hour, with the sides on which its replies are shown.

The lease's id is what an answer names, so that an answer that comes late, twice or from another tab can't land on
another pair. Leases are live rows and a log of what was shown to whom; they have no audit entries of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, select

from rlhf.ids import digest_text, new_id, now, now_text, secret
from rlhf.labeling.counts import Progress
from rlhf.records import Message
from rlhf.store import Write
from rlhf.store.tables import leases, pairs

LEASE_MINUTES = 30


@dataclass(frozen=True, slots=True)
class Task:
    """What a labeler is shown. shown: 'ab' = reply a stands left. `as_json` is what a blind labeler may know."""

    lease: str
    pair_id: str
    prompt: tuple[Message, ...]
    left: str
    right: str
    shown: Literal["ab", "ba"]
    expires_at: str
    progress: Progress

    @property
    def n_done_today(self) -> int:
        return self.progress.n_done_today

    @property
    def n_done(self) -> int:
        return self.progress.n_done

    @property
    def n_left(self) -> int:
        return self.progress.n_left

    def as_json(self) -> dict[str, Any]:
        return {
            "lease": self.lease,
            "prompt": [turn.as_json() for turn in self.prompt],
            "left": self.left,
            "right": self.right,
            "expires_at": self.expires_at,
        }


def live_lease(connection: Connection, labeler: str) -> Any | None:
    """The labeler's newest lease that is neither used nor expired: what they have on the screen.

    After an undo that is the pair given back, and once it is answered, the pair that was on the screen before.
    """
    return connection.execute(
        select(leases)
        .join(pairs, pairs.c.id == leases.c.pair_id)
        .where(
            leases.c.labeler == labeler,
            leases.c.expires_at > now_text(),
            leases.c.judgement_id.is_(None),
            pairs.c.erased_at.is_(None),
        )
        .order_by(leases.c.created_at.desc(), leases.c.id.desc())
        .limit(1)
    ).first()


def grant(write: Write, labeler: str, pair_id: str, *, shown: str | None, acquisition_p: float | None) -> Any:
    """A new lease. shown: None = draw the sides now."""
    row = {
        "id": new_id(),
        "pair_id": pair_id,
        "labeler": labeler,
        "shown": shown or _draw_sides(),
        "acquisition_p": acquisition_p,
        "created_at": now_text(),
        "expires_at": _end(),
    }
    write.connection.execute(leases.insert().values(**row))
    return write.connection.execute(select(leases).where(leases.c.id == row["id"])).one()


def renew(write: Write, lease: Any, *, always: bool = False) -> Any:
    """A reload gives the reader time again, once half of it is gone; always: a heartbeat, which does so each time."""
    half = (now() + timedelta(minutes=LEASE_MINUTES / 2)).isoformat(timespec="microseconds")
    if lease.expires_at > half and not always:
        return lease
    write.connection.execute(leases.update().values(expires_at=_end()).where(leases.c.id == lease.id))
    return write.connection.execute(select(leases).where(leases.c.id == lease.id)).one()


def task_of(connection: Connection, lease: Any, progress: Progress) -> Task:
    """The task that a lease stands for."""
    pair = connection.execute(select(pairs).where(pairs.c.id == lease.pair_id)).one()
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in json.loads(pair.prompt))
    left, right = (pair.reply_a, pair.reply_b) if lease.shown == "ab" else (pair.reply_b, pair.reply_a)
    return Task(lease.id, lease.pair_id, prompt, left, right, lease.shown, lease.expires_at, progress)


def _draw_sides() -> Literal["ab", "ba"]:
    """One bit from the operating system, drawn apart: the lease's id, which the page sees, must not hold it."""
    return "ab" if int(digest_text(secret())[0], 16) % 2 else "ba"


def _end() -> str:
    return (now() + timedelta(minutes=LEASE_MINUTES)).isoformat(timespec="microseconds")
