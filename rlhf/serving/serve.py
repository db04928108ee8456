"""The server: one base in memory, versions beside it, requests until it is told to stop.

SIGTERM drains: `/ready` and new requests get 503, what was begun ends (up to `drain_s`; what lasts longer is cut off with a 503 or,
in a stream, an error event), then what was served is flushed to the disk, and the process ends with 0. A second signal doesn't
wait: what is under way is cut off at once, and the process ends as an interrupted command.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

import uvicorn

from rlhf import registry
from rlhf.engine import bases
from rlhf.engine.bases import Base
from rlhf.engine.placement import Placement, choose
from rlhf.engine.vllm.addresses import Addresses
from rlhf.errors import BadUsage, Forbidden, Interrupted, NotFound, RlhfError
from rlhf.serving import readiness
from rlhf.serving.api import create_app
from rlhf.serving.bounds import ServeSettings
from rlhf.serving.engines import engine_for
from rlhf.serving.exposures import Recorder
from rlhf.serving.guard import has_serving_token
from rlhf.serving.holding import Holding
from rlhf.serving.listening import address_of, bind, is_loopback
from rlhf.serving.metrics import Metrics
from rlhf.serving.overload import Overload
from rlhf.serving.refusals import NotServable
from rlhf.serving.router import Router
from rlhf.serving.service import Service
from rlhf.serving.tending import Tender
from rlhf.store import Workspace

_LOOK_S = 0.5  # how often it is looked whether an alias points at something new
_LAST_S = 2.0  # that connections have to close after the drain
_log = logging.getLogger("rlhf.serving")


@dataclass(frozen=True, slots=True)
class Listening:
    """What a server says when it listens. wants_token: nobody is answered without one."""

    address: str
    base: str
    placement: str
    wants_token: bool


def serve(
    workspace: Workspace,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    base: str | None = None,
    place: Placement | None = None,
    vllm: Addresses | None = None,
    hosts: Sequence[str] = (),
    bounds: ServeSettings | None = None,
    on_listen: Callable[[Listening], None] = lambda _listening: None,
) -> None:
    """Serve until a signal. base: None = the one that is there, or that the aliases' versions are for. vllm: None = the embedded
    engine. on_listen: called once, when requests are taken.

    Raises Forbidden where the host is reachable from other machines and no token for serving is live, BadUsage where several
    bases could be meant, Interrupted where a second signal cut requests off, and what `listening.bind` raises.
    """
    if not is_loopback(host) and not has_serving_token(workspace, live=True):
        raise Forbidden(
            f"{host} can be reached from other machines, and nobody has a token for serving",
            fix="make one first: rlhf people token NAME --scope serve",
        )
    chosen = base_to_serve(workspace, base)
    with (
        bind(host, port) as bound,
        opened(workspace, chosen, place or _place(), bounds or ServeSettings(), vllm) as service,
    ):
        warming = threading.Thread(target=_keep_warm, args=(service,), name="warming")
        app = create_app(service, hosts=(host, *hosts), is_local=is_loopback(host))
        wants = not is_loopback(host) or has_serving_token(workspace)
        told = Listening(address_of(host, bound), chosen.name, service.where, wants)
        server = _Server(app, service, lambda: on_listen(told))
        try:
            warming.start()
            server.run(sockets=[bound])
        finally:
            service.overload.drain()
            warming.join()  # before the engine that it uses is closed
    if server.n_interrupted:
        raise Interrupted(
            f"a second signal cut off {server.n_interrupted} requests that were under way",
            fix="one signal lets them end; start the server again with the same command",
        )


@contextlib.contextmanager
def opened(
    workspace: Workspace, base: Base, place: Placement, bounds: ServeSettings, vllm: Addresses | None = None
) -> Iterator[Service]:
    """Everything a server works with; at the end what was taken is on the disk and the engine's thread has ended."""
    bases.check(workspace, base)
    metrics = Metrics()
    with contextlib.ExitStack() as stack:
        engine, where = engine_for(workspace, base, place, bounds, vllm)
        stack.callback(engine.close)
        router = Router(workspace)
        stack.callback(router.close)
        recorder = Recorder(workspace)
        stack.callback(recorder.close)
        stack.callback(Tender(workspace).close)

        holding = Holding(workspace, engine, base, dtype=place.dtype, on_load=metrics.loading.observe)
        overload = Overload(bounds.rows, bounds.queue)
        service = Service(workspace, base, where, engine, router, recorder, holding, overload, metrics, bounds)
        _add_gauges(service)
        yield service


def base_to_serve(workspace: Workspace, name: str | None) -> Base:
    """The base by name; without one the only one, or the only one that an alias's version is for."""
    if name is not None:
        return bases.get(workspace, name)
    known = bases.list_bases(workspace)
    if not known:
        raise NotFound("there is no base in the workspace", fix="add one: rlhf base add NAME --dir FOLDER")
    if len(known) == 1:
        return known[0]
    served = {row.manifest["base"]["digest"] for row in registry.list_versions(workspace) if row.aliases}
    fits = [one for one in known if one.digest in served]
    if len(fits) == 1:
        return fits[0]
    raise BadUsage(
        f"the workspace has {len(known)} bases, and one server has one in memory",
        fix=f"name it: rlhf serve --base {' | '.join(one.name for one in known)}",
    )


class _Server(uvicorn.Server):
    """on_listen: called once signals are ours and requests are taken. n_interrupted: requests that a second signal cut off."""

    def __init__(self, app: object, service: Service, on_listen: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(_LAST_S),
        )
        super().__init__(config)
        self.service, self._on_listen = service, on_listen
        self._n_signals = self.n_interrupted = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_listen()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._n_signals += 1
        if self._n_signals > 1:
            self.force_exit = self._n_signals > 2
            self._soon(self._interrupt)
            return
        threading.Thread(target=self._drain, name="draining", daemon=True).start()  # a handler must take no lock

    def _drain(self) -> None:
        self.service.overload.drain()
        is_idle = self.service.overload.wait_idle(self.service.bounds.drain_s)
        if is_idle:
            self.should_exit = True
        else:
            self._soon(self._outlasted)

    def _soon(self, call: Callable[[], None]) -> None:
        """On the loop, where there is one: before it, and after, nothing is under way."""
        self.should_exit = self.should_exit or self._loop is None
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                self._loop.call_soon_threadsafe(call)

    def _outlasted(self) -> None:
        if not self.should_exit and (n := self._cut_off()):
            _log.warning("%d requests lasted longer than drain_s=%g and were cut off", n, self.service.bounds.drain_s)
        self.should_exit = True

    def _interrupt(self) -> None:
        self.service.overload.drain()
        self.n_interrupted += self._cut_off()
        self.should_exit = True

    def _cut_off(self) -> int:
        """End every request that is under way, and give their number: each answers so itself (`guard.py`, `completions.py`)."""
        tasks = [task for task in self.server_state.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        return len(tasks)


def _keep_warm(service: Service) -> None:
    """What aliases and arms point at is loaded before it is asked for, and what they come to point at as soon as it is seen. Each
    once: where slots are too few for all, the busy ones stay. A version that fails is told to whoever asks for it, and in the log.
    An engine that failed is asked whether it works again."""
    tried: set[str] = set()
    while not service.overload.is_draining:
        for digest in sorted(service.router.wanted() - tried):
            if service.overload.is_draining:
                return
            for error in service.holding.warm([digest]).values():
                _warn(service, digest, error)
            tried.add(digest)
        service.is_warm = True
        readiness.knock(service)
        service.overload.wait_draining(_LOOK_S)


def _warn(service: Service, digest: str, error: RlhfError) -> None:
    """Say which of this base's versions that are pointed at can't be served; one that waits for a slot can, later."""
    row = registry.show(service.workspace, f"sha256:{digest}")
    if isinstance(error, NotServable) or row.manifest["base"]["digest"] != service.base.digest:
        return
    named = f" ({', '.join(row.aliases)})" if row.aliases else ""
    _log.warning("warning: %s%s can't be served: %s; %s", row.ref, named, error.message, error.fix)


def _place() -> Placement:
    """In float32 on a CPU, so that scores are the ones that `reward score` gives; on CUDA in its best type."""
    found = choose("auto", "float32")
    return found if found.device == "cpu" else choose(found.device)


def _add_gauges(service: Service) -> None:
    add, engine, overload = service.metrics.gauge, service.engine, service.overload
    add("rlhf_rows", "Replies being computed.", lambda: {(): engine.busy().rows})
    add("rlhf_waiting", "Replies that wait for a row.", lambda: {(): engine.busy().waiting})
    add("rlhf_tokens_per_second", "Tokens written a second, lately.", lambda: {(): engine.busy().tokens_per_s})
    add("rlhf_engine_alive", "1 while the engine computes, 0 once it has ended.", lambda: {(): int(engine.is_alive)})
    add("rlhf_requests_under_way", "Requests that were begun and have not ended.", lambda: {(): overload.n_requests})
    add("rlhf_requests_shed_total", "Requests refused because the queue was full.", lambda: {(): overload.n_shed})
    add(
        "rlhf_resident",
        "Versions in memory; the value is how many leases and replies are on each.",
        lambda: {(("digest", digest[:12]), ("kind", one.kind)): one.held for digest, one in engine.resident().items()},
    )
    add(
        "rlhf_effect_seconds",
        "Seconds that the latest change of an alias or rollout took to be in force here, by how it was learnt.",
        lambda: {(("how", one.how),): one.seconds for one in list(service.router.effects)},
    )
