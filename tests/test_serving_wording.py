"""What is wrong with a request's body is said in words: the field as the client wrote it, what was seen, what was wanted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rlhf.serving.asked import ChatAsked, ScoreAsked, TextAsked
from rlhf.serving.wording import said_of

TURN = {"role": "user", "content": "x"}
CHAT = {"model": "a", "messages": [TURN]}
TEXT = {"model": "a", "prompt": "x"}
SCORE = {"model": "a", "prompt": "x", "reply": "y"}
CASES = [
    (ChatAsked, {**CHAT, "max_tokens": True}, "max_tokens is true, wanted a whole number", "max_tokens"),
    (ChatAsked, {**CHAT, "n": 99}, "n is 99, wanted 16 or less", "n"),
    (ChatAsked, {**CHAT, "stop": [1]}, "stop[0] is 1, wanted a text", "stop"),
    (ChatAsked, {**CHAT, "stop": ""}, 'stop is "", wanted up to 4 texts, none of them empty', "stop"),
    (ChatAsked, {**CHAT, "user": "a\x00"}, 'user is "a\\u0000", wanted a text without the character \\u0000', "user"),
    (ChatAsked, {**CHAT, "stream_options": {"bogus": 1}}, "there is no field 'stream_options.bogus'", "stream_options"),
    (
        ChatAsked,
        {**CHAT, "metadata": {"plan": ["a"]}},
        "metadata.plan is a list of 1, wanted a text or true or false or a whole number or a number",
        "metadata",
    ),
    (
        ChatAsked,
        {**CHAT, "metadata": {"plan": "x" * 600}},
        "metadata.plan is a text of 600 characters, wanted at most 512 characters",
        "metadata",
    ),
    (ChatAsked, {"model": "a"}, "messages is missing", "messages"),
    (ChatAsked, {**CHAT, "messages": [{"role": "user"}]}, "messages[0].content is missing", "messages"),
    (
        ChatAsked,
        {**CHAT, "messages": [{**TURN, "role": "tool"}]},
        'messages[0].role is "tool", wanted system, developer, user or assistant',
        "messages",
    ),
    (
        ChatAsked,
        {"model": "\ud800", "messages": [TURN]},
        'model is "\\ud800", wanted a text of whole characters',
        "model",
    ),
    (
        TextAsked,
        {**TEXT, "prompt": 5},
        "prompt is 5, wanted a text, a list of texts, a list of token ids, or a list of such lists",
        "prompt",
    ),
    (TextAsked, {**TEXT, "prompt": [[True]]}, "prompt[0][0] is true, wanted a whole number", "prompt"),
    (
        TextAsked,
        {**TEXT, "prompt": ["a", "\x00"]},
        'prompt[1] is "\\u0000", wanted a text without the character \\u0000',
        "prompt",
    ),
    (TextAsked, {**TEXT, "prompt": ["a", ""]}, "prompt: a prompt is empty", "prompt"),
    (ScoreAsked, {**SCORE, "prompt": 5}, "prompt is 5, wanted a text or a list", "prompt"),
    (ScoreAsked, {**SCORE, "prompt": [{"role": "user"}]}, "prompt[0].content is missing", "prompt"),
]


def said(kind: type[BaseModel], body: Any) -> tuple[str, str | None]:
    """Of a body, as the framework hands pydantic's errors on."""
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    return said_of([{**entry, "loc": ("body", *entry["loc"])} for entry in refused.value.errors()], body)


@pytest.mark.parametrize(
    ("kind", "body", "wanted", "field"), CASES, ids=[f"{i}-{one[3]}" for i, one in enumerate(CASES)]
)
def test_a_wrong_field_is_named_with_what_was_seen_and_wanted(
    kind: type[BaseModel], body: Any, wanted: str, field: str
) -> None:
    assert said(kind, body) == (wanted, field)


def test_several_wrong_fields_are_all_named() -> None:
    told, field = said(ChatAsked, {"messages": [{"role": "user", "content": 5}], "n": "two"})
    assert set(told.split("; ")) == {
        "model is missing",
        "messages[0].content is 5, wanted a text",
        'n is "two", wanted a whole number',
    }
    assert field in ("model", "messages", "n")


def test_a_body_that_is_no_object_is_said_to_be_none() -> None:
    assert said(ChatAsked, [1]) == ("the body is a list of 1, wanted an object", None)
    missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
    assert said_of([missing], None) == ("the request has no body, wanted a JSON object", None)
    broken = {"type": "json_invalid", "loc": ("body", 1), "msg": "", "input": {}, "ctx": {"error": "Expecting value"}}
    assert said_of([broken], "{") == ("the body is no JSON: Expecting value at character 1", None)
