"""The folder of a head version: `head.json` says what the head reads, `head.safetensors` holds the head and its posterior.

The score of a reply with features x (the pooled states of the layers, side by side) and z = (x - mean) / scale is weight . z; its
doubt is the standard deviation sqrt(prior_variance |z|^2 - |z shrink|^2), what the data took off the prior's variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.errors import BadInput
from rlhf.registry.folder import FILES, AdapterFolder
from rlhf.store.tensors import values_of

FORMAT = 1
POOLINGS = ("last", "mean")  # of a reply's states: the last token's, the mean over its own tokens; in this order
CONFIG_NAME, WEIGHTS_NAME = FILES["head"]
TENSORS = ("mean", "prior_variance", "scale", "shrink", "weight")
_AGAIN = "train the head again: rlhf reward train NAME kind=head"


def check(adapter: AdapterFolder) -> None:
    """Refuse a head whose configuration or tensors are not exactly what this format holds. Finiteness is checked before."""
    n_features = check_config(adapter.config)
    names = set(adapter.tensors)
    if names != set(TENSORS):
        wrong = sorted(names ^ set(TENSORS))[0]
        raise BadInput(
            f"{WEIGHTS_NAME} {'lacks' if wrong in TENSORS else 'holds an unknown'} tensor {wrong}; a head has "
            f"{', '.join(TENSORS)}",
            fix=_AGAIN,
        )
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(("mean", "scale", "weight"), (n_features,))
    wanted["prior_variance"] = (1,)
    for name, tensor in adapter.tensors.items():
        fits = tensor.shape == wanted[name] if name in wanted else len(tensor.shape) == 2
        if not fits or (name == "shrink" and tensor.shape[0] != n_features):
            shown = list(wanted.get(name, (n_features, "any")))
            raise BadInput(f"tensor {name} has shape {list(tensor.shape)}, wanted {shown}", fix=_AGAIN)
    for name in ("scale", "prior_variance"):
        if not (_values(adapter, name) > 0).all():
            raise BadInput(f"tensor {name} is not above 0 everywhere", fix=_AGAIN)
    if not _values(adapter, "weight").any():
        raise BadInput("the head's weights are all 0: it was never fitted", fix=_AGAIN)


def check_config(config: Mapping[str, Any]) -> int:
    """The number of features that the head reads. Raises BadInput naming the key that is wrong."""
    known = {"format", "layers", "pooling", "hidden", "opening"}
    if config.keys() != known:
        wrong = sorted(config.keys() ^ known)[0]
        said = "lacks" if wrong in known else "has the unknown key"
        raise BadInput(f"{CONFIG_NAME} {said} {wrong}; it has {', '.join(sorted(known))}", fix=_AGAIN)
    if config["format"] != FORMAT:
        raise BadInput(
            f"{CONFIG_NAME} is of format {config['format']!r}, this release reads {FORMAT}", fix="use the release of it"
        )
    layers, pooling, hidden = config["layers"], config["pooling"], config["hidden"]
    if not _numbers(layers) or sorted(set(layers)) != layers or layers[0] < 1:
        raise BadInput(f"{CONFIG_NAME} has layers {layers!r}, wanted rising numbers from 1", fix=_AGAIN)
    if not isinstance(pooling, list) or pooling not in (["last"], ["mean"], ["last", "mean"]):
        raise BadInput(f"{CONFIG_NAME} has pooling {pooling!r}, wanted some of {', '.join(POOLINGS)}", fix=_AGAIN)
    opening = config["opening"]
    if opening != [] and (not _numbers(opening) or min(opening) < 0):
        raise BadInput(f"{CONFIG_NAME} has opening {opening!r}, wanted the token ids before a reply", fix=_AGAIN)
    if not _numbers([hidden]) or hidden < 1:
        raise BadInput(f"{CONFIG_NAME} has hidden {hidden!r}, wanted the width of the base's states", fix=_AGAIN)
    return len(layers) * len(pooling) * int(hidden)


def not_in_peft(config: Mapping[str, Any], n_layers: int | None) -> list[str]:
    """What of a head stock PEFT can't express, in words: it has one linear map on the last layer's state at the last token."""
    said = []
    if n_layers is None or config["layers"] != [n_layers]:
        shown = ", ".join(map(str, config["layers"]))
        said.append(f"it reads the states after layer {shown}, stock code those after the last, {n_layers or '?'}")
    if "mean" in config["pooling"]:
        said.append("it reads the mean over the reply, stock code the last token")
    return [*said, "its zero point (stock heads have no offset)", "its doubt"]


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _values(adapter: AdapterFolder, name: str) -> Any:
    assert adapter.weights_file is not None
    return values_of(adapter.weights_file, adapter.tensors[name])
