"""What users say of a reply comes back by its request id: a thumb, a choice between two replies, a comment, a number.

    {"request_id", "thumb": "up" | "down", "comment"?}      {"request_id", "comment"}
    {"request_id", "over": other request id}                this reply was liked better than that one
    {"request_id", "metric": {"name", "value"}}

It belongs to the unit to whom the reply was shown, whoever sends it, and is counted in that reply's arm. It is quarantined: nothing
trains on it until it was sampled and somebody confirmed it (`confirming.py`). The same again changes nothing; another word on the
same reply takes the earlier one's place, which stays as `refused`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from sqlalchemy import Connection, Row, func, select
from starlette.concurrency import run_in_threadpool

from rlhf.errors import BadInput, NotFound
from rlhf.feedback.anonymise import mask_in
from rlhf.ids import now
from rlhf.registry.locks import hold
from rlhf.serving import points, sums
from rlhf.serving.doorway import TooOften
from rlhf.serving.exposures import Outcome
from rlhf.serving.service import Service
from rlhf.store import Workspace
from rlhf.store.tables import exposures, outcomes

_ID = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[a-z0-9.]+$")]
_DAY_S = 86_400.0
MEASURED = (
    "error_rate",
    "latency",
    "refusal",
    "reply_length",
    "satisfaction",
)  # by the server itself, from what it served


class Metric(BaseModel):
    """A number that the application measured. name: `reward` is read as the reply's (`points.py`)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
    value: float = Field(ge=-points.MOST, le=points.MOST)

    @field_validator("name")
    @classmethod
    def _is_not_measured_here(cls, name: str) -> str:
        if name in MEASURED:
            raise ValueError(f"{name} is measured by the server itself; wanted a name of your own, or reward")
        return name


class FeedbackAsked(BaseModel):
    """The body of POST /v1/feedback. over: the request id of the reply that was liked less."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    request_id: _ID
    thumb: Literal["up", "down"] | None = None
    over: _ID | None = None
    comment: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)] | None = None
    metric: Metric | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = [name for name in ("thumb", "over", "metric") if getattr(self, name) is not None]
        if len(said) > 1 or (not said and self.comment is None):
            raise ValueError("wanted one of thumb, over, comment or metric; a comment may go with a thumb")
        if self.over == self.request_id:
            raise ValueError("a reply can't be liked better than itself")
        if self.comment is not None and "\x00" in self.comment:
            raise ValueError("the comment holds a null character")
        return self


async def take(service: Service, asked: FeedbackAsked) -> dict[str, Any]:
    """Keep it, durably, and say under which ids. Raises NotFound, BadInput, TooOften."""
    kept = await run_in_threadpool(keep, service.workspace, asked, service.bounds.votes_per_unit)
    return {"object": "feedback", "request_id": asked.request_id, "outcomes": kept, "state": "quarantined"}


def keep(workspace: Workspace, asked: FeedbackAsked, most_a_day: int) -> list[str]:
    """`take` in the caller's thread: the outcomes' ids, those of the same word before where it was said already."""
    masked: Counter[str] = Counter()
    note = None if asked.comment is None else str(mask_in(asked.comment, masked))
    with workspace.write() as write:
        hold(write, f"outcomes:{asked.request_id}")
        shown = _shown(write.connection, asked.request_id)
        wanted = _wanted(write.connection, shown, asked, note)
        standing = [_standing(write.connection, one) for one in wanted]
        if all(row is not None and _says_the_same(row, one) for row, one in zip(standing, wanted, strict=True)):
            return [row.id for row in standing if row is not None]
        _require_room(write.connection, shown.unit, most_a_day)
        with sums.retold(workspace.database, write.connection, (one.request_id for one in wanted)):
            for row in standing:
                if row is not None and row.state in ("quarantined", "sampled"):
                    write.connection.execute(outcomes.update().where(outcomes.c.id == row.id).values(state="refused"))
            write.connection.execute(outcomes.insert(), [asdict(one) for one in wanted])
        return [one.id for one in wanted]


def _shown(connection: Connection, request_id: str) -> Row[Any]:
    """What was shown under this id; a shadow's reply was shown to nobody."""
    query = select(exposures).where(exposures.c.request_id == request_id, exposures.c.shadow_of.is_(None))
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(
            f"nothing was served as request {request_id}", fix="give the request id that came with the reply"
        )
    return row


def _wanted(connection: Connection, shown: Row[Any], asked: FeedbackAsked, note: str | None) -> Sequence[Outcome]:
    if asked.over is not None:
        other = _shown(connection, asked.over)
        if other.unit != shown.unit or (shown.prompt and other.prompt and shown.prompt != other.prompt):
            raise BadInput("the two replies weren't given to one user and prompt", fix="compare replies to one prompt")
        return [
            Outcome(shown.request_id, "choice", other.request_id, 1.0, note, shown.unit),
            Outcome(other.request_id, "choice", shown.request_id, 0.0, None, shown.unit),
        ]
    if asked.thumb is not None:
        return [Outcome(shown.request_id, "thumb", "thumb", 1.0 if asked.thumb == "up" else 0.0, note, shown.unit)]
    if asked.metric is not None:
        return [Outcome(shown.request_id, "metric", asked.metric.name, asked.metric.value, note, shown.unit)]
    return [Outcome(shown.request_id, "comment", "comment", None, note, shown.unit)]


def _standing(connection: Connection, one: Outcome) -> Row[Any] | None:
    """What was said of this before and still stands."""
    same = (outcomes.c.request_id == one.request_id, outcomes.c.kind == one.kind, outcomes.c.name == one.name)
    query = select(outcomes).where(*same, outcomes.c.state != "refused").order_by(outcomes.c.id.desc()).limit(1)
    return connection.execute(query).first()


def _says_the_same(row: Row[Any], one: Outcome) -> bool:
    return bool(row.value == one.value and row.note == one.note)


def _require_room(connection: Connection, unit: str | None, most_a_day: int) -> None:
    """One voice is heard so often a day: who shouts doesn't fill the quarantine. Without a unit there is no voice to count."""
    if unit is None:
        return
    since = (now() - timedelta(seconds=_DAY_S)).isoformat(timespec="microseconds")
    query = select(func.count()).select_from(outcomes).where(outcomes.c.unit == unit, outcomes.c.at > since)
    if connection.execute(query).scalar_one() >= most_a_day:
        raise TooOften(f"this user has said {most_a_day} things within a day", 3600.0)
