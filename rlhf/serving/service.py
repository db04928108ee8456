"""What a server works with, in one record: the store, the engine, and what stands between a request and them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from anyio import to_thread
from starlette.concurrency import run_in_threadpool

from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.engine.wanted import Renderings, Scores
from rlhf.errors import BadInput, BadUsage, NotFound, RlhfError
from rlhf.records import Message, Role
from rlhf.serving.asked import ChatAsked, ScoreAsked, TextAsked
from rlhf.serving.bounds import ServeSettings
from rlhf.serving.exposures import Exposure, Recorder, pseudonym
from rlhf.serving.holding import Engine, Holding
from rlhf.serving.metrics import Metrics
from rlhf.serving.overload import Overload
from rlhf.serving.refusals import BadField, Busy, Draining, NotRecorded, UnknownModel
from rlhf.serving.router import Router
from rlhf.serving.routes import Route
from rlhf.store import Workspace

T = TypeVar("T")
_LOADERS = 4  # versions that are loaded, or wait for room, at a time


@dataclass
class Service:
    """where: replies are computed, in words. is_warm: what requests may name by alias is in memory. trouble: why the engine can't
    compute just now. shadows, judgings: work that nobody waits for."""

    workspace: Workspace
    base: Base
    where: str
    engine: Engine
    router: Router
    recorder: Recorder
    holding: Holding
    overload: Overload
    metrics: Metrics
    bounds: ServeSettings
    is_warm: bool = False
    trouble: str | None = None
    shadows: set[asyncio.Task[None]] = field(default_factory=set)
    judgings: set[asyncio.Task[None]] = field(default_factory=set)
    _coming: dict[str, asyncio.Future[ExitStack]] = field(default_factory=dict)
    _loaders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_LOADERS, "loading"))
    _judge: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "judging"))
    _rendering: threading.Lock = field(default_factory=threading.Lock)

    def route(
        self, model: str, unit: str | None, context: Mapping[str, Any], role: Role, *, param: str = "model"
    ) -> Route:
        """The one version that answers, by the router. param: the field that named it. Raises what the router raises, BadField for
        a version of another role."""
        if model.startswith("base:"):
            raise UnknownModel(
                f"{model[:300]} is a bare base, which is never served", fix="name a version or an alias", param=param
            )
        try:
            route = self.router.resolve(model, None if unit is None else pseudonym(self.workspace, unit), context)
        except (NotFound, BadUsage) as error:
            raise UnknownModel(error.message, fix=error.fix, param=param) from None
        if route.role != role or route.digest is None:
            does = (
                "writes no replies: ask /v1/score" if role == "policy" else "scores nothing: ask /v1/chat/completions"
            )
            raise BadField(
                f"{route.version} is a {route.role} and {does}", param=param, fix=f"name a {role}", code="wrong_role"
            )
        return route

    @contextmanager
    def counting_shed(self, asked: ChatAsked | TextAsked | ScoreAsked, role: Role) -> Iterator[None]:
        """What the queue refuses in the block is counted under the model that it would have gone to."""
        try:
            yield
        except Draining:
            raise
        except Busy:
            try:
                route = self.route(asked.model, asked.unit, asked.metadata, role)
            except RlhfError:
                self.metrics.lost.add(why="shed", model="unknown", arm="")
            else:
                self.lost("shed", route)
            raise

    def lost(self, why: str, route: Route) -> None:
        """Count a request that gets no answer."""
        self.metrics.lost.add(why=why, model=route.alias or route.version, arm=route.arm or "")

    async def lease(self, digest: str) -> ExitStack:
        """A lease on the version. In memory: at once, on the event loop. Else it is loaded, once for all who wait for it, by
        threads of its own kind, so that a version that waits for room keeps no other request from a thread."""
        while (lease := self.holding.lease_now(digest)) is None:
            if (coming := self._coming.get(digest)) is not None:
                await asyncio.wait([coming])
                if (error := coming.exception()) is not None:
                    raise error
                continue  # whoever had it loaded holds it now
            coming = asyncio.get_running_loop().run_in_executor(self._loaders, self.holding.lease, digest)
            self._coming[digest] = coming
            coming.add_done_callback(lambda _: self._coming.pop(digest))
            try:
                return await asyncio.shield(coming)
            except asyncio.CancelledError:  # the thread goes on; what it gets is given back
                coming.add_done_callback(_give_back)
                raise
        return lease

    async def rendered(self, call: Callable[[Renderer], T]) -> T:
        """What `call` makes with the tokenizer: one at a time, off the loop, for a long prompt takes its time."""

        def locked() -> T:
            with self._rendering:
                return call(self.engine.renderer)

        return await run_in_threadpool(locked)

    async def opening(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A chat's token ids, up to where the reply begins. Raises BadField where the template refuses it."""
        try:
            return tuple(await self.rendered(lambda renderer: renderer.opening(messages)))
        except BadInput as error:
            raise BadField(error.message, param="messages", fix=error.fix, code="invalid_value") from None

    async def recorded(self, rows: Sequence[Exposure]) -> None:
        """The rows are on the disk when this returns. Raises NotRecorded."""
        try:
            for ticket in [self.recorder.record(row) for row in rows]:
                await asyncio.wrap_future(ticket.future)
        except RlhfError as error:
            raise NotRecorded(f"the reply couldn't be recorded: {error.message}", fix=error.fix) from None

    async def score(self, digest: str, renderings: Renderings, *, low: bool) -> Scores:
        """Scores of a held reward. low: what nobody waits for goes one at a time and keeps no thread from a request."""
        if low:
            call = partial(self.holding.score, digest, renderings, low=True)
            return await asyncio.get_running_loop().run_in_executor(self._judge, call)
        # At a deadline the thread is left to itself: it holds in the engine what it needs.
        return await to_thread.run_sync(self.holding.score, digest, renderings, abandon_on_cancel=True)

    def in_background(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        """Do it when there is nothing else to do; at the server's end it is dropped. among: `shadows` or `judgings`."""
        task = asyncio.get_running_loop().create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)


def _give_back(loading: asyncio.Future[ExitStack]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()
