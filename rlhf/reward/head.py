"""The instant reward: a linear head fitted on a frozen base's pooled states of the training pairs.

The fit is Bayesian logistic regression on the differences of the two replies' states (`measures.bayes_logistic`): seconds, no
gradient through the base. It is a version of its own (`kind=head`), the baseline beside every LoRA, and may start LoRA's own head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.engine import trunk
from rlhf.engine.bases import Base
from rlhf.engine.classifiers import classifier
from rlhf.engine.heads import Head, HeadReward
from rlhf.engine.placement import Placement
from rlhf.engine.pooled import PooledStates
from rlhf.engine.rendering import Renderer
from rlhf.engine.states import Reading, opening_of
from rlhf.errors import BadInput, BadUsage
from rlhf.measures import bayes_logistic
from rlhf.measures.length import without_length
from rlhf.reward.material import Material
from rlhf.reward.rows import TrainRow
from rlhf.reward.settings import RewardSettings
from rlhf.store import Workspace
from rlhf.store.cache import Cache

POOLING = {"last": ("last",), "mean": ("mean",), "both": ("last", "mean")}


@dataclass(frozen=True)
class Fitted:
    """A fitted head. precision: of its prior; left_out_loss: nats a pair, of opening turns left out one at a time; loss, accuracy:
    on the pairs it was fitted on; seconds: of the fit."""

    head: Head
    precision: float
    left_out_loss: float
    loss: float
    accuracy: float
    seconds: float
    n_pairs: int

    def as_json(self) -> dict[str, Any]:
        return {
            "layers": list(self.head.reading.layers),
            "pooling": list(self.head.reading.pooling),
            "features": len(self.head.weight),
            "precision": self.precision,
            "left_out_loss": self.left_out_loss,
            "fit_seconds": round(self.seconds, 3),
        }


def check_alone(n_processes: int) -> None:
    """Refuse to be started by a launcher. Raises BadUsage."""
    if n_processes > 1:
        raise BadUsage(
            f"kind=head is fitted by one process, {n_processes} were started",
            fix="run rlhf reward train without a launcher",
        )


def reading_of(base: Base, settings: RewardSettings, *, at_end: bool = False) -> Reading:
    """What the settings' head reads on this base; at_end: the last layer's last token, as LoRA's own head does."""
    there = base.details.get("layers")
    if not isinstance(there, int):
        raise BadInput(f"base {base.name} doesn't say how many layers it has", fix="add it again: rlhf base add")
    opening = opening_of(Renderer(base.tokenizer(), 2**31))
    if at_end:
        return Reading((there,), ("last",), opening)
    layers = sorted(set(settings.head_layers)) or default_layers(there)
    if layers[0] < 1 or layers[-1] > there:
        raise BadUsage(
            f"head_layers={','.join(map(str, settings.head_layers))}, but {base.name} has layers 1 to {there}",
            fix="name some of those",
        )
    return Reading(tuple(layers), POOLING[settings.head_pooling], opening)


def default_layers(n_layers: int) -> list[int]:
    """Layers 14 and 22 of 30, which had the least 5-fold log-loss on HH (`scripts/table_head.py`), as shares of the depth."""
    return sorted({max(1, round(n_layers * share)) for share in (14 / 30, 22 / 30)})


def pooled(
    workspace: Workspace, base: Base, place: Placement, reading: Reading, settings: RewardSettings | None = None
) -> PooledStates:
    """States of this reading, kept in the workspace's cache, or with `trunk=off` computed each time that they are asked for."""
    gib = settings.trunk_gib if settings else RewardSettings.model_fields["trunk_gib"].default
    cache = Cache(workspace.root / trunk.FOLDER, 0 if settings and settings.trunk == "off" else round(gib * 2**30))
    return PooledStates(lambda: classifier(base, place, seed=0).eval(), reading, base, place, cache)


def fit(
    states_N2D: NDArray[np.float32],
    rows: Sequence[TrainRow],
    groups_N: Sequence[str],
    reading: Reading,
    prior: float,
    length_penalty: float = 0.0,
) -> Fitted:
    """The head of these pairs. groups: opening turns; prior: precision for each feature, 0 = the one with the least loss left out;
    length_penalty: of the setting of that name. The loss left out is that without it.

    Raises BadInput where the states hold NaN, or don't differ.
    """
    if not np.isfinite(states_N2D).all():
        bad = sorted({rows[i].pair_id[:12] for i in np.flatnonzero(~np.isfinite(states_N2D).all(axis=(1, 2))).tolist()})
        raise BadInput(
            f"the base's states hold NaN or infinity on pairs {', '.join(bad[:5])}",
            fix="use dtype=float32, or another base",
        )
    start = time.perf_counter()
    differences = states_N2D[:, 0].astype(np.float64) - states_N2D[:, 1]
    if not differences.any():
        raise BadInput("the two replies' states never differ", fix="read other layers with head_layers")
    targets, weights = np.array([row.target for row in rows]), np.array([row.weight for row in rows])
    n_features = differences.shape[1]
    precision = prior * n_features
    if not precision:
        precision = bayes_logistic.choose_precision(differences, targets, weights, groups_N=groups_N)
    posterior = bayes_logistic.fit(differences, targets, weights, precision=precision)
    if length_penalty:
        posterior = without_length(posterior, differences, [row.length for row in rows], length_penalty)
    seconds = time.perf_counter() - start
    left_out = bayes_logistic.left_out_loss(differences, targets, weights, groups_N=groups_N, precision=precision)
    mean = np.average(states_N2D.mean(axis=1, dtype=np.float64), axis=0, weights=weights)
    logits = posterior.logits(differences)
    losses = targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)
    hits = (logits > 0) + 0.5 * (logits == 0)
    return Fitted(
        Head.of(posterior, mean, reading, n_features // (len(reading.layers) * len(reading.pooling))),
        precision,
        left_out,
        float(np.average(losses, weights=weights)),
        float(np.average(hits, weights=weights)),
        seconds,
        len(rows),
    )


def groups_of(material: Material) -> list[str]:
    """The opening turn of each row."""
    known = {row.pair.id: row.pair.group for row in material.snapshot.rows("train")}
    return [known[row.pair_id] for row in material.rows]


def beside(
    workspace: Workspace, material: Material, show: Callable[[int, int], None] | None = None, *, at_end: bool = False
) -> tuple[Fitted, HeadReward]:
    """The head of the material's pairs and the model that scores with it: the baseline of a LoRA, or (at_end) its head's start."""
    settings = material.settings
    reading = reading_of(material.base, settings, at_end=at_end)
    kept = pooled(workspace, material.base, material.place, reading, settings)
    states, groups = kept.of(material.rows, show), groups_of(material)
    found = fit(states, material.rows, groups, reading, settings.head_prior, settings.length_penalty)
    return found, HeadReward(kept.model, found.head)
