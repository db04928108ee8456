"""Collecting: imported comments with words in them become items, each once, whenever somebody asks for it.

Not at import: an import of millions of rows isn't slowed by it, and what guesses a kind can be read, and changed, before it runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from rlhf.board.changing import RISK_OF
from rlhf.board.guessing import guess
from rlhf.feedback.holds import is_open, pairs_of_comment
from rlhf.ids import digest_of, new_id, now_text
from rlhf.store import Workspace, Write
from rlhf.store.tables import comments, item_events, items

_BATCH = 1000


@dataclass
class Collected:
    """n_new: comments that are items now. by_rule: of these, how many each rule guessed. n_held: pairs newly held."""

    n_new: int = 0
    n_held: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {"new": self.n_new, "held": self.n_held, "by_rule": dict(sorted(self.by_rule.items()))}


def collect(workspace: Workspace, *, source: str | None = None) -> Collected:
    """Make an item of each comment with words that is none yet (source: of this one alone), a batch a transaction; and hold the
    pairs that were made of a held comment since. The same again adds nothing."""
    told = Collected()
    after: str | None = ""
    while after is not None:
        with workspace.write() as write:
            after = _collect_batch(write, after, source, told)
    with workspace.write() as write:
        if n_more := _hold_later_pairs(write):
            told.n_held += n_more
            write.audit("board.hold", "pairs made of held comments", {"pairs": n_more})
    return told


def _collect_batch(write: Write, after: str, source: str | None, told: Collected) -> str | None:
    """The digest after which the next batch begins; None = that was the last."""
    is_item = select(items.c.id).where(items.c.comment == comments.c.digest, items.c.rule.is_not(None)).exists()
    query = select(comments.c.digest, comments.c.body, comments.c.source, comments.c.labeler).where(
        comments.c.digest > after, comments.c.body.is_not(None), func.trim(comments.c.body) != "", ~is_item
    )
    if source is not None:
        query = query.where(comments.c.source == source)
    rows = write.connection.execute(query.order_by(comments.c.digest).limit(_BATCH)).all()
    at, made, entries, n_held = now_text(), [], [], 0
    by_rule: Counter[str] = Counter()
    for row in rows:
        rule, item = guess(row.body), new_id()
        by_rule[rule.name] += 1
        named = {
            "channel": row.source,
            "about": "comment",
            "comment": row.digest,
            "given_by": row.labeler,
            "rule": rule.name,
        }
        made.append(
            {"id": item, "once": digest_of(["collected", row.digest]), **named, "actor": write.actor, "created_at": at}
        )
        state = {"kind": rule.kind, "risk": RISK_OF[rule.kind], "status": "new", "who": write.actor, "at": at}
        why = f"guessed by the rule: {rule.name}"
        entries.append({"item_id": item, "seq": 1, "action": "set", "pair_id": None, "why": why, **state})
        if rule.kind == "safety":
            held = pairs_of_comment(write.connection, row.digest)
            n_held += len(held)
            for seq, pair_id in enumerate(held or [None], 2):
                entries.append({"item_id": item, "seq": seq, "action": "hold", "pair_id": pair_id, "why": why, **state})
    if made:
        write.connection.execute(items.insert(), made)
        write.connection.execute(item_events.insert(), entries)
        write.audit("board.collect", rows[-1].digest, {"items": len(made), "held": n_held, "by_rule": dict(by_rule)})
    told.n_new += len(made)
    told.n_held += n_held
    told.by_rule.update(by_rule)
    return str(rows[-1].digest) if len(rows) == _BATCH else None


def _hold_later_pairs(write: Write) -> int:
    """A pair can be made of a comment long after it was held: the other rating may come in later."""
    hold = item_events.alias()
    query = select(items.c.id, items.c.comment).join(hold, hold.c.item_id == items.c.id).where(is_open(hold))
    n_more = 0
    for row in write.connection.execute(
        query.where(items.c.comment.is_not(None)).distinct().order_by(items.c.id)
    ).all():
        of_item = select(item_events).where(item_events.c.item_id == row.id).order_by(item_events.c.seq)
        entries = write.connection.execute(of_item).all()
        cleared = max((e.seq for e in entries if e.action == "clear"), default=0)
        known = {e.pair_id for e in entries if e.action == "hold" and e.seq > cleared}
        last = dict(entries[-1]._mapping)
        for pair_id in pairs_of_comment(write.connection, row.comment):
            if pair_id in known:
                continue
            last |= {"seq": last["seq"] + 1, "action": "hold", "pair_id": pair_id, "link": None}
            last |= {"who": write.actor, "why": "made of a held comment", "at": now_text()}
            write.connection.execute(item_events.insert().values(**last))
            n_more += 1
    return n_more
