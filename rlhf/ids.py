"""Digests, sortable ids, the clock and chance: everything that names a thing or makes two runs differ.

Digests cover content only. Time and randomness enter the program here alone, so that a test can fix both.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_clock = time.time
# One encoder for all: `json.dumps` with these words makes a new one each call, which an import of millions feels.
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal content, equal bytes. NaN and lone surrogates raise ValueError."""
    return _encode(value).encode("utf-8")


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def merkle_root(leaves: Iterable[str]) -> str:
    """Root over hex leaves in the given order; leaf and node hashes are kept apart as in RFC 6962, an odd node moves up."""
    level = [hashlib.sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in leaves]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()


def unit_interval(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on (seed, key) alone: splits and buckets are hashes, never shuffles."""
    head = hashlib.sha256(f"{seed}\x00{key}".encode()).digest()[:8]
    return int.from_bytes(head, "big") / 2.0**64


def chance(seed: int, *names: str) -> random.Random:
    """A seeded generator of its own for each purpose, so that drawing more for one never shifts another."""
    return random.Random(int.from_bytes(hashlib.sha256("\x00".join((str(seed), *names)).encode()).digest()[:8], "big"))


def secret(n_bytes: int = 24) -> str:
    """A URL-safe random token from the operating system, for credentials only."""
    import base64

    return base64.urlsafe_b64encode(os.urandom(n_bytes)).rstrip(b"=").decode("ascii")


def now() -> datetime:
    """The current time, UTC."""
    return datetime.fromtimestamp(_clock(), UTC)


def now_text() -> str:
    """ISO 8601 in UTC with microseconds; as text it sorts by time."""
    return now().isoformat(timespec="microseconds")


def new_id() -> str:
    """26 characters, sortable by creation time (48 bits of milliseconds, 80 bits of chance; ULID's layout)."""
    number = (int(_clock() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def first_id_at(seconds: float) -> str:
    """The lowest id that could be made at this time: ids of a table are cut by time with its key."""
    number = int(seconds * 1000) << 80
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


@contextmanager
def clock_at(seconds: float) -> Iterator[None]:
    """Hold the clock at `seconds` since the epoch (tests)."""
    global _clock
    before, _clock = _clock, lambda: seconds
    try:
        yield
    finally:
        _clock = before
