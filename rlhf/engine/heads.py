"""Instant rewards: a linear head on a frozen base's inner states, with its doubt.

`HeadReward` and `SharedHead` look to `engine.scoring` like classification models whose logits are (R, 2): score and doubt. The
forward stops at the highest layer that the head reads. A score is weight . z with z = (states - mean) / scale, so a reply of
average states scores 0; its doubt is the standard deviation of that score under the head's posterior.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rlhf.engine import scoring
from rlhf.engine.bases import Base
from rlhf.engine.classifiers import classifier
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.policies import switched
from rlhf.engine.shared import Sharing
from rlhf.engine.states import Reading, decoder_layers, pooled_states
from rlhf.errors import BadInput
from rlhf.measures.bayes_logistic import Posterior

FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE = "head.json", "head.safetensors"


@dataclass(frozen=True)
class Head:
    """A head as its folder holds it. D = features; all float32 on the CPU.

    reading: what it reads of a reply; hidden: the width of the base's states. weight, mean, scale: (D,); prior_variance: (1,) of
    each weight; shrink: (D, K), what the data took off that variance.
    """

    reading: Reading
    hidden: int
    weight: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    prior_variance: torch.Tensor
    shrink: torch.Tensor

    @classmethod
    def of(cls, posterior: Posterior, mean_D: NDArray[np.float64], reading: Reading, hidden: int) -> Head:
        """mean_D: of the training replies' states: a score and its doubt are measured from there."""
        as_float = lambda array: torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)  # noqa: E731
        return cls(
            reading,
            hidden,
            as_float(posterior.weight),
            as_float(mean_D),
            as_float(posterior.scale),
            as_float(np.array([1.0 / posterior.precision])),
            as_float(posterior.shrink),
        )

    @classmethod
    def read(cls, folder: Path) -> Head:
        """A head's folder, which the registry has checked."""
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
        if config["format"] != FORMAT:
            raise BadInput(f"{CONFIG_FILE} is of format {config['format']}", fix="use the release that made it")
        tensors = load_file(folder / WEIGHTS_FILE)
        reading = Reading(tuple(config["layers"]), tuple(config["pooling"]), tuple(config["opening"]))
        return cls(reading, config["hidden"], **{name: tensor.float() for name, tensor in tensors.items()})

    def save(self, folder: Path) -> None:
        """Write `head.json` and `head.safetensors`."""
        config = {"format": FORMAT, "hidden": self.hidden, **asdict(self.reading)}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        names = ("weight", "mean", "scale", "prior_variance", "shrink")
        save_file({name: getattr(self, name).contiguous() for name in names}, folder / WEIGHTS_FILE)

    @property
    def posterior(self) -> Posterior:
        """The belief about the weights, in float64, for one more answer."""
        weight, scale, variance, shrink = (
            tensor.double().numpy() for tensor in (self.weight, self.scale, self.prior_variance, self.shrink)
        )
        return Posterior(weight, scale, 1.0 / float(variance[0]), shrink)

    def at_last_token(self) -> torch.Tensor:
        """(1, hidden): the plain weights of a head on one layer's state at the last token, without the offset."""
        if len(self.reading.layers) != 1 or self.reading.pooling != ("last",):
            raise BadInput(
                f"the head reads {' and '.join(self.reading.pooling)} of layers {self.reading.layers}",
                fix="read one layer's last token",
            )
        return (self.weight / self.scale)[None]


class HeadModule(torch.nn.Module):
    """A head as a frozen module: states (R, D) to logits (R, 2)."""

    mean: torch.Tensor
    scale: torch.Tensor
    prior_variance: torch.Tensor
    shrink: torch.Tensor

    def __init__(self, head: Head, device: torch.device | str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(head.weight.to(device), requires_grad=False)
        for name in ("mean", "scale", "prior_variance", "shrink"):
            self.register_buffer(name, getattr(head, name).to(device))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Score and doubt. The doubt's two parts nearly cancel where the data said much, so they are taken in float64."""
        z = (states.float() - self.mean) / self.scale
        wide = z.double()
        variance = self.prior_variance.double() * (wide**2).sum(dim=1) - (wide @ self.shrink.double()).square().sum(
            dim=1
        )
        return torch.stack([z @ self.weight, variance.clamp_min(0.0).sqrt().float()], dim=1)


class HeadReward:
    """A head on a base of its own."""

    def __init__(self, model: Any, head: Head) -> None:
        self.model, self.reading = model, head.reading
        self.head = HeadModule(head, next(model.parameters()).device)

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def training(self) -> bool:
        return bool(self.model.training)

    def __call__(self, **arguments: Any) -> Any:
        """The forward that `scoring` calls. Gives logits (R, 2): score and doubt."""
        states = pooled_states(getattr(self.model, self.model.base_model_prefix), self.reading, **arguments)
        with torch.autocast(states.device.type, enabled=False):
            return SequenceClassifierOutputWithPast(logits=self.head(states))

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return iter(self.model.parameters())

    def eval(self) -> HeadReward:
        self.model.eval()
        return self

    def train(self, mode: bool = True) -> HeadReward:
        self.model.train(mode)
        return self


def load(folder: Path, base: Base, placement: Placement) -> HeadReward:
    """The head of a version's folder on a fresh base. Raises BadInput where it doesn't fit the base."""
    return on_base(Head.read(folder), base, placement)


def on_base(head: Head, base: Base, placement: Placement) -> HeadReward:
    """A head on a fresh base, in eval mode."""
    model = classifier(base, placement, seed=0).eval()
    require_fit(head, getattr(model, model.base_model_prefix))
    return HeadReward(model, head)


class SharedHead(Sharing):
    """A head on a policy's own base, whose adapters are off while it scores; the model is left as it was found."""

    def __init__(self, model: PeftModel, folder: Path) -> None:
        """Raises BadInput where the head doesn't fit the model's base."""
        self.model, self.adapter = model, None
        head = Head.read(folder)
        require_fit(head, self.body)
        self.reading = head.reading
        self.head = HeadModule(head, next(model.parameters()).device)
        self.pack_or_pad()

    def score_with_doubt(
        self, groups: Sequence[Group], *, token_budget: int = 4096
    ) -> list[list[tuple[float, float | None]]]:
        """See `scoring.score_with_doubt`."""
        with switched(self.model, self.adapter):
            return scoring.score_with_doubt(self, groups, token_budget=token_budget)

    def __call__(self, **arguments: Any) -> Any:
        """The forward that `scoring` calls, inside `switched`."""
        states = pooled_states(self.body, self.reading, **arguments)
        with torch.autocast(states.device.type, enabled=False):
            return SequenceClassifierOutputWithPast(logits=self.head(states))

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return self.head.parameters()


def require_fit(head: Head, body: Any) -> None:
    """Raise BadInput where the head does not fit the base's body."""
    there, hidden = len(decoder_layers(body)), body.config.hidden_size
    highest = max(head.reading.layers)
    if head.hidden != hidden or highest > there:
        raise BadInput(
            f"the head reads states of {head.hidden} numbers up to layer {highest}, the base has {hidden} and {there} layers",
            fix="use the base that it was fitted on",
        )
