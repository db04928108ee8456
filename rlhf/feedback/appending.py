"""Appending: pairs, their sources and judgements as table rows, and what is there already. The one place that writes
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, select

from rlhf.feedback.consent import as_column
from rlhf.ids import digest_of, new_id
from rlhf.records import Judgement, Pair
from rlhf.store import Write
from rlhf.store.tables import judgements, pair_sources, pairs

_CHUNK = 500


def once(judgement: Judgement) -> str:
    """What makes a judgement the same one again: pair, source, labeler, choice and what it supersedes."""
    return digest_of(
        {
            "pair": judgement.pair_id,
            "source": judgement.source,
            "labeler": judgement.labeler,
            "choice": judgement.choice,
            "supersedes": judgement.supersedes,
        }
    )


def existing(connection: Connection, column: Column[Any], values: Iterable[str]) -> set[str]:
    """Which of these values the column holds."""
    names = list(values)
    found: set[str] = set()
    for start in range(0, len(names), _CHUNK):
        found.update(connection.scalars(select(column).where(column.in_(names[start : start + _CHUNK]))))
    return found


def add_pairs(write: Write, new: Sequence[Pair], at: str) -> int:
    """Insert the pairs that aren't there; returns how many were new."""
    rows = {pair.id: pair for pair in new}
    return write.insert_new(
        pairs,
        [
            {
                "id": pair.id,
                "prompt": json.dumps([turn.as_json() for turn in pair.prompt], ensure_ascii=False),
                "reply_a": pair.reply_a,
                "reply_b": pair.reply_b,
                "group_digest": pair.group,
                "created_at": at,
                "erased_at": None,
            }
            for pair in rows.values()
        ],
    )


def add_sources(
    write: Write, entries: Iterable[tuple[str, str, str | None, Mapping[str, Any]]], import_id: str | None
) -> int:
    """Insert (pair id, source, subject, details) where the pair hasn't that source yet."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for pair_id, source, subject, details in entries:
        text = json.dumps(dict(details), ensure_ascii=False, sort_keys=True) if details else None
        rows.setdefault(
            (pair_id, source),
            {"pair_id": pair_id, "source": source, "subject": subject, "details": text, "import_id": import_id},
        )
    return write.insert_new(pair_sources, list(rows.values()))


def add_judgements(write: Write, new: Mapping[str, Judgement], import_id: str | None, at: str) -> int:
    """Insert judgements by their `once`; returns how many were new."""
    return write.insert_new(judgements, [judgement_row(j, name, write.actor, import_id, at) for name, j in new.items()])


def judgement_row(judgement: Judgement, name: str, actor: str, import_id: str | None, at: str) -> dict[str, Any]:
    """The table row of a judgement, under a new id."""
    j = judgement
    return {
        "id": new_id(),
        "digest": j.digest,
        "once": name,
        "pair_id": j.pair_id,
        "choice": j.choice,
        "source": j.source,
        "labeler": j.labeler,
        "kind": j.kind,
        "strength": j.strength,
        "seconds": j.seconds,
        "shown": j.shown,
        "note": j.note,
        "reason": j.reason,
        "guideline": j.guideline,
        "consent": as_column(j.consent),
        "acquisition_p": j.acquisition_p,
        "cohort": j.cohort,
        "submitted_at": j.submitted_at,
        "supersedes": j.supersedes,
        "actor": actor,
        "import_id": import_id,
        "created_at": at,
    }
