"""Who waits for a row, and who is next: in the order of coming, shadow work last, and nobody behind a long prompt.

A prompt that is too long for one turn is read in pieces while its reply waits, into keys of its own; who comes behind it passes.
One at a time is read; the room of its row is kept for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from rlhf.engine.decoding import ContinuousBatch, Row
from rlhf.engine.kept_keys import RowKeys
from rlhf.engine.speaking import Speaking

JOIN_TOKENS = 512  # prompt tokens that are taken in between two tokens of the rows under way; more are read in pieces
PIECE = 128  # of so many while anybody else waits for anything


class Reading:
    """A long prompt that is read in pieces, into keys of its own, before its row joins. n: tokens that are read."""

    def __init__(self, batch: ContinuousBatch, row: Row) -> None:
        self.batch, self.row = batch, row
        self.keys = RowKeys(batch.keys.n_layers, batch.keys.like)
        self.keys.hold(1, len(row.tokens))
        self.n = 0
        if (found := batch.prefixes.find(row.digest, row.tokens)) is not None:
            self.n, k, v = found
            self.keys.put(0, 0, k, v)
            batch.prefix_hits += self.n

    @property
    def left(self) -> int:
        return len(self.row.tokens) - self.n

    def advance(self, n: int) -> None:
        """Read so many more, short of the last token, whose logits are for the join."""
        stop = min(self.n + n, len(self.row.tokens) - 1)
        self.batch.read(self.keys, 0, self.row, self.n, stop)
        self.n = stop


class Waiting:
    """rows: at a time; kv_tokens: that all of them may come to. Whoever calls holds the lock of the one who owns this, but for
    `read_on`, which is the engine's thread alone."""

    def __init__(self, batch: ContinuousBatch, *, rows: int, kv_tokens: int) -> None:
        self._batch, self._max_rows, self._kv_tokens = batch, rows, kv_tokens
        self._shown: deque[Speaking] = deque()
        self._low: deque[Speaking] = deque()
        self._reader: Speaking | None = None
        self._reading: Reading | None = None

    def __len__(self) -> int:
        return len(self._shown) + len(self._low)

    def __iter__(self) -> Iterator[Speaking]:
        return iter([*self._shown, *self._low])

    @property
    def has_shown(self) -> bool:
        """Whether anybody waits whose reply will be seen."""
        return bool(self._shown)

    def add(self, one: Speaking) -> None:
        (self._low if one.wanted.low else self._shown).append(one)

    def remove(self, one: Speaking) -> None:
        (self._low if one.wanted.low else self._shown).remove(one)
        if one is self._reader:
            self._reader = self._reading = None

    def clear(self) -> None:
        self._shown.clear()
        self._low.clear()
        self._reader = self._reading = None

    @property
    def reader(self) -> Speaking | None:
        """Whose prompt is being read."""
        return self._reader

    def read_on(self, piece: int) -> None:
        """The next tokens of the prompt that is being read; the last ones are its join's."""
        if self._reading is not None and self._reading.left > piece:
            self._reading.advance(piece)

    def next_groups(self, n_speaking: int, piece: int) -> tuple[list[list[Speaking]], Reading | None]:
        """Who gets rows now, those with one prompt together, and what was read of one of them. n_speaking: rows in use."""
        groups: dict[tuple[Any, ...], list[Speaking]] = {}
        reading, n_tokens = None, 0
        for one in self._in_order():
            new = [other for group in groups.values() for other in group]
            if len(new) + n_speaking >= self._max_rows or not self._fits([*new, one]):
                break
            key = (one.row.digest, one.wanted.prompt)
            costs = 0 if key in groups else self._costs(one, piece)
            if costs is None:
                continue
            if groups and n_tokens + costs > JOIN_TOKENS:
                break
            groups.setdefault(key, []).append(one)
            n_tokens += costs
        for one in (one for group in groups.values() for one in group):
            if one is self._reader:
                reading = self._reading
            self.remove(one)
        return list(groups.values()), reading

    def _in_order(self) -> Sequence[Speaking]:
        return [*self._shown] if self._shown else [*self._low]

    def _fits(self, new: Sequence[Speaking]) -> bool:
        """Whether these may come in, the room of whoever is read kept free."""
        kept = [] if self._reader is None or self._reader in new else [self._reader]
        return self._batch.reserved_with([one.row for one in (*new, *kept)]) <= self._kv_tokens

    def _costs(self, one: Speaking, piece: int) -> int | None:
        """Prompt tokens to compute before it can speak; None: too many for one turn, so that they are read first."""
        if one is not self._reader:
            if len(one.wanted.prompt) <= JOIN_TOKENS:
                return len(one.wanted.prompt)
            if self._reader is not None and (one.wanted.low or not self._reader.wanted.low):
                return None
            self._reader, self._reading = one, Reading(self._batch, one.row)
        assert self._reading is not None
        return self._reading.left if self._reading.left <= piece else None
