"""Settings of the loop: one YAML. The sections `reward` and `policy` are those trainings' own settings, without what a round says.

The help beside each field is the only one: `rlhf loop settings`, the YAML of `rlhf loop init` and the documentation print it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import yaml
from pydantic import Field, ValidationError, create_model, model_validator

from rlhf.config import Settings, problems_of, require_together
from rlhf.errors import RlhfError
from rlhf.policy.settings import PolicySettings
from rlhf.records import Kind
from rlhf.reward.settings import RewardSettings

Phase = Literal["explore", "exploit"]
# What a round says itself, so that it can't stand in the section too.
REWARD_SAID = ("name", "snapshot", "base", "from_version")
POLICY_SAID = ("name", "reward", "reward_weights", "base", "from_version", "temperature", "samples")
# May change while a round is under way: they decide how it is run, not what it gives.
NOT_CONTENT = ("poll_seconds", "processes", "min_judged")


def _section(kind: type[Settings], name: str, said: tuple[str, ...]) -> type[Settings]:
    fields: dict[str, Any] = {n: (f.annotation, f) for n, f in kind.model_fields.items() if n not in said}
    if "set_aside" in fields:  # nothing in a round calibrates: a tenth of the pairs would be left out for nobody
        fields["set_aside"] = (float, Field(0.0, ge=0, lt=1, description=kind.model_fields["set_aside"].description))
    return create_model(name, __base__=Settings, **fields)


if TYPE_CHECKING:
    RewardPart: TypeAlias = Settings
    PolicyPart: TypeAlias = Settings
else:
    RewardPart = _section(RewardSettings, "RewardPart", REWARD_SAID)
    PolicyPart = _section(PolicySettings, "PolicyPart", POLICY_SAID)


class Explore(Settings):
    """What a round that explores does otherwise: wider sampling, and questions to people."""

    temperature: float = Field(1.2, gt=0, le=10, description="of the policy training's sampling")
    samples: int = Field(8, ge=2, le=256, description="replies sampled for each prompt of the policy training")
    prompts: int = Field(
        64, ge=1, le=100_000, description="train-side prompts that the new policy answers twice, to look for doubt"
    )
    pairs: int = Field(
        32, ge=0, description="of these reply pairs, how many go to the labeling queue, the closest by reward first"
    )


class Exploit(Settings):
    """What a round that exploits does otherwise: narrower sampling, and nobody is asked."""

    temperature: float = Field(0.8, gt=0, le=10, description="of the policy training's sampling")
    samples: int = Field(4, ge=2, le=256, description="replies sampled for each prompt of the policy training")


class LoopSettings(Settings):
    """Everything that the loop can be told."""

    LISTED_BY: ClassVar[str] = "rlhf loop settings"

    name: str = Field(
        description="of the snapshots and the policy; the reward is NAME-reward, a replay mix NAME-mix", max_length=80
    )
    base: str = Field(description="base model, by its name in the workspace")
    sources: list[str] = Field(default_factory=list, description="sources to train on; none = all")
    kinds: list[Kind] = Field(
        default_factory=list, description="kinds of judgements to train on: human, simulated, model, served; none = all"
    )
    min_new_judgements: int = Field(
        50,
        ge=1,
        description="a round begins when so many judgements on the train side are new since the last one's cut",
    )
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share of the opening turns that is held out; the same for ever"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of the split, the replay and the intervals; the same for ever")
    replay: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="pairs that the champion has seen, for each new pair that the reward is trained on; more = less "
        "forgetting, slower learning of the new; 0 = new pairs alone",
    )
    reward: RewardPart = Field(default_factory=RewardPart, description="settings of the reward training")
    policy: PolicyPart | None = Field(None, description="settings of the policy training; none = rewards alone")
    policy_reward: Literal["candidate", "champion"] = Field(
        "candidate",
        description="which reward the policy is trained on: the round's own, or the one that its alias points at "
        "afterwards (the round's own where there is none)",
    )
    continue_policy: bool = Field(
        True, description="go on from the policy's champion, which is then the KL's reference; false = from the base"
    )
    alias: str = Field("champion", description="the alias of both, as in NAME@champion and NAME-reward@champion")
    judge: str | None = Field(
        None,
        description="who compares the policies: a reward version, the name of a rule, or people; none = the reward that "
        "trained the new one, which flatters it",
    )
    min_judged: int | None = Field(
        None, ge=1, description="judge: people: go on once so many pairs are judged; none = all"
    )
    compare_prompts: int = Field(200, ge=1, description="prompts of that comparison, from the newest test side")
    compare_temperature: float = Field(
        0.7, ge=0, le=10, description="of that comparison; 0 = always the likeliest token"
    )
    promote: Literal["auto", "propose"] = Field(
        "propose", description="auto = move an alias where its gate is met; propose = write down that it is, and stop"
    )
    gate: Literal["required", "none"] = Field(
        "required",
        description="required = refuse to start while NAME@ALIAS has no gate; none = it may move without one",
    )
    reward_gate: Literal["required", "none"] = Field("required", description="the same for NAME-reward@ALIAS")
    phase: Literal["explore", "exploit", "auto"] = Field(
        "exploit",
        description="explore = sample wider and ask people about the closest reply pairs; exploit = sample narrower, ask "
        "nobody; auto = explore while auto_interval or auto_doubt says so",
    )
    explore: Explore = Field(
        default_factory=lambda: Explore.model_validate({}), description="what a round that explores does"
    )
    exploit: Exploit = Field(
        default_factory=lambda: Exploit.model_validate({}), description="what a round that exploits does"
    )
    auto_interval: float = Field(
        0.1,
        gt=0,
        le=1,
        description="phase: auto explores while the 95 % interval of held-out accuracy is wider than this",
    )
    auto_doubt: float = Field(
        0.4,
        ge=0,
        le=0.5,
        description="phase: auto explores while the reward's doubt over the policy champion's replies is above this: its own "
        "chance to rank two of them wrongly",
    )
    processes: Literal["child", "own"] = Field(
        "child",
        description="child = each training is a job in a process of its own, whose memory goes with it; own = in this one",
    )
    poll_seconds: float = Field(60.0, ge=0.05, description="--watch looks for new judgements so often")

    @model_validator(mode="after")
    def _fit(self) -> LoopSettings:
        from rlhf.registry import check_name
        from rlhf.registry.alias_names import name_of, require_free_word

        named, reward, policy = "", "", ""
        try:
            check_name(self.name)
            name_of(self.policy_alias)
            require_free_word(self.policy_alias)
        except RlhfError as error:
            named = f"{error.message} ({error.fix})"
        try:
            self.reward_settings("pairs", None)
        except ValidationError as error:
            reward = "reward: " + "; ".join(problems_of(RewardSettings, error))
        try:
            self.policy_settings("r@1", None, "exploit")
        except ValidationError as error:
            policy = "policy: " + "; ".join(problems_of(PolicySettings, error))
        require_together(
            (
                not self.sources or self.phase == "exploit",
                f"phase: {self.phase} asks people on the page, whose answers have a source of their own: leave sources out, "
                "or say phase: exploit",
            ),
            (
                self.min_judged is None or self.judge == "people",
                "min_judged is for judge: people; a reward and a rule judge every pair",
            ),
            (not named, named),
            (not reward, reward),
            (not policy, policy),
        )
        return self

    @property
    def reward_name(self) -> str:
        return f"{self.name}-reward"

    @property
    def mix_name(self) -> str:
        return f"{self.name}-mix"

    @property
    def reward_alias(self) -> str:
        return f"{self.reward_name}@{self.alias}"

    @property
    def policy_alias(self) -> str:
        return f"{self.name}@{self.alias}"

    def reward_settings(self, snapshot: str, from_version: str | None) -> RewardSettings:
        """A reward that goes on from that version; an instant head and an ensemble's members begin anew."""
        own = self.reward.model_dump()
        parent = from_version if own["kind"] == "lora" and own["members"] == 1 else None
        own["head_start"] = own["head_start"] and parent is None  # the parent's head has been trained since
        return RewardSettings(name=self.reward_name, snapshot=snapshot, base=self.base, from_version=parent, **own)

    def policy_settings(self, reward: str, from_version: str | None, phase: Phase) -> PolicySettings | None:
        """None where the loop trains rewards alone."""
        if self.policy is None:
            return None
        how = self.explore if phase == "explore" else self.exploit
        return PolicySettings(
            name=self.name,
            reward=[reward],
            base=self.base,
            from_version=from_version,
            temperature=how.temperature,
            samples=how.samples,
            **self.policy.model_dump(),
        )

    def content(self) -> dict[str, Any]:
        """What a round keeps to from its beginning to its end."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in NOT_CONTENT}


def described() -> Iterator[tuple[str, Any, str]]:
    """(name, default, help) of every setting; those of a section as `policy.beta`."""
    for name, field in LoopSettings.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        part = _part_of(name)
        yield name, "{}" if isinstance(default, Settings) else default, field.description or ""
        for inner, one in part.model_fields.items() if part else ():
            inner_default = None if one.is_required() else one.get_default(call_default_factory=True)
            yield f"{name}.{inner}", inner_default, one.description or ""


def to_yaml(settings: LoopSettings, command: str) -> str:
    """YAML with each setting's help above it, those of the sections too; opens with the command that runs it."""
    lines = [f"# {command}"]
    values = settings.model_dump(mode="json")
    for name, field in LoopSettings.model_fields.items():
        lines.append(f"# {field.description}")
        part = _part_of(name)
        if part is None or values[name] is None:
            lines.append(_line(name, values[name]))
            continue
        lines.append(f"{name}:")
        for inner, one in part.model_fields.items():
            lines += [f"  # {one.description}", f"  {_line(inner, values[name][inner])}"]
    return "\n".join(lines) + "\n"


def _part_of(name: str) -> type[Settings] | None:
    parts: dict[str, type[Settings]] = {
        "reward": RewardPart,
        "policy": PolicyPart,
        "explore": Explore,
        "exploit": Exploit,
    }
    return parts.get(name)


def _line(name: str, value: Any) -> str:
    flow = yaml.safe_dump({name: value}, default_flow_style=isinstance(value, list) or None, allow_unicode=True)
    return flow.strip().removeprefix("{").removesuffix("}")
