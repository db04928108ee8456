"""Versions in memory, by digest: who has which slot, who holds what, and who goes when room is needed.

A version in use is never written over. Its folder is read and copied outside the lock, into rows that nobody uses, and it is
published when it is whole; among those that nobody holds, the one that was used longest ago goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from rlhf.engine import lora_files
from rlhf.engine.live_scorers import LiveHead, LiveReward, LiveScorer
from rlhf.engine.slots import BASE, Slot, SlotBank
from rlhf.engine.wanted import Resident
from rlhf.errors import BadInput, Conflict, NotFound
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


class Residents:
    """The versions of one bank and its model."""

    def __init__(self, model: Any, bank: SlotBank) -> None:
        self.model, self.bank = model, bank
        self._there: dict[str, _Version] = {}  # in order of use, oldest first
        self._lock, self._loading = Lock(), Lock()

    def load(self, digest: str, folder: Path) -> float:
        """See `live.LiveEngine.load`."""
        start = time.perf_counter()
        with self._loading:
            with self._lock:
                if digest in self._there:
                    self._touch(digest)
                    return time.perf_counter() - start
            version = self._read(digest, folder)
            with self._lock:
                self._there[digest] = version
        return time.perf_counter() - start

    def _read(self, digest: str, folder: Path) -> _Version:
        kind = kind_of(folder)
        if kind == "ensemble":
            raise BadInput(f"{folder.name} is an ensemble, which has no weights", fix="load its members")
        if kind == "head":
            return _Version(digest, "head", BASE, LiveHead(self.model, self.bank, folder))
        weights = lora_files.read(folder)
        with self._lock:
            slot = self._reserve(weights)
        try:
            self.bank.write(slot, weights)
            if weights.head is None:
                return _Version(digest, "policy", slot, None)
            return _Version(digest, "reward", slot, LiveReward(self.model, self.bank, slot, weights.head))
        except BaseException:
            with self._lock:
                self.bank.free(slot)
            raise

    def _reserve(self, weights: lora_files.LoraWeights) -> Slot:
        while True:
            with suppress(Conflict):
                return self.bank.reserve(weights)
            free = next((v for v in self._there.values() if not v.held and v.slot.rank), None)
            if free is None:
                return self.bank.reserve(weights)  # says what is in use
            self._drop(free)

    def unload(self, digest: str) -> None:
        """See `live.LiveEngine.unload`."""
        with self._lock:
            version = self._of(digest)
            if version.held:
                raise Conflict(f"version {digest[:12]} is in use by {version.held}", fix="wait until they are done")
            self._drop(version)

    def _drop(self, version: _Version) -> None:
        del self._there[version.digest]
        if version.slot.rank:
            self.bank.free(version.slot)

    @contextmanager
    def hold(self, digest: str) -> Iterator[Resident]:
        """See `live.LiveEngine.hold`."""
        version = self.take(digest)
        try:
            yield version.as_record()
        finally:
            self.release(digest)

    def take(self, digest: str) -> _Version:
        """Hold a version until `release`. Raises NotFound."""
        with self._lock:
            version = self._of(digest)
            version.held += 1
            self._touch(digest)
            return version

    def release(self, digest: str) -> None:
        with self._lock:
            self._there[digest].held -= 1

    def records(self) -> dict[str, Resident]:
        with self._lock:
            return {digest: version.as_record() for digest, version in self._there.items()}

    def _of(self, digest: str) -> _Version:
        if digest not in self._there:
            raise NotFound(f"version {digest[:12]} is not in memory", fix="load it first")
        return self._there[digest]

    def _touch(self, digest: str) -> None:
        self._there[digest] = self._there.pop(digest)
