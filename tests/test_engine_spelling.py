"""Text piece by piece: whole characters, nothing of a stop string, and together the decoding of all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlhf.engine.spelling import Speller


def decode_bytes(ids: object) -> str:
    return bytes(ids).decode("utf-8", errors="replace")  # type: ignore[call-overload,no-any-return]


def spelled(data: bytes, stop: tuple[str, ...] = ()) -> list[str]:
    speller, pieces = Speller(decode_bytes, stop), []
    for byte in data:
        pieces.append(speller.add(byte))
        if speller.is_stopped:
            break
    return [*pieces, speller.rest()]


@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)))
def test_pieces_together_are_the_decoding_of_all(data: bytes) -> None:
    assert "".join(spelled(data)) == decode_bytes(data)


@given(st.text(alphabet="aé日🙂", min_size=1, max_size=12))
def test_no_piece_cuts_a_character(text: str) -> None:
    assert all("\ufffd" not in piece for piece in spelled(text.encode()))


@given(st.text(alphabet="ab", max_size=14), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_a_reply_ends_before_the_first_stop_string_that_is_complete(text: str, stop: list[str]) -> None:
    """Slow twin: look at every beginning of the text."""
    wanted = text
    for n in range(1, len(text) + 1):
        ended = [text[: n - len(one)] for one in stop if text[:n].endswith(one)]
        if ended:
            wanted = min(ended, key=len)
            break
    assert "".join(spelled(text.encode(), tuple(stop))) == wanted


def test_what_may_begin_a_stop_string_is_held_back_and_said_when_it_does_not() -> None:
    speller = Speller(decode_bytes, ("END",))
    assert [speller.add(byte) for byte in b"aENx"] == ["a", "", "", "ENx"]
    assert [speller.add(byte) for byte in b"EN"] == ["", ""]
    assert speller.rest() == "EN"


@pytest.mark.parametrize("text", ["Grüße, 世界! 🙂🙃", "a\n\n b  c", "naïve – “quoted”"])
def test_a_real_tokenizers_pieces_are_its_text(tiny_folder: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    speller = Speller(lambda some: str(tokenizer.decode(some, skip_special_tokens=True)))
    pieces = [speller.add(token) for token in ids]
    assert "".join(pieces) + speller.rest() == text
