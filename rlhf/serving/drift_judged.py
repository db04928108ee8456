"""A judge's points, of a snapshot's replies and of served ones: a reward that can be held against the snapshot.

A snapshot holds no rewards of what was served since, and a served reply has points only where a rollout had a judge, maybe another.
So one reward version reads both sides: what it gave while serving counts, and other replies are read now, where users let their
words be kept. Both sides are cut to a number that a laptop reads in minutes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from rlhf.records import Pair, VersionRef
from rlhf.serving.confirming import messages_of
from rlhf.serving.exposures import JUDGE
from rlhf.serving.said import Said, opening_of
from rlhf.snapshots import Snapshot
from rlhf.store import Workspace
from rlhf.store.tables import exposures

PAIRS, REPLIES = 150, 300  # of the snapshot, two replies each; of those served
_AT_ONCE = 500  # ids in a query


def points(
    workspace: Workspace, ref: VersionRef, snapshot: Snapshot, window: Sequence[Said]
) -> tuple[list[Said], list[Said]]:
    """Replies of the snapshot's first pairs (by pair id, a hash) and the newest served ones, each with this version's points; those
    that it can't score are left out."""
    return _frozen(workspace, ref, snapshot), _served(workspace, ref, window)


def _frozen(workspace: Workspace, ref: VersionRef, snapshot: Snapshot) -> list[Said]:
    from rlhf.reward.score import score_pairs

    pairs: list[Pair] = []
    for row in snapshot.rows():
        pairs.append(row.pair)
        if len(pairs) == PAIRS:
            break
    scores = score_pairs(workspace, ref, pairs)
    return [
        Said(pair.id, opening_of(pair), "", None, None, None, None, points)
        for pair, score in zip(pairs, scores, strict=True)
        for points in (score.score_a, score.score_b)
        if points is not None
    ]


def _served(workspace: Workspace, ref: VersionRef, window: Sequence[Said]) -> list[Said]:
    from rlhf.reward.score import Item, score_items

    with workspace.read() as connection:
        rows = _rows(connection, [said.id for said in window])
    given: dict[str, float] = {}
    to_read: list[Item] = []
    for said in window:
        reward, reason, prompt, reply = rows[said.id]
        if reward is not None and json.loads(reason).get(JUDGE) == ref.digest:
            given[said.id] = reward
        elif prompt is not None and reply and reply.strip():
            to_read.append(Item(said.id, messages_of(prompt), reply))
        if len(given) + len(to_read) == REPLIES:
            break
    scored = score_items(workspace, ref, to_read) if to_read else ()
    given.update({row["id"]: row["score"] for row in scored if row["score"] is not None})
    return [replace(said, reward=given[said.id]) for said in window if said.id in given]


def _rows(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[float | None, str, str | None, str | None]]:
    e, found = exposures.c, {}
    for start in range(0, len(ids), _AT_ONCE):
        query = select(e.request_id, e.reward, e.reason, e.prompt, e.reply)
        for row in connection.execute(query.where(e.request_id.in_(ids[start : start + _AT_ONCE]))):
            found[row.request_id] = (row.reward, row.reason, row.prompt, row.reply)
    return found
