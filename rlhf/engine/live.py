"""The live engine: one base in memory, many versions beside it, replies in streams and scores. One thread does all computing.

In each turn the thread lets go of rows that nobody wants any more, takes waiting replies in, computes one token of every row, and
one batch of a job: scores, or log-probabilities of given replies. What is asked while it computes waits for the next turn. A
failure reaches whoever waited for what failed, and the thread goes on with the others.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Condition, Thread
from typing import Any, TypeVar

import torch

from rlhf.engine import policies
from rlhf.engine.bases import Base
from rlhf.engine.decoding import ContinuousBatch
from rlhf.engine.live_scorers import LivePolicy
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.engine.residents import Residents
from rlhf.engine.score_jobs import Job, LogprobJob, ScoreJob
from rlhf.engine.slots import BASE, SlotBank
from rlhf.engine.speaking import Speaking
from rlhf.engine.streams import ReplyStream
from rlhf.engine.wanted import EngineFailed, Load, Renderings, Resident, Scores, Stream, Wanted
from rlhf.errors import BadInput

T = TypeVar("T")
_RATE_OVER_S = 5.0
# Seconds that another thread may keep the interpreter from the engine's. A step lets go of it at each of its thousand sums; with
# Python's own 5 ms a server that is busy in Python leaves a third of the tokens, with this two thirds.
_SWITCH_S = 1e-4
_JOIN_TOKENS = 512  # prompt tokens that are taken in between two tokens of the rows under way, at least one prompt


class LiveEngine:
    """slots: versions with a LoRA at a time; max_rank: of a LoRA; rows: replies computed at a time; kv_tokens: tokens whose keys
    and values may be kept for rows, prefix_tokens: for prompts that may come again."""

    def __init__(
        self,
        base: Base,
        placement: Placement,
        *,
        slots: int = 16,
        max_rank: int = 64,
        rows: int = 32,
        kv_tokens: int = 32768,
        prefix_tokens: int = 8192,
    ) -> None:
        self._tokenizer = base.tokenizer()  # the thread's own: the renderer's is used by whoever asks
        self.model = policies.bare(base, placement)
        self.bank = SlotBank(self.model, slots=slots, max_rank=max_rank)
        self.batch = ContinuousBatch(self.model, self.bank, prefix_tokens=prefix_tokens)
        self.max_length = min(self.batch.max_length, kv_tokens)
        self.renderer = Renderer(base.tokenizer(), self.max_length)
        self.max_rows, self.kv_tokens = rows, kv_tokens
        ends = self.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        self._vocabulary = self.model.get_input_embeddings().num_embeddings
        self._residents = Residents(self.model, self.bank)
        self._work = Condition()
        self._waiting: deque[Speaking] = deque()
        self._low: deque[Speaking] = deque()
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

    def load(self, digest: str, folder: Path) -> float:
        """Make a version resident and give the seconds that it took; one that is there stays. Any thread may call it. Raises
        BadInput where it doesn't fit the base, Conflict where every slot is in use."""
        return self._residents.load(digest, folder)

    def hold(self, digest: str) -> AbstractContextManager[Resident]:
        """A lease: inside the block the version stays resident. Raises NotFound where it isn't."""
        return self._residents.hold(digest)

    def unload(self, digest: str) -> None:
        """Let a version go. Raises NotFound where it isn't there, Conflict while it is in use."""
        self._residents.unload(digest)

    def resident(self) -> dict[str, Resident]:
        """What is in memory, by digest."""
        return self._residents.records()

    def reply(self, wanted: Sequence[Wanted]) -> list[Stream]:
        """Begin replies, in the order given; equal prompts of one version share their prefix. Each holds its version until it
        ends. Raises NotFound where a version isn't resident (never the base in its place), BadInput where a prompt and its reply
        can't fit."""
        for one in wanted:
            self._require_fit(one.prompt, one.max_tokens)
        speaking: list[Speaking] = []
        try:
            for one in wanted:
                speaking.append(self._spoken(one))
            with self._work:
                self._require_open()
                for new in speaking:
                    (self._low if new.wanted.low else self._waiting).append(new)
                self._work.notify_all()
        except BaseException:
            for new in speaking:
                self._release(new)
            raise
        return [new.stream for new in speaking]

    def _require_fit(self, prompt: Sequence[int], n_reply: int) -> None:
        n = len(prompt)
        if n + n_reply > self.max_length:
            raise BadInput(
                f"a prompt of {n} tokens and a reply of {n_reply} come to more than {self.max_length}",
                fix="ask for a shorter reply, or shorten the prompt",
            )
        self._require_known("prompt", prompt)

    def _require_known(self, what: str, tokens: Sequence[int]) -> None:
        if not tokens or not 0 <= min(tokens) <= max(tokens) < self._vocabulary:
            raise BadInput(
                f"a {what} holds tokens that are not from 0 to {self._vocabulary - 1}, or none",
                fix="render it with this base's tokenizer",
            )

    def _spoken(self, wanted: Wanted) -> Speaking:
        slot = BASE
        if wanted.adapter is not None:
            version = self._residents.take(wanted.adapter)
            slot = version.slot
            if version.kind != "policy":
                self._residents.release(wanted.adapter)
                raise BadInput(f"version {wanted.adapter[:12]} is a {version.kind}", fix="ask a policy for a reply")
        return Speaking(wanted, slot, self._tokenizer, self.batch.device, ReplyStream(self._wake))

    def score(self, digest: str, renderings: Renderings, *, low: bool = False) -> Scores:
        """Scores of a resident reward version, as `scoring` gives them. Waits for them. low: computed while no
        reply waits for a row and no other job. Raises NotFound, BadInput."""
        version = self._residents.take(digest)
        try:
            if version.scorer is None:
                raise BadInput(f"version {digest[:12]} is a policy", fix="name a reward version")
            return self._done(ScoreJob(version.scorer, [Group.of(replies) for replies in renderings]), low=low)
        finally:
            self._residents.release(digest)

    def log_probabilities(
        self, digest: str, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
    ) -> list[float]:
        """The sum of the log-probabilities (nats, temperature 1, float32) of each reply's tokens after its prompt, by a resident
        policy, as `generation.log_probabilities` gives them. Waits for them. Raises NotFound, BadInput."""
        for prompt, reply in zip(prompts, replies, strict=True):
            self._require_fit(prompt, len(reply))
            self._require_known("reply", reply)
        version = self._residents.take(digest)
        try:
            if version.kind != "policy":
                raise BadInput(f"version {digest[:12]} is a {version.kind}", fix="name a policy")
            return self._done(LogprobJob(LivePolicy(self.model, self.bank, version.slot), prompts, replies))
        finally:
            self._residents.release(digest)

    def _done(self, job: Job[T], *, low: bool = False) -> list[T]:
        with self._work:
            self._require_open()
            (self._low_jobs if low else self._jobs).append(job)
            self._work.notify_all()
        return job.result()

    def busy(self) -> Load:
        """How busy the engine is now."""
        with self._work:
            cut = time.monotonic() - _RATE_OVER_S
            rate = sum(n for at, n in self._rates if at >= cut) / _RATE_OVER_S
            return Load(
                rows=len(self._speaking),
                max_rows=self.max_rows,
                waiting=len(self._waiting) + len(self._low),
                tokens_per_s=rate,
                kv_tokens=self.batch.n_reserved,
                max_kv_tokens=self.kv_tokens,
                tokens=self._n_tokens,
                prefix_hits=self.batch.prefix_hits,
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

    def _wake(self) -> None:
        with self._work:
            self._work.notify_all()

    # What follows runs in the engine's thread.

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
                while not (
                    self._closing or self._speaking or self._waiting or self._low or self._jobs or self._low_jobs
                ):
                    self._work.wait()
                if self._closing:
                    return
            try:
                self._turn()
            except Exception as error:  # our own mistake: nobody shall wait for ever on its account
                self._end_all(self._failure("all replies", error))

    def _turn(self) -> None:
        self._let_go()
        self._take_in()
        self._next_tokens()
        self._next_of_a_job()

    def _let_go(self) -> None:
        for one in [one for one in self._speaking if one.stream.is_cancelled]:
            self._leave(one)
            one.stream.put(one.end("cancelled"))
        with self._work:
            gone = [one for one in (*self._waiting, *self._low) if one.stream.is_cancelled]
            for one in gone:
                (self._low if one.wanted.low else self._waiting).remove(one)
        for one in gone:
            self._release(one)
            one.stream.put(one.end("cancelled"))

    def _take_in(self) -> None:
        """Give rows to those who wait, in their order; shadow work only while nobody else waits."""
        groups = self._next_groups()
        if not groups:
            return
        if self._join(groups, lonely=len(groups) == 1):
            return
        for group in groups:  # one of them is at fault; the others shall not suffer for it
            self._join([group], lonely=True)

    def _join(self, groups: Sequence[Sequence[Speaking]], *, lonely: bool) -> bool:
        """Take groups in. Where they can't be computed, nothing has happened (False); a lonely one has failed."""
        new = [one for group in groups for one in group]
        try:
            logits = self.batch.join([[one.row for one in group] for group in groups])
        except Exception as error:
            if lonely:
                self._fail(new, error)
            return lonely
        self._speaking.extend(new)
        self._say(new, logits)
        return True

    def _next_groups(self) -> list[list[Speaking]]:
        groups: dict[tuple[Any, ...], list[Speaking]] = {}
        n_tokens = 0
        with self._work:
            while (queue := self._waiting or self._low) and sum(map(len, groups.values())) + len(
                self._speaking
            ) < self.max_rows:
                one = queue[0]
                key = (one.row.digest, one.wanted.prompt)
                new = [other.row for group in groups.values() for other in group]
                costs = 0 if key in groups else len(one.wanted.prompt)
                if self.batch.reserved_with([*new, one.row]) > self.kv_tokens or (
                    groups and n_tokens + costs > _JOIN_TOKENS
                ):
                    break
                groups.setdefault(key, []).append(queue.popleft())
                n_tokens += costs
        return list(groups.values())

    def _next_tokens(self) -> None:
        if not self._speaking:
            return
        try:
            logits = self.batch.step([one.last for one in self._speaking])
        except Exception as error:
            failed, self._speaking = self._speaking, []
            self.batch.clear()
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
        self.batch.leave(one.row)
        last = self._speaking.pop()
        if last is not one:
            self._speaking[index] = last
        self._release(one)

    def _release(self, one: Speaking) -> None:
        if one.wanted.adapter is not None and not one.is_released:
            one.is_released = True
            self._residents.release(one.wanted.adapter)

    def _next_of_a_job(self) -> None:
        with self._work:
            queue = self._jobs or (self._low_jobs if not self._waiting else None)
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
            some = [*self._speaking, *self._waiting, *self._low]
            jobs = [*self._jobs, *self._low_jobs]
            self._waiting.clear()
            self._low.clear()
            self._jobs.clear()
            self._low_jobs.clear()
        self._speaking.clear()
        try:
            self.batch.clear()
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
