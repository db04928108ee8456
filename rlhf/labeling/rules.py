"""Rules of labeling: which pair is drawn, when one more opinion is asked, how labelers are checked, and when one is paused.

They are the workspace's, a log as an alias's gates are: the last entry is in force, in every process within a second. What they
mean stands on the labeler's page in plain words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar
from weakref import WeakKeyDictionary

from pydantic import Field
from sqlalchemy import Connection, Engine, select

from rlhf.config import Settings, load
from rlhf.errors import BadInput
from rlhf.ids import canonical_json, now_text
from rlhf.store import Workspace
from rlhf.store.tables import label_rules

_FRESH_S = 1.0  # a rule that is a second late breaks nothing, and asking with every draw costs
_kept: WeakKeyDictionary[Engine, tuple[float, LabelRules]] = WeakKeyDictionary()


class LabelRules(Settings):
    """Everything is off until it is set, but gold pairs, which come up once there are some, and worths, once they are ranked."""

    LISTED_BY: ClassVar[str] = "rlhf label rules"

    agreement: float = Field(
        0.6,
        gt=0,
        le=1,
        description="share of a pair's answers that its commonest one must have; below it people disagree on the pair",
    )
    more: int = Field(
        0,
        ge=0,
        le=20,
        description="opinions beyond the overlap, asked one by one while people disagree; 0 = none",
    )
    review: bool = Field(
        False, description="a pair on which people still disagree goes to a reviewer (the permission `review`)"
    )
    gold_rate: float = Field(
        0.05, ge=0, le=0.5, description="share of a labeler's pairs whose answer is known, where there are gold pairs"
    )
    repeat_rate: float = Field(
        0.0, ge=0, le=0.5, description="share of a labeler's pairs that are earlier ones of theirs, the sides swapped"
    )
    repeat_gap: int = Field(20, ge=1, le=1000, description="answers between a pair and its repeat, at least")
    gold_bar: float = Field(
        0.7,
        ge=0,
        le=1,
        description="share of known answers that a labeler must be able to reach; 0 = nobody is paused for it",
    )
    repeat_bar: float = Field(
        0.6,
        ge=0,
        le=1,
        description="share of repeats that a labeler must be able to answer alike; 0 = nobody is paused for it",
    )
    min_checks: int = Field(20, ge=5, le=1000, description="checks of a kind before anybody is paused for them")
    floor: float = Field(
        0.2, gt=0, le=1, description="share of draws that are even among open pairs, whatever they are worth; 1 = all"
    )
    doubt_weight: float = Field(
        1.0, ge=0, description="weight of what a vote on a pair is expected to tell the reward, in a pair's worth"
    )
    disagreement_weight: float = Field(0.5, ge=0, description="weight of how evenly a pair's answers are split")
    coverage_weight: float = Field(0.25, ge=0, description="weight of a prompt of which few pairs are judged")

    @property
    def escalates(self) -> bool:
        """Disagreement has a consequence."""
        return self.more > 0 or self.review


@dataclass(frozen=True, slots=True)
class RulesEntry:
    """Rules with who set them when. seq 0: the ones that come with rlhf."""

    seq: int
    rules: LabelRules
    who: str
    why: str
    at: str

    def as_json(self) -> dict[str, object]:
        return {"seq": self.seq, **self.rules.model_dump(), "who": self.who, "why": self.why, "at": self.at}


def set_rules(workspace: Workspace, words: Iterable[str], why: str) -> RulesEntry:
    """Change the rules that `key=value` words name; the same again changes nothing.

    Raises BadUsage for what is no rule or no value of one, BadInput where nobody says why.
    """
    asked = load(LabelRules, words=words)
    if not why.strip():
        raise BadInput("why the rules change is not said", fix="say it with --why, for whoever reads the history")
    with workspace.write() as write:
        last = _last(write.connection)
        rules = last.rules.model_copy(update={name: getattr(asked, name) for name in asked.model_fields_set})
        if rules == last.rules:
            return last
        row = {
            "seq": last.seq + 1,
            "rules": canonical_json(rules.model_dump()).decode(),
            "who": write.actor,
            "why": why.strip(),
            "at": now_text(),
        }
        write.connection.execute(label_rules.insert().values(**row))
        changed = {name: getattr(rules, name) for name in asked.model_fields_set}
        write.audit("label.rules", f"label rules {row['seq']}", {"set": changed, "why": why.strip()})
        made = _last(write.connection)
    _kept.pop(workspace.database.engine, None)
    return made


def rules_of(workspace: Workspace) -> RulesEntry:
    """The rules in force, and who set them."""
    with workspace.read() as connection:
        return _last(connection)


def history(workspace: Workspace) -> list[RulesEntry]:
    """Every entry, the oldest first."""
    with workspace.read() as connection:
        rows = connection.execute(select(label_rules).order_by(label_rules.c.seq)).all()
    return [RulesEntry(row.seq, _read(row.rules), row.who, row.why, row.at) for row in rows]


def rules_in(connection: Connection) -> LabelRules:
    """The rules in force, inside the caller's transaction; what another process set is seen within a second."""
    good_until, rules = _kept.get(connection.engine, (float("-inf"), None))
    if rules is None or time.monotonic() > good_until:
        rules = _last(connection).rules
        _kept[connection.engine] = (time.monotonic() + _FRESH_S, rules)
    return rules


def in_words(rules: LabelRules, overlap: int) -> str:
    """What the rules mean for a labeler, in sentences."""
    told = [f"Each pair is judged by {_people(overlap)}."]
    if rules.escalates and (overlap > 1 or rules.more):
        then = [f"up to {rules.more} more are asked, one by one"] * bool(rules.more) + [
            "a reviewer decides"
        ] * rules.review
        told.append(f"Where no choice has {rules.agreement:.0%} of the answers, {', then '.join(then)}.")
    mixed = [f"{rules.gold_rate:.0%} have an answer that is known"] * bool(rules.gold_rate)
    mixed += [f"{rules.repeat_rate:.0%} are earlier ones of yours, the sides swapped"] * bool(rules.repeat_rate)
    if mixed:
        told.append(
            f"Of the pairs that you get, at most about {' and '.join(mixed)}; nothing on the page tells which, and they "
            "are kept apart from the data."
        )
        bars = [f"{rules.gold_bar:.0%} of the known answers"] * bool(rules.gold_rate and rules.gold_bar)
        bars += [f"{rules.repeat_bar:.0%} of the repeats answered alike"] * bool(rules.repeat_rate and rules.repeat_bar)
        if bars:
            told.append(
                f"Who is, luck allowed for, below {' or '.join(bars)} after {rules.min_checks} or more is paused, told why, "
                "and can appeal to a reviewer."
            )
    return " ".join(told)


def _people(n: int) -> str:
    return "one person" if n == 1 else f"{n} people"


def _last(connection: Connection) -> RulesEntry:
    row = connection.execute(select(label_rules).order_by(label_rules.c.seq.desc()).limit(1)).first()
    if row is None:
        return RulesEntry(0, LabelRules.model_validate({}), "rlhf", "as they come", "")
    return RulesEntry(row.seq, _read(row.rules), row.who, row.why, row.at)


@lru_cache(maxsize=8)
def _read(text: str) -> LabelRules:
    return LabelRules(**json.loads(text))
