"""Gold pairs: pairs whose answer an expert knows. They check labelers, and are in no queue while they are gold.

What the expert says is metadata of the pair and never a vote. A log a pair: the last entry is in force.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from rlhf.errors import BadInput, Conflict, NotFound
from rlhf.feedback import import_files
from rlhf.feedback.drafts import PairDraft, Rejected
from rlhf.feedback.formats.votes import FORMAT as VOTES
from rlhf.feedback.rows import Row, open_input
from rlhf.ids import chance, now_text
from rlhf.labeling.comparisons import COMPARISON
from rlhf.labeling.counts import gold_pairs, last_check
from rlhf.records import Receipt
from rlhf.store import Workspace, Write
from rlhf.store.tables import checks, gold, pair_sources, pairs

SOURCE = "gold"
_CHOICES = ("a", "b", "tie")
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class GoldPair:
    """choice: a, b or tie on the pair's own sides; n: answers to it in force; n_right: of these, as the expert says."""

    pair_id: str
    choice: str
    who: str
    at: str
    n: int
    n_right: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def add_file(workspace: Workspace, file: Path) -> tuple[Receipt, int]:
    """Import a file of pairs with their `gold` (the format `votes`: prompt, a, b, gold) under the source `gold`, and make
    them gold.

    Returns the import's receipt and how many pairs are new or changed gold. Raises BadInput where no line is a gold pair, before
    anything is stored, and what `import_files` and `add_source` do.
    """
    _require_gold(file)
    receipt = import_files(workspace, [file], format="votes", source=SOURCE)
    return receipt, add_source(workspace, SOURCE)


def add_source(workspace: Workspace, source: str, *, limit: int | None = None, seed: int = 0) -> int:
    """Make those pairs of a source gold for which it says a gold answer; limit: so many of them, drawn by chance.

    Returns how many are new or changed. Raises NotFound where the source says none, Conflict where a pair belongs to a comparison.
    """
    with workspace.write() as write:
        rows = write.connection.execute(
            select(pair_sources.c.pair_id, pair_sources.c.details)
            .join(pairs, pairs.c.id == pair_sources.c.pair_id)
            .where(
                pair_sources.c.source == source,
                pair_sources.c.details.is_not(None),
                pairs.c.erased_at.is_(None),
            )
            .order_by(pair_sources.c.pair_id)
        ).all()
        said = [(row.pair_id, side) for row in rows if (side := json.loads(row.details).get("gold_side")) in _CHOICES]
        if not said:
            raise NotFound(
                f"no pair of the source '{source}' has a gold answer",
                fix='bring some: rlhf label gold add FILE, with lines of {"prompt", "a", "b", "gold": "a"}',
            )
        if limit is not None and limit < len(said):
            said = sorted(chance(seed, "gold", source).sample(said, limit))
        return sum(_append(write, pair_id, choice) for pair_id, choice in said)


def remove(workspace: Workspace, pair_id: str) -> str:
    """From here on a pair is like any other; its whole id is returned. pair_id: its id or the beginning of it.

    Raises NotFound where no gold pair is called so.
    """
    with workspace.write() as write:
        of_name = gold_pairs().where(gold.c.pair_id.startswith(pair_id, autoescape=True)).limit(2)
        found = list(write.connection.scalars(of_name)) if pair_id else []
        if len(found) != 1:
            seen = (
                f"no gold pair is called '{pair_id[:80]}'"
                if not found
                else f"'{pair_id[:80]}' begins two gold pairs' ids"
            )
            raise NotFound(seen, fix="see: rlhf label gold list")
        _append(write, found[0], None)
        return str(found[0])


def list_gold(workspace: Workspace) -> list[GoldPair]:
    """Every gold pair in force, by id, with how it was answered."""
    with workspace.read() as connection:
        answered = {
            row[0]: (row[1], row[2])
            for row in connection.execute(
                select(checks.c.pair_id, func.count(), func.sum(checks.c.was_right))
                .where(checks.c.kind == "gold", checks.c.was_right.is_not(None), last_check(checks))
                .group_by(checks.c.pair_id)
            )
        }
        rows = connection.execute(
            gold_pairs().add_columns(gold.c.choice, gold.c.who, gold.c.at).order_by(gold.c.pair_id)
        ).all()
    return [GoldPair(row.pair_id, row.choice, row.who, row.at, *answered.get(row.pair_id, (0, 0))) for row in rows]


def _require_gold(file: Path) -> None:
    """Raises BadInput, with the first line's reason, where no line is a pair with its gold answer."""
    opened, first = open_input(str(file)), ""
    for row in opened.rows():
        reason = _why_not_gold(row)
        if not reason:
            return
        first = first or f"{opened.unit} {row.line}: {reason}"
    raise BadInput(
        f"{file} holds no gold pair; {first or 'it has no rows'}",
        fix='write lines of {"prompt": "…", "a": "…", "b": "…", "gold": "a"}; gold is a, b or tie',
    )


def _why_not_gold(row: Row) -> str:
    """ "" for a pair whose gold answer is known."""
    if row.record is None:
        return row.problem
    try:
        draft = VOTES.read(row.record)
    except Rejected as verdict:
        return str(verdict)
    if not isinstance(draft, PairDraft):
        return "fields 'prompt', 'a' and 'b' are missing"
    said = draft.details.get("gold")
    if said is None:
        return "field 'gold' is missing"
    return "" if str(said) in _CHOICES else f"'gold' is {said!r:.60}, not {', '.join(_CHOICES)}"


def _append(write: Write, pair_id: str, choice: str | None) -> bool:
    """One entry, where it says something new."""
    last = write.connection.execute(
        select(gold.c.seq, gold.c.choice).where(gold.c.pair_id == pair_id).order_by(gold.c.seq.desc()).limit(1)
    ).first()
    if choice == (last.choice if last else None):
        return False
    compared = select(pair_sources.c.source).where(
        pair_sources.c.pair_id == pair_id, pair_sources.c.source.startswith(COMPARISON, autoescape=True)
    )
    if choice is not None and write.connection.execute(compared.limit(1)).first():
        raise Conflict(
            f"the pair {pair_id[:_SHOWN]} is asked for a comparison, and can't be gold",
            fix="leave it out of the gold pairs",
        )
    row = {
        "pair_id": pair_id,
        "seq": (last.seq if last else 0) + 1,
        "choice": choice,
        "who": write.actor,
        "at": now_text(),
    }
    write.connection.execute(gold.insert().values(**row))
    write.audit("label.gold", pair_id[:_SHOWN], {"choice": choice, "seq": row["seq"]})
    return True
