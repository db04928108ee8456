"""What was served, and what came of it: each reply is a row, durable before its request ends, written off the hot path.

One thread writes; whatever waits when it turns to the queue is one transaction (a group commit), so a reply waits for one
commit at most two long, however many are served. A unit is a keyed pseudonym (`pseudonym`): who holds the table without the
workspace's key can't tell whether a person is in it.
"""

from __future__ import annotations

import hashlib
import hmac
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, Table, bindparam, select
from sqlalchemy.exc import DatabaseError, IntegrityError

from rlhf.errors import Conflict, NotFound, RlhfError
from rlhf.feedback.consent import as_column
from rlhf.ids import canonical_json, new_id, now_text
from rlhf.serving import sums
from rlhf.store import Workspace
from rlhf.store.database import explain
from rlhf.store.tables import exposures, outcomes

Status = Literal["ok", "error", "cancelled", "shed"]
OutcomeKind = Literal["thumb", "choice", "comment", "metric"]
OutcomeState = Literal["quarantined", "sampled", "confirmed", "refused"]
JUDGE = "judge"  # among a row's reasons: the digest of the reward version that gave its points
_MOST_AT_ONCE = 500  # rows a transaction: other writers get their turn between two


_POINTS = (
    exposures.update()
    .where(exposures.c.request_id == bindparam("_request_id"))
    .values(reward=bindparam("_reward"), reason=bindparam("_reason"))
)


class Closing(RlhfError):
    """The server is going down and takes no more."""

    code = "closing"
    http_status = 503


@dataclass(frozen=True, slots=True)
class Exposure:
    """One reply, shown or (shadow) not. The first block is what the router's `Route` says of it.

    prompt, reply: only where consent allows, and masked already (`feedback.anonymise`). unit: from `pseudonym`, never the raw
    id. latency_s: whole request; first_token_s: to the first token. rollout_seq: of the entry that the weights were of. reward:
    points of the version that `reason` names under `JUDGE`.
    """

    request_id: str
    model_asked: str
    name: str
    digest: str | None
    alias: str | None = None
    rollout_id: str | None = None
    rollout_seq: int | None = None
    arm: str | None = None
    rule: str = "direct"
    propensity: float = 1.0
    reason: Mapping[str, Any] = field(default_factory=dict)
    unit: str | None = None
    cohort: str | None = None
    status: Status = "ok"
    latency_s: float | None = None
    first_token_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish: str | None = None
    refusal: bool | None = None
    length_chars: int | None = None
    reward: float | None = None
    prompt: tuple[Mapping[str, str], ...] | None = None
    reply: str | None = None
    consent: tuple[str, ...] = ()
    shadow_of: str | None = None
    seed: int | None = None
    at: str = field(default_factory=now_text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back for a request. thumb: 1 up, 0 down. metric: any number, by `name` (`reward`: `points.py`)."""

    request_id: str
    kind: OutcomeKind
    name: str
    value: float | None = None
    note: str | None = None  # masked already
    unit: str | None = None
    state: OutcomeState = "quarantined"
    at: str = field(default_factory=now_text)
    id: str = field(default_factory=new_id)


class Ticket:
    """A row on its way. `future` is done when the row is on the disk; for asyncio: `asyncio.wrap_future(ticket.future)`."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: Future[None] = Future()

    def durable(self, timeout_s: float | None = None) -> None:
        """Wait for the commit. Raises what the database refused with, TimeoutError."""
        self.future.result(timeout_s)

    def when_durable(self, call: Callable[[BaseException | None], None]) -> None:
        """Call with None once it is on the disk, or with the error; from the writer's thread, or at once."""
        self.future.add_done_callback(lambda done: call(done.exception()))


_Waiting = tuple[Table | None, dict[str, Any], Ticket]  # a row for a table, or (None) points for a row that is there


class Recorder:
    """The one writer of a process. `close` writes what waits, so that nothing taken is lost at the end."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="exposures", daemon=True)
        self._thread.start()

    def record(self, exposure: Exposure) -> Ticket:
        """Take a reply's row; microseconds. Raises Closing after `close`."""
        return self._take(exposures, _exposure_row(exposure))

    def record_reward(self, request_id: str, reward: float, judge: str, reason: Mapping[str, Any]) -> Ticket:
        """Take the points that a reply got after it was recorded, with the digest of what gave them. reason: the row's own."""
        said = canonical_json({**reason, JUDGE: judge}).decode()
        return self._take(None, {"request_id": request_id, "reward": reward, "reason": said})

    def record_outcome(self, outcome: Outcome) -> Ticket:
        """Take an outcome's row. Its ticket ends in NotFound where nothing was served under that request id."""
        return self._take(outcomes, asdict(outcome))

    def close(self) -> None:
        """Write everything that was taken, and take no more."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _take(self, table: Table | None, row: dict[str, Any]) -> Ticket:
        ticket = Ticket()
        with self._gate:  # so that nothing is put behind the end
            if self._closed:
                raise Closing("the server is going down and takes no more requests", fix="send it again in a moment")
            self._waiting.put((table, row, ticket))
        return ticket

    def _write(self) -> None:
        last = False
        while not last:
            taken = [self._waiting.get()]
            while len(taken) < _MOST_AT_ONCE:
                try:
                    taken.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            last = None in taken
            batch = [one for one in taken if one is not None]
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[_Waiting]) -> None:
        """All in one transaction; where a row is refused, each alone, so that one bad row costs nobody else theirs."""
        refusal: BaseException | None = None
        try:
            with self._workspace.database.write() as connection:
                for table in (exposures, outcomes):  # an outcome may have come in together with its exposure
                    rows = [row for of, row, _ in batch if of is table]
                    if rows:
                        self._insert(connection, table, rows)
                if judged := [row for of, row, _ in batch if of is None]:
                    self._give_points(connection, judged)
        except IntegrityError as error:
            if len(batch) > 1:
                for one in batch:
                    self._commit([one])
                return
            refusal = _refused(batch[0][0], batch[0][1], error)
        except DatabaseError as error:
            refusal = explain(error)
        except BaseException as error:
            refusal = error
        for _, _, ticket in batch:
            if refusal is None:
                ticket.future.set_result(None)
            else:
                ticket.future.set_exception(refusal)

    def _insert(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """With the sums that dashboards read."""
        database = self._workspace.database
        if table is exposures:
            connection.execute(table.insert(), rows)
            sums.add(database, connection, rows)
            return
        with sums.retold(database, connection, (row["request_id"] for row in rows)):
            connection.execute(table.insert(), rows)

    def _give_points(self, connection: Connection, judged: list[dict[str, Any]]) -> None:
        rows = [{f"_{key}": value for key, value in row.items()} for row in judged]
        with sums.retold(self._workspace.database, connection, (row["request_id"] for row in judged)):
            connection.execute(_POINTS, rows)


def pseudonym(workspace: Workspace, who: str) -> str:
    """The unit of a user's or a session's id: HMAC-SHA-256 under the workspace's key, 64 hex digits; the same every time."""
    return hmac.new(workspace.key.encode(), f"unit\x00{who}".encode(), hashlib.sha256).hexdigest()


def find(workspace: Workspace, request_id: str) -> Row[Any]:
    """The exposure's row. Raises NotFound."""
    with workspace.read() as connection:
        row = connection.execute(select(exposures).where(exposures.c.request_id == request_id)).first()
    if row is None:
        raise _unserved(request_id)
    return row


def _exposure_row(exposure: Exposure) -> dict[str, Any]:
    row = asdict(exposure)
    row["reason"] = canonical_json(dict(exposure.reason)).decode()
    row["consent"] = as_column(exposure.consent)
    row["refusal"] = None if exposure.refusal is None else int(exposure.refusal)
    if exposure.prompt is not None:
        row["prompt"] = canonical_json([dict(message) for message in exposure.prompt]).decode()
    return row


def _refused(table: Table | None, row: Mapping[str, Any], error: IntegrityError) -> RlhfError:
    if table is outcomes and "foreign" in str(error.orig).lower():
        return _unserved(row["request_id"])
    return Conflict(
        f"{(table if table is not None else exposures).name} has {row['request_id' if table is exposures else 'id']} already",
        fix="use a new request id",
    )


def _unserved(request_id: str) -> NotFound:
    return NotFound(
        f"nothing was served as request {request_id:.64}", fix="give the request id that came with the reply"
    )
