"""Ensembles of rewards: several members score on one base, and their scores become one score and its doubt.

Doubt is the members' standard deviation (n - 1 under the root): where members that saw other draws of the labels disagree, the
score is a guess (Lakshminarayanan et al. 2017; for rewards: Coste et al. 2024). `mean`, `min` and `mean - k sd` are what a
policy may be trained against; the last two pay for being sure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rlhf.engine import rewards
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.trunk import layers_of, pass_over
from rlhf.errors import BadInput

Combine = Literal["mean", "min", "mean_minus_sd"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How members' scores become one. scale: what each is multiplied by first (1 / temperature once calibrated)."""

    combine: Combine = "mean"
    k: float = 1.0
    scale: float = 1.0

    def of(self, scores_RK: torch.Tensor) -> torch.Tensor:
        """(R, K) members' scores -> (R, 2): the score and its doubt."""
        if scores_RK.shape[1] < 2:
            raise ValueError(f"{scores_RK.shape[1]} member; doubt needs two or more")
        scores = scores_RK * self.scale
        sd = scores.std(dim=1)
        one = {"mean": scores.mean(1), "min": scores.amin(1), "mean_minus_sd": scores.mean(1) - self.k * sd}
        return torch.stack([one[self.combine], sd], dim=1)


class EnsembleReward:
    """Members as adapters of one classification model; to `engine.scoring` it looks like one model with logits (R, 2)."""

    def __init__(self, folders: Sequence[Path], base: Base, placement: Placement, rule: Rule, *, seed: int = 0) -> None:
        """folders: the members' PEFT folders. seed: see `rewards.load`. Raises BadInput where one doesn't fit the base."""
        self.rule, self.names = rule, [f"member{i}" for i in range(len(folders))]
        self.model = rewards.load(folders[0], base, placement, seed=seed, adapter=self.names[0])
        for folder, name in zip(folders[1:], self.names[1:], strict=True):
            rewards.load_beside(self.model, folder, name)
        self.model.requires_grad_(False)
        self.shared_layers = min(_lowest(self.model, name) for name in self.names)
        if self.shared_layers:
            pass_over(layers_of(self.model), self.shared_layers)
        self.training = False

    @property
    def config(self) -> Any:
        return self.model.config

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.model.parameters()

    def __call__(self, **arguments: Any) -> SequenceClassifierOutputWithPast:
        """Logits (R, 2). What lies below every member's LoRA is computed once."""
        packing = arguments.get("packing")
        if packing is not None and self.shared_layers and packing.below is None:
            caught: list[torch.Tensor] = []
            packing.caught = caught
            self.model(**arguments)
            packing.caught, packing.below = None, caught[0]
        columns = []
        for name in self.names:
            self.model.base_model.set_adapter(name, inference_mode=True)
            columns.append(self.model(**arguments).logits[:, 0])
        return SequenceClassifierOutputWithPast(logits=self.rule.of(torch.stack(columns, dim=1)))

    def eval(self) -> EnsembleReward:
        self.model.eval()
        return self

    def train(self, mode: bool = True) -> EnsembleReward:
        """Nothing: members are trained apart, each as a reward of its own."""
        return self


class SharedEnsemble:
    """An ensemble on a policy's base. members: each as `engine.shared.SharedReward` or another reward on that base."""

    def __init__(self, members: Sequence[Any], rule: Rule) -> None:
        self.members, self.rule = tuple(members), rule

    def score(self, groups: Sequence[Group], *, token_budget: int = 4096) -> list[list[float]]:
        """The combined scores; see `scoring.score`."""
        return [[value for value, _ in row] for row in self.score_with_doubt(groups, token_budget=token_budget)]

    def score_with_doubt(
        self, groups: Sequence[Group], *, token_budget: int = 4096
    ) -> list[list[tuple[float, float | None]]]:
        """See `scoring.score_with_doubt`."""
        if not groups:
            return []
        return combined(self.rule, [member.score(groups, token_budget=token_budget) for member in self.members])


def combined(rule: Rule, columns: Sequence[Sequence[Sequence[float]]]) -> list[list[tuple[float, float | None]]]:
    """Each member's scores, prompt by prompt and reply by reply -> the ensemble's, each with its doubt."""
    flat = torch.tensor([[score for row in column for score in row] for column in columns]).T
    both = iter(rule.of(flat).tolist())
    return [[(score, doubt) for score, doubt in (next(both) for _ in row)] for row in columns[0]]


def write_average(folders: Sequence[Path], out: Path) -> None:
    """Write a PEFT folder whose weights are the members' average (WARM: Ramé et al. 2024), into the folder `out`.

    Exactly: the LoRAs lie side by side in one of the summed rank, so that B A is the mean of the members' B A; averaging A and
    B apart would give another product. The heads, being linear, are averaged as they are. Raises BadInput where the members'
    LoRAs sit on different modules.
    """
    configs = [json.loads((folder / "adapter_config.json").read_text("utf-8")) for folder in folders]
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    odd = [
        key for key in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora") if any(c.get(key) for c in configs)
    ]
    if odd or any(member.keys() != tensors[0].keys() for member in tensors):
        raise BadInput(
            f"the members can't be averaged: {odd[0] + ' is set' if odd else 'their LoRAs sit on different modules'}",
            fix="average members that one training with members=K made",
        )
    scales = [config["lora_alpha"] / config["r"] / len(folders) for config in configs]
    merged: dict[str, torch.Tensor] = {}
    for name in tensors[0]:
        own = [member[name] for member in tensors]
        if ".lora_A." in name:
            merged[name] = torch.cat([a * scale for a, scale in zip(own, scales, strict=True)], dim=0)
        elif ".lora_B." in name:
            merged[name] = torch.cat(own, dim=1)
        else:
            merged[name] = torch.stack([tensor.float() for tensor in own]).mean(0)
    rank = sum(config["r"] for config in configs)
    save_file(merged, out / "adapter_model.safetensors", metadata={"format": "pt"})
    whole = {**configs[0], "r": rank, "lora_alpha": rank}
    (out / "adapter_config.json").write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", "utf-8")


def _lowest(model: PeftModel, name: str) -> int:
    """The lowest layer that an adapter changes; 0 where it can't be told."""
    config = model.peft_config[name]
    at = config.layers_to_transform
    if not isinstance(at, list) or not at or layers_of(model) is None:
        return 0
    return min(at)
