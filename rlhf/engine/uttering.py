"""The text of one reply while its tokens come: what can be said now, with log-probabilities, up to why it ended.

Whoever computes the tokens, the text is spelled here, so that whole characters and stop strings are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rlhf.engine.spelling import Speller
from rlhf.engine.wanted import Finish, Piece, TokenLogprob, Wanted


class Utterance:
    """tokenizer: used by one thread at a time."""

    def __init__(self, wanted: Wanted, tokenizer: Any) -> None:
        self.wanted, self._tokenizer = wanted, tokenizer
        self._speller = Speller(self._decode, wanted.stop)
        self._n_tokens = self._n_unsaid = 0
        self._logprobs: list[TokenLogprob] = []

    def take(self, token: int, *, is_end: bool, logprob: TokenLogprob | None = None) -> Piece | None:
        """One more token: what can be said now, if anything; the last piece where the token, a stop string or the wish ends it."""
        self._n_tokens += 1
        self._n_unsaid += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        text = "" if is_end else self._speller.add(token)
        if is_end or self._speller.is_stopped:
            return self.end("stop", text)
        if self._n_tokens >= self.wanted.max_tokens:
            return self.end("length", text)
        return self._piece(text, None) if text else None

    def end(self, finish: Finish, text: str = "") -> Piece:
        """The last piece: what was held back."""
        text += self._speller.rest()
        return self._piece(text, "stop" if self._speller.is_stopped else finish)

    def logprob(self, token: int, chosen: float, top: Iterable[tuple[int, float]]) -> TokenLogprob:
        """A token's log-probability and the likeliest ones' (nats), with their texts."""
        return TokenLogprob(token, self._token(token), chosen, tuple((i, self._token(i), value) for i, value in top))

    def _piece(self, text: str, finish: Finish | None) -> Piece:
        piece = Piece(text, self._n_unsaid, tuple(self._logprobs), finish)
        self._n_unsaid, self._logprobs = 0, []
        return piece

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _token(self, token: int) -> str:
        return str(self._tokenizer.decode([token], skip_special_tokens=False))
