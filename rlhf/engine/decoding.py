"""The continuous batch: rows join and leave at every token, each with its own version, and get the logits of their next token.

A prompt is computed once for all rows that begin with it, and what a kept prefix holds of it isn't computed again. Prompts
without a kept prefix are packed into one forward where the base packs rightly. Rows in use are the first of the block, so a row
that leaves gives its place to the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf.engine import next_tokens, reordered
from rlhf.engine.kept_keys import OneEach, OneRow, PackedRows, Prefixes, RowKeys
from rlhf.engine.packing import NAME, Group, pack
from rlhf.engine.replayed import Replayed, cuda_graph
from rlhf.engine.slots import BASE, Masked, Nothing, Slot, SlotBank, Stretches
from rlhf.errors import BadInput

_PACKED_TOKENS = 2048  # a packed forward of prompts has at most so many, a longer prompt alone
_SETTLED = 16  # steps without order; it takes about as long to make as so many steps gain by it


@dataclass(eq=False)
class Row:
    """A reply under way. tokens: of its prompt and what was chosen since; room: tokens that it may come to; index: its place, -1
    while it has none. Once it has joined, the keys and values of all its tokens are in the block."""

    tokens: list[int]
    digest: str | None
    slot: Slot
    room: int
    index: int = -1


class Read(Protocol):
    """The first n tokens of a row's prompt, read into keys of its own."""

    row: Row
    keys: RowKeys
    n: int


class ContinuousBatch:
    """model: a bare causal model whose linear layers are the bank's. prefix_tokens: kept of prompts and replies."""

    def __init__(self, model: Any, bank: SlotBank, *, prefix_tokens: int) -> None:
        self.model, self.bank = model, bank
        self.device = next(model.parameters()).device
        self.rows: list[Row] = []
        self.prefix_hits = 0
        self.prefixes = Prefixes(prefix_tokens)
        self.max_length = _longest(model.config)
        self._choice: Nothing | None = None
        self._disordered = 0
        self._quick: next_tokens.NextTokens | None = None
        self._replayed: Replayed | None = None
        _order_head(model)
        with torch.inference_mode():
            self.keys = _keys_of(model)
            self._try_quick()
            if _attention(model) == NAME and not self._packs_rightly():
                model.set_attn_implementation("sdpa")

    @property
    def n_reserved(self) -> int:
        """Tokens of the block that the rows may come to."""
        return self.reserved_with([])

    def reserved_with(self, more: Sequence[Row]) -> int:
        rows = [*self.rows, *more]
        return len(rows) * max((row.room for row in rows), default=0)

    def join(self, groups: Sequence[Sequence[Row]], reading: Read | None = None) -> Tensor:
        """Take rows in; those of a group have the same tokens and version. Gives the logits (R, vocabulary) float32 of their next
        tokens, row by row in the order given. reading: what was read of one group's first row. Where it raises, none is in."""
        before = len(self.rows)
        try:
            return self._joined(groups, reading)
        except BaseException:
            for row in self.rows[before:]:
                row.index = -1
            del self.rows[before:]
            raise
        finally:
            self._choice = None
            self.bank.choice = Nothing()

    def _joined(self, groups: Sequence[Sequence[Row]], reading: Read | None) -> Tensor:
        new = [row for group in groups for row in group]
        longest = max(len(row.tokens) for row in new)
        self.keys.hold(len(self.rows) + len(new), longest + 1)
        for row in new:
            row.index = len(self.rows)
            self.rows.append(row)
        logits: dict[int, Tensor] = {}
        packed: list[Row] = []
        for leader in (group[0] for group in groups):
            if reading is not None and reading.row is leader:
                self.keys.put(leader.index, 0, *reading.keys.of(0, reading.n))
                logits[leader.index] = self._alone(leader, reading.n)
                continue
            found = self.prefixes.find(leader.digest, leader.tokens)
            if found is None and _attention(self.model) == NAME and len(leader.tokens) <= _PACKED_TOKENS:
                if sum(len(row.tokens) for row in packed) + len(leader.tokens) > _PACKED_TOKENS:
                    self._together(packed, logits)
                    packed = []
                packed.append(leader)
                continue
            start = 0
            if found is not None:
                start, k, v = found
                self.keys.put(leader.index, 0, k, v)
                self.prefix_hits += start
            logits[leader.index] = self._alone(leader, start)
        if packed:
            self._together(packed, logits)
        for leader, *others in groups:
            for row in others:
                self.keys.copy(leader.index, row.index, len(leader.tokens))
                self.prefix_hits += len(leader.tokens)
            if not self.prefixes.has(leader.digest, leader.tokens):
                self.prefixes.keep(leader.digest, leader.tokens, *self.keys.of(leader.index, len(leader.tokens)))
        return torch.stack([logits[group[0].index] for group in groups for _ in group])

    def _alone(self, row: Row, start: int) -> Tensor:
        """One row's tokens from `start` on: logits (vocabulary,) of its next token."""
        return self.read(self.keys, row.index, row, start, len(row.tokens))

    def read(self, keys: RowKeys, index: int, row: Row, start: int, stop: int) -> Tensor:
        """A row's tokens [start, stop) in stretches, keys and values to `index` of `keys`: logits (vocabulary,) after them."""
        try:
            return self._read(keys, index, row, start, stop)
        finally:
            self.bank.choice = Nothing()

    def _read(self, keys: RowKeys, index: int, row: Row, start: int, stop: int) -> Tensor:
        for first in range(start, stop, _PACKED_TOKENS):
            ids = row.tokens[first : min(first + _PACKED_TOKENS, stop)]
            self.bank.choice = Stretches([(0, len(ids), row.slot)])
            mask = torch.ones(len(ids), first + len(ids), dtype=torch.bool, device=self.device).tril(first)
            out = self.model(
                input_ids=torch.tensor([ids], device=self.device),
                position_ids=torch.arange(first, first + len(ids), device=self.device)[None],
                attention_mask=self._mask(mask[None, None]),
                past_key_values=OneRow(keys, index, first),
                use_cache=True,
                logits_to_keep=1,
            )
        logits: Tensor = out.logits[0, -1].float()
        return logits

    def _together(self, rows: Sequence[Row], logits: dict[int, Tensor]) -> None:
        """Whole prompts in one packed forward, those of one version side by side."""
        rows = sorted(rows, key=lambda row: row.slot.number)
        batch = pack([Group((), (row.tokens,)) for row in rows], self.device)
        parts, start = [], 0
        for row in rows:
            parts.append((start, start + len(row.tokens), row.slot))
            start += len(row.tokens)
        self.bank.choice = Stretches(parts)
        arguments = batch.arguments()
        ends = arguments.pop("ends")
        cache = PackedRows(self.keys, [row.index for row in rows], [len(row.tokens) for row in rows])
        out = self.model(**arguments, past_key_values=cache, use_cache=True, logits_to_keep=ends)
        assert batch.packing.calls[0], "the model dropped the packing on the way: prompts would see each other"
        logits.update(zip([row.index for row in rows], out.logits[0].float(), strict=True))

    def step(self, tokens: Sequence[int]) -> Tensor:
        """One more token of every row, in their order: logits (R, vocabulary) float32 of the ones after it."""
        try:
            return self._stepped(tokens)
        finally:
            self.bank.choice = Nothing()

    def _stepped(self, tokens: Sequence[int]) -> Tensor:
        for row, token in zip(self.rows, tokens, strict=True):
            row.tokens.append(token)
        lengths = [len(row.tokens) for row in self.rows]
        if self._replayed is not None:
            return self._replayed(tokens, [n - 1 for n in lengths], [row.slot for row in self.rows]).float()
        self.keys.hold(len(self.rows), max(lengths))
        self.bank.choice = self._chosen()
        positions = torch.tensor(lengths, device=self.device) - 1
        seen = torch.arange(max(lengths), device=self.device) <= positions[:, None]
        ids = torch.tensor(tokens, device=self.device)
        if self._quick is not None:
            return self._quick(ids, positions, seen, self.bank.choice).float()
        return self._plain(ids, positions, seen)

    def _plain(self, ids: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
        """A step by the model's own forward."""
        out = self.model(
            input_ids=ids[:, None],
            position_ids=positions[:, None],
            attention_mask=self._mask(seen[:, None, None]),
            past_key_values=OneEach(self.keys, positions, seen.shape[1]),
            use_cache=True,
        )
        logits: Tensor = out.logits[:, 0].float()
        return logits

    def _try_quick(self) -> None:
        """Take steps the quick way where it says what the model says."""
        if not next_tokens.fits(self.model):
            return
        quick = next_tokens.NextTokens(self.model, self.keys)
        self.keys.hold(2, 4)
        for row in (0, 1):
            self._alone(Row([5 + row, 7, 11][: 2 + row], None, BASE, 4, row), 0)
        self.bank.choice = Nothing()
        asked = torch.tensor([9, 13], device=self.device), torch.tensor([2, 3], device=self.device)
        seen = torch.tensor([[True, True, True, False], [True] * 4], device=self.device)
        wanted = self._plain(*asked, seen)
        found = quick(*asked, seen, Nothing()).float()
        if not _is_alike(found, wanted, self.keys.like.dtype):
            return
        self._quick = quick
        if self.device.type == "cuda":
            replayed = Replayed(quick, self.bank, cuda_graph)
            again = replayed(asked[0].tolist(), asked[1].tolist(), [BASE, BASE]).float()
            self._replayed = replayed if _is_alike(again, wanted, self.keys.like.dtype) else None

    def _chosen(self) -> Nothing:
        """What the rows add. After some steps without it their versions' weights are put in order."""
        settled = self._disordered >= _SETTLED
        if self._choice is None or settled:
            self._choice = self.bank.chosen([row.slot for row in self.rows], settled=settled)
        self._disordered = self._disordered + 1 if isinstance(self._choice, Masked) and self.bank.can_order else 0
        return self._choice

    def _mask(self, seen: Tensor) -> Tensor:
        """What is seen, as the model's attention takes it: plain ones add it."""
        if _attention(self.model) in (NAME, "sdpa"):
            return seen
        kind = self.keys.like.dtype
        return torch.zeros(seen.shape, dtype=kind, device=self.device).masked_fill_(~seen, torch.finfo(kind).min)

    def leave(self, row: Row, *, keep: bool = True) -> None:
        """Let a row go; keep: what it computed may be the beginning of a later prompt."""
        n = len(row.tokens)
        if keep and not self.prefixes.has(row.digest, row.tokens):
            self.prefixes.keep(row.digest, row.tokens, *self.keys.of(row.index, n))
        last = self.rows.pop()
        if last is not row:
            self.keys.copy(last.index, row.index, len(last.tokens))
            last.index = row.index
            self.rows[row.index] = last
        row.index, self._choice = -1, None

    def clear(self) -> None:
        """Let all rows go and keep nothing of them: after a failure the block holds no one knows what."""
        for row in self.rows:
            row.index = -1
        self.rows.clear()
        self._choice = None

    def _packs_rightly(self) -> bool:
        """Whether two packed prompts get what they get alone: some models drop the packing on the way."""
        ids = [(7 * i + 3) % self.model.config.vocab_size for i in range(12)]
        rows = [Row(ids[:5], None, BASE, 12), Row(ids[5:], None, BASE, 12)]
        together: dict[int, Tensor] = {}
        self.keys.hold(2, 12)
        try:
            for i, row in enumerate(rows):
                row.index = i
            alone = torch.stack([self._alone(row, 0) for row in rows])
            self._together(rows, together)
        except (AssertionError, TypeError, ValueError):
            return False
        return _is_alike(torch.stack([together[row.index] for row in rows]), alone, self.keys.like.dtype)


def _is_alike(found: Tensor, wanted: Tensor, kind: torch.dtype) -> bool:
    """Whether two ways of the same sums: what rounding leaves in a body of that type, and no more."""
    rounding = 1e-4 if kind == torch.float32 else 0.05
    return bool(((found - wanted).abs() <= rounding * wanted.abs().max()).all())


def _order_head(model: Any) -> None:
    """The map onto the vocabulary is a fifth of a small model's weights; where embeddings are tied it becomes a second copy."""
    head = model.get_output_embeddings()
    if type(head) is torch.nn.Linear and reordered.is_there(head.weight):
        reordered.take_over(head, keep_weight=head.weight is model.get_input_embeddings().weight)


def _attention(model: Any) -> str:
    return str(getattr(model.config, "_attn_implementation", ""))


def _longest(config: Any) -> int:
    """Tokens that a row may have: the base's positions, and the window of layers that see no further (no mask of ours has it)."""
    windows = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
    return min((int(n) for n in windows if n), default=2**31)


def _keys_of(model: Any) -> RowKeys:
    """An empty block of the model's shape. Raises BadInput where its layers keep anything but keys and values of one shape."""
    device = next(model.parameters()).device
    cache = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=True).past_key_values
    layers = getattr(cache, "layers", [])
    shapes = {(getattr(layer, "keys", None) is not None) and tuple(layer.keys.shape) for layer in layers}
    shapes |= {(getattr(layer, "values", None) is not None) and tuple(layer.values.shape) for layer in layers}
    if len(shapes) != 1 or False in shapes:
        raise BadInput(
            f"{type(model).__name__} keeps more than keys and values of one shape a layer",
            fix="serve a base with plain attention in every layer",
        )
    return RowKeys(len(layers), layers[0].keys)
