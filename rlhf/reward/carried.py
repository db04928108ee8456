"""What a training carries from step to step beside its weights: the tie parameter, and how far scores go with length.

Both are a handful of numbers that every process holds alike, that stand still during a step (so that how a step is cut changes no
gradient), move after it, and are kept in its checkpoints: a resumed training goes on with them. Where the settings ask for
neither, or no training pair is a tie, the loss is `pair_loss` and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from rlhf.reward.loss import length_pull, pair_loss, tau_at_even, tied_pair_loss
from rlhf.reward.rows import TrainRow
from rlhf.reward.targets import Ties

FILE = "carried.json"
MEMORY_PAIRS = 512  # over so many pairs the moments of scores and lengths are means: some 30 steps of 16
_TAU_SETTLES = 20  # steps after which the tie parameter's own learning rate is half of its first, which is 1


class Carried:
    """The state, and the loss that reads it. One a trainer."""

    def __init__(self, rows: Sequence[TrainRow], ties: Ties = "half", length_penalty: float = 0.0) -> None:
        share = sum(row.tie for row in rows) / len(rows)
        self.ties: Literal["davidson", "rao_kupper"] | None = None
        if ties in ("davidson", "rao_kupper") and share > 0:
            self.ties = ties
        self.tau = tau_at_even(share, self.ties) if self.ties else 0.0
        self.length_penalty = length_penalty
        self.moments = [0.0, 0.0, 0.0]  # means of gap x length, gap², length² over the pairs of earlier steps
        self._tau = torch.tensor(self.tau, requires_grad=True)
        self._sums = torch.zeros(
            4, dtype=torch.float64
        )  # the same three as sums over the step's pairs, and their number

    @property
    def is_idle(self) -> bool:
        return self.ties is None and self.length_penalty == 0.0

    def start_step(self, device: torch.device | str) -> None:
        self._tau = torch.tensor(self.tau, device=device, requires_grad=True)
        self._sums = torch.zeros(4, dtype=torch.float64)

    def losses(
        self, chosen_P: torch.Tensor, rejected_P: torch.Tensor, columns: Mapping[str, torch.Tensor], centring: float
    ) -> torch.Tensor:
        """Loss of each pair (P,), without the length penalty. columns: the rows' target, tie and margin, (P,) each."""
        target_P, margin_P = columns["target"], columns["margin"]
        if self.ties is None:
            return pair_loss(chosen_P, rejected_P, target_P, margin_P, centring)
        return tied_pair_loss(chosen_P, rejected_P, target_P, columns["tie"], margin_P, centring, self.ties, self._tau)

    def penalty(self, gap_P: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The length penalty's part of these pairs, a sum; notes them for the moments. Pairs of weight 0 are none."""
        real = columns["weight"] > 0
        gap_P, length_P = gap_P[real], columns["length"][real]
        gaps, lengths = gap_P.detach().double().cpu(), length_P.double().cpu()
        self._sums += torch.stack(
            (gaps @ lengths, gaps @ gaps, lengths @ lengths, torch.tensor(float(len(gaps)), dtype=torch.float64))
        )
        return self.length_penalty * length_pull(gap_P, length_P, *self.moments).sum()

    def end_step(self, accelerator: Any, step: int) -> None:
        """Move after the step's backward passes. Every process calls it. step: optimiser steps done before this one."""
        if self.ties is not None and self._tau.grad is not None:
            slope = accelerator.reduce(self._tau.grad.detach().clone(), "mean").item()
            self.tau -= slope / (1.0 + step / _TAU_SETTLES)
        if self.length_penalty:
            *sums, n = accelerator.reduce(self._sums.to(accelerator.device), "sum").tolist()
            if n:
                # The first step stands for all before it; then earlier pairs fade.
                kept = math.exp(-n / MEMORY_PAIRS) if self.moments[2] > 0 else 0.0
                self.moments = [kept * old + (1 - kept) * new / n for old, new in zip(self.moments, sums, strict=True)]

    def keep(self, checkpoint: Path) -> None:
        (checkpoint / FILE).write_text(json.dumps({"tau": self.tau, "moments": self.moments}), "utf-8")

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint's state; JSON keeps floats whole."""
        if not self.is_idle:
            kept = json.loads((checkpoint / FILE).read_text("utf-8"))
            self.tau, self.moments = kept["tau"], kept["moments"]

    def as_json(self) -> dict[str, Any]:
        """For the manifest. tie_parameter: Davidson's nu, or Rao and Kupper's theta. length_correlation: of scores with the
        signed ranks of lengths over the last few hundred training pairs."""
        found: dict[str, Any] = {}
        if self.ties:
            value = math.exp(self.tau)
            found |= {"ties": self.ties, "tie_parameter": value if self.ties == "davidson" else math.exp(value)}
        product, gap, length = self.moments
        if self.length_penalty and gap > 0 and length > 0:
            found["length_correlation"] = product / math.sqrt(gap * length)
        return found
