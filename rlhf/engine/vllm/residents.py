"""Versions that vLLM has for us, by digest: who holds what, and who goes when room is needed.

As `engine.residents` keeps them for the embedded engine, but the weights are another process's, which may lose them at any moment
(it was started anew): then the version is forgotten here, whoever holds it, and the next who wants it has it loaded and checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from torch import Tensor

from rlhf.engine.vllm.server import Server
from rlhf.engine.wanted import Resident
from rlhf.errors import Conflict, NotFound


@dataclass(eq=False)
class Version:
    """name: its name at the server. head: of a reward, (1, hidden), float32."""

    digest: str
    kind: Literal["policy", "reward"]
    name: str
    server: Server
    slot: int
    rank: int
    head: Tensor | None = None
    held: int = 0

    def as_record(self) -> Resident:
        return Resident(self.digest, self.kind, self.slot, self.rank, self.held)


class Residents:
    """slots: versions at each server."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._there: dict[str, Version] = {}  # in order of use, oldest first
        self._taken: dict[Server, set[int]] = {}
        self._lock = Lock()

    def touch(self, digest: str) -> bool:
        """Whether the version is there, which counts as a use."""
        with self._lock:
            if digest in self._there:
                self._touch(digest)
            return digest in self._there

    def reserve(self, server: Server) -> tuple[int, list[Version]]:
        """A free slot at the server, and who had to go for it: take those away before it is used. Raises Conflict where every slot
        is in use."""
        with self._lock:
            taken = self._taken.setdefault(server, set())
            gone: list[Version] = []
            if len(taken) >= self.slots:
                idle = next((v for v in self._there.values() if v.server is server and not v.held), None)
                if idle is None:
                    raise Conflict(
                        f"no slot is free at {server.url}: {len(taken)} of {self.slots} are in use",
                        fix="wait, unload a version, or start with more slots",
                    )
                self._drop(idle)
                gone.append(idle)
            slot = next(n for n in range(1, self.slots + 1) if n not in taken)
            taken.add(slot)
            return slot, gone

    def add(self, version: Version) -> None:
        """It is there, in its reserved slot."""
        with self._lock:
            self._there[version.digest] = version

    def free(self, server: Server, slot: int) -> None:
        """A reserved slot isn't wanted after all."""
        with self._lock:
            self._taken[server].discard(slot)

    def remove(self, digest: str) -> Version:
        """Drop a version that nobody holds. Raises NotFound, Conflict."""
        with self._lock:
            version = self._of(digest)
            if version.held:
                raise Conflict(f"version {digest[:12]} is in use by {version.held}", fix="wait until they are done")
            self._drop(version)
            return version

    def forget(self, version: Version) -> None:
        """The server has lost it."""
        with self._lock:
            if self._there.get(version.digest) is version:
                self._drop(version)

    @contextmanager
    def hold(self, digest: str) -> Iterator[Resident]:
        """See `live.LiveEngine.hold`."""
        version = self.take(digest)
        try:
            yield version.as_record()
        finally:
            self.release(version)

    def take(self, digest: str) -> Version:
        """Hold a version until `release`. Raises NotFound."""
        with self._lock:
            version = self._of(digest)
            version.held += 1
            self._touch(digest)
            return version

    def release(self, version: Version) -> None:
        with self._lock:
            version.held -= 1

    def records(self) -> dict[str, Resident]:
        with self._lock:
            return {digest: version.as_record() for digest, version in self._there.items()}

    def all(self) -> list[Version]:
        with self._lock:
            return list(self._there.values())

    def _drop(self, version: Version) -> None:
        del self._there[version.digest]
        self._taken[version.server].discard(version.slot)

    def _of(self, digest: str) -> Version:
        if digest not in self._there:
            raise NotFound(f"version {digest[:12]} is not in memory", fix="load it first")
        return self._there[digest]

    def _touch(self, digest: str) -> None:
        self._there[digest] = self._there.pop(digest)
