"""Versions on the live engine's base as models like any other to `engine.scoring` and `engine.generation`, without PEFT and
without switching.

A LoRA reward is a slot and a float32 head; an instant one reads the bare base's states; a policy is a slot. What a forward's rows
take is set before it and taken back after it, so that a reply's next token and a score can take turns on one base.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rlhf.engine.classifiers import scores_at_ends
from rlhf.engine.heads import Head, HeadModule, require_fit
from rlhf.engine.slots import BASE, Nothing, Slot, SlotBank, Stretches
from rlhf.engine.states import pooled_states
from rlhf.errors import BadInput


class LiveScorer(ABC):
    """model: the bank's bare causal model; slot: what every row takes. A subclass gives `logits`."""

    training = False  # never: it is scored with
    head: torch.nn.Module

    def __init__(self, model: Any, bank: SlotBank, slot: Slot) -> None:
        self.model, self.bank, self.slot = model, bank, slot

    @property
    def body(self) -> Any:
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def config(self) -> Any:
        return self.model.config

    def __call__(self, **arguments: Any) -> Any:
        """The forward that `scoring` calls: a packed row, or a padded batch, with its `ends`."""
        self.bank.choice = Stretches([(0, arguments["input_ids"].numel(), self.slot)])
        try:
            return self.logits(**arguments)
        finally:
            self.bank.choice = Nothing()

    @abstractmethod
    def logits(self, **arguments: Any) -> Any:
        """The model's output for a batch, its `logits` (R, scores of a reply)."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.head.parameters()

    def eval(self) -> Self:
        """Nothing: see `training`."""
        return self

    def train(self, mode: bool = True) -> Self:
        """Nothing: see `training`."""
        return self


class LivePolicy:
    """A policy that is asked what it thinks of given tokens. slot: what every row takes."""

    def __init__(self, model: Any, bank: SlotBank, slot: Slot) -> None:
        self.model, self.bank, self.slot = model, bank, slot

    def __call__(self, **arguments: Any) -> Any:
        """The causal model's forward."""
        self.bank.choice = Stretches([(0, arguments["input_ids"].numel(), self.slot)])
        try:
            return self.model(**arguments)
        finally:
            self.bank.choice = Nothing()

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        found: Iterator[torch.nn.Parameter] = self.model.parameters()
        return found


class LiveReward(LiveScorer):
    """A reward of kind lora. weight: of its head, (1, hidden)."""

    def __init__(self, model: Any, bank: SlotBank, slot: Slot, weight: Tensor) -> None:
        super().__init__(model, bank, slot)
        hidden = self.body.config.hidden_size
        if tuple(weight.shape) != (1, hidden) or not torch.isfinite(weight).all():
            raise BadInput(
                f"the score head is {tuple(weight.shape)}, the base wants {(1, hidden)} finite numbers",
                fix="use the base that it was trained on",
            )
        self.head = torch.nn.utils.skip_init(torch.nn.Linear, hidden, 1, bias=False, device=bank.like.device)
        self.head.requires_grad_(False).weight.copy_(weight.float())

    def logits(self, **arguments: Any) -> Any:
        return scores_at_ends(self.body, self.head, **arguments)


class LiveHead(LiveScorer):
    """A reward of kind head, on the bare base."""

    def __init__(self, model: Any, bank: SlotBank, folder: Path) -> None:
        super().__init__(model, bank, BASE)
        head = Head.read(folder)
        require_fit(head, self.body)
        self.reading, self.head = head.reading, HeadModule(head, bank.like.device)

    def logits(self, **arguments: Any) -> Any:
        states = pooled_states(self.body, self.reading, **arguments)
        with torch.autocast(states.device.type, enabled=False):
            return SequenceClassifierOutputWithPast(logits=self.head(states))
