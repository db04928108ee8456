"""Versions in memory, by digest: who has which slot, who holds what, and who goes when room is needed.

A version in use is never written over. Its folder is read and copied outside the lock, into rows that nobody uses, and it is
published when it is whole; among those that nobody holds, the one that was used longest ago goes.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from rlhf.engine import lora_files
from rlhf.engine.leases import Leases
from rlhf.engine.live_scorers import LiveHead, LiveReward, LiveScorer
from rlhf.engine.slots import BASE, Slot, SlotBank
from rlhf.engine.wanted import Resident
from rlhf.errors import BadInput, Conflict
from rlhf.registry.folder import kind_of


@dataclass(eq=False)
class _Version:
    digest: str
    kind: Literal["policy", "reward", "head"]
    slot: Slot
    scorer: LiveScorer | None
    held: int = 0

    def as_record(self) -> Resident:
        return Resident(self.digest, self.kind, self.slot.number, self.slot.rank, self.held)


class Residents(Leases[_Version]):
    """The versions of one bank and its model."""

    def __init__(self, model: Any, bank: SlotBank) -> None:
        super().__init__()
        self.model, self.bank = model, bank
        self._loading = Lock()

    def load(self, digest: str, folder: Path) -> float:
        """See `live.LiveEngine.load`."""
        start = time.perf_counter()
        with self._loading:
            if not self.touch(digest):
                self.add(self._read(digest, folder))
        return time.perf_counter() - start

    def release_of(self, digest: str) -> None:
        """End a lease: what is held stays, so its digest tells it."""
        self.release(self.there[digest])

    def _read(self, digest: str, folder: Path) -> _Version:
        kind = kind_of(folder)
        if kind == "ensemble":
            raise BadInput(f"{folder.name} is an ensemble, which has no weights", fix="load its members")
        if kind == "head":
            return _Version(digest, "head", BASE, LiveHead(self.model, self.bank, folder))
        weights = lora_files.read(folder)
        with self.lock:
            slot = self._reserve(weights)
        try:
            self.bank.write(slot, weights)
            if weights.head is None:
                return _Version(digest, "policy", slot, None)
            return _Version(digest, "reward", slot, LiveReward(self.model, self.bank, slot, weights.head))
        except BaseException:
            with self.lock:
                self.bank.free(slot)
            raise

    def _reserve(self, weights: lora_files.LoraWeights) -> Slot:
        while True:
            with suppress(Conflict):
                return self.bank.reserve(weights)
            free = next((v for v in self.there.values() if not v.held and v.slot.rank), None)
            if free is None:
                return self.bank.reserve(weights)  # says what is in use
            self._drop(free)

    def _drop(self, version: _Version) -> None:
        super()._drop(version)
        if version.slot.rank:
            self.bank.free(version.slot)
