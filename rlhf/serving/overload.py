"""Not more than can be answered: rows that are computed, a queue of bounded length, and a way to stop taking in.

What comes past the queue is refused at once with the time after which it pays to come again: by the median of the latest
requests' seconds and how many wait. Waiting longer in line would only make every answer late.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rlhf.serving.refusals import Busy, Draining

_LATEST = 64
_GUESS_S = 1.0  # of a request's time, before one has ended


class Overload:
    """rows: replies computed at a time; queue: replies that may wait beside them."""

    def __init__(self, rows: int, queue: int) -> None:
        self.rows, self.queue = rows, queue
        self.n_requests = 0
        self.n_replies = 0
        self.n_shed = 0
        self._is_draining = False
        self._seconds: deque[float] = deque(maxlen=_LATEST)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)

    @contextmanager
    def admitted(self, n: int = 1) -> Iterator[None]:
        """Room for n replies of one request while the block runs. Raises Busy past the queue, Draining after `drain`."""
        self.enter(n)
        began = time.monotonic()
        try:
            yield
        finally:
            self.leave(n, time.monotonic() - began)

    def enter(self, n: int = 1) -> None:
        """`admitted`'s beginning, for what ends elsewhere: whoever entered leaves."""
        with self._lock:
            if self._is_draining:
                raise Draining("this server is being stopped", self._wait_s(n))
            if self.n_replies + n > self.rows + self.queue:
                self.n_shed += 1
                raise Busy(f"{self.n_replies} replies are computed or wait already", self._wait_s(n))
            self.n_requests += 1
            self.n_replies += n

    def leave(self, n: int, seconds: float) -> None:
        """The end of what was entered. seconds: that it took."""
        with self._lock:
            self.n_requests -= 1
            self.n_replies -= n
            self._seconds.append(seconds)
            self._idle.notify_all()

    def drain(self) -> None:
        """Take nothing new from now on."""
        with self._lock:
            self._is_draining = True
            self._idle.notify_all()

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def wait_idle(self, timeout_s: float) -> bool:
        """Until every request has ended; False where the time ran out first."""
        with self._idle:
            return self._idle.wait_for(lambda: self.n_requests == 0, timeout_s)

    def wait_draining(self, timeout_s: float) -> bool:
        """Until `drain`, or the time ran out."""
        with self._idle:
            return self._idle.wait_for(lambda: self._is_draining, timeout_s)

    def _wait_s(self, n: int) -> float:
        one = statistics.median(self._seconds) if self._seconds else _GUESS_S
        over = max(1, self.n_replies + n - self.rows - self.queue)
        return min(60.0, one * max(1.0, over / self.rows))
