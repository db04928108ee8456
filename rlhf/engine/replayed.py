"""Steps of shapes that never change, recorded once and replayed: on a GPU a step's thousand launches become one (CUDA graphs).

A token of a few rows is short there, and launching its sums takes longer than the sums. So rows are filled up to a multiple of
ROWS, what they see to a multiple of LENGTH tokens, and each row is masked over all the bank's rows: versions that come and go
change numbers in buffers and never what was recorded. A recording is of one block of keys; where that grows, all are made anew.
CUDA graphs: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.engine.next_tokens import NextTokens
from rlhf.engine.slots import Everywhere, Slot, SlotBank

ROWS, LENGTH = 8, 256

Run = Callable[[], Tensor]
Record = Callable[[Run], tuple[Callable[[], Any], Tensor]]


class Replayed:
    """Steps of one batch. record: makes of a run what runs it again, and where its result then stands."""

    def __init__(self, quick: NextTokens, bank: SlotBank, record: Record) -> None:
        self.quick, self.keys, self.bank, self.record = quick, quick.keys, bank, record
        self.recordings: dict[tuple[int, int], _Recording] = {}
        self._block: Tensor | None = None

    def __call__(self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[Slot]) -> Tensor:
        """Logits (R, vocabulary) after each row's token at its position."""
        size = _filled(len(tokens), ROWS), _filled(max(positions) + 1, LENGTH)
        self.keys.hold(*size)
        if self._block is not self.keys.k:
            self.recordings.clear()
            self._block = self.keys.k
        recording = self.recordings.get(size)
        if recording is None:
            recording = self.recordings[size] = _Recording(self.quick, self.bank, *size)
        recording.fill(tokens, positions, slots)
        return recording.logits(self.record)[: len(tokens)].clone()


class _Recording:
    """Buffers of one size, and what reads them. Rows that nobody uses are the base's, at position 0 of their own keys."""

    def __init__(self, quick: NextTokens, bank: SlotBank, rows: int, length: int) -> None:
        self.quick, self.rows, self.length = quick, rows, length
        self.tokens = torch.zeros(rows, dtype=torch.long, device=quick.keys.like.device)
        self.positions = torch.zeros_like(self.tokens)
        self.choice = Everywhere(bank, rows)
        self._replay: Callable[[], Any] | None = None
        self._found: Tensor | None = None

    def fill(self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[Slot]) -> None:
        spare = [0] * (self.rows - len(tokens))
        self.tokens.copy_(torch.tensor([*tokens, *spare]))
        self.positions.copy_(torch.tensor([*positions, *spare]))
        self.choice.take(slots)

    def logits(self, record: Record) -> Tensor:
        """What the buffers come to; the same tensor each time."""
        if self._replay is None or self._found is None:
            self._replay, self._found = record(self._run)
        self._replay()
        return self._found

    def _run(self) -> Tensor:
        seen = torch.arange(self.length, device=self.tokens.device) <= self.positions[:, None]
        return self.quick(self.tokens, self.positions, seen, self.choice)


def cuda_graph(run: Run) -> tuple[Callable[[], Any], Tensor]:
    """A recording on the current CUDA device. Runs twice before, as libraries make their plans when they are first called; what
    that writes is what the first replay writes again."""
    ahead = torch.cuda.Stream()
    ahead.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(ahead):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(ahead)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    return graph.replay, found


def _filled(n: int, step: int) -> int:
    return -(-n // step) * step
