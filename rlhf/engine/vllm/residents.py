"""Versions that vLLM has for us, by digest: who holds what, and who goes when room is needed.

As `engine.residents` keeps them for the embedded engine, but the weights are another process's, which may lose them at any moment
(it was started anew): then the version is forgotten here, whoever holds it, and the next who wants it has it loaded and checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rlhf.engine.leases import Leases
from rlhf.engine.vllm.server import Server
from rlhf.engine.wanted import Resident
from rlhf.errors import Conflict


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


class Residents(Leases[Version]):
    """slots: versions at each server."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self._taken: dict[Server, set[int]] = {}

    def reserve(self, server: Server) -> tuple[int, list[Version]]:
        """A free slot at the server, and who had to go for it: take those away before it is used. Raises Conflict where every slot
        is in use."""
        with self.lock:
            taken = self._taken.setdefault(server, set())
            gone: list[Version] = []
            if len(taken) >= self.slots:
                idle = next((v for v in self.there.values() if v.server is server and not v.held), None)
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

    def free(self, server: Server, slot: int) -> None:
        """A reserved slot isn't wanted after all."""
        with self.lock:
            self._taken[server].discard(slot)

    def forget(self, version: Version) -> None:
        """The server has lost it."""
        with self.lock:
            if self.there.get(version.digest) is version:
                self._drop(version)

    def all(self) -> list[Version]:
        with self.lock:
            return list(self.there.values())

    def _drop(self, version: Version) -> None:
        super()._drop(version)
        self._taken[version.server].discard(version.slot)
