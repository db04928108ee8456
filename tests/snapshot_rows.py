"""Rows for the snapshot tests: pairs and judgements put into the store as the feedback room leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlhf.ids import digest_of, now_text
from rlhf.records import Judgement, Message, Pair
from rlhf.store import Workspace
from rlhf.store.tables import judgements, pair_sources, pairs

Row = tuple[Pair, Judgement, Judgement | None]


def pair_of(i: int, *, opening: str | None = None, replies: tuple[str, str] | None = None) -> Pair:
    opening = opening or f"Question number {i} on the matter of {i * 7919}?"
    prompt = (Message("system", "Be kind."), Message("user", opening))
    return Pair.of(prompt, *(replies or (f"The first answer to {i} is long", f"No {i}")))


def judged(pair: Pair, choice: str, *, source: str = "s", supersedes: Row | None = None, **fields: Any) -> Row:
    return pair, Judgement(pair.id, choice, source, **fields), supersedes and supersedes[1]  # type: ignore[arg-type]


def put(workspace: Workspace, rows: Sequence[Row], *, bare: Sequence[Pair] = ()) -> None:
    with workspace.write() as write:
        of_pairs = {pair.id: pair for pair in [*(row[0] for row in rows), *bare]}
        write.insert_new(pairs, [_pair(pair) for pair in of_pairs.values()])
        sources = {(pair.id, judgement.source) for pair, judgement, _ in rows} | {(pair.id, "s") for pair in bare}
        write.insert_new(pair_sources, [{"pair_id": pair_id, "source": source} for pair_id, source in sorted(sources)])
        for _, judgement, superseded in rows:
            write.insert_new(judgements, [_judgement(judgement, superseded)])


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "id": pair.id,
        "prompt": json.dumps([m.as_json() for m in pair.prompt]),
        "reply_a": pair.reply_a,
        "reply_b": pair.reply_b,
        "group_digest": pair.group,
        "created_at": now_text(),
    }


def _judgement(j: Judgement, superseded: Judgement | None) -> dict[str, Any]:
    return {
        "id": _id_of(j),
        "digest": j.digest,
        "pair_id": j.pair_id,
        "choice": j.choice,
        "source": j.source,
        "once": digest_of([j.pair_id, j.source, j.labeler, j.choice, superseded and superseded.digest]),
        "labeler": j.labeler,
        "kind": j.kind,
        "strength": j.strength,
        "reason": j.reason,
        "guideline": j.guideline,
        "consent": ",".join(j.consent),
        "cohort": j.cohort,
        "supersedes": superseded and _id_of(superseded),
        "actor": "tester",
        "created_at": now_text(),
    }


def _id_of(judgement: Judgement) -> str:
    return digest_of([judgement.digest, judgement.reason])[:26]
