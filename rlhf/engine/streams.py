"""Replies as streams between the engine's thread, which writes, and whoever reads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition

from rlhf.engine.wanted import Piece

Item = Piece | BaseException


class ReplyStream:
    """A `wanted.Stream`. on_cancel: wakes the engine."""

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        self._here: deque[Item] = deque()
        self._more = Condition()
        self._call: Callable[[Item], None] | None = None
        self._is_read_out = False
        self.is_ended = self.is_cancelled = False

    def __iter__(self) -> Iterator[Piece]:
        """Pieces up to the one with a finish; waits for each. Raises EngineFailed where the engine broke."""
        while not self._is_read_out:
            yield self.next_piece()

    def next_piece(self, timeout_s: float | None = None) -> Piece:
        """The next piece. Raises TimeoutError, EngineFailed, and StopIteration past the last one."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._more:
            while not self._here:
                if self._is_read_out:
                    raise StopIteration
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no piece within {timeout_s} s")
                self._more.wait(left)
            item = self._here.popleft()
            self._is_read_out = isinstance(item, BaseException) or item.finish is not None
        if isinstance(item, BaseException):
            raise item
        return item

    def on_piece(self, call: Callable[[Item], None]) -> None:
        """Have every piece (those that wait now, too) or the error given to `call`, from the engine's thread; it must not wait.
        One that raises is a reader that has gone: it cancels."""
        with self._more:
            self._call = call
            while self._here:
                self._give(self._here.popleft())

    def cancel(self) -> None:
        """Take the wish back: its row is free at the next token, and the last piece says `cancelled`."""
        self.is_cancelled = True
        self._on_cancel()

    def put(self, item: Item) -> None:
        """The engine's side. After the last item nothing more is taken."""
        with self._more:
            if self.is_ended:
                return
            self.is_ended = isinstance(item, BaseException) or item.finish is not None
            if self._call is None:
                self._here.append(item)
                self._more.notify_all()
                return
            self._give(item)

    def _give(self, item: Item) -> None:
        try:
            if self._call is not None:
                self._call(item)
        except Exception:
            self._call, self._here = None, deque()
            self.is_cancelled = True
