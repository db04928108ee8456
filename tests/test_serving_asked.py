"""What may be asked is taken as it was written: no truth or text is read as a number."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlhf.serving.asked import ChatAsked, TextAsked

CHAT: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": "x"}]}
KINDS = [
    ("max_tokens", True),
    ("max_tokens", "5"),
    ("max_tokens", 5.5),
    ("max_completion_tokens", "5"),
    ("n", True),
    ("n", "1"),
]
KINDS += [("seed", "1"), ("temperature", "1"), ("temperature", True), ("top_p", "1"), ("stream", "yes"), ("stream", 1)]
KINDS += [("logprobs", "true"), ("top_logprobs", "1"), ("best_of", True)]
KINDS += [("stream_options", {"bogus": 1}), ("stream_options", {"include_usage": "yes"}), ("stream_options", [])]


@pytest.mark.parametrize(("field", "value"), KINDS, ids=[f"{name}={value!r}" for name, value in KINDS])
def test_a_value_of_another_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatAsked.model_validate({**CHAT, field: value})
    assert {entry["loc"][0] for entry in refused.value.errors()} == {field}


def test_token_ids_are_whole_numbers() -> None:
    for wrong in ([True], ["a", 5], [[True]], [1.5], [None]):
        with pytest.raises(ValidationError):
            TextAsked.model_validate({"model": "a", "prompt": wrong})
    assert TextAsked.model_validate({"model": "a", "prompt": [1, 2]}).prompts == [[1, 2]]


def test_a_whole_number_with_a_point_and_an_option_of_openais_are_taken() -> None:
    asked = ChatAsked.model_validate({**CHAT, "max_tokens": 5.0, "temperature": 1, "stream": True})
    assert asked.max_tokens == 5 and isinstance(asked.max_tokens, int) and not asked.include_usage
    options = {"include_usage": True, "include_obfuscation": False}
    assert ChatAsked.model_validate({**CHAT, "stream_options": options}).include_usage
