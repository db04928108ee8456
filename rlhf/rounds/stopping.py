"""Ctrl-C and SIGTERM: asked between two steps, so that a step is never cut in half; a second one stops at once."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rlhf.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PAUSE_S = 0.1


class Stop:
    """Whether somebody asked to stop. A training in this process listens for itself: it stops after its step."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the two signals while the block runs (in the main thread; elsewhere nothing is caught)."""
        try:
            self._before = {s: signal.signal(s, self._ask) for s in _SIGNALS}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            self._restore()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Either signal interrupts what the block waits for, with a KeyboardInterrupt."""
        listened_to = tuple(self._before)
        for number in listened_to:
            signal.signal(number, signal.default_int_handler)
        try:
            yield
        finally:
            for number in listened_to:
                signal.signal(number, self._ask)

    def check(self, doing: str, again: str) -> None:
        """Raise Interrupted where it was asked. doing: the step that would come next; again: the command that goes on."""
        if self.asked:
            raise Interrupted(f"stopped before the step '{doing}'", fix=f"go on with: {again}")

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it is asked."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(_PAUSE_S, left))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step (again = at once)", file=sys.stderr, flush=True)
