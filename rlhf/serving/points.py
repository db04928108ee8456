"""A reply's reward, one definition for guards, experiments, sums and pages.

It is the points that a reward version gave it here. A reply without any has what an application reported last as the metric
`reward`, unless its rollout has a judge: there only the judge's points count, for whoever may send feedback must not outvote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, func, select

from rlhf.store.tables import outcomes, rollouts

REPORTED = "reward"  # the name of the metric
MOST = 1e6  # in size: a larger number is a mistake, and every sum of squares that it enters is lost


def reward_of(own: float | None, reported: float | None, *, is_judged: bool) -> float | None:
    """own: given here; reported: from an outcome; is_judged: the reply's rollout has a judge. What is beyond `MOST`, or no number,
    counts as not told."""
    value = reported if own is None and not is_judged else own
    return value if value is not None and abs(value) <= MOST else None


def judged(connection: Connection, ids: Iterable[str | None] | None = None) -> frozenset[str]:
    """The rollouts that have a judge; among these ids, if any are given."""
    query = select(rollouts.c.id, rollouts.c.spec).where(rollouts.c.spec.contains('"judge":{', autoescape=True))
    if ids is not None:
        wanted = sorted({one for one in ids if one is not None})
        if not wanted:
            return frozenset()
        query = query.where(rollouts.c.id.in_(wanted))
    rows = connection.execute(query)
    return frozenset(row.id for row in rows if json.loads(row.spec)["settings"].get("judge") is not None)


def is_reported() -> ColumnElement[bool]:
    """Of an outcome's row: it tells a reward that counts, where reported ones do."""
    o = outcomes.c
    return (o.kind == "metric") & (o.name == REPORTED) & (o.state != "refused") & (func.abs(o.value) <= MOST)
