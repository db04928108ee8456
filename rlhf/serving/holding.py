"""Versions in memory: loaded when asked for, checked before they take traffic, held while a request needs them.

A version is read with every byte checked (`registry.open_version`), loaded, and then asked what its manifest says of it, by the
engine that will answer with it: a reward's scores of the probes it was published with, a policy's log-probabilities of their
replies. What fails stays refused for a while, and whoever asks gets an error, never the base. Between loading and the check nobody
gets a lease.

An ensemble has no weights: its lease is one on each of its members, all or none, and its scores are theirs, combined as
`reward score` combines them. One ensemble at a time gathers its members, in the order of their digests, so that no two wait for
each other's slots.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from rlhf import registry
from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.engine.wanted import Load, Renderings, Resident, Scores, Stream, Wanted
from rlhf.errors import BadInput, Conflict, Damaged, NotFound, RlhfError
from rlhf.records import Message
from rlhf.registry.ensembles import CONFIG_NAME
from rlhf.registry.folder import read_json
from rlhf.serving.refusals import DoesNotFit, NotServable
from rlhf.store import Workspace

_REFUSED_S = 30.0  # until a version that failed is tried again
_OTHER_MACHINE = 1e-3  # what another machine may change in a float32 score, or in a token's mean log-probability
_BFLOAT16 = 0.1  # of the probes' largest score, where the body is no float32
_BFLOAT16_NATS = 0.2  # a token, of a policy; 0.09 was the most that bfloat16 changed in SmolLM2 with drawn adapters
_POLL_S = 0.01  # how often a version that waits for room looks again


class Engine(Protocol):
    """What serving asks of an engine: the embedded one's shape (`engine.live.LiveEngine`)."""

    renderer: Renderer

    @property
    def is_alive(self) -> bool: ...
    @property
    def trouble(self) -> str | None: ...
    def load(self, digest: str, folder: Path) -> float: ...
    def hold(self, digest: str) -> Any: ...
    def unload(self, digest: str) -> None: ...
    def resident(self) -> dict[str, Resident]: ...
    def reply(self, wanted: list[Wanted]) -> list[Stream]: ...
    def score(self, digest: str, renderings: Renderings, *, low: bool = False) -> Scores: ...
    def log_probabilities(
        self, digest: str, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
    ) -> list[float]: ...
    def busy(self) -> Load: ...
    def close(self) -> None: ...


class Holding:
    """Leases on checked versions. dtype: of the engine's body. room_s: how long a version waits for a slot. on_load: told the
    seconds that it took until a version could answer."""

    def __init__(
        self,
        workspace: Workspace,
        engine: Engine,
        base: Base,
        *,
        dtype: str = "float32",
        room_s: float = 10.0,
        on_load: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self.workspace, self.engine, self.base, self.dtype = workspace, engine, base, dtype
        self.room_s = room_s
        self._on_load = on_load
        self._whole: set[str] = set()  # loaded and checked, unless the engine let them go meanwhile
        self._settings: dict[str, Mapping[str, Any]] = {}  # of every version that was held, which never change
        self._failed: dict[str, tuple[float, RlhfError]] = {}
        self._lock = threading.Lock()
        self._loading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._ensembles: dict[str, Mapping[str, Any]] = {}  # their configurations, once they were checked
        self._gathering = threading.Lock()

    def lease_now(self, digest: str) -> ExitStack | None:
        """A lease, where the version is in memory; closing it gives it back. Doesn't wait."""
        ensemble = self._ensembles.get(digest)
        if ensemble is None:
            return self._one_now(digest)
        with ExitStack() as taken:
            for member in sorted(ensemble["members"]):
                if (one := self._one_now(member)) is None:
                    return None
                taken.enter_context(one)
            return taken.pop_all()

    def _one_now(self, digest: str) -> ExitStack | None:
        with self._lock:
            if digest not in self._whole:
                return None
            lease = ExitStack()
            try:
                lease.enter_context(self.engine.hold(digest))
            except NotFound:  # it had to make room
                self._whole.discard(digest)
                return None
            return lease

    def lease(self, digest: str) -> ExitStack:
        """A lease; loads and checks the version first where that is wanted. Waits. Raises NotServable where every slot is in use
        or the version failed before, Damaged, BadInput where it is for another base, DoesNotFit."""
        with self._loading_of(digest):
            if (lease := self.lease_now(digest)) is not None:
                return lease
            if (failed := self._failed.get(digest)) is not None and time.monotonic() - failed[0] < _REFUSED_S:
                raise failed[1]
            try:
                return self._loaded(digest)
            except RlhfError as error:
                if not isinstance(error, NotServable):
                    self._failed[digest] = (time.monotonic(), error)
                raise

    def settings(self, digest: str) -> Mapping[str, Any]:
        """What a version that is held was trained with."""
        return self._settings[digest]

    def score(self, digest: str, renderings: Renderings, *, low: bool = False) -> Scores:
        """Scores of a reward that is held, as `Engine.score` gives them. low: while there is nothing else to do. Waits for them."""
        return self._scored(self._ensembles.get(digest), digest, renderings, low=low)

    def _scored(
        self, ensemble: Mapping[str, Any] | None, digest: str, renderings: Renderings, *, low: bool = False
    ) -> Scores:
        if ensemble is None:
            return self.engine.score(digest, renderings, low=low)
        from rlhf.engine.ensembles import Rule, combined

        rows_K = [self.engine.score(member, renderings, low=low) for member in ensemble["members"]]
        columns = [[[score for score, _ in row] for row in rows] for rows in rows_K]
        return combined(Rule(ensemble["combine"], ensemble["k"], ensemble["scale"]), columns)

    def warm(self, digests: Iterable[str]) -> dict[str, RlhfError]:
        """Have these in memory, checked, and give what went wrong by digest; one that fails is told to nobody else."""
        wrong = {}
        for digest in digests:
            try:
                self.lease(digest).close()
            except RlhfError as error:
                wrong[digest] = error
        return wrong

    def _loaded(self, digest: str) -> ExitStack:
        began = time.perf_counter()
        opened = registry.open_version(self.workspace, f"sha256:{digest}")
        theirs = opened.manifest["base"]
        if theirs["digest"] != self.base.digest:
            raise BadInput(
                f"{opened.ref} is for the base {theirs['name']}, this server has {self.base.name} in memory",
                fix=f"start one for it: rlhf serve --base {theirs['name']}",
            )
        ensemble = read_json(opened.folder / CONFIG_NAME) if opened.kind == "ensemble" else None
        with ExitStack() as taken:
            if ensemble is not None:
                taken.enter_context(self._gathered(ensemble["members"]))
            else:
                self._load(digest, opened.folder)
                taken.enter_context(self.engine.hold(digest))
            self._check(opened, ensemble)
            with self._lock:
                self._settings[digest] = opened.manifest["settings"]
                if ensemble is not None:
                    self._ensembles[digest] = ensemble
                else:
                    self._whole.add(digest)
            self._on_load(time.perf_counter() - began)
            return taken.pop_all()

    def _gathered(self, members: Sequence[str]) -> ExitStack:
        """Leases on all of them; where one can't be had, those on the others are given back."""
        with self._gathering, ExitStack() as taken:
            for member in sorted(members):
                taken.enter_context(self.lease(member))
            return taken.pop_all()

    def _load(self, digest: str, folder: Path) -> None:
        """Into a slot; where all are in use the next that comes free, if one does. Raises NotServable, DoesNotFit."""
        ends = time.monotonic() + self.room_s
        while True:
            try:
                self.engine.load(digest, folder)
                return
            except BadInput as error:
                fix = error.fix.replace("start it with a larger max_rank", "start the server with a larger max_rank")
                raise DoesNotFit(error.message, fix=fix) from None
            except Conflict as error:
                if time.monotonic() >= ends:
                    fix = "try again in a moment, or start the server with more slots"
                    raise NotServable(f"no room for the version: {error.message}", fix=fix) from None
                time.sleep(_POLL_S)

    def _check(self, opened: registry.OpenVersion, ensemble: Mapping[str, Any] | None) -> None:
        if opened.ref.role == "reward":
            self._check_scores(opened, ensemble)
        else:
            self._check_log_probabilities(opened)

    def _check_scores(self, opened: registry.OpenVersion, ensemble: Mapping[str, Any] | None) -> None:
        """The probes' scores against the manifest's. Raises Damaged."""
        from rlhf.reward.probes import PROBES, probe_digest

        probe = opened.manifest.get("probe")
        if not probe or probe["texts_digest"] != probe_digest():
            return  # published by a release with other probes: its bytes are checked
        prompts = [(Message("user", prompt), Message("assistant", reply)) for prompt, reply in PROBES]
        rows = self._scored(ensemble, opened.ref.digest, [[self.engine.renderer.ids(chat)] for chat in prompts])
        found, wanted = [row[0][0] for row in rows], probe["scores"]
        _require_close(opened, found, _BFLOAT16 * max(map(abs, wanted)) if self.dtype != "float32" else 0.0)

    def _check_log_probabilities(self, opened: registry.OpenVersion) -> None:
        """The mean log-probability a token of each probe's reply against the manifest's; where that holds none of these, that they
        are numbers. Raises Damaged."""
        from rlhf.reward.probes import continuations, probe_digest

        prompts, replies = continuations(self.engine.renderer)
        sums = self.engine.log_probabilities(opened.ref.digest, prompts, replies)
        found = [total / len(reply) for total, reply in zip(sums, replies, strict=True)]
        probe = opened.manifest.get("probe")
        if probe and probe["texts_digest"] == probe_digest():
            _require_close(opened, found, _BFLOAT16_NATS if self.dtype != "float32" else 0.0)
        elif not all(map(math.isfinite, found)):
            raise Damaged(
                f"{opened.ref} gives no probability to a probe's reply",
                fix="it takes no traffic; roll back what points at it, and train it again",
            )

    def _loading_of(self, digest: str) -> threading.Lock:
        with self._lock:
            return self._loading[digest]


def _require_close(opened: registry.OpenVersion, found: Sequence[float], allowed: float) -> None:
    """allowed: what the body's type may change; what the manifest and another machine may is added here."""
    probe = opened.manifest["probe"]
    if len(found) != len(probe["scores"]):
        off = math.inf
    else:
        off = max(abs(ours - theirs) for ours, theirs in zip(found, probe["scores"], strict=True))
    allowed = max(float(probe["tolerance"]), _OTHER_MACHINE, allowed)
    if not off <= allowed:  # NaN too
        raise Damaged(
            f"{opened.ref} says of its probes otherwise than when it was published: by up to {off:.4g}, "
            f"wanted at most {allowed:.4g}",
            fix="it takes no traffic; look at: rlhf adapter verify, and roll back what points at it",
        )
