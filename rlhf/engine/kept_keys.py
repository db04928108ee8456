"""Keys and values of the rows that are being computed, and of prompts that may come again.

Rows lie in one block (layers, rows, heads, length, size) that grows in steps; the rows in use are the first ones, so that no step
gathers them. Prefixes are kept by version digest and tokens: a digest never stands for other weights, so an entry is never stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

_STEP = 128  # tokens by which the block grows at least
_WORTH = 8  # tokens: a shorter common beginning costs less to compute than to look after


class RowKeys:
    """k, v: (layers, rows, heads, length, size). like: one layer's keys (1, heads, any, size) of the model."""

    def __init__(self, n_layers: int, like: Tensor) -> None:
        self.n_layers, self.like = n_layers, like
        self.k, self.v = self._made(0, 0), self._made(0, 0)

    def _made(self, rows: int, length: int) -> Tensor:
        return self.like.new_zeros(self.n_layers, rows, self.like.shape[1], length, self.like.shape[3])

    def hold(self, rows: int, length: int) -> None:
        """Make room for so many rows of so many tokens; what is there stays."""
        there, long = self.k.shape[1], self.k.shape[3]
        if rows <= there and length <= long:
            return
        wanted = (
            max(there, 2 * there if rows > there else there, rows),
            long if length <= long else max(-(-length // _STEP) * _STEP, long + long // 2),
        )
        k, v = self._made(*wanted), self._made(*wanted)
        k[:, :there, :, :long], v[:, :there, :, :long] = self.k, self.v
        self.k, self.v = k, v

    def let_go(self) -> None:
        """Give the block's memory back; no row may be in use."""
        self.k, self.v = self._made(0, 0), self._made(0, 0)

    def copy(self, source: int, target: int, length: int) -> None:
        """The first tokens of one row become those of another."""
        self.k[:, target, :, :length] = self.k[:, source, :, :length]
        self.v[:, target, :, :length] = self.v[:, source, :, :length]

    def of(self, row: int, length: int) -> tuple[Tensor, Tensor]:
        """Copies of a row's first tokens: (layers, heads, length, size) each."""
        return self.k[:, row, :, :length].clone(), self.v[:, row, :, :length].clone()

    def put(self, row: int, start: int, k: Tensor, v: Tensor) -> None:
        """Write tokens (layers, heads, n, size) into a row from `start` on."""
        self.k[:, row, :, start : start + k.shape[2]] = k
        self.v[:, row, :, start : start + v.shape[2]] = v


class _Handed(Cache):
    """What a model's forward is given as its cache; a subclass says what a layer's new keys become."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are always given


class OneEach(_Handed):
    """One token of each of the first rows, at its own position; attention sees all rows up to the longest, and a mask."""

    def __init__(self, keys: RowKeys, positions: Tensor, length: int) -> None:
        super().__init__()
        self.keys, self.positions, self.length = keys, positions, length
        self.rows = torch.arange(len(positions), device=positions.device)

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        block_k, block_v = self.keys.k[layer_idx], self.keys.v[layer_idx]
        block_k[self.rows, :, self.positions], block_v[self.rows, :, self.positions] = k[:, :, 0], v[:, :, 0]
        n = len(self.rows)
        return block_k[:n, :, : self.length], block_v[:n, :, : self.length]


class OneRow(_Handed):
    """Some tokens of one row, from `start` on."""

    def __init__(self, keys: RowKeys, row: int, start: int) -> None:
        super().__init__()
        self.keys, self.row, self.start = keys, row, start

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        stop = self.start + k.shape[2]
        block_k, block_v = self.keys.k[layer_idx, self.row], self.keys.v[layer_idx, self.row]
        block_k[:, self.start : stop], block_v[:, self.start : stop] = k[0], v[0]
        return block_k[None, :, :stop], block_v[None, :, :stop]


class PackedRows(_Handed):
    """Whole prompts one behind the other in one sequence: rows[i] takes the next lengths[i] tokens."""

    def __init__(self, keys: RowKeys, rows: Sequence[int], lengths: Sequence[int]) -> None:
        super().__init__()
        self.keys, self.rows, self.lengths = keys, rows, lengths

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        block_k, block_v = self.keys.k[layer_idx], self.keys.v[layer_idx]
        start = 0
        for row, n in zip(self.rows, self.lengths, strict=True):
            block_k[row, :, :n], block_v[row, :, :n] = k[0, :, start : start + n], v[0, :, start : start + n]
            start += n
        return k, v


@dataclass(slots=True, eq=False)
class _Prefix:
    tokens: NDArray[np.int64]
    k: Tensor
    v: Tensor


class Prefixes:
    """Keys and values of token sequences by version, at most `max_tokens` in all; what was used longest ago goes first."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens, self.n_tokens = max_tokens, 0
        self._kept: dict[str | None, list[_Prefix]] = {}
        self._order: dict[_Prefix, str | None] = {}  # oldest first

    def find(self, digest: str | None, tokens: Sequence[int]) -> tuple[int, Tensor, Tensor] | None:
        """The longest common beginning with anything kept, short of the last token: how long, its keys and values."""
        wanted, best, longest = np.asarray(tokens[:-1], dtype=np.int64), None, _WORTH - 1
        for prefix in self._kept.get(digest, ()):
            n = _common(prefix.tokens, wanted)
            if n > longest:
                best, longest = prefix, n
        if best is None:
            return None
        self._order[best] = self._order.pop(best)
        return longest, best.k[:, :, :longest], best.v[:, :, :longest]

    def has(self, digest: str | None, tokens: Sequence[int]) -> bool:
        wanted = np.asarray(tokens, dtype=np.int64)
        return any(_common(prefix.tokens, wanted) == len(wanted) for prefix in self._kept.get(digest, ()))

    def keep(self, digest: str | None, tokens: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Keep a sequence; those that it begins with needn't be kept beside it."""
        new = _Prefix(np.asarray(tokens, dtype=np.int64), k, v)
        if not _WORTH <= len(new.tokens) <= self.max_tokens:
            return
        for prefix in list(self._kept.get(digest, ())):
            if _common(prefix.tokens, new.tokens) == len(prefix.tokens):
                self._drop(prefix)
        self._kept.setdefault(digest, []).append(new)
        self._order[new] = digest
        self.n_tokens += len(new.tokens)
        while self.n_tokens > self.max_tokens:
            self._drop(next(iter(self._order)))

    def _drop(self, prefix: _Prefix) -> None:
        digest = self._order.pop(prefix)
        self._kept[digest] = [other for other in self._kept[digest] if other is not prefix]
        if not self._kept[digest]:
            del self._kept[digest]
        self.n_tokens -= len(prefix.tokens)


def _common(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
