"""One request for replies, from its admission to its last token: one version, one lease, and in the end one row a reply.

Everything that ends a request goes through `close`, which may be called from anywhere on the loop and any number of times: rows in
the engine are freed, the lease and the place in the queue are given back, and what was begun is recorded as it ended. Pieces come
from the engine's thread; so does the news that the client has gone, which is a piece like any other to whoever reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from starlette.concurrency import run_in_threadpool

from rlhf.engine.wanted import Piece, Stream, Wanted
from rlhf.feedback.anonymise import mask_in
from rlhf.ids import digest_of, now
from rlhf.measures.declining import declines
from rlhf.serving.asked import ChatAsked, TextAsked
from rlhf.serving.exposures import Closing, Exposure, Status
from rlhf.serving.openai_shapes import Head, Written
from rlhf.serving.refusals import BadField, TooLate
from rlhf.serving.routes import Retired, Route, Unavailable
from rlhf.serving.service import Service


class Left(Exception):
    """The client has gone."""


class Answering:
    """request_id: of the request, and of its first reply; further replies have `.1`, `.2` … behind it."""

    def __init__(self, service: Service, asked: ChatAsked | TextAsked, request_id: str) -> None:
        self.service, self.asked, self.request_id = service, asked, request_id
        self.began = time.monotonic()
        self.deadline = asyncio.get_running_loop().time() + service.bounds.deadline_s
        _require_possible(asked.drawn, service)
        self.replies = [Written(k // asked.drawn_each) for k in range(asked.drawn)]
        self.wanted: list[Wanted] = []
        self.first_at: float | None = None
        self.lease: ExitStack | None = None
        self.chooser: str | None = None  # the reward that chose among the replies
        self._route: Route | None = None
        self.choosing: Route | None = None  # to the reward that is asked to choose
        self._streams: Sequence[Stream] = ()
        self._news: asyncio.Queue[tuple[int, Piece | BaseException]] = asyncio.Queue()
        self._is_closed = self._is_recorded = False
        with service.counting_shed(asked, "policy"):
            service.overload.enter(asked.drawn)

    @property
    def route(self) -> Route:
        assert self._route is not None
        return self._route

    @property
    def reply_ids(self) -> list[str]:
        return [self.request_id if k == 0 else f"{self.request_id}.{k}" for k in range(len(self.replies))]

    @property
    def head(self) -> Head:
        """What every part of the answer repeats."""
        route, created = self.route, int(now().timestamp())
        served: dict[str, Any] = {
            "version": route.version,
            "digest": route.digest,
            "alias": route.alias,
            "arm": route.arm,
            "rollout": route.rollout_id,
        }
        if self.asked.n_choices > 1:
            served["replies"] = self.reply_ids[: self.asked.n_choices]
        is_chat = isinstance(self.asked, ChatAsked)
        return Head(self.request_id, created, route.version, str(route.digest), served, is_chat)

    @property
    def tokens_in(self) -> int:
        """Of the prompts, each once."""
        return sum(len(one.prompt) for one in self.wanted) // self.asked.drawn_each

    @property
    def tokens_out(self) -> int:
        return sum(reply.n_tokens for reply in self.replies)

    async def begin(self) -> None:
        """Resolve the model, once; hold its version; render the prompt; start the replies."""
        asked, service = self.asked, self.service
        if asked.reward is not None:  # before anything is computed, and before an arm could be blamed
            if not all(asked.messages_of(i) for i in range(asked.n_prompts)):
                raise BadField("a reward judges words, not token ids", param="prompt", fix="send the prompt as a text")
            self.choosing = service.route(asked.reward, asked.unit, asked.metadata, "reward", param="reward")
        try:
            self._route = service.route(asked.model, asked.unit, asked.metadata, "policy")
        except Retired as refusal:  # whoever names it is mistaken: no failure of the version's
            if (of := refusal.route) is not None:
                service.metrics.replies.add(asked.drawn, status="refused", digest=str(of.digest)[:12], arm=of.arm or "")
            raise
        except Unavailable as refusal:  # recorded as that arm's failure
            self._route = refusal.route
            raise
        self.lease = await service.lease(str(self.route.digest))
        prompts = await self._prompts()
        rooms = [self._room(len(prompt)) for prompt in prompts]
        self.wanted = [
            Wanted(
                prompts[reply.prompt],
                self.route.digest,
                rooms[reply.prompt],
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=seed,
                stop=asked.stop,
                logprobs=asked.wanted_logprobs,
            )
            for reply, seed in zip(self.replies, self._seeds(), strict=True)
        ]
        loop = asyncio.get_running_loop()
        self._streams = service.engine.reply(self.wanted)
        for k, stream in enumerate(self._streams):
            stream.on_piece(lambda news, k=k: tell(loop, self._news, (k, news)))  # type: ignore[misc]

    async def pieces(self) -> AsyncIterator[tuple[int, Piece, int]]:
        """(which reply, its piece, at which character it begins) as they come, until all have ended. Raises Left, TooLate, and
        what the engine raises."""
        running = len(self._streams)
        while running:
            try:
                async with asyncio.timeout_at(self.deadline):
                    k, news = await self._news.get()
            except TimeoutError:
                raise self.too_late() from None
            if isinstance(news, BaseException):
                raise news
            if self.first_at is None:
                self.first_at = time.monotonic()
            at_char = len(self.replies[k].text)
            self.replies[k].add(news)
            running -= news.finish is not None
            yield k, news, at_char

    def choose(self, order: Sequence[int]) -> None:
        """Put the replies, all of which have ended, into another order, so that those that are answered come first."""
        self.replies, self.wanted = [self.replies[k] for k in order], [self.wanted[k] for k in order]

    def kept(self, reply: str, prompt: int) -> dict[str, Any]:
        """Prompt, reply and consent as a row may have them: no words without consent, and none that name a person."""
        turns = [turn.as_json() for turn in self.asked.messages_of(prompt)]
        if not self.asked.consent or not turns:
            return {}
        masked: Counter[str] = Counter()
        return {"prompt": tuple(mask_in(turns, masked)), "reply": mask_in(reply, masked), "consent": self.asked.consent}

    def left(self) -> None:
        """The client has gone: whoever reads the pieces is told."""
        self._news.put_nowait((0, Left()))

    def too_late(self) -> TooLate:
        after = f"{self.service.bounds.deadline_s:g} s"
        if self._route is not None:
            self.service.lost("deadline", self._route)
        return TooLate(f"the reply wasn't whole after {after}", fix="ask for fewer tokens, or when there is less to do")

    async def record(self, status: Status = "ok") -> None:
        """Every reply's row is on the disk when this returns."""
        self._is_recorded = True
        words: list[dict[str, Any]] = [{}] * len(self.replies)
        if status == "ok" and self.asked.consent:
            words = await run_in_threadpool(lambda: [self.kept(reply.text, reply.prompt) for reply in self.replies])
        await self.service.recorded([self._row(k, status, kept) for k, kept in enumerate(words)])
        self._count(status)

    def close(self, status: Status = "error") -> None:
        """Give everything back; what wasn't recorded is, as `status`, without waiting for it."""
        if self._is_closed:
            return
        self._is_closed = True
        for stream, reply in zip(self._streams, self.replies, strict=False):
            if reply.finish is None:
                stream.cancel()
        if self.lease is not None:
            self.lease.close()
        self.service.overload.leave(self.asked.drawn, time.monotonic() - self.began)
        if self._route is not None and not self._is_recorded:
            with contextlib.suppress(Closing):  # a server that is being killed: what was cut off is lost with it
                for k in range(len(self.replies)):
                    self.service.recorder.record(self._row(k, status, {}))
            self._count(status)

    async def _prompts(self) -> list[tuple[int, ...]]:
        if isinstance(self.asked, ChatAsked):
            return [await self.service.opening(self.asked.messages_of(0))]
        return [await self._raw(given) for given in self.asked.prompts]

    async def _raw(self, given: str | list[int]) -> tuple[int, ...]:
        if isinstance(given, str):
            return tuple(await self.service.rendered(lambda renderer: renderer.tokenizer(given)["input_ids"]))
        ids = tuple(given)
        n_words = len(self.service.engine.renderer.tokenizer)
        if not all(0 <= token < n_words for token in ids):
            raise BadField(f"a token id isn't from 0 to {n_words - 1}", param="prompt", fix="use this base's tokenizer")
        return ids

    def _room(self, n_prompt: int) -> int:
        """Tokens that the reply may have: what was asked for, or what is left up to the server's own limit."""
        most = self.service.engine.renderer.max_length
        left, asked = most - n_prompt, self.asked.limit
        if left < 1 or (asked is not None and asked > left):
            wanted = f"{n_prompt} tokens" + (f" and a reply of up to {asked}" if asked else "")
            raise BadField(
                f"the prompt has {wanted}; prompt and reply have {most} together",
                param="messages" if isinstance(self.asked, ChatAsked) else "prompt",
                fix="shorten the prompt, or lower max_tokens",
                code="context_length_exceeded",
            )
        return asked or min(left, self.service.bounds.max_tokens)

    def _seeds(self) -> list[int]:
        """Of each reply's own chance: the request's seed, else its id's, with what is answered."""
        from rlhf.engine.generation import seed_of

        if self.asked.seed is None:
            return [seed_of(0, "request", self.request_id, str(k)) for k in range(len(self.replies))]
        seeds = []
        for prompt in range(self.asked.n_prompts):
            turns = [turn.as_json() for turn in self.asked.messages_of(prompt)]
            answered = digest_of(turns or {"prompt": self.asked.prompts[prompt]})  # type: ignore[union-attr]
            own = range(self.asked.drawn_each)  # as in a request of its own, so that company changes nothing
            seeds += [seed_of(self.asked.seed, "reply", answered, str(j)) for j in own]
        return seeds

    def _row(self, k: int, status: Status, words: Mapping[str, Any]) -> Exposure:
        reply, at = self.replies[k], time.monotonic()
        judge = self.route.judge_digest
        has_points = reply.points is not None and judge in (None, self.chooser)  # one rollout, one judge
        route = self.route.judged_by(str(self.chooser)) if has_points else self.route
        return route.exposure(
            self.reply_ids[k],
            status=status,
            latency_s=at - self.began,
            first_token_s=None if self.first_at is None else self.first_at - self.began,
            tokens_in=len(self.wanted[k].prompt) if self.wanted else None,
            tokens_out=reply.n_tokens,
            finish=reply.finish,
            refusal=declines(reply.text) if status == "ok" else None,
            length_chars=len(reply.text),
            reward=reply.points if has_points else None,
            seed=self.wanted[k].seed if self.wanted else None,
            **words,
        )

    def _count(self, status: Status) -> None:
        metrics, digest, arm = self.service.metrics, str(self.route.digest)[:12], self.route.arm or ""
        metrics.replies.add(len(self.replies), status=status, digest=digest, arm=arm)
        metrics.tokens.add(self.tokens_out, way="out")
        metrics.tokens.add(self.tokens_in if self.wanted else 0, way="in")
        metrics.latency.observe(time.monotonic() - self.began, digest=digest, arm=arm)
        if self.first_at is not None:
            metrics.first_token.observe(self.first_at - self.began, digest=digest, arm=arm)


def _require_possible(n: int, service: Service) -> None:
    """Raises BadField for more replies than there is ever room for: to come again would not help."""
    most = service.overload.rows + service.overload.queue
    if n > most:
        raise BadField(
            f"the request asks for {n} replies, this server takes {most} at a time",
            param="n",
            fix="send several requests",
        )


def tell(loop: asyncio.AbstractEventLoop, news: asyncio.Queue[Any], what: Any) -> None:
    """From the engine's thread onto the loop; a loop that is closed has nobody who waits."""
    try:
        loop.call_soon_threadsafe(news.put_nowait, what)
    except RuntimeError:
        if not loop.is_closed():
            raise
