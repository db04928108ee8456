"""Reviews: a pair on which people still disagree, when no further opinion may be asked, is one reviewer's.

The reviewer sees that it is a review and is as blind as anybody; who has answered the pair doesn't review it. Their answer is
one more judgement with the reason `review`: in a training target it weighs what the setting makes of any one answer, and no more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

from sqlalchemy import ColumnElement, Connection, Integer, Select, String, and_, bindparam, func, not_, or_, select

from rlhf.ids import chance
from rlhf.labeling.counts import SOURCE, asked_for, in_force, is_split, judged_by, tallies
from rlhf.labeling.leases import LeaseKind, held_until, n_held
from rlhf.labeling.rules import rules_in
from rlhf.store import Workspace
from rlhf.store.tables import judgements, leases

REVIEW = "review"


@dataclass(frozen=True, slots=True)
class Opinions:
    """How the pairs with answers stand. agreed: of those with the wanted number, a choice has enough of the answers; asking: one
    more opinion is asked; at_review: they wait for a reviewer; reviewed: a reviewer has answered; left_split: people disagree,
    and the rules ask nobody."""

    agreed: int
    asking: int
    at_review: int
    reviewed: int
    left_split: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def opinions(workspace: Workspace, *, overlap: int = 1) -> Opinions:
    """Where the pairs that `overlap` people have answered stand."""
    with workspace.read() as connection:
        rules = rules_in(connection)
        tally = tallies()
        asked = {"overlap": overlap, "limit": overlap + rules.more, "agreement": rules.agreement}
        many = tally.c.n >= bindparam("overlap", type_=Integer)
        split, short = is_split(tally), tally.c.n < bindparam("limit", type_=Integer)
        reviewed = _is_reviewed(tally.c.pair_id)
        counted = select(
            func.count().filter(not_(split), not_(reviewed)),
            func.count().filter(split, short, not_(reviewed)),
            func.count().filter(split, not_(short), not_(reviewed)),
            func.count().filter(reviewed),
        ).where(or_(many, reviewed))
        n_agreed, n_asking, n_split, n_reviewed = connection.execute(counted, asked).one()
    at_review, left = (n_split, 0) if rules.review else (0, n_split)
    return Opinions(n_agreed, n_asking, at_review, n_reviewed, left)


def draw(connection: Connection, labeler: str, overlap: int) -> tuple[LeaseKind, str, str | None, float | None] | None:
    """A pair that waits for a reviewer who hasn't answered it, by chance, with the chance of the draw."""
    rules = rules_in(connection)
    if not rules.review:
        return None
    asked = {**asked_for(overlap, rules), "labeler": labeler, "held_until": held_until()}
    waiting = list(connection.scalars(_waiting(), asked))
    if not waiting:
        return None
    n_drawn = connection.execute(select(func.count()).where(leases.c.labeler == labeler)).scalar_one()
    return "review", chance(0, "review", labeler, str(n_drawn)).choice(waiting), None, 1 / len(waiting)


@cache
def _waiting() -> Select[str]:
    tally = tallies()
    return (
        select(tally.c.pair_id)
        .where(
            tally.c.n >= bindparam("limit", type_=Integer),
            is_split(tally),
            not_(_is_reviewed(tally.c.pair_id)),
            not_(judged_by(tally.c.pair_id, bindparam("labeler", type_=String))),
            n_held(tally.c.pair_id) == 0,
        )
        .order_by(tally.c.pair_id)
    )


def _is_reviewed(pair_id: ColumnElement[str]) -> ColumnElement[bool]:
    judged = judgements.alias()
    return (
        select(judged.c.id)
        .where(
            and_(judged.c.pair_id == pair_id, judged.c.source == SOURCE, judged.c.reason == REVIEW, in_force(judged))
        )
        .exists()
    )
