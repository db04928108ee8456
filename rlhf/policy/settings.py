"""Settings of a policy training. The help beside each field is the only one: `--help`, YAML and documentation print it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from rlhf.config import Settings, require_together

Method = Literal["grpo", "rloo", "dpo"]
# Weight of the KL to the reference where none is given: TRL's own for rloo and dpo; TRL's 0 for grpo would let it drift.
BETA: dict[str, float] = {"grpo": 0.04, "rloo": 0.05, "dpo": 0.1}
# What decides where and how a run runs, not what it gives; or is named by a digest in the version already.
NOT_CONTENT = (
    "name",
    "reward",
    "base",
    "from_version",
    "prompts",
    "device",
    "save_steps",
    "token_budget",
    "report_to",
    "log_steps",
    "gradient_checkpointing",
    "watch_steps",  # measures, and changes no weight; where the guard stopped, the version says at which step
    "watch_prompts",
    "guard_kl",
    "guard_length",
    "guard_cut_off",
    "guard_doubt",
)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class PolicySettings(Settings):
    """Everything that a policy training can be told."""

    LISTED_BY: ClassVar[str] = "rlhf policy settings"

    name: str = Field(description="name of the versions that this training publishes (NAME@1, NAME@2, ...)")
    reward: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        description="reward version that ranks the replies; several = a weighted sum", min_length=1, max_length=8
    )
    base: str = Field(description="base model, by its name in the workspace")
    method: Method = Field(
        description="grpo, rloo (sample, score, step) or dpo (rank sampled or human pairs, then train)"
    )
    from_version: str | None = Field(
        None, description="policy version to go on from, and the reference for the KL; none = the base is both"
    )
    prompts: Path | None = Field(
        None, description="JSONL file of prompts; none = the train side of the (first) reward's snapshot"
    )
    pairs: Literal["sampled", "human"] = Field(
        "sampled",
        description="dpo: rank replies sampled from the policy, or take the human pairs of the reward's snapshot",
    )
    reward_weights: list[float] = Field(
        default_factory=list, description="weight of each reward, in their order; none = 1 each"
    )
    length_penalty: float = Field(0.0, ge=0, description="reward points taken off for each token of a reply")
    cut_off_penalty: float = Field(0.0, ge=0, description="reward points taken off a reply that max_new_tokens cut off")
    seed: int = Field(0, ge=0, lt=2**31, description="seeds the LoRA, the order of the prompts and every reply")
    epochs: float = Field(1.0, gt=0, le=1000, description="passes over the prompts (grpo, rloo) or the pairs (dpo)")
    max_steps: int = Field(0, ge=0, description="stop after this many optimiser steps; 0 = as epochs say")
    max_prompts: int = Field(0, ge=0, description="use at most this many prompts, the first in seeded order; 0 = all")
    pairs_per_step: int = Field(
        8, ge=1, description="pairs (dpo) or prompts (grpo, rloo) in one optimiser step, over all processes"
    )
    samples: int = Field(4, ge=2, le=256, description="replies sampled for each prompt")
    max_new_tokens: int = Field(
        128, ge=1, description="tokens that a reply may have; a longer one is cut off and flagged"
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=10,
        description="of the sampling; other than 1, KL is of what the replies show, not of the policy itself",
    )
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the likeliest tokens that hold this probability")
    rollouts: Literal["auto", "engine", "trl"] = Field(
        "auto",
        description="what draws the replies of grpo and rloo: the engine that also serves, or trl's own generation; "
        "auto = the engine on a CPU where the base and the LoRA fit it, else trl",
    )
    beta: float | None = Field(
        None, ge=0, description="weight of the KL to the reference; none = 0.04 (grpo), 0.05 (rloo), 0.1 (dpo)"
    )
    min_margin: float = Field(0.0, ge=0, description="dpo: best and worst reply must differ by more reward than this")
    learning_rate: float = Field(1e-4, gt=0, lt=1, description="peak learning rate (AdamW)")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="learning rate after the warm-up")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    lora_r: int = Field(16, ge=1, le=1024, description="rank of the LoRA")
    lora_alpha: int = Field(32, ge=1, description="LoRA is scaled by alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the LoRA")
    top_layers: int = Field(0, ge=0, description="layers from the top that carry a LoRA; 0 = all")
    max_length: int = Field(1024, ge=16, description="tokens that prompt and reply may have; oldest turns go first")
    token_budget: int = Field(
        2048, ge=16, description="tokens in one forward; cuts a step into micro-batches (dpo: changes no gradient)"
    )
    watch_steps: int = Field(
        10, ge=0, description="every so many steps, sample replies to fixed prompts and measure them; 0 = never"
    )
    watch_prompts: int = Field(16, ge=2, le=1000, description="prompts of that measurement, two replies each")
    guard_kl: float = Field(
        1.0, ge=0, description="stop when the KL to the reference is above this, nats a token; 0 = no such guard"
    )
    guard_length: tuple[float, float] = Field(
        (0.25, 4.0),
        description="stop when the mean reply is shorter or longer than these multiples of the first measurement's",
    )
    guard_cut_off: float = Field(
        0.95, ge=0, le=1, description="stop when a larger share of the replies is cut off (and larger than at first)"
    )
    guard_doubt: float = Field(
        0.48,
        ge=0,
        le=0.5,
        description="stop when the reward's doubt is above this: its own chance to rank two replies wrongly",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, slower")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="type of the frozen body; LoRA, heads, scores and loss are float32"
    )
    quantize: Literal["none", "nf4"] = Field(
        "none", description="nf4 = QLoRA: the frozen body in 4 bits (bitsandbytes)"
    )
    save_steps: int = Field(25, ge=1, description="a checkpoint every so many steps")
    log_steps: int = Field(1, ge=1, description="a line in metrics.jsonl every so many steps")
    report_to: str = Field(
        "none", description="trackers that the Trainer knows, comma-separated; none = metrics.jsonl alone"
    )

    @model_validator(mode="after")
    def _fit(self) -> PolicySettings:
        n_weights, n_rewards = len(self.reward_weights), len(self.reward)
        require_together(
            (
                not n_weights or n_weights == n_rewards,
                f"reward_weights has {n_weights} weights for {n_rewards} rewards",
            ),
            (any(self.weights), "reward_weights are all 0: nothing would tell replies apart"),
            (len(set(self.reward)) == n_rewards, "reward names a version twice"),
            (
                self.pairs != "human" or self.method == "dpo",
                f"pairs=human is for dpo; {self.method} samples its replies as it goes",
            ),
            (
                self.pairs != "human" or self.prompts is None,
                "pairs=human takes the human pairs of the reward's snapshot; leave prompts out",
            ),
            (
                0 <= self.guard_length[0] < 1 < self.guard_length[1],
                "guard_length wants two multiples around 1, such as [0.25, 4]",
            ),
            (
                self.method != "dpo" or self.kl_weight != 0,
                "dpo learns nothing at beta = 0: its loss is a function of beta times the log-ratios",
            ),
            (self.max_new_tokens < self.max_length, "max_new_tokens leaves no room for a prompt in max_length"),
        )
        return self

    @property
    def kl_weight(self) -> float:
        return BETA[self.method] if self.beta is None else self.beta

    @property
    def weights(self) -> list[float]:
        return self.reward_weights or [1.0] * len(self.reward)

    def content(self) -> dict[str, Any]:
        """The settings that a version's digest covers."""
        kept = {key: value for key, value in self.model_dump(mode="json").items() if key not in NOT_CONTENT}
        return kept | {"beta": self.kl_weight, "reward_weights": self.weights}
