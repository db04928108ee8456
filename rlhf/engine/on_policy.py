"""Replies of a policy in training, through the continuous batch: what `generate` would draw, in less time.

The batch runs the policy's own base: a model beside it on the same tensors, of which a CPU keeps the linear layers a second time,
in its own order. The LoRA as it is now is copied into the one slot before every draw, and nothing that was computed is kept until
the next one, so no reply comes from weights of an earlier step. A reply has its own stream of chance (`generation.seed_of`), of
which it takes one number a token; it comes with the log-probabilities that its tokens were drawn with.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn.functional import pad

from rlhf.engine import generation, lora_files
from rlhf.engine.decoding import ContinuousBatch, Row
from rlhf.engine.policies import TRAINED, switched
from rlhf.engine.sampling import Sampling
from rlhf.engine.slots import Slot, SlotBank
from rlhf.errors import BadInput

_LIKELIEST = 512  # enough for most top_p; a flatter distribution is sorted whole
_BLOCK = 256  # words of the vocabulary
_ROWS = 64  # replies computed at a time; on a CPU more gain nothing


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply's token ids, its end token included where it came to one, and their log-probabilities: nats, at the temperature
    that they were drawn at, before top_p cut anything off."""

    ids: list[int]
    logps: list[float]


@dataclass(slots=True, eq=False)
class _Speaking:
    """A reply under way. chance: one number in [0, 1) a token."""

    at: int
    row: Row
    chance: NDArray[np.float64]
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class OnPolicy:
    """The adapter in training of one PEFT model, and the continuous batch that speaks for it. Raises BadInput where the batch
    can't hold the base, or the adapter is more than a LoRA on its linear layers."""

    def __init__(self, model: PeftModel) -> None:
        self.model = model
        weights = self._weights()
        base = beside(model)
        self.bank = SlotBank(base, slots=1, max_rank=max(weights.rank, 1))
        self.slot: Slot = self.bank.reserve(weights)
        self.batch = ContinuousBatch(base, self.bank, prefix_tokens=0)
        try:
            gap, rounding = self._gap(), 1e-3 if base.dtype == torch.float32 else 0.25
        except (AssertionError, TypeError, ValueError) as error:
            raise _unfit(base, " ".join(f"{type(error).__name__}: {error}".split())[:200]) from None
        if not gap <= rounding:
            raise _unfit(base, f"its log-probabilities differ from the policy's by {gap:.2g} a token")

    def _gap(self) -> float:
        """How far two short replies are from what the policy's own forward says of them, nats a token."""
        n_words = self.model.get_input_embeddings().num_embeddings
        prompts = [[(7 * i + 3) % n_words for i in range(n)] for n in (5, 9)]
        replies = self.draw(prompts, (0, 1), Sampling(4), ())
        with switched(self.model, TRAINED):
            own = generation.log_probabilities(self.model, prompts, [reply.ids for reply in replies])
        return max(abs(one - sum(reply.logps)) / 4 for one, reply in zip(own, replies, strict=True))

    def require_fit(self, n_tokens: int) -> None:
        """Raises BadInput where a prompt and its reply of so many tokens are more than the base takes."""
        if n_tokens > self.batch.max_length:
            raise BadInput(
                f"a prompt and its reply may come to {n_tokens} tokens, the base takes {self.batch.max_length}",
                fix="lower max_length or max_new_tokens, or set rollouts=trl",
            )

    def draw(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, ends: Sequence[int]
    ) -> list[Reply]:
        """A reply to each prompt (token ids), in the order given, from the weights as they are now; equal prompts are computed
        once. seeds: one a reply, `sampling.seed` is not used; ends: tokens that end a reply. Raises BadInput where a prompt and
        its reply can't fit."""
        self.require_fit(max(map(len, prompts), default=0) + sampling.max_new_tokens)
        self.bank.write(self.slot, self._weights())
        draw = _Draw(self.batch, self._groups(prompts, seeds, sampling), sampling, frozenset(ends))
        try:
            with torch.inference_mode():
                return draw.replies()
        finally:
            self.batch.clear()
            self.batch.keys.let_go()

    def _groups(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> deque[list[_Speaking]]:
        """Replies by prompt, at most as many as have room at a time."""
        groups: dict[tuple[int, ...], list[_Speaking]] = {}
        for at, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            row = Row(list(prompt), None, self.slot, len(prompt) + sampling.max_new_tokens)
            chance = np.random.default_rng(seed).random(sampling.max_new_tokens)
            groups.setdefault(tuple(prompt), []).append(_Speaking(at, row, chance))
        return deque(group[i : i + _ROWS] for group in groups.values() for i in range(0, len(group), _ROWS))

    def _weights(self) -> lora_files.LoraWeights:
        tensors = get_peft_model_state_dict(self.model, adapter_name=TRAINED, save_embedding_layers=False)
        return lora_files.weights_of(self.model.peft_config[TRAINED].to_dict(), dict(tensors), "training")


class _Draw:
    """One draw: replies join while there is room for their group, and leave as they end."""

    def __init__(
        self, batch: ContinuousBatch, groups: deque[list[_Speaking]], sampling: Sampling, ends: frozenset[int]
    ) -> None:
        self.batch, self.waiting, self.sampling, self.ends = batch, groups, sampling, ends
        self.speaking: dict[Row, _Speaking] = {}
        self.done: dict[int, Reply] = {}

    def replies(self) -> list[Reply]:
        while self.waiting or self.speaking:
            self._take_in()
            if self.speaking:
                rows = list(self.batch.rows)
                logits = self.batch.step([self.speaking[row].ids[-1] for row in rows])
                self._say([self.speaking[row] for row in rows], logits)
        return [self.done[at] for at in range(len(self.done))]

    def _take_in(self) -> None:
        groups: list[list[_Speaking]] = []
        room = _ROWS - len(self.speaking)
        while self.waiting and len(self.waiting[0]) <= room:
            groups.append(self.waiting.popleft())
            room -= len(groups[-1])
        if groups:
            logits = self.batch.join([[one.row for one in group] for group in groups])
            new = [one for group in groups for one in group]
            self.speaking |= {one.row: one for one in new}
            self._say(new, logits)

    def _say(self, speaking: Sequence[_Speaking], logits: Tensor) -> None:
        """Choose the next token of each, and let those go that have ended."""
        chance = torch.tensor([one.chance[len(one.ids)] for one in speaking], device=logits.device)
        tokens, logps = drawn(logits, chance, self.sampling.temperature, self.sampling.top_p)
        for one, token, logp in zip(speaking, tokens.tolist(), logps.tolist(), strict=True):
            one.ids.append(token)
            one.logps.append(logp)
            if token in self.ends or len(one.ids) == self.sampling.max_new_tokens:
                self.batch.leave(one.row, keep=False)
                del self.speaking[one.row]
                self.done[one.at] = Reply(one.ids, one.logps)


def _unfit(base: Any, why: str) -> BadInput:
    return BadInput(f"{type(base).__name__} can't speak through the continuous batch: {why}", fix="set rollouts=trl")


def drawn(logits: Tensor, chance: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """The tokens (R,) at which the rows' summed probabilities pass `chance` (R,), float64 in [0, 1), and their log-probabilities
    (R,) before top_p. logits: (R, vocabulary) float32. temperature 0 = the likeliest, with its log-probability at 1."""
    logp = (logits / temperature if temperature not in (0.0, 1.0) else logits).log_softmax(-1)
    if temperature == 0.0:
        tokens = logp.argmax(-1, keepdim=True)
    elif top_p < 1.0:
        share, order = _likeliest(logp.exp(), top_p)
        tokens = order.gather(1, _passed(share, chance))
    else:
        tokens = _passed(logp.exp(), chance)
    return tokens[:, 0], logp.gather(1, tokens)[:, 0]


def _passed(share: Tensor, chance: Tensor) -> Tensor:
    """Where (R, 1) the running sum of share (R, n) passes that part of the whole: first the block, then the place in it, since
    a running sum over a whole vocabulary takes as long as a layer."""
    blocks = pad(share, (0, -share.shape[1] % _BLOCK)).view(len(share), -1, _BLOCK)
    upto = blocks.sum(-1).double().cumsum(-1)
    wanted = chance[:, None] * upto[:, -1:]
    at = torch.searchsorted(upto, wanted, right=True).clamp_(max=upto.shape[1] - 1)
    inside = blocks.gather(1, at[:, :, None].expand(-1, -1, _BLOCK))[:, 0].cumsum(-1, dtype=torch.float64)
    left = wanted - upto.gather(1, at) + inside[:, -1:]
    left = torch.minimum(left, torch.nextafter(inside[:, -1:], inside.new_zeros(())))  # never one whose share is 0
    return at * _BLOCK + torch.searchsorted(inside, left, right=True)


def _likeliest(share: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities (R, n), the largest first, and whose they are; 0 where top_p has come before."""
    for n in (_LIKELIEST, share.shape[1]):
        mass, order = share.topk(min(n, share.shape[1]))
        before = mass.cumsum(-1) - mass
        if bool((before[:, -1] >= top_p).all()):
            break
    return mass.masked_fill(before >= top_p, 0.0), order


def beside(model: PeftModel) -> Any:
    """The bare base of a PEFT model as a model of its own, on the same tensors: what becomes of one's modules, configuration and
    attention is nothing to the other."""
    plain = model.get_base_model()
    shared = {id(tensor): tensor for tensor in chain(plain.parameters(), plain.buffers())}
    twin = copy.deepcopy(plain, shared)
    for name, module in list(twin.named_modules()):
        vars(module).pop("forward", None)  # a trainer's patch, which would run the other model
        if isinstance(module, BaseTunerLayer):
            twin.set_submodule(name, module.get_base_layer())
    return twin.requires_grad_(False).eval()
