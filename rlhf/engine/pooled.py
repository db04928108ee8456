"""Pooled states of pairs, computed once and kept on disk: what an instant reward is fitted on, and asked with.

A pair is computed alone in its row, so that its states are the same bits whatever it is computed beside, and a resumed run reads
what an uninterrupted one had. The cache is the trunk's (`store.cache`): an entry belongs to its pair, so erasing the pair
reaches it; a damaged one is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.states import Reading, states
from rlhf.engine.trunk import Row
from rlhf.ids import digest_of
from rlhf.store.cache import Cache

FORMAT = 1


class PooledStates:
    """States of pairs on one base. open_model: gives the base's model in eval mode; called when the first pair isn't kept.

    n_computed, n_read: pairs.
    """

    def __init__(
        self, open_model: Callable[[], Any], reading: Reading, base: Base, place: Placement, cache: Cache
    ) -> None:
        self._open, self._model, self.reading, self.cache = open_model, None, reading, cache
        self.n_features = reading.n_features(int(base.details["hidden_size"]))
        own = (reading.layers, reading.pooling, reading.opening)
        self.space = ["pooled", FORMAT, base.digest, base.tokenizer_digest, base.template_digest, place.dtype, *own]
        self.n_computed = self.n_read = 0

    @property
    def model(self) -> Any:
        if self._model is None:
            self._model = self._open()
        return self._model

    def of(
        self,
        rows: Sequence[Row],
        on_progress: Callable[[int, int], None] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> NDArray[np.float32]:
        """(N, 2, D) float32: of each row's group the states of its two replies, in its order. Fewer rows where it was stopped."""
        found = np.empty((len(rows), 2, self.n_features), dtype=np.float32)
        for i, row in enumerate(rows):
            if is_stopped():
                return found[:i]
            found[i] = self._of(row.pair_id, row.group)
            if on_progress:
                on_progress(i + 1, len(rows))
        return found

    def _of(self, owner: str, group: Group) -> NDArray[np.float32]:
        """Kept under the replies in the order of their ids, so that a label that turns changes no entry."""
        order = sorted(range(2), key=lambda i: tuple(group.replies[i]))
        canonical = Group(group.prefix, tuple(group.replies[i] for i in order))
        key = digest_of([*self.space, list(group.prefix), [list(reply) for reply in canonical.replies]])
        kept = self.cache.get(owner, key)
        both = from_bytes(kept)["states"] if kept is not None else None
        if both is not None and both.shape == (2, self.n_features):
            self.n_read += 1
        else:
            both = states(self.model, self.reading, [canonical]).numpy()
            self.cache.put(owner, key, to_bytes({"states": np.ascontiguousarray(both)}))
            self.n_computed += 1
        return both if order == [0, 1] else both[::-1]
