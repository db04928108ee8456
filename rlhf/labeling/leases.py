"""A lease: one pair, promised to one labeler for half an hour, with the sides on which its replies are shown.

The lease's id is what an answer names, so that an answer that comes late, twice or from another tab can't land on
another pair. Leases are live rows and a log of what was shown to whom; they have no audit entries of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, String, bindparam, func, select

from rlhf.ids import digest_text, new_id, now, now_text, secret
from rlhf.labeling.counts import Progress
from rlhf.records import Message
from rlhf.store import Write
from rlhf.store.tables import checks, judgements, leases, pairs

LEASE_MINUTES = 30
_GRACE_S = 60
LeaseKind = Literal["label", "review", "gold", "repeat"]
CHECKS = ("gold", "repeat")  # they are about the labeler: their answers are no judgements


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
    kind: LeaseKind = "label"  # blind: gold and repeat look like any other pair

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
        } | ({"review": True} if self.kind == "review" else {})


@dataclass(frozen=True, slots=True)
class SaidBefore:
    """Of an answer that was taken back: the lease under which it was given, and its note."""

    lease: str
    note: str | None

    def as_json(self) -> dict[str, Any]:
        return {"lease": self.lease, "note": self.note}


def live_lease(connection: Connection, labeler: str) -> Any | None:
    """The labeler's newest lease that is neither used nor expired: what they have on the screen.

    After an undo that is the pair given back, and once it is answered, the pair that was on the screen before.
    """
    return connection.execute(_newest_live(), {"labeler": labeler, "now": now_text()}).first()


@cache
def _newest_live() -> Select[Any]:
    return (
        select(leases)
        .join(pairs, pairs.c.id == leases.c.pair_id)
        .where(
            leases.c.labeler == bindparam("labeler"),
            leases.c.expires_at > bindparam("now"),
            leases.c.judgement_id.is_(None),
            pairs.c.erased_at.is_(None),
        )
        .order_by(leases.c.created_at.desc(), leases.c.id.desc())
        .limit(1)
    )


def n_held(pair_id: ColumnElement[str]) -> Any:
    """Scalar subquery: on how many others' screens the pair is, to be answered for the data."""
    held = leases.alias()
    return (
        select(func.count())
        .where(
            held.c.pair_id == pair_id,
            held.c.labeler != bindparam("labeler", type_=String),
            held.c.expires_at > bindparam("held_until"),
            held.c.judgement_id.is_(None),
            held.c.kind.not_in(CHECKS),
        )
        .scalar_subquery()
    )


def held_until() -> str:
    """A lease that ends after this holds its pair, for `n_held`."""
    return (now() - timedelta(seconds=_GRACE_S)).isoformat(timespec="microseconds")


def grant(
    write: Write,
    labeler: str,
    pair_id: str,
    *,
    shown: str | None,
    acquisition_p: float | None,
    kind: LeaseKind = "label",
) -> Any:
    """A new lease. shown: None = draw the sides now."""
    row = {
        "id": new_id(),
        "pair_id": pair_id,
        "labeler": labeler,
        "shown": shown or _draw_sides(),
        "acquisition_p": acquisition_p,
        "created_at": now_text(),
        "expires_at": _end(),
        "kind": kind,
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
    return Task(lease.id, lease.pair_id, prompt, left, right, lease.shown, lease.expires_at, progress, lease.kind)


def said_before(connection: Connection, labeler: str, task: Task) -> SaidBefore | None:
    """What the labeler last said to the pair that an undo gave back; None where no lease tells of it.

    Judgements and checks answer alike, or an undo would tell them apart.
    """
    kept = checks if task.kind in CHECKS else judgements
    row = connection.execute(
        select(leases.c.id, kept.c.note)
        .join(kept, kept.c.id == leases.c.judgement_id)
        .where(leases.c.labeler == labeler, leases.c.pair_id == task.pair_id, leases.c.kind == task.kind)
        .order_by(leases.c.created_at.desc(), leases.c.id.desc())
        .limit(1)
    ).first()
    return SaidBefore(row.id, row.note) if row is not None else None


def _draw_sides() -> Literal["ab", "ba"]:
    """One bit from the operating system, drawn apart: the lease's id, which the page sees, must not hold it."""
    return "ab" if int(digest_text(secret())[0], 16) % 2 else "ba"


def _end() -> str:
    return (now() + timedelta(minutes=LEASE_MINUTES)).isoformat(timespec="microseconds")
