"""The live engine: one base in memory, many versions beside it, replies in streams and scores. One thread (`turns.py`) does all
computing; everything here may be called from any other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rlhf.engine import policies
from rlhf.engine.bases import Base
from rlhf.engine.decoding import ContinuousBatch
from rlhf.engine.live_scorers import LivePolicy
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.engine.residents import Residents
from rlhf.engine.score_jobs import LogprobJob, ScoreJob
from rlhf.engine.slots import BASE, SlotBank
from rlhf.engine.speaking import Speaking
from rlhf.engine.streams import ReplyStream
from rlhf.engine.turns import Turns
from rlhf.engine.wanted import Load, Renderings, Resident, Scores, Stream, Wanted
from rlhf.errors import BadInput


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
        ends = self.model.generation_config.eos_token_id
        self._vocabulary = self.model.get_input_embeddings().num_embeddings
        self._residents = Residents(self.model, self.bank)
        self._turns = Turns(
            self.batch,
            self._release,
            rows=rows,
            kv_tokens=kv_tokens,
            ends=frozenset(ends if isinstance(ends, list) else [ends]),
        )

    def load(self, digest: str, folder: Path) -> float:
        """Make a version resident and give the seconds that it took; one that is there stays. Any thread may call it. Raises
        BadInput where it doesn't fit the base, Conflict where every slot is in use."""
        return self._residents.load(digest, folder)

    def hold(self, digest: str) -> AbstractContextManager[Resident]:
        """A lease: inside the block the version stays resident. Raises NotFound where it isn't."""
        return self._residents.hold(digest)

    def unload(self, digest: str) -> None:
        """Let a version go. Raises NotFound where it isn't there, Conflict while it is in use."""
        self._residents.remove(digest)

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
            self._turns.speak(speaking)
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
                self._residents.release(version)
                raise BadInput(f"version {wanted.adapter[:12]} is a {version.kind}", fix="ask a policy for a reply")
        return Speaking(wanted, slot, self._tokenizer, self.batch.device, ReplyStream(self._turns.wake))

    def score(self, digest: str, renderings: Renderings, *, low: bool = False) -> Scores:
        """Scores of a resident reward version, as `scoring` gives them. Waits for them. low: computed while no
        reply waits for a row and no other job. Raises NotFound, BadInput."""
        version = self._residents.take(digest)
        try:
            if version.scorer is None:
                raise BadInput(f"version {digest[:12]} is a policy", fix="name a reward version")
            return self._turns.done(ScoreJob(version.scorer, [Group.of(replies) for replies in renderings]), low=low)
        finally:
            self._residents.release(version)

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
            return self._turns.done(LogprobJob(LivePolicy(self.model, self.bank, version.slot), prompts, replies))
        finally:
            self._residents.release(version)

    def _release(self, one: Speaking) -> None:
        if one.wanted.adapter is not None and not one.is_released:
            one.is_released = True
            self._residents.release_of(one.wanted.adapter)

    def busy(self) -> Load:
        """How busy the engine is now."""
        return self._turns.load()

    @property
    def is_alive(self) -> bool:
        """Whether anything asked will be computed."""
        return self._turns.is_alive

    @property
    def trouble(self) -> str | None:
        """What its last work failed with; None where that was done."""
        return self._turns.trouble

    def close(self) -> None:
        """End the thread; replies under way get EngineFailed."""
        self._turns.close()
