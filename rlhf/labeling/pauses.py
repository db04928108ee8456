"""Pauses: a labeler who is under a bar beyond bad luck labels no more until a reviewer has looked at it.

A log a labeler: pause, appeal, and then resume or uphold; without an appeal a pause can only end. The last entry is in force; an
upheld pause stays one. What they answered before stays where it is. Nobody decides about themselves, and who paused somebody by
hand doesn't uphold it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from rlhf.errors import BadInput, Conflict, Forbidden, NotFound, RlhfError
from rlhf.feedback.anonymise import mask
from rlhf.ids import now_text
from rlhf.store import Workspace, Write
from rlhf.store.tables import accounts, pauses

Action = Literal["pause", "appeal", "resume", "uphold"]
MAX_APPEAL = 2_000  # characters
_NEXT: dict[str | None, tuple[Action, ...]] = {
    None: ("pause",),
    "resume": ("pause",),
    "pause": ("appeal", "resume"),
    "appeal": ("resume", "uphold"),
    "uphold": ("resume",),
}


class Paused(RlhfError):
    """The labeler gets no pair."""

    code = "paused"
    http_status = 403


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a labeler's log. why: the figures, the appeal's text, or what the reviewer says."""

    labeler: str
    seq: int
    action: Action
    who: str
    why: str
    at: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def require_at_work(connection: Connection, labeler: str) -> None:
    """Raises Paused with the reason and the way to appeal."""
    last = last_of(connection, labeler)
    if last is None or last.action == "resume":
        return
    reason = next(entry.why for entry in reversed(_log(connection, labeler)) if entry.action == "pause")
    fix = {
        "pause": "appeal with POST /api/appeal; a reviewer decides",
        "appeal": "your appeal waits for a reviewer",
        "uphold": f"a reviewer looked at it and upheld it: {last.why}",
    }[last.action]
    raise Paused(f"labeling is paused for you: {reason}", fix=fix)


def last_of(connection: Connection, labeler: str) -> Entry | None:
    """The entry in force, or None."""
    row = connection.execute(
        select(pauses).where(pauses.c.labeler == labeler).order_by(pauses.c.seq.desc()).limit(1)
    ).first()
    return None if row is None else Entry(*row)


def pause_of(workspace: Workspace, labeler: str) -> list[Entry]:
    """The entries since the pause in force; none where the labeler is at work."""
    with workspace.read() as connection:
        log = _log(connection, labeler)
    if not log or log[-1].action == "resume":
        return []
    began = max(i for i, entry in enumerate(log) if entry.action == "pause")
    return log[began:]


def pause(workspace: Workspace, labeler: str, why: str) -> Entry:
    """Pause a labeler by hand. Raises NotFound for a name that nobody has, Conflict where they are paused."""
    _require_said(why)
    with workspace.write() as write:
        if write.connection.scalar(select(accounts.c.name).where(accounts.c.name == labeler)) is None:
            raise NotFound(f"nobody here is called '{labeler}'", fix="see: rlhf people list")
        return append(write, labeler, "pause", why)


def appeal(workspace: Workspace, labeler: str, text: str) -> Entry:
    """A paused labeler says why it should end; personal data in it is replaced. Raises Conflict where there is no pause that can
    be appealed, BadInput for an empty or overlong text."""
    text = text.strip()
    if not text or len(text) > MAX_APPEAL or "\x00" in text:
        raise BadInput(f"the appeal has {len(text)} characters", fix=f"write 1 to {MAX_APPEAL} characters, without NUL")
    with workspace.as_actor(labeler).write() as write:
        return append(write, labeler, "appeal", mask(text)[0])


def decide(
    workspace: Workspace, labeler: str, action: Literal["resume", "uphold"], why: str, *, expect: int | None = None
) -> Entry:
    """A reviewer ends a pause or upholds it. expect: the number of the last entry that they have read; None = as of this call.

    Raises Forbidden where they are the labeler, or uphold what they did themselves; Conflict where there is no pause or something
    came after what they read.
    """
    _require_said(why)
    if workspace.actor == labeler:
        raise Forbidden("nobody decides about their own pause", fix="ask another reviewer")
    with workspace.write() as write:
        last = last_of(write.connection, labeler)
        if expect is not None and last is not None and last.seq != expect:
            raise Conflict(f"something came after what you read about '{labeler}'", fix="read it again, then decide")
        began = next((e for e in reversed(_log(write.connection, labeler)) if e.action == "pause"), None)
        if action == "uphold" and began is not None and began.who == workspace.actor:
            raise Forbidden("who paused somebody doesn't uphold it", fix="ask another reviewer")
        return append(write, labeler, action, why)


def paused(workspace: Workspace) -> list[list[Entry]]:
    """Of everybody who is paused, the entries since it began; who waits longest first."""
    with workspace.read() as connection:
        last = select(pauses.c.labeler, func.max(pauses.c.seq).label("seq")).group_by(pauses.c.labeler).subquery()
        names = connection.scalars(
            select(pauses.c.labeler)
            .join(last, (last.c.labeler == pauses.c.labeler) & (last.c.seq == pauses.c.seq))
            .where(pauses.c.action != "resume")
        ).all()
    found = [entries for name in names if (entries := pause_of(workspace, name))]
    return sorted(found, key=lambda entries: (entries[-1].at, entries[-1].labeler))


def append(write: Write, labeler: str, action: Action, why: str) -> Entry:
    """One entry inside the caller's transaction. Raises Conflict where it can't follow the last one."""
    last = last_of(write.connection, labeler)
    before = last.action if last else None
    if action not in _NEXT[before]:
        state = {None: "at work", "resume": "at work", "pause": "paused", "appeal": "paused, with an appeal"}
        raise Conflict(
            f"'{labeler}' is {state.get(before, 'paused, and a reviewer upheld it')}: no {action} can follow",
            fix="see: rlhf label paused",
        )
    entry = Entry(labeler, (last.seq if last else 0) + 1, action, write.actor, why.strip(), now_text())
    write.connection.execute(pauses.insert().values(entry.as_json()))
    write.audit(f"label.{action}", labeler, {"seq": entry.seq} | ({} if action == "appeal" else {"why": entry.why}))
    return entry


def _log(connection: Connection, labeler: str) -> list[Entry]:
    rows = connection.execute(select(pauses).where(pauses.c.labeler == labeler).order_by(pauses.c.seq)).all()
    return [Entry(*row) for row in rows]


def _require_said(why: str) -> None:
    if not why.strip():
        raise BadInput("why is not said", fix="say it with --why, for the labeler and for whoever reads the history")
