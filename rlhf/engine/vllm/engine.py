"""The engine that `serving` asks, over vLLM: versions in and out, replies, scores, log-probabilities.

A version's LoRA is checked against the base's layers, written as the plainest PEFT folder and loaded under a name of its own. vLLM
loads what it finds a place for and says nothing of the rest, so the version is tried before it counts as there: one whose weights
change nothing is refused. What it says is then asked by `serving.holding`, like any other's.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import Lock

import torch

from rlhf.engine import lora_files
from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.engine.slots import require_fit
from rlhf.engine.vllm import folders
from rlhf.engine.vllm.addresses import Addresses, served_name
from rlhf.engine.vllm.replies import Replies
from rlhf.engine.vllm.residents import Residents, Version
from rlhf.engine.vllm.server import Lost, Server
from rlhf.engine.vllm.trying import Shape, require_effect, require_kinds
from rlhf.engine.wanted import EngineFailed, Load, Renderings, Resident, Scores, Stream, Wanted
from rlhf.errors import BadInput, Conflict
from rlhf.registry.folder import kind_of

_HOTTEST = 2.0  # the highest temperature that vLLM takes
_NOT_LORA = {
    "head": "an instant reward, which reads the base's inner states",
    "ensemble": "an ensemble, which has no weights of its own",
}


class VllmEngine:
    """slots: versions at a time at each process, vLLM's --max-loras; max_rank: of a LoRA, its --max-lora-rank; rows: replies asked
    for at a time. scratch: an existing folder that vLLM sees under the same path; what is written there goes at the end.

    Raises EngineFailed where vLLM doesn't answer, BadUsage where it wasn't started for this base.
    """

    def __init__(
        self,
        base: Base,
        addresses: Addresses,
        scratch: Path,
        *,
        slots: int = 16,
        max_rank: int = 64,
        rows: int = 32,
    ) -> None:
        self.max_rank = max_rank
        self._shape = Shape.of(base)
        name = served_name(base)
        self._generate = Server(addresses.generate, addresses.key, name)
        self._score = None if addresses.score is None else Server(addresses.score, addresses.key, name)
        try:
            self.max_length = min(server.greet() for server in self._servers)
            require_kinds(self._generate, self._score, self._shape)
            self.why = self._described()
        except BaseException:
            self._hang_up()
            raise
        self.renderer = Renderer(base.tokenizer(), self.max_length)
        self._residents = Residents(slots)
        self._loading = Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="tmp-vllm-", dir=scratch))
        self._folder.chmod(0o755)  # vLLM may be somebody else's process
        self._replies = Replies(
            self._generate,
            addresses.key,
            tokenizer=base.tokenizer(),
            ends=self._shape.ends,
            rows=rows,
            max_length=self.max_length,
            release=self._residents.release,
            lost=self._residents.forget,
        )

    def load(self, digest: str, folder: Path) -> float:
        """Make a version resident and give the seconds that it took; one that is there stays. Any thread may call it. Raises
        BadInput where it doesn't fit the base or changes nothing there, Conflict where every slot is in use, EngineFailed."""
        start = time.perf_counter()
        with self._loading:
            if not self._residents.touch(digest):
                self._residents.add(self._brought(digest, folder))
        return time.perf_counter() - start

    def hold(self, digest: str) -> AbstractContextManager[Resident]:
        """A lease: inside the block the version stays resident. Raises NotFound where it isn't."""
        return self._residents.hold(digest)

    def unload(self, digest: str) -> None:
        """Let a version go. Raises NotFound where it isn't there, Conflict while it is in use."""
        with self._loading:
            self._take_away(self._residents.remove(digest))

    def resident(self) -> dict[str, Resident]:
        """What vLLM has for us, by digest."""
        return self._residents.records()

    def reply(self, wanted: Sequence[Wanted]) -> list[Stream]:
        """Begin replies, in the order given. Each holds its version until it ends. Doesn't wait. Raises NotFound where a version
        isn't resident (never the base in its place), BadInput where a prompt and its reply can't fit."""
        for one in wanted:
            self._require_fit(one)
        taken: list[tuple[Wanted, Version | None]] = []
        try:
            for one in wanted:
                taken.append((one, None if one.adapter is None else self._taken(one.adapter, "policy")))
            return [*self._replies.begin(taken)]
        except BaseException:
            for _, version in taken:
                if version is not None:
                    self._residents.release(version)
            raise

    def score(self, digest: str, renderings: Renderings, *, low: bool = False) -> Scores:
        """Scores of a resident reward version: its head, in float32, on the state of each rendering's last token. Waits for them.
        low: as any other, for replies don't wait for the process that scores. Raises NotFound, BadInput, EngineFailed."""
        version = self._taken(digest, "reward")
        try:
            rows = [row for replies in renderings for row in replies]
            states = version.server.states(version.name, rows, digest) if rows else torch.empty(0, self._shape.hidden)
            assert version.head is not None
            found = iter((states @ version.head.t()).squeeze(1).tolist())
            return [[(next(found), None) for _ in replies] for replies in renderings]
        except Lost:
            self._residents.forget(version)
            raise
        finally:
            self._residents.release(version)

    def log_probabilities(
        self, adapter: str | None, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
    ) -> list[float]:
        """Sum of the log-probabilities (nats, temperature 1) of each reply's tokens after its prompt, by a resident policy version
        or the bare base. Waits for them. Raises NotFound, BadInput, EngineFailed."""
        version = None if adapter is None else self._taken(adapter, "policy")
        try:
            name = self._generate.base_name if version is None else version.name
            told = [
                self._generate.logprobs(name, [*prompt, *reply], adapter or name)[len(prompt) - 1 :]
                for prompt, reply in zip(prompts, replies, strict=True)
            ]
            return [sum(values) for values in told]
        except Lost:
            if version is not None:
                self._residents.forget(version)
            raise
        finally:
            if version is not None:
                self._residents.release(version)

    def busy(self) -> Load:
        """How busy the engine is now."""
        return self._replies.load()

    @property
    def is_alive(self) -> bool:
        """Whether anything asked is passed on."""
        return self._replies.is_alive

    @property
    def trouble(self) -> str | None:
        """What its last reply failed with; None where that was written."""
        return self._replies.trouble

    def close(self) -> None:
        """End what runs; replies under way get EngineFailed; what we loaded is unloaded."""
        if not self._replies.close():
            return
        for version in self._residents.all():
            self._take_away(version)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._hang_up()

    def _brought(self, digest: str, folder: Path) -> Version:
        kind = kind_of(folder)
        if kind in _NOT_LORA:
            raise BadInput(
                f"{folder.name} is {_NOT_LORA[kind]}; vLLM serves LoRAs", fix="serve it with --engine embedded"
            )
        weights = lora_files.read(folder)
        require_fit(weights, self._shape.widths, self.max_rank)
        head = None if weights.head is None else weights.head.float()
        server = self._generate if head is None else self._scoring(head)
        name = folders.name_of(folder, digest, "policy" if head is None else "reward")
        if any(one.name == name for one in self._residents.all()):
            raise Conflict(f"{name} is another version with the same first digits", fix="unload that one before")
        slot, gone = self._residents.reserve(server)
        try:
            shutil.rmtree(self._folder / name, ignore_errors=True)  # of one that vLLM lost
            for one in gone:
                self._take_away(one)
            version = Version(digest, "policy" if head is None else "reward", name, server, slot, weights.rank, head)
            server.load(name, folders.write(self._folder / name, weights))
            require_effect(version, weights, self._shape.probe)
            return version
        except BaseException:
            self._residents.free(server, slot)
            self._clear(server, name)
            raise

    def _scoring(self, head: torch.Tensor) -> Server:
        if self._score is None:
            raise BadInput(
                "a reward needs a vLLM that pools, none is named", fix="start one; name it with --vllm-score"
            )
        if tuple(head.shape) != (1, self._shape.hidden) or not torch.isfinite(head).all():
            raise BadInput(
                f"the score head is {tuple(head.shape)}, the base wants {(1, self._shape.hidden)} finite numbers",
                fix="use the base that it was trained on",
            )
        return self._score

    def _take_away(self, version: Version) -> None:
        self._clear(version.server, version.name)

    def _clear(self, server: Server, name: str) -> None:
        with suppress(EngineFailed, BadInput):  # vLLM may have lost it already, or be gone itself
            server.unload(name)
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _taken(self, digest: str, kind: str) -> Version:
        version = self._residents.take(digest)
        if version.kind != kind:
            self._residents.release(version)
            ask = "ask a policy for a reply" if kind == "policy" else "name a reward version"
            raise BadInput(f"version {digest[:12]} is a {version.kind}", fix=ask)
        return version

    def _require_fit(self, wanted: Wanted) -> None:
        n, vocabulary = len(wanted.prompt), self._shape.vocabulary
        if n + wanted.max_tokens > self.max_length:
            raise BadInput(
                f"a prompt of {n} tokens and a reply of {wanted.max_tokens} come to more than {self.max_length}",
                fix="ask for a shorter reply, or shorten the prompt",
            )
        if not 0 <= min(wanted.prompt) <= max(wanted.prompt) < vocabulary:
            raise BadInput(
                f"a prompt holds tokens that are not from 0 to {vocabulary - 1}",
                fix="render it with this base's tokenizer",
            )
        if wanted.temperature > _HOTTEST:
            raise BadInput(f"temperature is {wanted.temperature}, vLLM takes 0 to {_HOTTEST:g}", fix="ask for less")

    @property
    def _servers(self) -> list[Server]:
        return [server for server in (self._generate, self._score) if server is not None]

    def _hang_up(self) -> None:
        for server in self._servers:
            server.close()

    def _described(self) -> str:
        where = f"vLLM {self._generate.version()} at {self._generate.url} writes"
        return f"{where}, none scores" if self._score is None else f"{where}, at {self._score.url} scores"
