"""What a policy training reads: opened and checked before a run is started or a line is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.utils import broadcast_object_list

from rlhf import registry, snapshots
from rlhf.engine import bases, placement
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.ids import chance, digest_of
from rlhf.policy.pairs import TokenPair, human_pairs
from rlhf.policy.prompts import Prompt, RenderedPrompt, prompts_of, read_prompts, rendered
from rlhf.policy.settings import PolicySettings
from rlhf.reward.material import check_trackers
from rlhf.store import Workspace

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a training reads. prompts: in seeded order; pairs: people's, where they are trained on.

    watched: prompts of the watch. snapshot: where prompts or pairs come from, None = a file. counts: what became of them.
    """

    settings: PolicySettings
    base: bases.Base
    rewards: tuple[registry.OpenVersion, ...]
    parent: registry.OpenVersion | None
    place: placement.Placement
    renderer: Renderer
    prompts: tuple[RenderedPrompt, ...]
    pairs: tuple[TokenPair, ...]
    watched: tuple[RenderedPrompt, ...]
    snapshot: snapshots.Snapshot | None
    counts: dict[str, int]

    @property
    def source_digest(self) -> str:
        """What the training learns on, whatever file or snapshot it stands in: prompts, or pairs, in their order."""
        if self.settings.pairs == "human":
            return digest_of([pair.id for pair in self.pairs])
        return digest_of([prompt.prompt.digest for prompt in self.prompts])

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run for `--resume`: the settings, and the content that their names meant."""
        return {
            **self.settings.model_dump(mode="json"),
            "base_digest": self.base.digest,
            "reward_digests": [reward.ref.digest for reward in self.rewards],
            "parent": self.parent.ref.digest if self.parent else None,
            "source": self.source_digest,
        }


def open_material(workspace: Workspace, settings: PolicySettings, n_processes: int, say: Say) -> Material:
    """Open what the settings name. Raises before anything is started or written."""
    registry.check_name(settings.name)
    check_trackers(settings.report_to)
    base = bases.get(workspace, settings.base)
    bases.check(workspace, base)
    opened = tuple(_open(workspace, name, "reward", base) for name in settings.reward)
    parent = _open(workspace, settings.from_version, "policy", base) if settings.from_version else None
    if parent is not None:
        kept = ("lora_r", "lora_alpha", "lora_dropout", "top_layers")  # the adapter's shape is its parent's
        known = parent.manifest["settings"]
        settings = settings.model_copy(update={key: known[key] for key in kept if key in known})
    if settings.top_layers > (base.details.get("layers") or settings.top_layers):
        raise BadUsage(
            f"top_layers={settings.top_layers}, but {base.name} has {base.details['layers']} layers",
            fix="use at most that, or 0 for all",
        )
    _check_samples(settings, n_processes)
    renderer = Renderer(base.tokenizer(), settings.max_length)
    cut = None if settings.prompts and settings.pairs == "sampled" else _snapshot_of(workspace, opened[0], settings)
    prompts: tuple[RenderedPrompt, ...] = ()
    pairs: tuple[TokenPair, ...] = ()
    if settings.pairs == "human":
        assert cut is not None
        found, counts = human_pairs(list(cut.rows("train")), renderer)
        pairs = tuple(found)
    else:
        prompts, counts = _prompts(workspace, settings, cut, renderer)
    if not prompts and not pairs:
        raise BadInput(
            f"nothing to train on in {settings.prompts or (cut and cut.ref)}: {counts}",
            fix="raise max_length or lower max_new_tokens, or give other prompts",
        )
    say(f"{settings.prompts or (cut and cut.ref)}: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    place = _place(settings, n_processes)
    say(f"device and type: {place.why}")
    watched = _watched(workspace, settings, cut, renderer, prompts)
    return Material(settings, base, opened, parent, place, renderer, prompts, pairs, watched, cut, counts)


def _open(workspace: Workspace, name: str, role: Any, base: bases.Base) -> registry.OpenVersion:
    opened = registry.open_version(workspace, registry.resolve(workspace, name, role=role))
    if opened.manifest["base"]["digest"] != base.digest:
        raise BadInput(
            f"{name} stands on the base {opened.manifest['base']['name']}, not on {base.name}",
            fix="rewards, policy and reference share one base: name that one",
        )
    return opened


def _check_samples(settings: PolicySettings, n_processes: int) -> None:
    """TRL splits a step's replies evenly over the processes."""
    replies = settings.pairs_per_step * settings.samples
    if settings.method != "dpo" and replies % n_processes:
        raise BadUsage(
            f"{settings.pairs_per_step} prompts of {settings.samples} replies are {replies} replies a step, which "
            f"{n_processes} processes can't share evenly",
            fix="choose pairs_per_step or samples as a multiple of the number of processes",
        )


def _snapshot_of(workspace: Workspace, reward: registry.OpenVersion, settings: PolicySettings) -> snapshots.Snapshot:
    digest = reward.manifest.get("snapshot_digest")
    wanted = (
        "use a reward whose snapshot is here, or sampled pairs"
        if settings.pairs == "human"
        else "give prompts with --prompts FILE"
    )
    if not digest:
        raise BadInput(f"{reward.ref} was trained on no snapshot that is known here", fix=wanted)
    try:
        return snapshots.open_snapshot(workspace, f"sha256:{digest}")
    except NotFound:
        raise BadInput(f"the snapshot of {reward.ref} is not in this workspace", fix=wanted) from None


def _prompts(
    workspace: Workspace, settings: PolicySettings, cut: snapshots.Snapshot | None, renderer: Renderer
) -> tuple[tuple[RenderedPrompt, ...], dict[str, int]]:
    """The prompts that fit, in seeded order, and no more than the run needs."""
    given = read_prompts(settings.prompts) if settings.prompts else prompts_of(workspace, cut.ref if cut else "")
    fits, counts = rendered(given, renderer, settings.max_new_tokens)
    chance(settings.seed, "prompts").shuffle(fits)
    wanted = len(fits) if not settings.max_prompts else min(settings.max_prompts, len(fits))
    if settings.max_steps:
        wanted = min(wanted, settings.max_steps * settings.pairs_per_step)
    return tuple(fits[:wanted]), counts | {"used": wanted}


def _watched(
    workspace: Workspace,
    settings: PolicySettings,
    cut: snapshots.Snapshot | None,
    renderer: Renderer,
    prompts: Sequence[RenderedPrompt],
) -> tuple[RenderedPrompt, ...]:
    """Prompts that the training doesn't use where there are such: the test side, else its own first ones."""
    if not settings.watch_steps:
        return ()
    held_out: list[Prompt] = prompts_of(workspace, cut.ref, "test") if cut is not None else []
    fits, _ = rendered(held_out, renderer, settings.max_new_tokens)
    fits = fits or list(prompts)
    if not fits and cut is not None:
        fits, _ = rendered(prompts_of(workspace, cut.ref), renderer, settings.max_new_tokens)
    return tuple(fits[: settings.watch_prompts])


def _place(settings: PolicySettings, n_processes: int) -> placement.Placement:
    chosen = [placement.choose(settings.device, settings.dtype)]
    if n_processes > 1:
        broadcast_object_list(chosen)  # near the threshold two processes could measure themselves into two types
    return chosen[0]
