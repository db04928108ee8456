"""How often an address may be wrong: guesses at tokens and codes are slowed down, whoever makes them.

A count in memory, of failures alone, by the peer's address, which is forgotten after a minute: it is written nowhere.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

WINDOW_S, MAX_FAILURES = 60.0, 20
_MAX_ADDRESSES = 10_000


class Failures:
    """Failures by address, over the last minute."""

    def __init__(self, window_s: float = WINDOW_S, most: int = MAX_FAILURES) -> None:
        self.window_s, self.most = window_s, most
        self._at: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 = now."""
        with self._lock:
            times = self._recent(address)
            return 0.0 if len(times) < self.most else times[0] + self.window_s - time.monotonic()

    def note(self, address: str) -> None:
        """One more failure."""
        with self._lock:
            if len(self._at) >= _MAX_ADDRESSES:
                self._at.clear()
            self._recent(address).append(time.monotonic())

    def _recent(self, address: str) -> deque[float]:
        times, since = self._at[address], time.monotonic() - self.window_s
        while times and times[0] <= since:
            times.popleft()
        return times
