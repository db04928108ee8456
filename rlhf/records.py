"""The nouns, frozen. A record is named by its digest where content is what it is, by an id where it is an event.

Nothing here reads, writes or decides; rooms pass these to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlhf.ids import digest_of, digest_text

Choice = Literal["a", "b", "tie", "both_bad", "skip"]
CHOICES: tuple[Choice, ...] = ("a", "b", "tie", "both_bad", "skip")
Kind = Literal["human", "simulated", "model", "served"]
KINDS: tuple[Kind, ...] = ("human", "simulated", "model", "served")
ROLES = ("system", "user", "assistant", "tool")
Role = Literal["reward", "policy"]
CONSENT_SCOPES = ("train", "evaluate", "publish")
PAGE_SOURCE = "web"  # of what is judged on the labeler's page and through its API, under an account's name


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str

    def as_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two replies. Build with `Pair.of`, which puts the reply with the smaller digest first."""

    id: str
    prompt: tuple[Message, ...]
    reply_a: str
    reply_b: str

    @staticmethod
    def of(prompt: Sequence[Message], one: str, other: str) -> Pair:
        """The pair of two replies in either order; its id is the digest of the prompt and the set of replies."""
        a, b = sorted((one, other), key=digest_text)
        content = {"prompt": [m.as_json() for m in prompt], "replies": [digest_text(a), digest_text(b)]}
        return Pair(digest_of(content), tuple(prompt), a, b)

    def side_of(self, reply: str) -> Literal["a", "b"]:
        return "a" if reply == self.reply_a else "b"

    @property
    def group(self) -> str:
        """Digest of the conversation's first user turn, case and space folded: what a split keeps together."""
        opening = next((m.content for m in self.prompt if m.role == "user"), None)
        if opening is None:
            opening = " ".join(m.content for m in self.prompt) or self.id
        return digest_text(" ".join(opening.casefold().split()))


@dataclass(frozen=True, slots=True)
class Judgement:
    """One labeler's choice on a pair. Appended, never edited; `supersedes` names the judgement that it replaces.

    labeler: pseudonym inside `source`; None = unknown. strength: 1 slightly, 2 clearly, 3 much; None = not asked.
    shown: which reply stood left, 'ab' or 'ba'; None = unknown. seconds: time taken. consent: scopes, sorted.
    acquisition_p: probability with which this pair was drawn for labeling; None = unknown.
    """

    pair_id: str
    choice: Choice
    source: str
    labeler: str | None = None
    kind: Kind = "human"
    strength: int | None = None
    seconds: float | None = None
    shown: Literal["ab", "ba"] | None = None
    note: str | None = None
    reason: str | None = None
    guideline: str | None = None
    consent: tuple[str, ...] = ("evaluate", "train")
    acquisition_p: float | None = None
    cohort: str | None = None
    submitted_at: str | None = None
    supersedes: str | None = None

    @property
    def digest(self) -> str:
        """Covers what was judged by whom and how; not when, not how fast, and not what it supersedes."""
        content = {
            "pair": self.pair_id,
            "choice": self.choice,
            "source": self.source,
            "labeler": self.labeler,
            "kind": self.kind,
            "strength": self.strength,
            "cohort": self.cohort,
            "guideline": self.guideline,
            "consent": list(self.consent),
        }
        return digest_of(content)


@dataclass(frozen=True, slots=True)
class Comment:
    """Feedback that is no choice between two replies: a rating, a thumb, a survey answer, a free text."""

    prompt: tuple[Message, ...]
    reply: str | None
    source: str
    signal: str  # "rating", "thumb", "text", ...
    value: float | None = None
    labeler: str | None = None
    text: str | None = None
    consent: tuple[str, ...] = ("evaluate", "train")
    kind: Kind = "human"

    @property
    def digest(self) -> str:
        return digest_of({**asdict(self), "consent": list(self.consent)})


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not taken: file as named by the user, 1-based line (or item, or record) and the reason."""

    file: str
    line: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of every row of an import that carries a judgement: accepted + duplicates + rejected = rows."""

    id: str
    source: str
    files: tuple[str, ...]
    format: str
    rows: int
    accepted: int
    duplicates: int
    rejected: int
    errors: tuple[RejectedRow, ...]
    pairs: int = 0
    comments: int = 0
    masked: Mapping[str, int] = field(default_factory=dict)  # personal data replaced, by kind
    judgements: int = 0  # new ones; a row may carry several
    pair_errors: int = 0  # bad rows of a file that only describes pairs: in `errors`, not in `rows`
    pairs_merged: int = 0  # rows of such a file whose pair was there already: in none of the other counts
    unjudged: int = 0  # pairs that it brought without votes and that nobody has judged at its end
    state: str = "done"  # open (cut short), done, refused
    imported_as: str | None = None  # of an open one: the later import that took the same content to its end
    units: Mapping[str, str] = field(default_factory=dict)  # file → "item" or "row" where rows are no lines

    def place_of(self, bad: RejectedRow) -> str:
        """Where a bad row is, for people: file, and number of the line, item or row."""
        return f"{bad.file} {self.units.get(bad.file, 'line')} {bad.line}"

    def as_json(self) -> dict[str, Any]:
        return {
            "import": self.id,
            "source": self.source,
            "files": list(self.files),
            "format": self.format,
            "rows": self.rows,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "pairs": self.pairs,
            "comments": self.comments,
            "masked": dict(self.masked),
            "judgements": self.judgements,
            "pair_errors": self.pair_errors,
            "pairs_merged": self.pairs_merged,
            "unjudged": self.unjudged,
            "state": self.state,
            "imported_as": self.imported_as,
            "errors": [e.as_json() for e in self.errors],
        }


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One pair of a snapshot with its judgements and its side. `digest` stays when the text is erased."""

    pair: Pair
    judgements: tuple[Judgement, ...]
    split: Literal["train", "test"]
    sources: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A published version's identity: `name@number` and its digest."""

    name: str
    number: int
    digest: str
    role: Role

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One entry of an alias's append-only log. Digests are version digests; `from_digest` None = first entry."""

    alias: str  # name@alias
    seq: int
    from_digest: str | None
    to_digest: str
    who: str
    why: str
    at: str
    action: Literal["set", "rollback"]
    evidence: Mapping[str, Any] = field(default_factory=dict)
