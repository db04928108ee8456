"""Judges: who says which of two replies is better. A reward version, a rule, or people (`people_judge.py`).

A rule is a callable `(prompt: Sequence[Message], reply_a: str, reply_b: str) -> float`, above 0 where reply a is better,
found by its name in the entry point group `rlhf.judges`; other packages add theirs to the same group.
"""

from __future__ import annotations

import difflib
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol

from rlhf.errors import BadInput, NotFound
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.ids import digest_of
from rlhf.measures.ranking import p_better
from rlhf.records import Message, Pair, VersionRef
from rlhf.registry.gate_judges import GROUP, PEOPLE
from rlhf.store import Workspace

Rule = Callable[[Sequence[Message], str, str], float]
Score = Callable[..., Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one pair of replies. win: of side a: 1, 0, 0.5 = tie or coin; None = nobody judged it, and it is left out.

    difference: points by which a is better, where the judge gives any. coin: it could not be judged and counts a half.
    score_a, score_b: what a reward gave each reply.
    """

    win: float | None
    difference: float | None = None
    coin: bool = False
    score_a: float | None = None
    score_b: float | None = None

    @property
    def p_a(self) -> float | None:
        """P(a beats b) of a judge that scores: sigmoid(score a - score b)."""
        return None if self.score_a is None or self.score_b is None else p_better(self.score_a, self.score_b)


TIE, COIN = Verdict(0.5, 0.0), Verdict(0.5, coin=True)


@dataclass(frozen=True, slots=True)
class Judged:
    """All verdicts, in the pairs' order. digest: what makes the same judge the same again. facts: for the report. labelers: who
    judged, by source and name, which is in no report."""

    verdicts: Sequence[Verdict]
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    labelers: frozenset[tuple[str, str]] = frozenset()


class Judge(Protocol):
    """name: as it stands in a report."""

    @property
    def kind(self) -> Literal["reward", "rule", "people"]: ...
    @property
    def name(self) -> str: ...
    def judge(self, pairs: Sequence[ReplyPair]) -> Judged: ...


@dataclass(frozen=True)
class RewardJudge:
    """Scores both replies with one reward version. A reply that can't be scored makes the pair a coin."""

    workspace: Workspace
    ref: VersionRef
    score: Score | None = None
    kind: Literal["reward"] = "reward"

    @property
    def name(self) -> str:
        return str(self.ref)

    def judge(self, pairs: Sequence[ReplyPair]) -> Judged:
        scores = self._scores([(pair.prompt.messages, pair.a.text, pair.b.text) for pair in pairs])
        verdicts = [self._verdict(pair, *both) for pair, both in zip(pairs, scores, strict=True)]
        return Judged(verdicts, self.ref.digest)

    def differences(self, pairs: Sequence[Pair]) -> list[float | None]:
        """Points by which reply a of each stored pair is better, None where it can't be scored; scores are kept (`reward.kept`)."""
        from rlhf.reward.score import score_pairs

        if self.score is None:
            scores = [(s.score_a, s.score_b) for s in score_pairs(self.workspace, self.ref, pairs)] if pairs else []
        else:
            scores = self._scores([(pair.prompt, pair.reply_a, pair.reply_b) for pair in pairs])
        return [None if a is None or b is None else a - b for a, b in scores]

    def _scores(
        self, replies: Sequence[tuple[tuple[Message, ...], str, str]]
    ) -> list[tuple[float | None, float | None]]:
        """Of both replies to each prompt."""
        from rlhf.reward.score import Item, score_items

        items = [Item(2 * i + side, prompt, text)
                 for i, (prompt, *both) in enumerate(replies) for side, text in enumerate(both)]  # fmt: skip
        rows = (self.score or score_items)(self.workspace, self.ref, items)
        scores = {row["id"]: row["score"] for row in rows}
        return [(scores[2 * i], scores[2 * i + 1]) for i in range(len(replies))]

    def _verdict(self, pair: ReplyPair, a: float | None, b: float | None) -> Verdict:
        for score in (a, b):
            if score is not None and not math.isfinite(score):
                raise BadInput(
                    f"{self.ref} gives the score {score}; wanted finite numbers",
                    fix="the version is broken: check it with rlhf adapter verify",
                )
        if pair.is_same:  # one text has one score; two batches may differ in its last digit
            return Verdict(0.5, 0.0, score_a=a, score_b=a)
        if a is None or b is None:
            return Verdict(0.5, coin=True, score_a=a, score_b=b)
        return Verdict(_win(a - b), a - b, score_a=a, score_b=b)


@dataclass(frozen=True)
class RuleJudge:
    """A named rule. Its digest covers the source of the module that it stands in, so a changed rule is another one."""

    name: str
    rule: Rule
    digest: str
    kind: Literal["rule"] = "rule"

    def judge(self, pairs: Sequence[ReplyPair]) -> Judged:
        return Judged([TIE if pair.is_same else self._verdict(pair) for pair in pairs], self.digest)

    def differences(self, pairs: Sequence[Pair]) -> list[float | None]:
        """Points by which reply a of each stored pair is better."""
        return [self._points(pair.prompt, pair.reply_a, pair.reply_b, f"pair {pair.id[:12]}") for pair in pairs]

    def _verdict(self, pair: ReplyPair) -> Verdict:
        difference = self._points(pair.prompt.messages, pair.a.text, pair.b.text, f"prompt {pair.prompt.id}")
        return Verdict(_win(difference), difference)

    def _points(self, prompt: Sequence[Message], a: str, b: str, where: str) -> float:
        fix = "mend the rule, or name another judge with --judge"
        try:
            difference = float(self.rule(prompt, a, b))
        except Exception as error:  # somebody else's function: it may raise anything
            raise BadInput(
                f"the judge '{self.name}' failed on the {where}: {type(error).__name__}: {error}", fix=fix
            ) from error
        if not math.isfinite(difference):
            raise BadInput(f"the judge '{self.name}' gives {difference}; wanted a finite number", fix=fix)
        return difference


def open_judge(workspace: Workspace, text: str, score: Score | None = None) -> Judge | None:
    """The judge that `text` names: a reward version (`hh@1`, `hh@champion`, `sha256:…`) or a rule; None for `people`.

    Raises NotFound for a version or a rule that isn't there, BadInput for a version that is no reward.
    """
    from rlhf import registry

    if text == PEOPLE:
        return None
    if text.startswith("base:"):
        raise BadInput(f"{text} has no reward head to judge with", fix=_choices(workspace))
    if "@" in text or text.startswith("sha256:"):
        return RewardJudge(workspace, registry.resolve(workspace, text, role="reward"), score)
    if text not in rules():
        near = difflib.get_close_matches(text, [*rules(), PEOPLE], n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise NotFound(f"there is no judge '{text}'{meant}", fix=_choices(workspace))
    return _rule(rules()[text])


def rules() -> dict[str, EntryPoint]:
    """The installed rules, by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def _rule(entry: EntryPoint) -> RuleJudge:
    try:
        rule = entry.load()
    except Exception as error:  # somebody else's module: it may raise anything
        raise BadInput(
            f"the judge '{entry.name}' can't be loaded: {entry.value} raises {type(error).__name__}: {error}",
            fix="mend or uninstall the package that brings it, or name another judge",
        ) from error
    if not callable(rule):
        raise BadInput(
            f"the judge '{entry.name}' ({entry.value}) is no function of (prompt, reply_a, reply_b)",
            fix="mend or uninstall the package that brings it, or name another judge",
        )
    return RuleJudge(entry.name, rule, digest_of({"rule": entry.value, "source": _source(rule, entry)}))


def _source(rule: Any, entry: EntryPoint) -> str:
    """The text of the module that the rule stands in; of one without text, the version of its package."""
    try:
        return inspect.getsource(sys.modules[rule.__module__])
    except (OSError, TypeError, KeyError, AttributeError):
        return entry.dist.version if entry.dist else ""


def _choices(workspace: Workspace) -> str:
    from rlhf import registry

    rewards = [str(row.ref) for row in registry.list_versions(workspace, "reward")][:5]
    return (
        f"name one with --judge: a rule ({', '.join(rules()) or 'none is installed'}), {PEOPLE}, or a reward version "
        + (f"such as {', '.join(rewards)}" if rewards else "(there is none yet: rlhf reward train)")
    )


def _win(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)
