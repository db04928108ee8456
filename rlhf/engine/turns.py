"""The live engine's thread: each turn reads a piece of a long prompt, takes in who waits, computes one token of every row, and one
batch of a job.

Before that it lets go of rows that nobody wants any more. A job's batch is scores, or log-probabilities of given replies. What is
asked while it computes waits for the next turn. A failure reaches whoever waited for what failed, and the thread goes on with the
others.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Any, TypeVar

import torch

from rlhf.engine.decoding import ContinuousBatch
from rlhf.engine.score_jobs import Job
from rlhf.engine.speaking import Speaking
from rlhf.engine.waiting import JOIN_TOKENS, PIECE, Reading, Waiting
from rlhf.engine.wanted import EngineFailed, Load

T = TypeVar("T")
_RATE_OVER_S = 5.0
# Seconds that another thread may keep the interpreter from the engine's. A step lets go of it at each of its thousand sums; with
# Python's own 5 ms a server that is busy in Python leaves a third of the tokens, with this two thirds.
_SWITCH_S = 1e-4


class Turns:
    """Of one batch. release: lets go of the version that a reply held; rows: replies computed at a time; kv_tokens: tokens whose
    keys and values may be kept for rows; ends: tokens that end a reply."""

    def __init__(
        self,
        batch: ContinuousBatch,
        release: Callable[[Speaking], None],
        *,
        rows: int,
        kv_tokens: int,
        ends: frozenset[int],
    ) -> None:
        self._batch, self._release = batch, release
        self._max_rows, self._kv_tokens, self._ends = rows, kv_tokens, ends
        self._work = Condition()
        self._waiting = Waiting(batch, rows=rows, kv_tokens=kv_tokens)
        self._jobs: deque[Job[Any]] = deque()
        self._low_jobs: deque[Job[Any]] = deque()
        self._speaking: list[Speaking] = []  # the batch's rows, in its order
        self._rates: deque[tuple[float, int]] = deque()
        self._n_tokens = 0
        self._closing = False
        self._trouble: str | None = None
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
        self._thread = Thread(target=self._run, name="live-engine", daemon=True)
        self._thread.start()

    def speak(self, some: Sequence[Speaking]) -> None:
        """These wait for rows, in this order; shadow work apart. Raises EngineFailed where the thread has ended."""
        with self._work:
            self._require_open()
            for one in some:
                self._waiting.add(one)
            self._work.notify_all()

    def done(self, job: Job[T], *, low: bool = False) -> list[T]:
        """The job's results, waited for. low: computed while no reply waits for a row and no other job."""
        with self._work:
            self._require_open()
            (self._low_jobs if low else self._jobs).append(job)
            self._work.notify_all()
        return job.result()

    def wake(self) -> None:
        """A reply isn't wanted any more: the thread shall look."""
        with self._work:
            self._work.notify_all()

    def load(self) -> Load:
        """How busy the thread is now."""
        with self._work:
            cut = time.monotonic() - _RATE_OVER_S
            rate = sum(n for at, n in self._rates if at >= cut) / _RATE_OVER_S
            return Load(
                rows=len(self._speaking),
                max_rows=self._max_rows,
                waiting=len(self._waiting),
                tokens_per_s=rate,
                kv_tokens=self._batch.n_reserved,
                max_kv_tokens=self._kv_tokens,
                tokens=self._n_tokens,
                prefix_hits=self._batch.prefix_hits,
            )

    @property
    def is_alive(self) -> bool:
        """Whether anything asked will be computed."""
        return self._thread.is_alive() and not self._closing

    @property
    def trouble(self) -> str | None:
        """What its last work failed with; None where that was done."""
        return self._trouble

    def close(self) -> None:
        """End the thread; replies under way get EngineFailed."""
        with self._work:
            self._closing = True
            self._work.notify_all()
        self._thread.join()

    def _require_open(self) -> None:
        if self._closing:
            raise EngineFailed(
                f"the engine is closed{(self._trouble and f': {self._trouble}') or ''}", fix="start it again"
            )

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                self._take_turns()
            last = EngineFailed("the engine was closed", fix="ask again")
        except BaseException as error:  # nothing will be computed any more, and whoever waits is told
            last = self._failure("all replies, for good", error)
        with self._work:
            self._closing = True
        self._end_all(last)

    def _take_turns(self) -> None:
        while True:
            with self._work:
                while not (self._closing or self._speaking or self._waiting or self._jobs or self._low_jobs):
                    self._work.wait()
                if self._closing:
                    return
            try:
                self._turn()
            except Exception as error:  # our own mistake: nobody shall wait for ever on its account
                self._end_all(self._failure("all replies", error))

    def _turn(self) -> None:
        self._let_go()
        self._read_on()
        self._take_in()
        self._next_tokens()
        self._next_of_a_job()

    def _let_go(self) -> None:
        for one in [one for one in self._speaking if one.stream.is_cancelled]:
            self._leave(one)
            one.stream.put(one.end("cancelled"))
        with self._work:
            gone = [one for one in self._waiting if one.stream.is_cancelled]
            for one in gone:
                self._waiting.remove(one)
        for one in gone:
            self._release(one)
            one.stream.put(one.end("cancelled"))

    def _piece(self) -> int:
        """Tokens of a long prompt that may be read in this turn: few while anybody else waits for anything."""
        return PIECE if self._speaking or self._jobs or len(self._waiting) > 1 else JOIN_TOKENS

    def _read_on(self) -> None:
        """A piece of the long prompt that is being read."""
        try:
            self._waiting.read_on(self._piece())
        except Exception as error:
            with self._work:
                reader = self._waiting.reader
                assert reader is not None, "nobody's prompt was read"
                self._waiting.remove(reader)
            self._fail([reader], error)

    def _take_in(self) -> None:
        """Give rows to those who wait, in their order; shadow work only while nobody else waits."""
        with self._work:
            groups, reading = self._waiting.next_groups(len(self._speaking), self._piece())
        if not groups or self._join(groups, reading, lonely=len(groups) == 1):
            return
        for group in groups:  # one of them is at fault; the others shall not suffer for it
            self._join([group], reading, lonely=True)

    def _join(self, groups: Sequence[Sequence[Speaking]], reading: Reading | None, *, lonely: bool) -> bool:
        """Take groups in. Where they can't be computed, nothing has happened (False); a lonely one has failed."""
        new = [one for group in groups for one in group]
        try:
            logits = self._batch.join([[one.row for one in group] for group in groups], reading)
        except Exception as error:
            if lonely:
                self._fail(new, error)
            return lonely
        self._speaking.extend(new)
        self._say(new, logits)
        return True

    def _next_tokens(self) -> None:
        if not self._speaking:
            return
        try:
            logits = self._batch.step([one.last for one in self._speaking])
        except Exception as error:
            failed, self._speaking = self._speaking, []
            self._batch.clear()
            self._fail(failed, error)
            return
        self._say(list(self._speaking), logits)

    def _say(self, speaking: Sequence[Speaking], logits: torch.Tensor) -> None:
        """Choose the next token of each, and let those go that have ended."""
        try:
            tokens = Speaking.pick(speaking, logits)
        except Exception as error:
            for one in speaking:
                self._leave(one)
            self._fail(speaking, error)
            return
        self._trouble = None
        with self._work:
            self._n_tokens += len(tokens)
            now = time.monotonic()
            self._rates.append((now, len(tokens)))
            while self._rates[0][0] < now - _RATE_OVER_S:
                self._rates.popleft()
        for one, token, row in zip(speaking, tokens, logits, strict=True):
            try:
                piece = one.take(token, row, is_end=token in self._ends)
            except Exception as error:
                self._leave(one)
                self._fail([one], error)
                continue
            if piece is not None:
                if piece.finish is not None:
                    self._leave(one)  # before it is said: whoever reads the end finds the version free
                one.stream.put(piece)

    def _leave(self, one: Speaking) -> None:
        """Its row and its version are free. The batch moves its last row into the gap, and so does the list."""
        index = one.row.index
        self._batch.leave(one.row)
        last = self._speaking.pop()
        if last is not one:
            self._speaking[index] = last
        self._release(one)

    def _next_of_a_job(self) -> None:
        with self._work:
            queue = self._jobs or (None if self._waiting.has_shown else self._low_jobs)
            job = queue[0] if queue else None
        if job is None or queue is None:
            return
        is_done = job.advance()
        self._trouble = None if job.error is None else job.error.message
        if is_done:
            with self._work:
                queue.popleft()
            job.tell()

    def _fail(self, some: Sequence[Speaking], error: Exception) -> None:
        for one in some:
            self._release(one)
            one.stream.put(self._failure("this reply", error))

    def _end_all(self, error: EngineFailed) -> None:
        with self._work:
            some = [*self._speaking, *self._waiting]
            jobs = [*self._jobs, *self._low_jobs]
            self._waiting.clear()
            self._jobs.clear()
            self._low_jobs.clear()
        self._speaking.clear()
        try:
            self._batch.clear()
        finally:
            for one in some:
                self._release(one)
                one.stream.put(error)
            for job in jobs:
                job.tell(error)

    def _failure(self, on_what: str, error: BaseException) -> EngineFailed:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        self._trouble = f"the engine failed on {on_what}: {what[:300]}"
        return EngineFailed(self._trouble, fix="ask again")
