"""From served votes to judgements: a sample is drawn from the quarantine, somebody looks, and what they confirm goes through the
feedback door with the kind `served`. Nothing else leads from a served reply into training.

A user who votes often weighs no more than one who votes a little: each unit gives at most so many votes, ever, and all
whose replies named no user count as one. Drawn by a hash, so that nobody can time their votes. Only votes on replies whose prompt
and words were kept, that is, with consent, can be sampled: the others have no words to learn from.

    sample(workspace, 20) → votes to look at; then confirm(workspace, ids) or refuse(workspace, ids, why=…)
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import BadInput, NotFound
from rlhf.feedback import import_files
from rlhf.feedback.consent import from_column
from rlhf.feedback.served_words import SERVED, name_of
from rlhf.ids import canonical_json, unit_interval
from rlhf.records import Message, Pair
from rlhf.serving import sums
from rlhf.store import Workspace, Write
from rlhf.store.tables import exposures, outcomes

_PER_UNIT = 3


@dataclass(frozen=True, slots=True)
class Vote:
    """One outcome with what it is about. kind: thumb or choice; liked: its reply was the better one, or got a thumb up. other: the
    reply that it was compared with."""

    id: str
    request_id: str
    kind: str
    liked: bool
    note: str | None
    unit: str | None
    state: str
    consent: tuple[str, ...]
    prompt: tuple[Message, ...]
    reply: str
    digest: str | None
    other: str | None
    other_request_id: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "request_id": self.request_id,
            "kind": self.kind,
            "liked": self.liked,
            "note": self.note,
            "state": self.state,
            "consent": list(self.consent),
            "prompt": [turn.as_json() for turn in self.prompt],
            "reply": self.reply,
            "other": self.other,
            "digest": self.digest,
        }


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What became of confirmed votes. rejected: the door's reasons, by outcome; these are refused."""

    accepted: int
    duplicates: int
    rejected: Mapping[str, str]
    pairs: int

    def as_json(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": dict(self.rejected),
            "pairs": self.pairs,
        }


def list_votes(workspace: Workspace, state: str = "sampled") -> list[Vote]:
    """Votes in this state whose words were kept, oldest first."""
    with workspace.read() as connection:
        return _votes(connection, state)


def sample(workspace: Workspace, n: int, *, per_unit: int = _PER_UNIT, seed: int = 0) -> list[Vote]:
    """Draw up to n votes from the quarantine to be looked at, at most `per_unit` of one unit among all ever drawn."""
    with workspace.write() as write:
        connection = write.connection
        drawn = Counter(
            unit
            for (unit,) in connection.execute(
                select(outcomes.c.unit).where(outcomes.c.state.in_(("sampled", "confirmed")), _is_vote())
            )
        )
        chosen: list[Vote] = []
        for vote in sorted(_votes(connection, "quarantined"), key=lambda vote: unit_interval(seed, vote.id)):
            if len(chosen) < n and drawn[vote.unit] < per_unit:
                drawn[vote.unit] += 1
                chosen.append(vote)
        _mark(write, chosen, "sampled")
        write.audit("served.sample", f"{len(chosen)} votes", {"outcomes": [vote.id for vote in chosen], "seed": seed})
    return chosen


def confirm(workspace: Workspace, ids: Iterable[str]) -> Confirmed:
    """Sampled votes become judgements of the kind `served`, or comments (thumbs), through the feedback door. Again after a crash:
    what went in counts as a duplicate. Raises NotFound for an id that isn't sampled."""
    votes = _sampled(workspace, ids)
    together: defaultdict[tuple[str, tuple[str, ...]], list[Vote]] = defaultdict(list)
    for vote in votes:
        together[vote.kind, vote.consent].append(vote)
    accepted = duplicates = pairs = 0
    rejected: dict[str, str] = {}
    for (kind, consent), group in sorted(together.items()):
        receipt = imported(
            workspace, [_row(vote) for vote in group], "votes" if kind == "choice" else "events", consent
        )
        accepted, duplicates, pairs = (
            accepted + receipt.accepted,
            duplicates + receipt.duplicates,
            pairs + receipt.pairs,
        )
        rejected |= {group[bad.line - 1].id: bad.reason for bad in receipt.errors}
    with workspace.write() as write:
        _mark(write, [vote for vote in votes if vote.id in rejected], "refused")
        good = [vote for vote in votes if vote.id not in rejected]
        _mark(write, good, "confirmed")
        for vote in good:
            if vote.other is not None:
                pair = Pair.of(vote.prompt, vote.reply, vote.other)
                link(write.connection, pair.id, (vote.request_id, str(vote.other_request_id)))
        write.audit(
            "served.confirm", f"{len(good)} votes", {"outcomes": [vote.id for vote in good], "rejected": rejected}
        )
    return Confirmed(accepted, duplicates, rejected, pairs)


def refuse(workspace: Workspace, ids: Iterable[str], *, why: str) -> int:
    """Sampled votes train nothing. Raises NotFound for an id that isn't sampled, BadInput without a reason."""
    if not why.strip():
        raise BadInput("why the votes are refused is not said", fix="say it, for whoever reads the log")
    votes = _sampled(workspace, ids)
    with workspace.write() as write:
        _mark(write, votes, "refused")
        write.audit("served.refuse", f"{len(votes)} votes", {"outcomes": [vote.id for vote in votes], "why": why})
    return len(votes)


def _votes(connection: Connection, state: str) -> list[Vote]:
    other = exposures.alias("other")
    is_chosen = (outcomes.c.kind == "thumb") | (outcomes.c.value == 1.0)  # of a choice's two rows the better reply's
    query = (
        select(outcomes, exposures.c.prompt, exposures.c.reply, exposures.c.consent, exposures.c.digest)
        .add_columns(
            other.c.reply.label("other_reply"),
            other.c.request_id.label("other_id"),
            other.c.prompt.label("other_prompt"),
        )
        .add_columns(other.c.consent.label("other_consent"))
        .join(exposures, exposures.c.request_id == outcomes.c.request_id)
        .outerjoin(other, (other.c.request_id == outcomes.c.name) & (outcomes.c.kind == "choice"))
        .where(
            outcomes.c.state == state,
            _is_vote(),
            is_chosen,
            exposures.c.prompt.is_not(None),
            exposures.c.reply.is_not(None),
        )
        .order_by(outcomes.c.id)
    )
    votes = []
    for row in connection.execute(query):
        consent = set(from_column(row.consent))
        if row.kind == "choice":
            if row.other_reply is None or row.other_prompt != row.prompt:
                continue
            consent &= set(from_column(row.other_consent))
        if consent:
            votes.append(_vote(row, tuple(sorted(consent))))
    return votes


def _is_vote() -> Any:
    return outcomes.c.kind.in_(("thumb", "choice"))


def _vote(row: Any, consent: tuple[str, ...]) -> Vote:
    return Vote(
        row.id,
        row.request_id,
        row.kind,
        row.value == 1.0,
        row.note,
        row.unit,
        row.state,
        consent,
        messages_of(row.prompt),
        row.reply,
        row.digest,
        row.other_reply,
        row.other_id,
    )


def _sampled(workspace: Workspace, ids: Iterable[str]) -> list[Vote]:
    there = {vote.id: vote for vote in list_votes(workspace, "sampled")}
    wanted = list(dict.fromkeys(ids))
    if missing := [one for one in wanted if one not in there]:
        raise NotFound(f"{missing[0]} is no vote that was sampled and waits", fix="see: rlhf served list")
    return [there[one] for one in wanted]


def _mark(write: Write, votes: Sequence[Vote], state: str) -> None:
    """The votes' rows, and of a choice the worse reply's row too."""
    with sums.retold(write.database, write.connection, (vote.request_id for vote in votes)):
        _mark_rows(write.connection, votes, state)


def _mark_rows(connection: Connection, votes: Sequence[Vote], state: str) -> None:
    for vote in votes:
        connection.execute(outcomes.update().where(outcomes.c.id == vote.id).values(state=state))
        if vote.other_request_id is not None:
            twin = (outcomes.c.request_id == vote.other_request_id, outcomes.c.name == vote.request_id)
            connection.execute(
                outcomes.update()
                .where(*twin, outcomes.c.kind == "choice", outcomes.c.state != "refused")
                .values(state=state)
            )


def _row(vote: Vote) -> dict[str, Any]:
    """As its format reads it."""
    who = {} if vote.unit is None else {"labeler": name_of(vote.unit), "subject": name_of(vote.unit)}
    prompt = [turn.as_json() for turn in vote.prompt]
    if vote.kind == "choice":
        row = {"prompt": prompt, "reply_a": vote.reply, "reply_b": vote.other, "vote": "a"}
    else:
        row = {"prompt": prompt, "reply": vote.reply, "thumb": "up" if vote.liked else "down"}
    return {**row, **who, **({"note": vote.note} if vote.note else {})}


def imported(workspace: Workspace, rows: Sequence[Mapping[str, Any]], format: str, consent: Sequence[str]) -> Any:
    """The rows through the feedback door; the file is gone when this returns."""
    (workspace.root / "cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.root / "cache") as folder:
        file = Path(folder) / "served.jsonl"
        file.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
        return import_files(workspace, [file], format=format, source=SERVED, consent=consent, kind="served")


def link(connection: Connection, pair_id: str, request_ids: Sequence[str]) -> None:
    """The replies' rows say which pair came of them."""
    connection.execute(exposures.update().where(exposures.c.request_id.in_(request_ids)).values(served_pair_id=pair_id))


def messages_of(stored: str) -> tuple[Message, ...]:
    """A kept prompt."""
    return tuple(Message(turn["role"], turn["content"]) for turn in json.loads(stored))
