"""The three methods: which TRL trainer, with which arguments, on what."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, GRPOConfig, RLOOConfig

from rlhf.engine.generation import Sampled
from rlhf.engine.on_policy import OnPolicy
from rlhf.engine.policies import TRAINED
from rlhf.errors import BadInput, Interrupted
from rlhf.ids import chance
from rlhf.policy.material import Material
from rlhf.policy.pairs import Ranked, TokenPair, length_correlation, sample_and_rank
from rlhf.policy.prompts import RenderedPrompt
from rlhf.policy.reply_log import adapter_digest, rows_of
from rlhf.policy.scored import Drawn, Scored
from rlhf.policy.setup import Setup
from rlhf.policy.trainers import GroupTrainer, LeaveOneOutTrainer, MeasuredRollouts, PairTrainer
from rlhf.records import Message
from rlhf.training.progress import StopAtSignal, lines_of

Say = Callable[[str], None]
_PROMPTS_AT_ONCE = 16  # of a sampling: what an interrupted one loses at most


def common_arguments(material: Material, steps: int, folder: Path) -> dict[str, Any]:
    """Arguments that the Trainer takes whatever the method."""
    settings = material.settings
    return {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": math.floor(settings.warmup * steps),  # its first step has a learning rate of 0
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "beta": settings.kl_weight,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": False,  # the body has its type already, and LoRA runs in it (engine.policies.BodyDtype)
        "activation_checkpointing": settings.gradient_checkpointing,
        "disable_dropout": settings.lora_dropout == 0,
        "use_cpu": material.place.device == "cpu",
        "logging_steps": settings.log_steps,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "report_to": [name.strip() for name in settings.report_to.split(",")],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "run_name": f"{settings.name}-{folder.name}",
        "ddp_find_unused_parameters": False,
    }


def dpo_trainer(material: Material, setup: Setup, pairs: Sequence[TokenPair], steps: int, folder: Path) -> PairTrainer:
    """DPO (Rafailov et al. 2023) on given or ranked pairs; a step is a fixed number of pairs whatever cuts it."""
    args = DPOConfig(**common_arguments(material, steps, folder), max_length=None)
    args._n_gpu = min(args.n_gpu, 1)
    trainer = PairTrainer(
        model=setup.model,
        args=args,
        rows=pairs,
        pairs_per_step=material.settings.pairs_per_step,
        token_budget=material.settings.token_budget,
        processing_class=material.base.tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)  # it prints to standard output, which is the result's
    return trainer


def rollout_trainer(
    material: Material, setup: Setup, steps: int, folder: Path, say: Say | None = None
) -> MeasuredRollouts:
    """GRPO or RLOO on prompts; the rewards come in as a function that scores on the shared base."""
    settings = material.settings
    n_processes = PartialState().num_processes
    n_replies = settings.pairs_per_step * settings.samples // n_processes
    micro = _micro_batch(material, n_replies)
    kind, config = (GroupTrainer, GRPOConfig) if settings.method == "grpo" else (LeaveOneOutTrainer, RLOOConfig)
    args = config(
        **common_arguments(material, steps, folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=n_replies // micro,  # one generation an optimiser step: a resume begins at one
        num_generations=settings.samples,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        shuffle_dataset=False,  # the rows below are the whole run in its order, so that a resume finds its place
    )
    args._n_gpu = min(args.n_gpu, 1)
    engine = _engine(material, setup, say)  # before TRL patches the model
    rows = _in_order(material.prompts, steps * settings.pairs_per_step, settings.seed)
    trainer: MeasuredRollouts = kind(
        model=setup.model,
        reward_funcs=[RewardFunction(setup)],
        args=args,
        train_dataset=Dataset.from_list(
            [{"prompt": [m.as_json() for m in row.kept], "name": row.prompt.id} for row in rows]
        ),
        processing_class=_left_padded(material),
    )
    if setup.reference is not None and setup.reference not in setup.model.peft_config:  # TRL makes none at beta = 0
        _copy_of_trained(setup, setup.reference)
    trainer.reference = setup.reference
    if engine is not None:
        trainer.draw_from(engine)
    trainer.remove_callback(PrinterCallback)  # type: ignore[attr-defined]
    return trainer


def _engine(material: Material, setup: Setup, say: Say | None) -> OnPolicy | None:
    """What draws the replies; None = TRL's own generation. Raises BadInput where the engine was asked for and doesn't fit."""
    settings = material.settings
    if settings.rollouts == "trl" or (settings.rollouts == "auto" and material.place.device != "cpu"):
        return None
    try:
        if settings.quantize != "none":
            raise BadInput(f"the engine holds no base with quantize={settings.quantize}", fix="set rollouts=trl")
        engine = OnPolicy(setup.model)
        engine.require_fit(max(len(prompt.ids) for prompt in material.prompts) + settings.max_new_tokens)
    except BadInput as error:
        if settings.rollouts == "engine":
            raise
        if say is not None:
            say(f"TRL's own generation draws the replies: {error.message}")
        return None
    return engine


class RewardFunction:
    """A run's rewards as TRL calls them; what it scored goes to the reply log with the digest of the adapter that wrote it."""

    __name__ = "points"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def __call__(
        self,
        prompts: Sequence[Sequence[Mapping[str, str]]],
        completions: Sequence[Sequence[Mapping[str, str]]],
        completion_ids: Sequence[Sequence[int]],
        name: Sequence[str],
        trainer_state: Any,
        **kwargs: Any,
    ) -> list[float | None]:
        """Points of each completion; None where no reward could score it (TRL leaves it out of the step)."""
        ends = self.setup.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        drawn = [
            Drawn(
                tuple(Message(m["role"], m["content"]) for m in prompt),
                completion[0]["content"],
                len(ids),
                not ids or ids[-1] not in ends,
            )
            for prompt, completion, ids in zip(prompts, completions, completion_ids, strict=True)
        ]
        scored = self.setup.rewards.score(drawn)
        rows = rows_of(trainer_state.global_step, "train", name, drawn, scored, adapter_digest(self.setup.model))
        state = PartialState()
        rows = gather_object(rows) if state.num_processes > 1 else rows
        if state.is_main_process:
            self.setup.log.append(rows)
        return [score.points for score in scored]


def ranked_pairs(material: Material, setup: Setup, stop: StopAtSignal, say: Say) -> tuple[TokenPair, ...]:
    """Sample replies to the prompts, score them, and pair the best with the worst of each prompt.

    What an interrupted run has sampled is read back from its log: a reply depends on its seed alone. Raises Interrupted at a
    signal, BadInput where no prompt gives a pair.
    """
    settings = material.settings
    digest = adapter_digest(setup.model)
    known = _kept(setup, material.prompts, settings.samples, digest)
    state = PartialState()
    share = _PROMPTS_AT_ONCE * state.num_processes
    for start in range(0, len(material.prompts), share):
        # A part is sampled whole or not at all: its replies' last bits depend on what stands in the batch beside them.
        part = material.prompts[start : start + share]
        if all(prompt.prompt.id in known for prompt in part):
            continue
        mine = part[state.process_index :: state.num_processes]
        fresh = (
            sample_and_rank(
                setup.model,
                setup.rewards,
                mine,
                settings.samples,
                setup.sampling,
                setup.decode,
                adapter=TRAINED if material.parent else None,
            )
            if mine
            else []
        )
        every: list[Ranked] = gather_object(fresh) if state.num_processes > 1 else fresh
        known |= {ranked.prompt.prompt.id: ranked for ranked in every}
        if state.is_main_process:
            own = {"part": start, "of": len(part) * settings.samples}
            setup.log.append([row | own for ranked in every for row in ranked.rows(digest)])
        say(f"sampled and scored {settings.samples} replies to {len(known)} of {len(material.prompts)} prompts")
        asked = [stop.asked]
        if state.num_processes > 1:
            broadcast_object_list(asked)
        if asked[0]:
            raise Interrupted(
                f"stopped while sampling: {len(known)} of {len(material.prompts)} prompts have their replies",
                fix="go on with the same command and --resume",
            )
    made = [known[prompt.prompt.id].pair(settings.min_margin) for prompt in material.prompts]
    pairs = tuple(pair for pair in made if pair is not None)
    say(f"{len(pairs)} pairs of best and worst; {len(made) - len(pairs)} prompts whose replies are too alike")
    if found := length_correlation(list(known.values())):
        say(f"points go with a reply's tokens at {found[0]:+.2f} (rank correlation within {found[1]} prompts)")
    if not pairs:
        raise BadInput(
            f"none of {len(made)} prompts has two replies that the reward tells apart by more than {settings.min_margin:g}",
            fix="lower min_margin, sample more replies or warmer, or train a better reward",
        )
    return pairs


def _kept(setup: Setup, prompts: Sequence[RenderedPrompt], samples: int, digest: str) -> dict[str, Ranked]:
    """Replies that this run has sampled already, by prompt; `ReplyLog.cut_back` has dropped a part that a kill cut short."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in lines_of(setup.log.path):
        row = json.loads(line)
        if row["phase"] == "ranked" and row["adapter"] == digest:
            rows.setdefault(row["prompt"], []).append(row)
    found = {}
    for prompt in prompts:
        own = rows.get(prompt.prompt.id, [])[:samples]
        if len(own) == samples:
            found[prompt.prompt.id] = Ranked(
                prompt,
                tuple(Sampled(tuple(row["ids"]), row["cut_off"]) for row in own),
                tuple(Drawn(prompt.kept, row["reply"], row["tokens"], row["cut_off"]) for row in own),
                tuple(Scored(row["points"], tuple(row["scores"])) for row in own),
            )
    return found


def _in_order(prompts: Sequence[RenderedPrompt], n: int, seed: int) -> list[RenderedPrompt]:
    """n prompts: all of them in their order, then again in another one, and so on."""
    rows: list[RenderedPrompt] = []
    epoch = 0
    while len(rows) < n:
        order = list(prompts)
        if epoch:
            chance(seed, "order", str(epoch)).shuffle(order)
        rows += order
        epoch += 1
    return rows[:n]


def _micro_batch(material: Material, n_replies: int) -> int:
    """Replies in one forward: the most that divide this process's replies of a step within the token budget."""
    longest = max(len(prompt.ids) for prompt in material.prompts) + material.settings.max_new_tokens
    most = max(1, material.settings.token_budget // longest)
    return max(size for size in range(1, min(most, n_replies) + 1) if n_replies % size == 0)


def _left_padded(material: Material) -> Any:
    tokenizer = material.base.tokenizer()
    tokenizer.padding_side = "left"
    return tokenizer


def _copy_of_trained(setup: Setup, name: str) -> None:
    """A frozen copy of the adapter as it is before training, for the KL."""
    model = setup.model
    model.add_adapter(name, model.peft_config[TRAINED])
    parameters = dict(model.named_parameters())
    for own, parameter in parameters.items():
        if f".{TRAINED}." in own:
            parameters[own.replace(f".{TRAINED}.", f".{name}.")].data.copy_(parameter.data)
