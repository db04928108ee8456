"""One reply while it is computed: its row, its chance, its text, and the stream that it goes into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.engine.decoding import Row
from rlhf.engine.picking import Chance, likeliest, pick
from rlhf.engine.slots import Slot
from rlhf.engine.streams import ReplyStream
from rlhf.engine.uttering import Utterance
from rlhf.engine.wanted import Finish, Piece, Wanted


class Speaking:
    """wanted, by a version's slot. last: the token that was chosen and not yet computed."""

    def __init__(self, wanted: Wanted, slot: Slot, tokenizer: Any, device: torch.device, stream: ReplyStream) -> None:
        self.wanted, self.stream = wanted, stream
        self.row = Row(list(wanted.prompt), wanted.adapter, slot, len(wanted.prompt) + wanted.max_tokens)
        self.chance = Chance.of(wanted.temperature, wanted.top_p, wanted.seed, device)
        self.last = -1
        self.is_released = False
        self._utterance = Utterance(wanted, tokenizer)

    @staticmethod
    def pick(speaking: Sequence[Speaking], logits: Tensor) -> list[int]:
        """The next token of each from its row of logits."""
        return pick(logits, [one.chance for one in speaking])

    def take(self, token: int, logits: Tensor, *, is_end: bool) -> Piece | None:
        """The chosen token, and the logits (vocabulary,) that it was chosen from: what can be said now, if anything."""
        self.last = token
        logprob = None
        if self.wanted.logprobs is not None:
            logprob = self._utterance.logprob(token, *likeliest(logits, token, self.wanted.logprobs))
        return self._utterance.take(token, is_end=is_end, logprob=logprob)

    def end(self, finish: Finish, text: str = "") -> Piece:
        """The last piece: what was held back."""
        return self._utterance.end(finish, text)
