"""Served replies become pairs for the labelers: two replies to one prompt, without a verdict, in their queue.

Only replies whose words were kept, with consent, and each in one pair. A shadow's reply counts: beside the shown one it is what two
versions say to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf.feedback.consent import from_column
from rlhf.feedback.served_words import name_of
from rlhf.records import Pair
from rlhf.serving.confirming import imported, link, messages_of
from rlhf.store import Workspace
from rlhf.store.tables import exposures


@dataclass(frozen=True, slots=True)
class _Unjudged:
    """A pair of served replies. consent: what both consent to. unit: whose words the prompt is."""

    pair: Pair
    request_ids: tuple[str, str]
    consent: tuple[str, ...]
    unit: str | None


def to_label(workspace: Workspace, limit: int = 100) -> int:
    """Pairs of two kept replies to one prompt, without a verdict, into the labelers' queue, the oldest first; how many were new."""
    with workspace.read() as connection:
        found = _replies_to_one_prompt(connection)[:limit]
    n_new = 0
    for consent in sorted({one.consent for one in found}):
        group = [one for one in found if one.consent == consent]
        n_new += imported(workspace, [_unjudged(one) for one in group], "votes", consent).pairs
        with workspace.write() as write:
            for one in group:
                link(write.connection, one.pair.id, one.request_ids)
            write.audit("served.to_label", f"{len(group)} pairs", {"pairs": [one.pair.id for one in group]})
    return n_new


def _unjudged(one: _Unjudged) -> dict[str, Any]:
    who = {} if one.unit is None else {"subject": name_of(one.unit)}
    prompt = [turn.as_json() for turn in one.pair.prompt]
    return {"prompt": prompt, "reply_a": one.pair.reply_a, "reply_b": one.pair.reply_b, **who}


def _replies_to_one_prompt(connection: Connection) -> list[_Unjudged]:
    """Pairs of different replies, each reply once, the oldest first."""
    query = (
        select(exposures)
        .where(exposures.c.prompt.is_not(None), exposures.c.reply.is_not(None), exposures.c.served_pair_id.is_(None))
        .order_by(exposures.c.at, exposures.c.request_id)
    )
    waiting: dict[str, list[Any]] = {}
    found = []
    for row in connection.execute(query):
        alone = waiting.setdefault(row.prompt, [])
        fits = next((one for one in alone if one.reply.strip() != row.reply.strip()), None)
        consent = () if fits is None else tuple(sorted({*from_column(fits.consent)} & {*from_column(row.consent)}))
        if fits is None or not consent or not row.reply.strip() or not fits.reply.strip():
            alone.append(row)
            continue
        alone.remove(fits)
        pair = Pair.of(messages_of(row.prompt), fits.reply, row.reply)
        found.append(_Unjudged(pair, (fits.request_id, row.request_id), consent, fits.unit))
    return found
