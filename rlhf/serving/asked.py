"""What may be asked, in OpenAI's words, checked before anything is computed.

A field of OpenAI's that would change the answer and that we don't have is refused by name, unless it says what we do anyway; one
that changes nothing is passed over. Ours beside OpenAI's: `session`, `consent`, `best_of` with `reward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlhf.feedback.consent import scopes
from rlhf.records import Message
from rlhf.serving.fields import Fact, Number, Short, Text, Truth, Whole
from rlhf.serving.refusals import BadField

MOST_REPLIES = 16  # to one prompt
MOST_PROMPTS = 128
_TOP = 20  # log-probabilities beside the chosen token's
_PROMPTS = "a text, a list of texts, a list of token ids, or a list of such lists"
_HARMLESS = {
    "store",
    "service_tier",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
}
# What says no more than what we do anyway. Everything else under these names is refused.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
    "top_k": (-1, 0),
    "min_p": (0,),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}


class StreamOptions(BaseModel):
    """OpenAI's. include_obfuscation: padding against who listens, which changes no answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: Truth = False
    include_obfuscation: Truth = False


class Asked(BaseModel):
    """What every request for replies has. user, session: who is served, so that they stay in their arm; never stored as they
    are. metadata: facts for a rollout's audience. consent: what prompt and reply may be kept for; none = they aren't kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: Short
    stream: Truth = False
    stream_options: StreamOptions | None = None
    n: Whole = Field(1, ge=1, le=MOST_REPLIES)
    best_of: Whole | None = Field(None, ge=1, le=MOST_REPLIES)
    reward: Short | None = None
    max_tokens: Whole | None = Field(None, ge=1)
    temperature: Number = Field(1.0, ge=0.0, le=2.0)
    top_p: Number = Field(1.0, gt=0.0, le=1.0)
    seed: Whole | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: tuple[Text, ...] = ()
    user: Short | None = None
    session: Short | None = None
    metadata: dict[Short, Fact] = {}
    consent: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, values: Any) -> Any:
        """OpenAI's clients send null for what isn't said."""
        return (
            {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values
        )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        words = (value,) if isinstance(value, str) else value
        if isinstance(words, list | tuple) and (len(words) > 4 or "" in words):
            raise ValueError("wanted up to 4 texts, none of them empty")
        return words

    @field_validator("consent", mode="before")
    @classmethod
    def _scopes(cls, value: Any) -> Any:
        try:
            return scopes(value)
        except Exception as error:
            raise ValueError(str(error) or "wanted train, evaluate, publish or none") from None

    @property
    def drawn_each(self) -> int:
        """Replies that are computed to each prompt."""
        return max(self.n, self.best_of or 1)

    @property
    def n_prompts(self) -> int:
        return 1

    @property
    def n_choices(self) -> int:
        """Replies that are answered."""
        return self.n * self.n_prompts

    @property
    def drawn(self) -> int:
        """Replies that are computed."""
        return self.drawn_each * self.n_prompts

    @property
    def unit(self) -> str | None:
        """Who keeps their arm."""
        return self.user or self.session

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def check(self) -> None:
        """Raises BadField for what we can't do, by name."""
        for name, value in (self.model_extra or {}).items():
            if name in _HARMLESS or value in _NEUTRAL.get(name, ()):
                continue
            if name in _NEUTRAL:
                raise BadField(
                    f"{name} isn't supported here, and would change the answer", param=name, fix="leave it out"
                )
            raise BadField(
                f"there is no field {name[:60]!r}", param=name[:60], fix="leave it out", code="unknown_parameter"
            )
        if self.best_of is not None and self.best_of < self.n:
            raise BadField(f"best_of is {self.best_of}, fewer than n = {self.n}", param="best_of", fix="raise best_of")
        is_chosen = self.best_of is not None and self.best_of > self.n
        if is_chosen and self.reward is None:
            raise BadField("best_of wants a reward that chooses", param="reward", fix="name a reward version in reward")
        if self.reward is not None and not is_chosen:
            raise BadField("reward has nothing to choose from", param="reward", fix="give best_of above n")
        if is_chosen and self.stream:
            raise BadField("the best reply is known when all have ended", param="stream", fix="leave stream out")
        if self.drawn_each > 1 and self.temperature == 0:
            name = "best_of" if is_chosen else "n"
            raise BadField("at temperature 0 all replies are the same", param=name, fix="raise temperature")


class Turn(BaseModel):
    """One message. Its content is a text, or OpenAI's list of text parts."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Text

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Without the nulls and empty lists that a client sends back of an assistant's message."""
        return {k: v for k, v in value.items() if v is not None and v != []} if isinstance(value, dict) else value

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if any(not isinstance(p, dict) or p.get("type") != "text" or not isinstance(p.get("text"), str) for p in value):
            raise ValueError(
                "wanted a text or a list of {'type': 'text', 'text': …}; pictures and sounds aren't read here"
            )
        return "".join(part["text"] for part in value)

    def message(self) -> Message:
        return Message("system" if self.role == "developer" else self.role, self.content)


class ChatAsked(Asked):
    """POST /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1, max_length=1000)
    max_completion_tokens: Whole | None = Field(None, ge=1)
    logprobs: Truth = False
    top_logprobs: Whole = Field(0, ge=0, le=_TOP)

    def check(self) -> None:
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise BadField("top_logprobs wants logprobs", param="top_logprobs", fix="set logprobs to true")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise BadField(
                "max_tokens and max_completion_tokens differ", param="max_completion_tokens", fix="give one of them"
            )

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def messages_of(self, _prompt: int) -> tuple[Message, ...]:
        """The chat."""
        return tuple(turn.message() for turn in self.messages)


class TextAsked(Asked):
    """POST /v1/completions: raw prompts, as texts or as token ids. Reply j to prompt i is the choice i n + j."""

    prompt: Text | list[Whole] | list[Text] | list[list[Whole]]
    logprobs: Whole | None = Field(None, ge=0, le=_TOP)

    @field_validator("prompt", mode="before")
    @classmethod
    def _possible(cls, value: Any) -> Any:
        """Said once for all the kinds, none of which a wrong value comes near."""
        one, several = isinstance(value, str), isinstance(value, list) and value
        if not one and (not several or len({type(part) for part in value}) > 1 or isinstance(value[0], dict | bool)):
            raise ValueError(f"wanted {_PROMPTS}")
        return value

    @field_validator("prompt", mode="after")
    @classmethod
    def _prompts(cls, value: Any) -> Any:
        """A list of prompts, a single one too."""
        several = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
        if not all(several):
            raise ValueError("a prompt is empty")
        if len(several) > MOST_PROMPTS:
            raise ValueError(f"{len(several)} prompts, wanted {MOST_PROMPTS} or fewer in one request")
        return several

    @property
    def prompts(self) -> list[str | list[int]]:
        return self.prompt  # type: ignore[return-value]

    @property
    def n_prompts(self) -> int:
        return len(self.prompt)

    @property
    def limit(self) -> int | None:
        return 16 if self.max_tokens is None else self.max_tokens  # OpenAI's default

    @property
    def wanted_logprobs(self) -> int | None:
        return self.logprobs

    def messages_of(self, prompt: int) -> tuple[Message, ...]:
        """A prompt as it is kept: a text is a user's turn."""
        given = self.prompts[prompt]
        return (Message("user", given),) if isinstance(given, str) else ()


class ScoreAsked(BaseModel):
    """POST /v1/score: one reply, or two to compare."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Short
    prompt: Text | list[Turn]
    reply: Text | None = None
    reply_a: Text | None = None
    reply_b: Text | None = None
    user: Short | None = None
    session: Short | None = None
    metadata: dict[Short, Fact] = {}

    def check(self) -> None:
        two = [self.reply_a, self.reply_b].count(None)
        if not self.prompt:
            raise BadField("the prompt is empty", param="prompt", fix="send a text or a list of messages")
        if (self.reply is None) == (two == 2) or two == 1:
            raise BadField(
                "wanted reply, or reply_a and reply_b", param="reply", fix="send one reply, or two to compare"
            )
        if not all(text.strip() for text in self.replies):
            raise BadField("a reply is empty", param="reply", fix="send a reply with words in it")

    @property
    def unit(self) -> str | None:
        return self.user or self.session

    @property
    def prompt_messages(self) -> tuple[Message, ...]:
        if isinstance(self.prompt, str):
            return (Message("user", self.prompt),)
        return tuple(turn.message() for turn in self.prompt)

    @property
    def replies(self) -> tuple[str, ...]:
        return tuple(text for text in (self.reply, self.reply_a, self.reply_b) if text is not None)
