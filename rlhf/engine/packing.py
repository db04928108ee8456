"""Packed batches: many groups of replies in one row without padding, each group's prompt computed once.

One group is `[prefix, reply, reply, ...]`; a pair is a group of two. Position ids restart after the prefix for every reply,
and attention lets a reply see the prefix and itself only, so each reply's states equal those of its full rendering alone.

The attention (`engine.attention`) is registered with transformers under the name `packed`. Without a `packing` among its
arguments it is `sdpa`, mask included. A packed forward passes a ready 4-D mask, since transformers' own mask would read
restarting position ids as new sequences and hide the prefix from every reply but the first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

NAME = "packed"
# Rows. Fewer calls cost more than a core's cache gives: 64 took 1.13 of a bfloat16 step's time, 128 as long as this.
_TILE = 192


@dataclass(frozen=True)
class Group:
    """Token ids of a prefix and the replies that follow it."""

    prefix: Sequence[int]
    replies: tuple[Sequence[int], ...]

    @property
    def n_tokens(self) -> int:
        return len(self.prefix) + sum(len(reply) for reply in self.replies)

    @classmethod
    def of(cls, renderings: Sequence[Sequence[int]]) -> Group:
        """Full renderings as their longest common prefix and what follows; each keeps a token of its own, where it is scored."""
        limit = min(map(len, renderings)) - 1
        first, last = min(map(tuple, renderings)), max(map(tuple, renderings))  # in order, these two differ first
        n = next((i for i in range(limit) if first[i] != last[i]), limit)
        return cls(tuple(first[:n]), tuple(tuple(ids[n:]) for ids in renderings))


def share(
    prompts: Sequence[Hashable], renderings: Sequence[Sequence[int]], token_budget: int
) -> list[tuple[Group, list[list[int]]]]:
    """Groups of the renderings with equal prompts, of at most `token_budget` tokens (a longer rendering goes alone), and beside
    each group, reply by reply, the indices of the renderings that it stands for.

    Equal renderings are one reply: two scores of it would differ in their last bits, and replies that are alike must tie.
    """
    together: dict[Hashable, dict[tuple[int, ...], list[int]]] = {}
    for i, (prompt, ids) in enumerate(zip(prompts, renderings, strict=True)):
        together.setdefault(prompt, {}).setdefault(tuple(ids), []).append(i)
    found: list[tuple[Group, list[list[int]]]] = []
    for owners in together.values():
        common = len(Group.of(list(owners)).prefix)
        parts: list[list[tuple[int, ...]]] = []
        total = 0
        for ids in owners:
            if not parts or total + len(ids) - common > token_budget:
                parts.append([])
                total = common
            parts[-1].append(ids)
            total += len(ids) - common
        found.extend((Group.of(part), [owners[ids] for ids in part]) for part in parts)
    return found


@dataclass(frozen=True)
class Span:
    """One reply in the row: prefix [prefix_start, prefix_stop), reply [start, stop)."""

    prefix_start: int
    prefix_stop: int
    start: int
    stop: int


@dataclass(frozen=True)
class Tile:
    """Rows [start, stop) and the stretches of the row whose keys they see. The last stop - start of these keys are the rows
    themselves, of which each sees those up to itself.
    """

    start: int
    stop: int
    stretches: tuple[tuple[int, int], ...]

    @property
    def n_keys(self) -> int:
        return sum(stop - start for start, stop in self.stretches)

    def seen(self, states: torch.Tensor) -> torch.Tensor:
        """Of states (heads, T, D), those of the keys: (heads, keys, D)."""
        parts = [states[:, start:stop] for start, stop in self.stretches]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def add_to(self, states: torch.Tensor, found: torch.Tensor) -> None:
        """Add what was found at the keys (heads, keys, D) to states (heads, T, D)."""
        at = 0
        for start, stop in self.stretches:
            states[:, start:stop] += found[:, at : at + stop - start]
            at += stop - start


@dataclass
class Packing:
    """What the attention needs to know of a row: its spans. `calls` counts the layers that have read it.

    below: (1, T, hidden) states that a trunk has computed before; the layers under it are passed over. caught: where the states
    that enter the trunk's top are put; the layers above are passed over. See `engine.trunk`.
    """

    groups: tuple[tuple[Span, ...], ...]
    n_tokens: int
    device: torch.device
    below: torch.Tensor | None = None
    caught: list[torch.Tensor] | None = None
    calls: list[int] = field(default_factory=lambda: [0])
    masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    @cached_property
    def part_lengths(self) -> list[int]:
        """Lengths that cut the row into prefix + first reply, then each further reply, group by group."""
        return [
            span.stop - (span.prefix_start if span is spans[0] else span.start)
            for spans in self.groups
            for span in spans
        ]

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The row in tiles of at most `_TILE` rows: prefix and first reply as one sequence, then each further reply."""
        found = []
        for spans in self.groups:
            for span in spans:
                first = span.prefix_start if span is spans[0] else span.start
                before = [] if span is spans[0] else [(span.prefix_start, span.prefix_stop)]
                n_tiles = -(-(span.stop - first) // _TILE)
                cuts = [first + (span.stop - first) * i // n_tiles for i in range(n_tiles + 1)]
                for start, stop in pairwise(cuts):
                    stretches = [(a, b) for a, b in (*before, (first, stop)) if a < b]
                    found.append(Tile(start, stop, tuple(stretches)))
        return tuple(found)

    def lower_right(self, n_queries: int, n_keys: int) -> torch.Tensor:
        """Boolean mask (n_queries, n_keys): query i of the last n_queries positions sees keys up to itself. Made once a row."""
        key = (n_queries, n_keys)
        if key not in self.masks:
            ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=self.device)
            self.masks[key] = ones.tril(diagonal=n_keys - n_queries)
        return self.masks[key]

    @cached_property
    def block_mask(self) -> Any:
        """The same visibility as a block mask for flex attention (CUDA)."""
        from torch.nn.attention.flex_attention import create_block_mask

        group_T, reply_T = (torch.full((self.n_tokens,), -1, device=self.device) for _ in range(2))
        for g, spans in enumerate(self.groups):
            group_T[spans[0].prefix_start : spans[-1].stop] = g
            for r, span in enumerate(spans):
                reply_T[span.start : span.stop] = r

        def visible(_batch: Any, _head: Any, q: Any, k: Any) -> Any:
            return (group_T[q] == group_T[k]) & (k <= q) & ((reply_T[k] == -1) | (reply_T[k] == reply_T[q]))

        return create_block_mask(visible, None, None, self.n_tokens, self.n_tokens, device=self.device)


@dataclass(frozen=True)
class PackedBatch:
    """Arguments of a packed forward, and which rows came in.

    input_ids, position_ids: (1, T). ends: (R,) index in the row of each reply's last token, replies in order of the groups.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    ends: torch.Tensor
    packing: Packing

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for the classification model's forward."""
        ready_mask = torch.zeros(1, 1, 1, 1, device=self.input_ids.device)
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "attention_mask": ready_mask,
            "ends": self.ends,
            "packing": self.packing,
        }


def pack(groups: Sequence[Group], device: torch.device | str = "cpu") -> PackedBatch:
    """Lay the groups out in one row."""
    ids: list[int] = []
    positions: list[int] = []
    spans: list[tuple[Span, ...]] = []
    for group in groups:
        prefix_start = len(ids)
        ids.extend(group.prefix)
        positions.extend(range(len(group.prefix)))
        prefix_stop, own = len(ids), []
        for reply in group.replies:
            own.append(Span(prefix_start, prefix_stop, len(ids), len(ids) + len(reply)))
            ids.extend(reply)
            positions.extend(range(len(group.prefix), len(group.prefix) + len(reply)))
        spans.append(tuple(own))
    where = torch.device(device)
    ends = [span.stop - 1 for own in spans for span in own]
    return PackedBatch(
        torch.tensor([ids], device=where),
        torch.tensor([positions], device=where),
        torch.tensor(ends, device=where),
        Packing(tuple(spans), len(ids), where),
    )


def pad_rows(
    sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu"
) -> dict[str, torch.Tensor]:
    """The plain padded batch: input_ids and attention_mask (R, T), padded right, and ends (R,). The slow twin of `pack`."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad_id)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    ends = torch.tensor([len(sequence) - 1 for sequence in sequences])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "ends": ends.to(device)}
