"""The frozen trunk: with adapters on the top layers only, the states that enter the lowest of them don't depend on what is
trained. They are computed once for each group, kept on disk, and every further epoch, member and training reads them.

A group is computed alone in its row, so that its states are the same whatever it is trained beside, and a resumed run reads or
recomputes the very bits that an uninterrupted one had. Nothing of the model is cut away or renamed: the layers' `forward` is
wrapped, and passes through or over itself when the packed row says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from rlhf.engine.bases import Base
from rlhf.engine.packing import NAME, Group, PackedBatch, pack
from rlhf.engine.scoring import attention_of, scores_of
from rlhf.engine.states import decoder_layers
from rlhf.errors import BadInput
from rlhf.ids import digest_of
from rlhf.store.cache import STATES, Cache

FORMAT = 1
FOLDER = STATES
_TOLERANCE = 0.05  # as in `classifiers.packs_rightly`: rounding is far below, a wrong state far above


class Row(Protocol):
    """What states are kept for: a group and the pair that owns them."""

    @property
    def pair_id(self) -> str: ...
    @property
    def group(self) -> Group: ...


@dataclass(frozen=True)
class _Sample:
    pair_id: str
    group: Group


class Trunk:
    """The layers of a packed model below `layer`. Make one with `trunk_below`.

    error: largest relative difference between a state and what is kept of it, over all that this process computed.
    n_computed, n_read: groups.
    """

    def __init__(self, model: Any, layer: int, base: Base, cache: Cache) -> None:
        self.model, self.layer, self.cache = model, layer, cache
        self.body_type = next(layers_of(model)[0].parameters()).dtype
        self.stored = torch.bfloat16 if self.body_type == torch.bfloat16 else torch.float16
        self.space = [FORMAT, base.digest, base.tokenizer_digest, base.template_digest, layer, str(self.body_type)]
        self.error, self.n_computed, self.n_read = 0.0, 0, 0
        pass_over(layers_of(model), layer)

    def states(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Of each row's group the states (T, hidden) that enter the layer, in the stored type, on the model's device."""
        return [self._states(row) for row in rows]

    def fill(self, rows: Sequence[Row], on_progress: Callable[[int, int], None] | None = None) -> None:
        """Compute what is not kept yet, so that training only reads. on_progress(done, all)."""
        for done, row in enumerate(rows, 1):
            self._states(row)
            if on_progress:
                on_progress(done, len(rows))

    def bytes_for(self, rows: Sequence[Row]) -> int:
        """What the rows' states take on disk, in bytes."""
        hidden = self.model.config.hidden_size
        return sum(row.group.n_tokens for row in rows) * hidden * self.stored.itemsize

    def _states(self, row: Row) -> torch.Tensor:
        """Kept under the replies in the order of their ids, so that a label that turns changes no entry."""
        group, ordered = row.group, canonical(row.group)
        order = _order(group)
        kept = self._kept(row.pair_id, ordered)
        if order == sorted(order):
            return kept
        prefix, *replies = kept.split([len(group.prefix), *(len(reply) for reply in ordered.replies)])
        placed = dict(zip(order, replies, strict=True))
        return torch.cat([prefix, *(placed[i] for i in range(len(order)))])

    def _kept(self, owner: str, group: Group) -> torch.Tensor:
        key = digest_of([*self.space, list(group.prefix), [list(reply) for reply in group.replies]])
        device = next(self.model.parameters()).device
        found = self.cache.get(owner, key)
        if found is not None:
            states = from_bytes(found)["states"]
            if states.shape == (group.n_tokens, self.model.config.hidden_size):
                self.n_read += 1
                return states.to(device)
        states = self._computed(group)
        self.cache.put(owner, key, to_bytes({"states": states.cpu()}))
        self.n_computed += 1
        return states

    def _computed(self, group: Group) -> torch.Tensor:
        assert attention_of(self.model) == NAME, "padded, the replies of a row would see each other"
        caught: list[torch.Tensor] = []
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                batch = pack([group], next(self.model.parameters()).device)
                self.model(**_with(batch, caught=caught))
        finally:
            self.model.train(was_training)
        states = caught[0][0]
        kept = states.to(self.stored)
        if not torch.isfinite(kept).all():  # float16 ends at 65,504, and some models' states don't
            kept = states.to(torch.bfloat16)
        if kept.dtype != states.dtype:
            off = (kept.float() - states).norm(dim=-1) / states.norm(dim=-1).clamp_min(1e-30)
            self.error = max(self.error, float(off.max()))
        return kept


def canonical(group: Group) -> Group:
    """The group with its replies in the order of their ids: how its states are computed and kept, whichever was chosen."""
    return Group(group.prefix, tuple(group.replies[i] for i in _order(group)))


def _order(group: Group) -> list[int]:
    return sorted(range(len(group.replies)), key=lambda i: tuple(group.replies[i]))


def trunk_below(
    model: Any, top_layers: int, base: Base, cache: Cache, samples: Sequence[Row]
) -> tuple[Trunk | None, str]:
    """The trunk under a model's `top_layers`, and in words why there is none, or how exact it is.

    samples: some rows to try it on: scores through kept states are held against scores at full depth, so an architecture
    that passes its layers more than the states that they give each other is found out here.
    """
    n_layers = model.config.num_hidden_layers
    if not 0 < top_layers < n_layers:
        return None, "every layer is trained"
    if attention_of(model) != NAME or layers_of(model) is None:
        return None, "the base can't pack rows"
    # Each as its states are kept, alone in its row and in the same order: otherwise bfloat16 rounds otherwise.
    tried = [_Sample(row.pair_id, canonical(row.group)) for row in samples]
    with torch.no_grad():
        model.eval()
        whole = torch.cat([scores_of(model, [row.group]) for row in tried])
        trunk = Trunk(model, n_layers - top_layers, base, cache)
        through = torch.cat([scores_of(model, [row.group], below=trunk.states([row])) for row in tried])
        model.train()
    difference = float((whole - through).abs().max())
    if not difference <= _TOLERANCE * float(whole.abs().max()) + 1e-3:
        return None, f"scores through kept states are off by {difference:.2g}"
    kept = f"states below layer {trunk.layer} are kept as {str(trunk.stored).removeprefix('torch.')}"
    return trunk, f"{kept}; scores through them differ by at most {difference:.1e} from full depth"


def layers_of(model: Any) -> Any:
    """The decoder's layers, lowest first; None where they aren't found."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        return decoder_layers(getattr(inner, inner.base_model_prefix))
    except BadInput:
        return None


def _with(batch: PackedBatch, caught: list[torch.Tensor]) -> dict[str, Any]:
    batch.packing.caught = caught
    return batch.arguments()


def pass_over(layers: Any, at: int) -> None:
    """Let the layers below `at` be passed over when the row brings the states, and those from it on when they are caught."""
    for i, layer in enumerate(layers):
        if hasattr(layer.forward, "inner"):  # another trunk of this model, cut elsewhere
            layer.forward = layer.forward.inner
        layer.forward = _passing(layer.forward, i, at)


def _passing(inner: Any, i: int, at: int) -> Any:
    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        packing = kwargs.get("packing")
        below = getattr(packing, "below", None)
        caught = getattr(packing, "caught", None)
        if below is not None and i < at:
            return below.to(hidden_states.dtype) if i == at - 1 else hidden_states
        if caught is not None and i >= at:
            if i == at:
                caught.append(hidden_states)
            return hidden_states
        return inner(hidden_states, *args, **kwargs)

    forward.inner = inner  # type: ignore[attr-defined]
    return forward
