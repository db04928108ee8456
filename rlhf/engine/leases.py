"""Versions by digest, in order of use, with who holds them: what every engine's residents are kept in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Generic, Protocol, TypeVar

from rlhf.engine.wanted import Resident
from rlhf.errors import Conflict, NotFound


class Leased(Protocol):
    """held: leases on it."""

    digest: str
    held: int

    def as_record(self) -> Resident: ...


V = TypeVar("V", bound=Leased)


class Leases(Generic[V]):
    """`lock` guards all that is kept here, and what a kind of residents keeps beside it."""

    def __init__(self) -> None:
        self.there: dict[str, V] = {}  # in order of use, oldest first
        self.lock = Lock()

    @contextmanager
    def hold(self, digest: str) -> Iterator[Resident]:
        """A lease: inside the block the version stays. Raises NotFound where it isn't there."""
        version = self.take(digest)
        try:
            yield version.as_record()
        finally:
            self.release(version)

    def take(self, digest: str) -> V:
        """Hold a version until `release`. Raises NotFound."""
        with self.lock:
            version = self._of(digest)
            version.held += 1
            self._use(digest)
            return version

    def release(self, version: V) -> None:
        with self.lock:
            version.held -= 1

    def touch(self, digest: str) -> bool:
        """Whether the version is there, which counts as a use."""
        with self.lock:
            if digest in self.there:
                self._use(digest)
            return digest in self.there

    def add(self, version: V) -> None:
        """It is there."""
        with self.lock:
            self.there[version.digest] = version

    def remove(self, digest: str) -> V:
        """Drop a version that nobody holds. Raises NotFound, Conflict."""
        with self.lock:
            version = self._of(digest)
            if version.held:
                raise Conflict(f"version {digest[:12]} is in use by {version.held}", fix="wait until they are done")
            self._drop(version)
            return version

    def records(self) -> dict[str, Resident]:
        with self.lock:
            return {digest: version.as_record() for digest, version in self.there.items()}

    def _drop(self, version: V) -> None:
        """Under the lock. What it took up is free."""
        del self.there[version.digest]

    def _of(self, digest: str) -> V:
        if digest not in self.there:
            raise NotFound(f"version {digest[:12]} is not in memory", fix="load it first")
        return self.there[digest]

    def _use(self, digest: str) -> None:
        self.there[digest] = self.there.pop(digest)
