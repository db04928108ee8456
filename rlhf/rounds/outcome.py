"""What a call of the loop came to, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Outcome:
    """state: `done` (a round came to its decision), `idle` (not enough new judgements: nothing was done) or `waiting` (the
    round is open until people have judged).

    new, wanted: judgements that are new on the train side, and what a round needs. decision: the record's digest; path: its
    page. verdicts: one for the reward and, with a policy, one for it: alias, candidate, outcome, reasons. settled: proposals of
    the last round that were promoted in this call, as their gate is met by now.
    """

    state: Literal["done", "idle", "waiting"]
    round: str | None = None
    new: int | None = None
    wanted: int | None = None
    why: str = ""
    decision: str | None = None
    path: str | None = None
    verdicts: tuple[dict[str, Any], ...] = ()
    settled: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "round": self.round,
            "new": self.new,
            "wanted": self.wanted,
            "missing": None if self.wanted is None else max(0, self.wanted - (self.new or 0)),
            "why": self.why,
            "decision": self.decision,
            "report": self.path,
            "verdicts": list(self.verdicts),
            "settled": list(self.settled),
        }

    @property
    def text(self) -> str:
        lines = [f"settled: {said(one)}" for one in self.settled]
        lines += [said(one) for one in self.verdicts]
        if self.why:
            lines.append(self.why)
        if self.decision:
            lines.append(f"decision {self.decision[:12]}\n{self.path}")
        return "\n".join(lines)


def said(verdict: dict[str, Any]) -> str:
    """One verdict in a sentence: `hh@2 proposed for hh@champion: no evaluator has signed …`."""
    lacking = f": {'; '.join(verdict['reasons'])}" if verdict["reasons"] else ""
    return f"{verdict['candidate']} {verdict['outcome']} {verdict['preposition']} {verdict['alias']}{lacking}"
