"""A rollout's judge: a reward version that gives points to a share of its replies after they were answered, for the guards.

The share is drawn by a hash of the reply's id, so it is the same in each arm. Nobody waits for it: a reply is scored while the
engine has no more urgent work, one at a time, and its points are an update of its row. What comes while too many wait is dropped
and counted, and so is what waits when the server ends. A shadow's reply is judged where the shown one is: guards compare the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlhf.errors import RlhfError
from rlhf.records import Message
from rlhf.serving.answering import Answering
from rlhf.serving.assignment import BUCKETS, bucket_of
from rlhf.serving.routes import Judge, Route
from rlhf.serving.scores import scored
from rlhf.serving.service import Service

_MOST = 256  # replies that wait to be judged


def cast(answering: Answering) -> None:
    """Begin to judge the replies of a request that was answered. Those that the judge itself chose have its points already."""
    route = answering.route
    for reply, row_id in zip(answering.replies, answering.reply_ids, strict=True):
        if reply.points is None or answering.chooser != route.judge_digest:
            begin(answering.service, route, row_id, row_id, answering.asked.messages_of(reply.prompt), reply.text)


def begin(service: Service, route: Route, row_id: str, drawn_by: str, prompt: Sequence[Message], reply: str) -> None:
    """Judge the reply of this row, if the hash of `drawn_by` draws it. The row was given to the recorder already."""
    judge = route.judge
    if judge is None or bucket_of(f"judge\x00{route.rollout_id}", drawn_by) >= judge.share * BUCKETS:
        return
    if len(service.judgings) >= _MOST:
        service.metrics.judged.add(status="dropped", judge=judge.digest[:12])
    elif not prompt or not reply.strip():
        service.metrics.judged.add(status="unscored", judge=judge.digest[:12])
    else:
        service.in_background(_judged(service, route, judge, row_id, prompt, reply), service.judgings)


async def _judged(
    service: Service, route: Route, judge: Judge, row_id: str, prompt: Sequence[Message], reply: str
) -> None:
    status = "error"
    try:
        with await service.lease(judge.digest):
            (found,) = await scored(service, judge.digest, prompt, [reply], low=True)
        if found.score is None:
            status = "unscored"
            return
        await asyncio.wrap_future(
            service.recorder.record_reward(row_id, found.score, judge.digest, route.reason).future
        )
        status = "ok"
    except RlhfError:
        pass  # the count says so
    except asyncio.CancelledError:
        status = "dropped"
        raise
    finally:
        service.metrics.judged.add(status=status, judge=judge.digest[:12])
