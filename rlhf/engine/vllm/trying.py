"""What is tried before anybody is answered: that the processes do what they are here for, and that an adapter does anything.

vLLM loads the matrices that it finds a layer for and says nothing of the others (vllm#12808): a reply would be the base's under the
version's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from rlhf.engine.bases import Base
from rlhf.engine.lora_files import LoraWeights
from rlhf.engine.slots import widths_of
from rlhf.engine.vllm.residents import Version
from rlhf.engine.vllm.server import Lost, Server
from rlhf.errors import BadInput, BadUsage

_SAME = 1e-6  # nats, and of states beside the largest: less is the rounding of another batch
_N_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked of a base without its weights. widths: see `slots.widths_of`; hidden: of a state; ends: tokens that end a
    reply; probe: tokens that are tried."""

    widths: dict[str, tuple[int, int]]
    hidden: int
    vocabulary: int
    ends: frozenset[int]
    probe: tuple[int, ...]

    @classmethod
    def of(cls, base: Base) -> Shape:
        config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        with suppress(OSError):
            model.generation_config = GenerationConfig.from_pretrained(base.folder)
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = base.tokenizer().eos_token_id
        vocabulary = int(model.get_input_embeddings().num_embeddings)
        return cls(
            widths_of(model),
            int(getattr(model, model.base_model_prefix).config.hidden_size),
            vocabulary,
            frozenset(ends if isinstance(ends, list) else [ends]),
            tuple((7 * i + 3) % vocabulary for i in range(_N_TOKENS)),
        )


def require_kinds(generate: Server, score: Server | None, shape: Shape) -> None:
    """Raise BadUsage where the processes can't do what they are here for: their addresses may be swapped."""
    try:
        _logprobs(generate, generate.base_name, shape.probe, generate.base_name)
    except (Lost, BadInput) as error:
        raise BadUsage(
            f"vLLM for replies doesn't generate: {error.message}", fix="give --vllm-generate one that does"
        ) from None
    if score is None:
        return
    try:
        states = score.states(score.base_name, [shape.probe], score.base_name)
    except (Lost, BadInput) as error:
        raise BadUsage(
            f"vLLM for scores doesn't pool: {error.message}", fix="start it with --runner pooling --convert embed"
        ) from None
    if states.shape[1] != shape.hidden:
        raise BadUsage(
            f"vLLM at {score.url} gives states of {states.shape[1]} numbers, the base has {shape.hidden}",
            fix="start it on this base",
        )


def require_effect(version: Version, weights: LoraWeights, probe: Sequence[int]) -> None:
    """Raise BadInput where vLLM computes the same with the version as without it, and the version isn't one that does nothing."""
    if not any(lora.a.any() and lora.b.any() for lora in weights.pairs.values()):
        return
    server = version.server
    with_it = _told(version, version.name, version.digest, probe)
    without = _told(version, server.base_name, server.base_name, probe)
    scale = 1.0 if version.head is None else float(without.abs().max())
    if float((with_it - without).abs().max()) <= _SAME * scale:
        raise BadInput(
            f"vLLM at {server.url} took the adapter {version.name} and computes as without it: none of its layers' names are "
            "vLLM's",
            fix="serve it with --engine embedded, or use a base whose layers vLLM names as PEFT does",
        )


def _told(version: Version, name: str, salt: str, probe: Sequence[int]) -> Tensor:
    if version.head is None:
        return _logprobs(version.server, name, probe, salt)
    return version.server.states(name, [probe], salt)


def _logprobs(server: Server, name: str, probe: Sequence[int], salt: str) -> Tensor:
    return torch.tensor(server.logprobs(name, probe, salt))
