"""How two versions differ: what made them, what they were measured at, and how far their weights are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.records import VersionRef
from rlhf.registry import folder as folders
from rlhf.registry.versions import OpenVersion, open_version
from rlhf.store import Workspace

_Weights = Mapping[str, NDArray[np.float32]]
_MADE_OF = ("role", "kind", "tokenizer_digest", "template_digest", "snapshot_digest", "parents", "seeds", "simulated")


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs from a to b; what is equal isn't listed.

    made_of, settings, config, metrics: key -> (a's, b's), None = not there. tensors: name -> L2 norms of a, b and b - a
    (None where the shapes differ or one lacks it). updates: module -> Frobenius norms of the weight change that the
    adapter makes (alpha/r · B·A) for a, b and b - a: unlike the factors, it is the same however a LoRA is factored.
    """

    a: VersionRef
    b: VersionRef
    made_of: Mapping[str, tuple[Any, Any]]
    settings: Mapping[str, tuple[Any, Any]]
    config: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[Any, Any]]
    tensors: Mapping[str, Mapping[str, float | None]]
    updates: Mapping[str, Mapping[str, float]]

    def as_json(self) -> dict[str, Any]:
        parts = {"made_of": self.made_of, "settings": self.settings, "config": self.config, "metrics": self.metrics}
        shown = {name: {key: {"a": a, "b": b} for key, (a, b) in part.items()} for name, part in parts.items()}
        return {
            "a": str(self.a),
            "b": str(self.b),
            "a_digest": self.a.digest,
            "b_digest": self.b.digest,
            **shown,
            "tensors": {k: dict(v) for k, v in self.tensors.items()},
            "updates": {k: dict(v) for k, v in self.updates.items()},
        }


def diff(workspace: Workspace, a: VersionRef | str, b: VersionRef | str) -> Difference:
    """Compare two versions; both are opened, so both are checked."""
    one, other = open_version(workspace, a), open_version(workspace, b)
    made_of = {key: (one.manifest[key], other.manifest[key]) for key in _MADE_OF}
    made_of["base"] = (one.manifest["base"]["digest"], other.manifest["base"]["digest"])
    left, right = _weights(one), _weights(other)
    read = folders.read(one.folder, one.kind), folders.read(other.folder, other.kind)
    return Difference(
        one.ref,
        other.ref,
        {k: v for k, v in made_of.items() if v[0] != v[1]},
        _changed(one.manifest["settings"], other.manifest["settings"]),
        _changed(read[0].content, read[1].content),
        _changed(one.manifest["metrics"], other.manifest["metrics"]),
        {
            name: norms
            for name in sorted(left.keys() | right.keys())
            if (norms := _norms(left.get(name), right.get(name))) is not None
        },
        _updates(left, right, _scale(read[0].config), _scale(read[1].config)),
    )


def _weights(opened: OpenVersion) -> dict[str, NDArray[np.float32]]:
    return dict(folders.values(folders.read(opened.folder, opened.kind)))


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _norms(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> dict[str, float | None] | None:
    """L2 norms in float64; None where both are equal."""
    if a is not None and b is not None and np.array_equal(a, b):
        return None
    apart = None
    if a is not None and b is not None and a.shape == b.shape:
        apart = float(np.linalg.norm(b.astype(np.float64) - a))
    return {
        "a": None if a is None else float(np.linalg.norm(a.astype(np.float64))),
        "b": None if b is None else float(np.linalg.norm(b.astype(np.float64))),
        "difference": apart,
    }


def _scale(config: Mapping[str, Any]) -> float | None:
    """alpha/r (alpha/sqrt r for rsLoRA); None where single modules have their own, or the update isn't B·A alone."""
    if config.get("alpha_pattern") or config.get("rank_pattern") or config.get("use_dora"):
        return None
    rank = config.get("r", folders.LORA_DEFAULTS["r"])
    alpha = float(config.get("lora_alpha", folders.LORA_DEFAULTS["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _updates(a: _Weights, b: _Weights, scale_a: float | None, scale_b: float | None) -> dict[str, dict[str, float]]:
    if scale_a is None or scale_b is None:
        return {}
    found = {}
    for name in sorted(name for name in a.keys() & b.keys() if name.endswith(".lora_A.weight")):
        up = name.replace(".lora_A.", ".lora_B.")
        down_a, down_b = a[name].astype(np.float64), b[name].astype(np.float64)
        up_a, up_b = scale_a * a[up].astype(np.float64), scale_b * b[up].astype(np.float64)
        if down_a.ndim != 2 or down_a.shape[1] != down_b.shape[1] or up_a.shape[0] != up_b.shape[0]:
            continue
        apart = _product_norm(np.hstack([up_b, -up_a]), np.vstack([down_b, down_a]))
        found[name.removesuffix(".lora_A.weight")] = {
            "a": _product_norm(up_a, down_a),
            "b": _product_norm(up_b, down_b),
            "difference": apart,
        }
    return found


def _product_norm(up: NDArray[np.float64], down: NDArray[np.float64]) -> float:
    """Frobenius norm of up @ down through the small r x r Gram matrices: tr(down downᵀ · upᵀ up), never the full
    product.
    """
    return math.sqrt(max(0.0, float(np.sum((up.T @ up) * (down @ down.T)))))
