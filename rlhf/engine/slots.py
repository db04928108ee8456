"""LoRA weights of many versions beside one base's linear layers, and which row of a batch takes which.

Every linear layer of the decoder has a pool A (P, in) and a pool B (P, out), B with its scaling; a version takes the same r rows of
all pools, its slot. Slot 0 is the base and takes none. No weights are gathered for a batch. Where it is of one version, or of
stretches of one each (packed prompts), each has its small multiplication. Where rows differ, all slots in use are one: x A^T over
the pool's rows from the first to the last, times a mask that leaves each row its own slot, times B. That costs products with zeros
and spares a call for each slot and layer, which at a token a row is what costs. Where the same slots stay in use (`Orders`), these
rows are also kept in the order that a CPU reads fastest.

A row's own slot alone decides its result: other slots' weights are multiplied by zero, and non-finite ones are refused at loading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from rlhf.engine import reordered
from rlhf.engine.lora_files import LoraWeights
from rlhf.engine.states import decoder_layers
from rlhf.errors import BadInput, Conflict


@dataclass(frozen=True, slots=True)
class Slot:
    """Rows [start, stop) of every pool. number 0: the base, no rows. layers: which linear layers it changes, by their number."""

    number: int
    start: int
    stop: int
    layers: frozenset[int] = frozenset()

    @property
    def rank(self) -> int:
        return self.stop - self.start


BASE = Slot(0, 0, 0)
_SPARE = 2  # times the rows in use that a multiplication in order may read


class Nothing:
    """The base's rows alone."""

    def onto(self, pools: Sequence[Pool], x: Tensor, ys: Sequence[Tensor]) -> None:
        """Add the LoRA's part to the ys (T, out) of layers that read one x (T, in), in place."""


class Stretches(Nothing):
    """Rows [start, stop) of x with the slot that they take, in order, up to the last row."""

    def __init__(self, parts: Sequence[tuple[int, int, Slot]]) -> None:
        self.n_rows = parts[-1][1]
        self.parts = [part for part in parts if part[2].rank]

    def onto(self, pools: Sequence[Pool], x: Tensor, ys: Sequence[Tensor]) -> None:
        _require_rows(len(x), self.n_rows)
        x = x.to(pools[0].a.dtype)
        for pool, y in zip(pools, ys, strict=True):
            for start, stop, slot in self.parts:
                if pool.number in slot.layers:
                    rows = slice(slot.start, slot.stop)
                    _add(y[start:stop], torch.mm(x[start:stop], pool.a[rows].t()), pool.b[rows])


class Masked(Nothing):
    """Row i of x takes slots[i]."""

    def __init__(self, slots: Sequence[Slot], like: Tensor) -> None:
        self.rows = _span(slots)
        self.layers: frozenset[int] = frozenset().union(*(slot.layers for slot in slots))
        self.mask = _mask(slots, self.rows).to(like)

    def onto(self, pools: Sequence[Pool], x: Tensor, ys: Sequence[Tensor]) -> None:
        _require_rows(len(x), len(self.mask))
        x = x.to(self.mask.dtype)
        for pool, y in zip(pools, ys, strict=True):
            if pool.number in self.layers:
                _add(y, torch.mm(x, pool.a[self.rows].t()).mul_(self.mask), pool.b[self.rows])


class Ordered(Nothing):
    """`Masked`, with the pools' rows in the base's type and in the order that oneDNN reads them."""

    def __init__(self, orders: Orders, slots: Sequence[Slot]) -> None:
        self.orders = orders
        self.layers: frozenset[int] = frozenset().union(*(slot.layers for slot in slots))
        self.mask = _mask(slots, orders.rows).to(orders.kind)

    def onto(self, pools: Sequence[Pool], x: Tensor, ys: Sequence[Tensor]) -> None:
        """See `Nothing.onto`. The layers' A's are one multiplication."""
        _require_rows(len(x), len(self.mask))
        numbers = tuple(pool.number for pool in pools)
        if self.layers.isdisjoint(numbers):
            return
        a, bs = self.orders.of(numbers)
        inner = reordered.linear(x, a).view(len(x), len(pools), -1)
        for i, (y, b) in enumerate(zip(ys, bs, strict=True)):
            y.add_(reordered.linear(inner[:, i] * self.mask, b))


class Everywhere(Nothing):
    """`Masked` over every row of the bank, for so many rows at most: of one shape whoever is there. `take` says who has which."""

    def __init__(self, bank: SlotBank, n_rows: int) -> None:
        self.whole = slice(0, bank.max_slots * bank.max_rank)
        self.mask = bank.like.new_zeros(n_rows, self.whole.stop)
        self._slots: tuple[Slot, ...] = ()

    def take(self, slots: Sequence[Slot]) -> None:
        """The first rows take these; the others are the base's."""
        if self._slots != tuple(slots):
            self.mask.zero_()
            self.mask[: len(slots)] = _mask(slots, self.whole).to(self.mask)
            self._slots = tuple(slots)

    def onto(self, pools: Sequence[Pool], x: Tensor, ys: Sequence[Tensor]) -> None:
        """See `Nothing.onto`."""
        _require_rows(len(x), len(self.mask))
        x = x.to(self.mask.dtype)
        for pool, y in zip(pools, ys, strict=True):
            _add(y, torch.mm(x, pool.a.t()).mul_(self.mask), pool.b)


class Orders:
    """Rows of all pools, put in order as they are asked for; good until a version is written."""

    def __init__(self, bank: SlotBank, rows: slice) -> None:
        self.bank, self.rows, self.kind = bank, rows, bank.kind
        self._made: dict[tuple[int, ...], tuple[Tensor, list[Tensor]]] = {}

    def of(self, numbers: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Of linear layers that read one input: all A's below each other, and each B."""
        found = self._made.get(numbers)
        if found is None:
            pools = [self.bank.pools[number] for number in numbers]
            a = reordered.reorder(torch.cat([pool.a[self.rows] for pool in pools]).to(self.kind))
            bs = [reordered.reorder(pool.b[self.rows].t().to(self.kind)) for pool in pools]
            found = self._made[numbers] = a, bs
        return found

    def suits(self, slots: Sequence[Slot]) -> bool:
        """Whether they are all in there, and not few of many."""
        used = {slot for slot in slots if slot.rank}
        inside = all(self.rows.start <= slot.start and slot.stop <= self.rows.stop for slot in used)
        return inside and self.rows.stop - self.rows.start <= _SPARE * sum(slot.rank for slot in used)


def _mask(slots: Sequence[Slot], rows: slice) -> Tensor:
    """(R, rows): 1 where a pool's row is of the slot that the batch's row takes."""
    mask = torch.zeros(len(slots), rows.stop - rows.start)
    for i, slot in enumerate(slots):
        mask[i, slot.start - rows.start : slot.stop - rows.start] = 1.0
    return mask


def _span(slots: Sequence[Slot]) -> slice:
    used = [slot for slot in slots if slot.rank]
    return slice(min(slot.start for slot in used), max(slot.stop for slot in used))


def _add(y: Tensor, inner: Tensor, b: Tensor) -> None:
    """y (T, out) += inner (T, r) b (r, out), whatever type y is of."""
    if y.dtype == b.dtype:
        y.addmm_(inner, b)
    else:
        y.add_(torch.mm(inner, b))


def _require_rows(seen: int, wanted: int) -> None:
    assert seen == wanted, (
        f"a layer reads {seen} rows of {wanted}: this base routes tokens, and its rows lose their slots"
    )


class Slotted:
    """Mixed into a linear layer's class: adds what the bank's choice says."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[misc]
        pool: Pool = self.pool  # type: ignore[attr-defined]
        choice = pool.bank.choice
        if type(choice) is not Nothing:
            choice.onto([pool], x.reshape(-1, x.shape[-1]), [y.view(-1, y.shape[-1])])
        return y


@dataclass(slots=True)
class Pool:
    """The pools of one linear layer. key: how PEFT's files name it."""

    bank: SlotBank
    number: int
    key: str
    a: Tensor
    b: Tensor


class SlotBank:
    """The pools of a causal model. `choice` is what the next forward's rows take; whoever runs it sets it.

    `reserve` and `free` change who has which rows: one thread at a time. `write` may run beside a forward, which multiplies what
    it finds in rows that nobody uses by zero.
    """

    def __init__(self, model: Any, *, slots: int, max_rank: int) -> None:
        self.max_slots, self.max_rank = slots, max_rank
        self.choice: Nothing = Nothing()
        self.taken: dict[int, Slot] = {}
        found = list(_linears(model))
        weight = found[0][1].weight
        self.kind, self.can_order = weight.dtype, reordered.is_there(weight)
        self.orders: Orders | None = None
        self._span = slice(0, 0)  # of the last order: versions that come and go in turn needn't be ordered anew
        # A CPU multiplies eight rows by a narrow float32 matrix faster than by a bfloat16 one, which is half as large.
        self.like = torch.empty(0, dtype=torch.float32 if weight.is_cpu else weight.dtype, device=weight.device)
        size = slots * max_rank
        widths = [_in_and_out(module) for _, module in found]
        n_in, n_out = [width[0] for width in widths], [width[1] for width in widths]
        flat = _unwritten_zeros(size * sum(n_in + n_out), self.like)
        parts = [part.view(size, -1) for part in flat.split([size * n for n in n_in + n_out])]
        self.pools: list[Pool] = []
        for number, (name, module) in enumerate(found):
            a, b = parts[number], parts[len(found) + number]
            if reordered.is_there(module.weight) and type(module) is torch.nn.Linear:
                reordered.take_over(module, keep_weight=False)
            module.pool = Pool(self, number, _key(name), a, b)
            module.__class__ = type(f"Slotted{type(module).__name__}", (Slotted, type(module)), {})
            self.pools.append(module.pool)
        self.by_key = {pool.key: pool for pool in self.pools}
        self.widths = {pool.key: width for pool, width in zip(self.pools, widths, strict=True)}

    def reserve(self, weights: LoraWeights) -> Slot:
        """Free rows for a version. Raises BadInput where it doesn't fit the base, Conflict where no rows are free."""
        require_fit(weights, self.widths, self.max_rank)
        layers = frozenset(self.by_key[key].number for key in weights.pairs)
        slot = self._free(weights.rank, layers)
        self.taken[slot.number] = slot
        return slot

    def write(self, slot: Slot, weights: LoraWeights) -> None:
        """Copy a version's LoRA into its reserved rows. Layers that it leaves alone are written too: what another one left there
        would be multiplied with this one's rows. Raises BadInput where a number is not finite."""
        for pool in self.pools:
            a, b = pool.a[slot.start : slot.stop], pool.b[slot.start : slot.stop]
            r = 0
            if lora := weights.pairs.get(pool.key):
                r = len(lora.a)
                new = lora.a.to(a.dtype), (lora.b.t().float() * lora.scaling).to(b.dtype)
                if not all(torch.isfinite(tensor).all() for tensor in new):  # times zero it would still not be zero
                    raise BadInput(f"{pool.key} holds numbers that are not finite", fix="train the version anew")
                a[:r], b[:r] = new
            if r < slot.rank:
                a[r:], b[r:] = 0.0, 0.0
        self.orders = None  # whoever made an order until now may have read half of it

    def free(self, slot: Slot) -> None:
        """Give a slot's rows back."""
        del self.taken[slot.number]

    def chosen(self, slots: Sequence[Slot], *, settled: bool = False) -> Nothing:
        """What rows with these slots add, one row a slot. settled: such rows are asked for again and again, so that putting their
        weights in order pays."""
        if not any(slot.rank for slot in slots):
            return Nothing()
        if len(set(slots)) == 1:
            return Stretches([(0, len(slots), slots[0])])
        orders = self.orders
        if orders is not None and orders.suits(slots):
            return Ordered(orders, slots)
        if not (settled and self.can_order):
            return Masked(slots, self.like)
        both = Orders(self, _span([*slots, Slot(-1, self._span.start, self._span.stop)]))
        self.orders = orders = both if both.suits(slots) else Orders(self, _span(slots))
        self._span = orders.rows
        return Ordered(orders, slots)

    def _free(self, rank: int, layers: frozenset[int]) -> Slot:
        """A free number and the first gap of so many rows."""
        start, gaps = 0, []
        for slot in sorted(self.taken.values(), key=lambda slot: slot.start):
            gaps.append((start, slot.start))
            start = slot.stop
        gaps.append((start, self.max_slots * self.max_rank))
        place = next((a for a, b in gaps if b - a >= rank), None)
        number = next((n for n in range(1, self.max_slots + 1) if n not in self.taken), None)
        if place is None or number is None:
            raise Conflict(
                f"no slot of rank {rank} is free: {len(self.taken)} of {self.max_slots} are in use",
                fix="wait, unload a version, or start with more slots",
            )
        return Slot(number, place, place + rank, layers)


def require_fit(weights: LoraWeights, widths: Mapping[str, tuple[int, int]], max_rank: int) -> None:
    """Raise BadInput where a LoRA doesn't fit a base. widths: numbers in and out of each linear layer, as PEFT's files name it."""
    if not 0 < weights.rank <= max_rank:
        raise BadInput(
            f"the LoRA has rank {weights.rank}, this engine takes 1 to {max_rank}",
            fix="start it with a larger max_rank",
        )
    for key, lora in weights.pairs.items():
        wanted = widths.get(key)
        if wanted != (lora.a.shape[1], lora.b.shape[0]) or len(lora.a) != lora.b.shape[1]:
            there = f"takes {wanted[0]} numbers and gives {wanted[1]}" if wanted else "isn't among its linear layers"
            raise BadInput(
                f"{key} is {tuple(lora.a.shape)} and {tuple(lora.b.shape)}; in the base it {there}",
                fix="use the base that it was trained on",
            )


def widths_of(model: Any) -> dict[str, tuple[int, int]]:
    """Numbers in and out of the linear layers of a causal model's decoder, by the names that PEFT's files give them."""
    return {_key(name): _in_and_out(module) for name, module in _linears(model)}


def _linears(model: Any) -> Iterable[tuple[str, Any]]:
    """(name, module) of the linear layers in the decoder's layers, in the model's order."""
    inside = {id(module) for module in decoder_layers(getattr(model, model.base_model_prefix)).modules()}
    for name, module in model.named_modules():
        if id(module) in inside and type(module) in (torch.nn.Linear, Conv1D):
            yield name, module


def _key(name: str) -> str:
    return f"base_model.model.{name}"


def _unwritten_zeros(n: int, like: Tensor) -> Tensor:
    """n zeros; on a CPU they take memory as they are written, where torch's own would write them at once."""
    if like.is_cpu and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(n, dtype=np.float32))
    return torch.zeros(n, dtype=like.dtype, device=like.device)


def _in_and_out(module: Any) -> tuple[int, int]:
    n_out, n_in = module.weight.shape[:: -1 if isinstance(module, Conv1D) else 1]
    return n_in, n_out
