"""How often: an address may be wrong a few times a minute, an account may ask more often than people and honest programs do.

Both are counts in memory. Of an address only failures are counted; it is forgotten after a minute and written nowhere.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque

WINDOW_S, MAX_FAILURES = 60.0, 20
PER_S, BURST = 20.0, 400
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


class Pace:
    """Requests of each account: a bucket of `burst` that fills at `per_s` a second, and of which each request takes one."""

    def __init__(self, per_s: float = PER_S, burst: int = BURST) -> None:
        self.per_s, self.burst = per_s, burst
        self._buckets: dict[str, tuple[float, float]] = {}  # what was left, and when
        self._lock = threading.Lock()

    def take(self, account: str) -> float:
        """0 where the request may pass; else the seconds until the next one may."""
        with self._lock:
            now = time.monotonic()
            left, at = self._buckets.get(account, (float(self.burst), now))
            left = min(float(self.burst), left + (now - at) * self.per_s)
            passes = left >= 1
            self._buckets[account] = (left - 1 if passes else left, now)
            return 0.0 if passes else (1 - left) / self.per_s
