"""What is asked of the live engine and what it gives, as records: no torch here, so that whoever only asks needn't load it.

A `Wanted` names its version by digest, full and exact: names and aliases are resolved before. The reply comes in pieces; the last
one, and no other, says why it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlhf.errors import BadInput, RlhfError

# stop: an end token or a stop string came; length: max_tokens did; cancelled: whoever asked took it back.
Finish = Literal["stop", "length", "cancelled"]
MAX_LOGPROBS = 20


class EngineFailed(RlhfError):
    """The engine broke while it worked on this; nothing of the reply is to be trusted beyond what has come."""

    code = "engine_failed"
    http_status = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reply that is wanted.

    prompt: token ids that end where the reply begins. adapter: full digest of a resident policy version, None = the bare base.
    max_tokens: a longer reply is cut off. temperature: 0 = always the likeliest token. seed: of this reply's own chance
    (`generation.seed_of`); the same seed gives the same reply whatever else is computed. stop: the reply ends before any of these.
    logprobs: None = none; k = the k likeliest beside each chosen token's (0 = the chosen one's alone). low: shadow work, which
    gets a row only while nothing else waits.
    """

    prompt: tuple[int, ...]
    adapter: str | None
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    low: bool = False

    def __post_init__(self) -> None:
        checks = {
            "the prompt has no tokens; a reply needs at least one": bool(self.prompt),
            f"max_tokens is {self.max_tokens}, wanted 1 or more": self.max_tokens >= 1,
            f"temperature is {self.temperature}, wanted 0 to 100": 0.0 <= self.temperature <= 100.0,
            f"top_p is {self.top_p}, wanted above 0, at most 1": 0.0 < self.top_p <= 1.0,
            f"logprobs is {self.logprobs}, wanted 0 to {MAX_LOGPROBS}": self.logprobs is None
            or 0 <= self.logprobs <= MAX_LOGPROBS,
            "a stop string is empty": all(self.stop),
        }
        wrong = [text for text, right in checks.items() if not right]
        if wrong:
            raise BadInput("; ".join(wrong), fix="ask with values in these bounds")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token and its log-probability (nats, temperature 1, before top_p); top: the likeliest as (id, text, nats)."""

    id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What came since the last piece. n_tokens: tokens computed since then, an end token included; finish: on the last only."""

    text: str
    n_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Resident:
    """A version in memory. kind: what may be asked of it; slot: 0 where it needs none; held: leases and replies on it."""

    digest: str
    kind: Literal["policy", "reward", "head"]
    slot: int
    rank: int
    held: int


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is. rows, max_rows: replies being computed; waiting: replies without a row; tokens_per_s: over the last
    seconds; kv_tokens, max_kv_tokens: reserved for rows; tokens: computed since the start; prefix_hits: prompt tokens not computed
    again."""

    rows: int
    max_rows: int
    waiting: int
    tokens_per_s: float
    kv_tokens: int
    max_kv_tokens: int
    tokens: int
    prefix_hits: int


class Stream(Protocol):
    """A reply that comes in pieces. Any thread may read it, one reader at a time."""

    def __iter__(self) -> Iterator[Piece]:
        """Pieces up to the one with a finish; waits for each. Raises EngineFailed where the engine broke."""

    def next_piece(self, timeout_s: float | None = None) -> Piece:
        """The next piece. Raises TimeoutError, EngineFailed, and StopIteration past the last one."""

    def on_piece(self, call: Callable[[Piece | BaseException], None]) -> None:
        """Have every piece (those that wait now, too) or the error given to `call`, from the engine's thread; it must not wait."""

    def cancel(self) -> None:
        """Take the wish back: its row is free at the next token, and the last piece says `cancelled`."""


Renderings = Sequence[Sequence[Sequence[int]]]  # prompt by prompt, reply by reply, token ids of the whole rendering
Scores = list[
    list[tuple[float, float | None]]
]  # in the same order: score and doubt (None where the version gives none)
