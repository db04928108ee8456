"""An answer, and taking it back.

The answer and the mark on its lease are one transaction: after a crash there are both or neither, so a page that asks
again is told the same id and nothing is counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from sqlalchemy import Connection, not_, select

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.feedback import judge_in
from rlhf.feedback.reading import UNDO
from rlhf.ids import now_text
from rlhf.labeling import checks, pauses
from rlhf.labeling.comparisons import CONSENT, consent_for
from rlhf.labeling.counts import SOURCE, in_force, is_undo, progress_in
from rlhf.labeling.leases import CHECKS, LeaseKind, Task, grant, renew, task_of
from rlhf.labeling.reviews import REVIEW
from rlhf.records import Choice, Judgement
from rlhf.store import Workspace, Write
from rlhf.store.tables import judgements, leases, pairs

Answer = Literal["left", "right", "tie", "both_bad", "skip"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
_MAX_SECONDS = 86_400.0


def answer(
    workspace: Workspace,
    labeler: str,
    lease_id: str,
    answer: Answer,
    *,
    seconds: float | None = None,
    strength: int | None = None,
    note: str | None = None,
    reason: str | None = None,
    guideline: str | None = None,
    consent: Sequence[str] | None = None,
) -> str:
    """Keep a labeler's answer to the pair that the lease names; returns the judgement's id once it is durable.

    seconds: time spent looking; strength: 1 slightly, 2 clearly, 3 much; note: about the pair; reason: why skipped; guideline:
    digest of the text that the labeler had before them; consent: what they agreed to, None = the usual scopes. A pair of a
    comparison is for evaluation alone whatever was agreed to.
    The same answer to the same lease again returns the same id (the first reply may have been lost on the way). An answer to a
    check is kept apart from the judgements (`checks.py`), and a reviewer's to a review has the reason `review`.
    Raises NotFound for a lease that isn't this labeler's, Conflict for another answer or a lease that ran out,
    BadInput for a value that can't be.
    """
    _check(answer, seconds, strength, reason)
    with workspace.as_actor(labeler).write() as write:
        lease = _lease(write, labeler, lease_id)
        choice = _choice(answer, lease.shown)
        if lease.judgement_id is not None:
            return _same_again(write.connection, lease, choice)
        if lease.expires_at <= now_text():
            raise Conflict(
                "this pair was given back: its half hour ran out before the answer came", fix="load the next pair"
            )
        if lease.kind in CHECKS:
            return checks.keep(write, lease, choice, seconds=seconds, note=note or None, reason=reason or None)
        if lease.kind == "review" and choice != "skip":
            reason = REVIEW
        judgement = judge_in(
            write,
            Judgement(
                lease.pair_id,
                choice,
                SOURCE,
                labeler=labeler,
                strength=strength,
                seconds=seconds,
                shown=lease.shown,
                note=note or None,
                reason=reason or None,
                guideline=guideline,
                consent=_allowed(consent_for(write.connection, lease.pair_id), consent),
                acquisition_p=lease.acquisition_p,
            ),
        )
        write.connection.execute(leases.update().values(judgement_id=judgement).where(leases.c.id == lease.id))
    return judgement


def undo(workspace: Workspace, labeler: str, *, overlap: int = 1) -> Task:
    """Take back the labeler's last answer and give them that pair again, its replies on the same sides.

    Undoing again goes further back, checks like other pairs. Raises Conflict where there is nothing to undo, Paused for who is.
    """
    mine = judgements.alias()
    with workspace.as_actor(labeler).write() as write:
        pauses.require_at_work(write.connection, labeler)
        last = write.connection.execute(
            select(mine)
            .join(pairs, pairs.c.id == mine.c.pair_id)
            .where(
                mine.c.source == SOURCE,
                mine.c.labeler == labeler,
                pairs.c.erased_at.is_(None),
                not_(is_undo(mine)),
                in_force(mine),
            )
            .order_by(mine.c.created_at.desc(), mine.c.id.desc())
            .limit(1)
        ).first()
        check = checks.last_answered(write.connection, labeler)
        if check is not None and (last is None or check.at > last.created_at):
            checks.take_back(write, check)
            lease = grant(write, labeler, check.pair_id, shown=check.shown, acquisition_p=None, kind=check.kind)
            return task_of(write.connection, lease, progress_in(write.connection, workspace.database, labeler, overlap))
        if last is None:
            raise Conflict("there is no answer of yours to undo", fix="judge a pair first")
        judge_in(
            write,
            Judgement(
                last.pair_id,
                "skip",
                SOURCE,
                labeler=labeler,
                shown=last.shown,
                reason=UNDO,
                acquisition_p=last.acquisition_p,
                supersedes=last.id,
            ),
        )
        of_last = leases.c.pair_id == last.pair_id, leases.c.judgement_id == last.id
        kind: LeaseKind = write.connection.scalar(select(leases.c.kind).where(*of_last)) or "label"
        lease = grant(write, labeler, last.pair_id, shown=last.shown, acquisition_p=last.acquisition_p, kind=kind)
        return task_of(write.connection, lease, progress_in(write.connection, workspace.database, labeler, overlap))


def _check(answer: str, seconds: float | None, strength: int | None, reason: str | None) -> None:
    if answer not in ANSWERS:
        raise BadInput(f"{answer!r} is no answer", fix=f"answer one of {', '.join(ANSWERS)}")
    if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= _MAX_SECONDS):
        raise BadInput(f"{seconds} is no time spent on a pair", fix="give seconds between 0 and 86400, or none")
    if strength is not None and strength not in (1, 2, 3):
        raise BadInput(f"{strength} is no strength", fix="give 1 (slightly), 2 (clearly), 3 (much) or none")
    if reason in (UNDO, REVIEW):
        raise BadInput(f"the reason '{reason}' is a mark of the queue's own", fix="give another reason, or none")


def _allowed(for_pair: tuple[str, ...], agreed: Sequence[str] | None) -> tuple[str, ...]:
    """Both the pair's and the person's; a pair that isn't a comparison's takes what the person agreed to, publication too."""
    if agreed is None:
        return for_pair
    return tuple(sorted(agreed)) if for_pair != CONSENT else tuple(scope for scope in CONSENT if scope in agreed)


def keep(workspace: Workspace, labeler: str, lease_id: str) -> str:
    """A pair stays with who is reading it: the lease's new end, ISO 8601.

    Raises NotFound for a lease that isn't this labeler's, Conflict for one that was used or ran out.
    """
    with workspace.as_actor(labeler).write() as write:
        lease = _lease(write, labeler, lease_id)
        if lease.judgement_id is not None:
            raise Conflict("this pair has your answer already", fix="load the next pair")
        if lease.expires_at <= now_text():
            raise Conflict("this pair was given back: its half hour ran out", fix="load the next pair")
        return str(renew(write, lease, always=True).expires_at)


def _lease(write: Write, labeler: str, lease_id: str) -> Any:
    """The labeler's own lease, locked until the transaction ends (PostgreSQL; SQLite has one writer anyway)."""
    lease = write.connection.execute(
        select(leases).where(leases.c.id == lease_id, leases.c.labeler == labeler).with_for_update()
    ).first()
    if lease is None:
        raise NotFound("no pair was given to you under this lease", fix="load the next pair")
    return lease


def _choice(answer: Answer, shown: str) -> Choice:
    if answer == "left":
        return "a" if shown == "ab" else "b"
    if answer == "right":
        return "b" if shown == "ab" else "a"
    return answer


def _same_again(connection: Connection, lease: Any, choice: Choice) -> str:
    kept = (
        checks.choice_of(connection, lease.judgement_id)
        if lease.kind in CHECKS
        else connection.execute(select(judgements.c.choice).where(judgements.c.id == lease.judgement_id)).scalar()
    )
    if kept != choice:
        raise Conflict("this pair has your other answer already", fix="undo it first, then answer again")
    return str(lease.judgement_id)
