"""Settings of a reward training. The help beside each field is the only one: `--help`, YAML and documentation print it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rlhf.config import Settings, require_together

# What decides where and how a run runs, not what it gives; or is named by a digest in the version already.
NOT_CONTENT = (
    "name",
    "snapshot",
    "base",
    "from_version",
    "device",
    "save_steps",
    "token_budget",
    "report_to",
    "log_steps",
    "test_pairs",
    "packing",  # packed equals padded
    "gradient_checkpointing",
    "trunk",  # what is kept equals what is computed, up to the rounding that the run says
    "trunk_gib",
    "baseline",
)
# How steps are made: a head is fitted at once, so a value that was asked for would do nothing.
OF_STEPS = (
    "from_version", "epochs", "max_steps", "pairs_per_step", "learning_rate", "schedule", "warmup", "weight_decay",
    "max_grad_norm", "lora_r", "lora_alpha", "lora_dropout", "top_layers", "margin", "centring", "members",
    "gradient_checkpointing", "head_start",
)  # fmt: skip
_OF_HEADS = ("head_layers", "head_pooling")
_OF_MEMBERS = ("combine", "doubt_k")


class RewardSettings(Settings):
    """Everything that a reward training can be told."""

    LISTED_BY: ClassVar[str] = "rlhf reward settings"

    name: str = Field(description="name of the versions that this training publishes (NAME@1, NAME@2, ...)")
    snapshot: str = Field(description="snapshot to train on: NAME (its latest cut) or NAME@2")
    base: str = Field(description="base model, by its name in the workspace")
    from_version: str | None = Field(None, description="reward version to go on from; its LoRA shape is kept")
    kind: Literal["lora", "head"] = Field(
        "lora",
        description="lora = an adapter trained by steps; head = a linear head on the frozen base's inner states, fitted at once",
    )
    head_layers: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="layers whose states a head reads, numbered from 1; [] = those that did best on HH"
    )
    head_pooling: Literal["last", "mean", "both"] = Field(
        "both", description="what a head reads of a reply: its last token's state, the mean over its tokens, or both"
    )
    head_prior: float = Field(
        0.0, ge=0, description="precision of a head's prior, for each feature; 0 = chosen on opening turns left out"
    )
    head_start: bool = Field(
        False,
        description="LoRA's own score head starts as the head fitted on the base's last state of all train pairs, not at random",
    )
    baseline: bool = Field(
        True, description="a LoRA's report shows the instant head, fitted on the same pairs, beside it"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seeds the head, the LoRA and the order of the pairs")
    epochs: float = Field(2.0, gt=0, le=1000, description="passes over the train side")
    max_steps: int = Field(0, ge=0, description="stop after this many optimiser steps; 0 = as epochs say")
    pairs_per_step: int = Field(16, ge=1, description="pairs in one optimiser step, over all processes")
    learning_rate: float = Field(2e-4, gt=0, lt=1, description="peak learning rate (AdamW)")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="learning rate after the warm-up")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    lora_r: int = Field(16, ge=1, le=1024, description="rank of the LoRA")
    lora_alpha: int = Field(32, ge=1, description="LoRA is scaled by alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the LoRA")
    top_layers: int = Field(0, ge=0, description="layers from the top that carry a LoRA; 0 = all")
    labels: Literal["soft", "majority", "reliability"] = Field(
        "soft",
        description="target of a pair: share of its votes, their majority, or the share with each vote weighted by how far "
        "its labeler can be trusted (Dawid-Skene)",
    )
    ties: Literal["davidson", "rao_kupper", "half", "drop"] = Field(
        "davidson",
        description="a tie is a third outcome with a parameter of its own (Davidson 1970, Rao & Kupper 1967), half a vote for each "
        "side, or left out and counted. On convarg's votes davidson did best: held-out log-loss 0.524, half 0.530, paired "
        "difference 0.006 [0.001, 0.011] (scripts/table_labels.py). A head takes a tie for half a vote, or drops it",
    )
    smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of each vote for a side that is given to both sides alike"
    )
    margin: float = Field(0.0, ge=0, description="score margin wanted for each step of a judgement's strength above 1")
    centring: float = Field(
        0.01, ge=0, description="weight of (score chosen + score rejected)^2, which centres rewards on 0"
    )
    length_penalty: float = Field(
        0.0,
        ge=0,
        description="weight of (correlation of score and length differences within pairs)^2 in a step's loss; 0 = none",
    )
    set_aside: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the train side, by opening turn, that is left for rlhf reward calibrate; 0 = none",
    )
    members: int = Field(
        1,
        ge=1,
        le=50,
        description="members of an ensemble: each its own version NAME.1, NAME.2 ..., its own draw and seed",
    )
    bootstrap: bool = Field(
        False, description="train on as many pairs drawn with replacement, by seed; members of an ensemble do"
    )
    combine: Literal["mean", "min", "mean_minus_sd", "average"] = Field(
        "mean",
        description="members' scores: their mean, least, mean - doubt_k * sd; average = one adapter of averaged weights",
    )
    doubt_k: float = Field(1.0, ge=0, description="k of mean_minus_sd")
    max_length: int = Field(1024, ge=16, description="tokens that prompt and reply may have; oldest turns go first")
    token_budget: int = Field(
        4096, ge=16, description="tokens in one forward; cuts a step into micro-batches, changes no gradient"
    )
    packing: Literal["auto", "off"] = Field(
        "auto", description="auto = shared prefixes without padding where the model can; off = padded"
    )
    trunk: Literal["auto", "off"] = Field(
        "auto",
        description="auto = states below top_layers, and those that a head reads, are computed once and kept in the workspace's "
        "cache; off = none is written there",
    )
    trunk_gib: float = Field(8.0, gt=0, description="disk for kept states, GiB; those read longest ago go first")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, slower")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="type of the frozen body; head, scores and loss are float32"
    )
    test_pairs: int = Field(
        500, ge=0, description="test-side pairs measured at the end, the first by digest; rlhf evaluate takes all"
    )
    save_steps: int = Field(50, ge=1, description="a checkpoint every so many steps")
    log_steps: int = Field(1, ge=1, description="a line in metrics.jsonl every so many steps")
    report_to: str = Field(
        "none", description="trackers that the Trainer knows, comma-separated; none = metrics.jsonl alone"
    )

    @model_validator(mode="after")
    def _fit(self) -> RewardSettings:
        fields = type(self).model_fields
        unused = (
            [name for name in OF_STEPS if getattr(self, name) != fields[name].default] if self.kind == "head" else []
        )
        idle = [name for name in _OF_MEMBERS if getattr(self, name) != fields[name].default]
        says = "say" if unused[1:] else "says"
        require_together(
            (
                not unused,
                f"{', '.join(unused)} {says} how LoRA is trained by steps; kind=head is fitted at once: leave "
                f"{'them' if unused[1:] else 'it'} out",
            ),
            (
                self.members == 1 or self.from_version is None,
                "members trains every member from the base, and from_version names a version to go on from: leave one of "
                "them out",
            ),
            (
                self.members > 1 or not idle,
                f"{' and '.join(idle)} {'say' if idle[1:] else 'says'} how members are combined: ask for members=2 or more, or "
                f"leave {'them' if idle[1:] else 'it'} out",
            ),
            (
                not self.head_start or self.from_version is None,
                "head_start begins a new adapter's head, and from_version names one that has its own: leave one of them out",
            ),
        )
        return self

    def content(self) -> dict[str, Any]:
        """The settings that a version's digest covers: those that its kind of training reads."""
        unread = {*NOT_CONTENT, *(OF_STEPS if self.kind == "head" else _OF_HEADS)}
        if self.members == 1:
            unread |= set(_OF_MEMBERS)
        if self.kind == "lora" and not self.head_start:
            unread.add("head_prior")
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in unread}


class CalibrationSettings(Settings):
    """Everything that a calibration can be told."""

    LISTED_BY: ClassVar[str] = "rlhf reward calibrate --help"

    version: str = Field(description="reward version to calibrate")
    snapshot: str = Field(description="snapshot whose set-aside pairs it is fitted on: NAME (its latest cut) or NAME@2")
    target: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="precision that the threshold guarantees: how often the reward's choice is people's",
    )
    confidence: float = Field(default=0.9, gt=0, lt=1, description="chance that the threshold keeps that guarantee")
    seed: int = Field(0, ge=0, lt=2**31, description="of the folds, the drawn votes and the intervals")

    @classmethod
    def words(cls, kept: Mapping[str, Any]) -> str:
        """The words of a command that ask for these settings again, beside version and snapshot: what isn't the default."""
        asked = {name: kept.get(name, cls.model_fields[name].default) for name in ("target", "confidence", "seed")}
        return " ".join(f"{name}={value}" for name, value in asked.items() if value != cls.model_fields[name].default)
