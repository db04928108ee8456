"""A live reward: an instant head that takes in one vote after another and says which pair would tell it most.

Opened from a head version, it stays in memory beside whoever labels. A pair's states are computed once, when it is first looked
at, and kept; a vote then changes the posterior in milliseconds, without a fit. What it has learnt since it was opened is in no
version: the votes are in the store, and the next training takes them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf import registry
from rlhf.engine import bases
from rlhf.engine.heads import Head
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement, choose
from rlhf.engine.pooled import PooledStates
from rlhf.engine.rendering import RenderedPair, Renderer
from rlhf.errors import BadInput
from rlhf.measures import bayes_logistic
from rlhf.records import Choice, Pair, VersionRef
from rlhf.reward.head import pooled
from rlhf.store import Workspace

_TARGETS = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a live reward thinks of a pair. None where it can't be rendered (too long, refused, both alike).

    p_a: chance that reply a is better, its doubt averaged in. margin: score a - score b; doubt: its standard deviation.
    information: nats that one vote on this pair is expected to tell about the head, in [0, log 2].
    """

    pair_id: str
    p_a: float | None
    margin: float | None = None
    doubt: float | None = None
    information: float | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    pair_id: str
    group: Group


class LiveReward:
    """`open_live` makes one. n_votes: taken in since then. Not safe between threads: one labeling process owns it."""

    def __init__(self, ref: VersionRef, head: Head, states: PooledStates, renderer: Renderer) -> None:
        self.ref, self.states, self.renderer = ref, states, renderer
        self.posterior = head.posterior
        self.n_votes = 0
        self._differences: dict[str, NDArray[np.float32] | None] = {}

    def look(self, pairs: Sequence[Pair]) -> list[Outlook]:
        """An outlook for each pair, in the order given. A pair seen for the first time costs a forward to the head's layer."""
        found = [self._difference(pair) for pair in pairs]
        known = [difference for difference in found if difference is not None]
        if not known:
            return [Outlook(pair.id, None) for pair in pairs]
        differences = np.stack(known)
        margins, variances = self.posterior.logits(differences), self.posterior.variances(differences)
        columns = (
            bayes_logistic.chances(margins, variances),
            margins,
            np.sqrt(variances),
            bayes_logistic.information(margins, variances),
        )
        rows = iter(zip(*(column.tolist() for column in columns), strict=True))
        return [
            Outlook(pair.id, None) if difference is None else Outlook(pair.id, *next(rows))
            for pair, difference in zip(pairs, found, strict=True)
        ]

    def most_telling(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs by what a vote on them is expected to tell, most first; those that can't be rendered last."""
        outlooks = self.look(pairs)
        order = sorted(range(len(pairs)), key=lambda i: -(outlooks[i].information or -1.0))
        return [pairs[i] for i in order]

    def vote(self, pair: Pair, choice: Choice, *, weight: float = 1.0) -> bool:
        """Take in one vote. False where it says nothing: a skip, or a pair that can't be rendered. Raises BadInput for a weight
        that isn't above 0."""
        if not weight > 0:
            raise BadInput(f"a vote's weight is {weight}", fix="give a weight above 0")
        target, difference = _TARGETS.get(choice), self._difference(pair)
        if target is None or difference is None:
            return False
        self.posterior = bayes_logistic.updated(self.posterior, difference, target, weight)
        self.n_votes += 1
        return True

    def _difference(self, pair: Pair) -> NDArray[np.float32] | None:
        if pair.id not in self._differences:
            rendered = self.renderer.pair(pair)
            difference = None
            if isinstance(rendered, RenderedPair):
                row = _Row(pair.id, Group(rendered.prefix, (rendered.a, rendered.b)))
                a, b = self.states.of([row])[0]
                difference = a - b
            self._differences[pair.id] = difference
        return self._differences[pair.id]


def open_live(workspace: Workspace, version: VersionRef | str, place: Placement | None = None) -> LiveReward:
    """A live reward that begins as this head version. Raises NotFound, Damaged, or BadInput where it is of another kind."""
    ref = registry.resolve(workspace, version, role="reward") if isinstance(version, str) else version
    opened = registry.open_version(workspace, ref)
    if opened.kind != "head":
        raise BadInput(
            f"{ref} is a reward of kind {opened.kind}; only an instant head takes in single votes",
            fix="train one: rlhf reward train NAME kind=head",
        )
    base = bases.by_digest(workspace, opened.manifest["base"]["digest"])
    bases.check(workspace, base)
    head = Head.read(opened.folder)
    states = pooled(workspace, base, place or choose("auto", "float32"), head.reading)
    max_length = int(opened.manifest["settings"].get("max_length", 1024))
    return LiveReward(ref, head, states, Renderer(base.tokenizer(), max_length))
