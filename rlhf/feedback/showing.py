"""Showing: pairs for people, as a list and one at a time with everything that is known about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, exists, func, select

from rlhf.errors import NotFound
from rlhf.feedback.anonymise import placeholders
from rlhf.feedback.reading import current_judgements, in_force, judgement_from, pair_from
from rlhf.records import Judgement, Pair
from rlhf.store import Workspace
from rlhf.store.tables import judgements, pair_sources, pairs


@dataclass(frozen=True, slots=True)
class PairLine:
    """One line of a list. votes: choices in force and how often. kinds: human, simulated, … as they occur.
    masked: personal data replaced in it, by kind."""

    id: str
    opening: str
    sources: tuple[str, ...]
    votes: dict[str, int]
    kinds: tuple[str, ...]
    masked: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "opening": self.opening,
            "sources": list(self.sources),
            "votes": self.votes,
            "kinds": list(self.kinds),
            "masked": self.masked,
        }


@dataclass(frozen=True, slots=True)
class PairPage:
    """A pair, where it came from (source → details), and every judgement with its id and whether it is in force. pair
    None = erased.
    """

    id: str
    pair: Pair | None
    sources: dict[str, dict[str, Any]]
    judgements: tuple[tuple[str, Judgement, bool], ...]

    @property
    def masked(self) -> dict[str, int]:
        """How many of each kind of personal data were replaced in prompt, replies and notes."""
        notes = [text for _, j, _ in self.judgements for text in (j.note, j.reason) if text]
        return placeholders([*_texts(self.pair), *notes] if self.pair else notes)

    def as_json(self) -> dict[str, Any]:
        told = (
            "choice",
            "source",
            "labeler",
            "kind",
            "strength",
            "seconds",
            "shown",
            "note",
            "reason",
            "cohort",
            "submitted_at",
            "supersedes",
        )
        return {
            "id": self.id,
            "erased": self.pair is None,
            "prompt": [turn.as_json() for turn in self.pair.prompt] if self.pair else None,
            "reply_a": self.pair.reply_a if self.pair else None,
            "reply_b": self.pair.reply_b if self.pair else None,
            "masked": self.masked,
            "sources": self.sources,
            "judgements": [
                {"id": id, "in_force": current, **{name: getattr(j, name) for name in told}, "consent": list(j.consent)}
                for id, j, current in self.judgements
            ],
        }


def list_pairs(workspace: Workspace, *, source: str | None = None, limit: int = 50) -> list[PairLine]:
    """The newest pairs that aren't erased. Raises NotFound on a source that there isn't."""
    query = (
        select(pairs).where(pairs.c.erased_at.is_(None)).order_by(pairs.c.created_at.desc(), pairs.c.id).limit(limit)
    )
    if source is not None:
        query = query.where(exists().where(and_(pair_sources.c.pair_id == pairs.c.id, pair_sources.c.source == source)))
    with workspace.read() as connection:
        rows = connection.execute(query).all()
        if not rows and source is not None:
            known = connection.scalars(
                select(pair_sources.c.source).distinct().order_by(pair_sources.c.source).limit(20)
            ).all()
            if source not in known:
                raise NotFound(
                    f"no pairs from a source '{source}'",
                    fix=f"the sources are {', '.join(known)}" if known else "import some first",
                )
        ids = [row.id for row in rows]
        named: dict[str, list[str]] = {}
        for entry in connection.execute(
            select(pair_sources).where(pair_sources.c.pair_id.in_(ids)).order_by(pair_sources.c.source)
        ):
            named.setdefault(entry.pair_id, []).append(entry.source)
        votes: dict[str, dict[str, int]] = {}
        kinds: dict[str, set[str]] = {}
        for _, judgement in current_judgements(connection, pair_ids=ids):
            counts = votes.setdefault(judgement.pair_id, {})
            counts[judgement.choice] = counts.get(judgement.choice, 0) + 1
            kinds.setdefault(judgement.pair_id, set()).add(judgement.kind)
    return [
        PairLine(
            row.id,
            _opening(pair),
            tuple(named.get(row.id, ())),
            votes.get(row.id, {}),
            tuple(sorted(kinds.get(row.id, ()))),
            placeholders(_texts(pair)),
        )
        for row, pair in ((row, pair_from(row)) for row in rows)
    ]


def show_pair(workspace: Workspace, id: str) -> PairPage:
    """The pair whose id begins with `id`. Raises NotFound where none or several do."""
    with workspace.read() as connection:
        rows = connection.execute(
            select(pairs).where(pairs.c.id.startswith(id.lower(), autoescape=True)).order_by(pairs.c.id).limit(3)
        ).all()
        if len(rows) != 1:
            seen = (
                "no pair's id begins" if not rows else f"{'more than two' if len(rows) > 2 else 'two'} pairs' ids begin"
            )
            raise NotFound(f"{seen} with '{id}'", fix="give more of it; see: rlhf feedback list")
        row = rows[0]
        details = connection.execute(
            select(pair_sources).where(pair_sources.c.pair_id == row.id).order_by(pair_sources.c.source)
        ).all()
        current = set(connection.scalars(select(judgements.c.id).where(judgements.c.pair_id == row.id, in_force())))
        said = connection.execute(
            select(judgements).where(judgements.c.pair_id == row.id).order_by(judgements.c.created_at, judgements.c.id)
        ).all()
    return PairPage(
        row.id,
        pair_from(row) if row.prompt is not None else None,
        {d.source: json.loads(d.details) if d.details else {} for d in details},
        tuple((j.id, judgement_from(j), j.id in current) for j in said),
    )


def sources(workspace: Workspace) -> dict[str, int]:
    """Every source and its number of pairs."""
    query = select(pair_sources.c.source, func.count()).group_by(pair_sources.c.source).order_by(pair_sources.c.source)
    with workspace.read() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def _texts(pair: Pair) -> list[str]:
    return [*(turn.content for turn in pair.prompt), pair.reply_a, pair.reply_b]


def _opening(pair: Pair) -> str:
    last = next((turn.content for turn in reversed(pair.prompt) if turn.role == "user"), "")
    text = " ".join(last.split())
    return text if len(text) <= 80 else text[:79] + "…"
