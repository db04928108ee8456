"""A reward version as one more adapter on the policy's own base: one base in memory, and still the one scorer.

`Sharing` looks to `engine.scoring` like the classification model that a reward was trained as: token ids and ends in, float32
logits out. `SharedReward`'s LoRA lies beside the policy's in the same PEFT model, its head apart; `heads.SharedHead` has no LoRA.
Scoring happens inside `switched`, which puts adapter, gradients and modes back as they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from peft import LoraConfig, PeftModel, TaskType, set_peft_model_state_dict
from safetensors.torch import load_file

from rlhf.engine import scoring
from rlhf.engine.classifiers import can_pack, packs_rightly, scores_at_ends
from rlhf.engine.packing import Group
from rlhf.engine.policies import switched
from rlhf.engine.rewards import leave_inputs
from rlhf.errors import BadInput

_HEAD = "base_model.model.score.weight"
_OF_A_CLASSIFIER = ("task_type", "modules_to_save", "inference_mode", "base_model_name_or_path")


class Sharing:
    """What scores on a policy's base: to `engine.scoring` a model, made by a subclass that sets `model` and `adapter`.

    model: the PEFT model that is shared; adapter: the name of the scorer's own in there, None = it scores with the bare base.
    """

    model: PeftModel
    adapter: str | None
    training = False  # never: it is scored with

    @property
    def inner(self) -> Any:
        """The causal model inside the PEFT model."""
        return self.model.get_base_model()

    @property
    def body(self) -> Any:
        return getattr(self.inner, self.inner.base_model_prefix)

    @property
    def config(self) -> Any:
        return self.inner.config

    def pack_or_pad(self) -> None:
        """Pack rows where this base packs rightly with this scorer, else pad them."""
        if can_pack(self.inner):
            with switched(self.model, self.adapter):
                fits = packs_rightly(self)
            if not fits:
                self.set_attn_implementation("sdpa")

    def score(self, groups: Sequence[Group], *, token_budget: int = 4096) -> list[list[float]]:
        """`scoring.score` with the scorer's adapter switched on; the shared model is left as it was found."""
        with switched(self.model, self.adapter):
            return scoring.score(self, groups, token_budget=token_budget)

    def set_attn_implementation(self, name: str) -> None:
        self.inner.set_attn_implementation(name)

    def eval(self) -> Self:
        """Nothing: `switched` has done it."""
        return self

    def train(self, mode: bool = True) -> Self:
        """Nothing: see `training`."""
        return self


class SharedReward(Sharing):
    """One reward version of kind lora on a policy's base."""

    def __init__(self, model: PeftModel, folder: Path, adapter: str) -> None:
        """Load the version's folder as a frozen adapter. Raises BadInput where a tensor does not find its place."""
        self.model, self.adapter = model, adapter
        tensors = load_file(folder / "adapter_model.safetensors")
        if _HEAD not in tensors:
            raise BadInput(f"{folder.name} has no score head ({_HEAD})", fix="name a reward version")
        weight = tensors.pop(_HEAD).float()
        device = next(model.parameters()).device
        with torch.random.fork_rng(devices=[]):  # a random start that is overwritten must not move the run's own chance
            self.head = torch.nn.Linear(weight.shape[1], 1, bias=False, device=device).requires_grad_(False)
        self.head.weight.data.copy_(weight)
        _add(model, folder, adapter, tensors)
        self.pack_or_pad()

    def __call__(self, **arguments: Any) -> Any:
        """The forward that `scoring` calls, inside `switched`."""
        return scores_at_ends(self.body, self.head, **arguments)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.head.weight


def _add(model: PeftModel, folder: Path, adapter: str, tensors: dict[str, torch.Tensor]) -> None:
    """The reward's LoRA as a frozen adapter of the causal model: body layers have the same names in both kinds of model."""
    known = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    settings = {key: value for key, value in known.items() if key not in _OF_A_CLASSIFIER}
    config = LoraConfig(**settings, task_type=TaskType.CAUSAL_LM, inference_mode=True)
    with torch.random.fork_rng(devices=[]):
        model.add_adapter(adapter, config)
    try:
        found = set_peft_model_state_dict(model, tensors, adapter_name=adapter)
    except RuntimeError as error:  # shapes of another base
        raise BadInput(
            f"reward in {folder.name} doesn't fit the policy's base: {' '.join(str(error).split())[:300]}",
            fix="use a reward that was trained on the policy's base",
        ) from None
    lost = [name for name in found.missing_keys if f".{adapter}." in name] + list(found.unexpected_keys)
    mine = {name: value for name, value in model.named_parameters() if f".{adapter}." in name}
    for parameter in mine.values():
        parameter.requires_grad_(False)
    wanted = {name.replace(".weight", f".{adapter}.weight"): value for name, value in tensors.items()}
    lost += sorted(wanted.keys() ^ mine.keys())
    lost += [n for n, value in wanted.items() if n in mine and not torch.equal(value.to(mine[n]), mine[n].detach())]
    if lost:
        raise BadInput(
            f"reward in {folder.name} doesn't fit the policy's base: {', '.join(lost[:3])}",
            fix="use a reward that was trained on the policy's base",
        )
    leave_inputs(model)
