"""Prompts: files of every kind, and no prompt that goes missing without a count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from preferences import cut_polite, write_polite
from snapshot_rows import judged, pair_of, put

from rlhf import snapshots
from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput
from rlhf.policy.prompts import Prompt, prompts_of, read_prompts, rendered
from rlhf.records import Message, Pair
from rlhf.store import Workspace

USER, BOT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes"}


def written(folder: Path, *rows: Any, encoding: str = "utf-8") -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding)
    return path


def renderer(folder: Path, limit: int) -> Renderer:
    return Renderer(Base("tiny", "0" * 64, folder, "", "", {}, {}).tokenizer(), limit)


def test_text_and_messages_are_prompts(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path, {"prompt": "Hi?"}, {"prompt": [USER, BOT, USER], "id": 7, "more": None}))
    assert found[0].messages == (Message("user", "Hi?"),)
    assert [m.role for m in found[1].messages] == ["user", "assistant", "user"]
    assert found[0].id == found[0].digest and found[0].given is None
    assert (found[1].id, found[1].given) == ("7", 7)


def test_order_blank_lines_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    text = '{"prompt": "b"}\r\n\r\n  \r\n{"prompt": "a"}'  # no line end behind the last
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [p.messages[0].content for p in read_prompts(path)] == ["b", "a"]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_inside_a_text_is_no_end_of_a_line(tmp_path: Path, odd: str) -> None:
    row = json.dumps({"prompt": f"one{odd}two"}, ensure_ascii=False)
    assert read_prompts(written(tmp_path, row))[0].messages[0].content == f"one{odd}two"


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[1]",
        '"text"',
        "null",
        {},
        {"prompt": ""},
        {"prompt": "  "},
        {"prompt": 3},
        {"prompt": []},
        {"prompt": [{"role": "user"}]},
        {"prompt": [{"role": "wizard", "content": "x"}]},
        {"prompt": [{"role": "system", "content": "only this"}]},
        {"prompt": [USER, BOT]},
        '{"prompt": "half a character \\ud800"}',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: Any) -> None:
    path = written(tmp_path, {"prompt": "good"}, "", bad)
    with pytest.raises(BadInput, match=r"prompts\.jsonl line 3 ") as refused:
        read_prompts(path)
    assert refused.value.fix


def test_a_file_that_is_not_there_or_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no prompts file at .*none\.jsonl"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="holds no prompt"):
        read_prompts(written(tmp_path, "", " "))
    (tmp_path / "odd.jsonl").write_bytes(b'{"prompt": "\xff"}')
    for path in (tmp_path / "odd.jsonl", tmp_path):
        with pytest.raises(BadInput, match="can't be read"):
            read_prompts(path)


def test_an_id_stands_once_and_a_prompt_may_stand_twice(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has the id 'x' twice"):
        read_prompts(written(tmp_path, {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}))
    one, two, three = read_prompts(written(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}))
    assert one.messages == three.messages and len({one.id, two.id, three.id}) == 3
    assert one.digest == three.digest == one.id


def test_a_digest_covers_the_messages_alone() -> None:
    messages = (Message("user", "a"),)
    assert Prompt("x", messages).digest == Prompt("y", messages, 3).digest
    assert Prompt("x", (Message("user", "b"),)).digest != Prompt("x", messages).digest
    assert Prompt("x", (Message("system", "a"),)).digest != Prompt("x", messages).digest


def test_prompts_of_a_snapshot_are_distinct_and_in_order_of_digest(workspace: Workspace, tmp_path: Path) -> None:
    cut = cut_polite(workspace, tmp_path, 30)
    train, test = prompts_of(workspace, cut.ref), prompts_of(workspace, cut.ref, "test")
    assert len(train) + len(test) == 30 and not {p.id for p in train} & {p.id for p in test}
    assert [p.id for p in train] == sorted(p.digest for p in train)
    texts = {
        json.loads(row)["prompt"][0]["content"] for row in write_polite(tmp_path / "same", 30).read_text().splitlines()
    }
    assert {p.messages[0].content for p in [*train, *test]} == texts


def test_one_prompt_of_many_pairs_is_one_prompt(workspace: Workspace) -> None:
    same = [Pair.of([Message("user", "Which?")], f"one {i}", f"two {i}") for i in range(3)]
    put(workspace, [judged(pair, "a", labeler="l") for pair in [*same, pair_of(1)]])
    snapshots.cut(workspace, "s", holdout=0.0)
    assert len(prompts_of(workspace, "s")) == 2


def test_a_prompt_that_ends_with_the_assistant_is_none(workspace: Workspace) -> None:
    half = Pair.of([Message("user", "Go on"), Message("assistant", "Once upon")], "a time", "no")
    put(workspace, [judged(pair, "a", labeler="l") for pair in (half, pair_of(1))])
    snapshots.cut(workspace, "s", holdout=0.0)
    assert [p.messages[-1].role for p in prompts_of(workspace, "s")] == ["user"]


def test_shortened_too_long_and_refused_prompts_are_counted(tiny_folder: Path) -> None:
    """Whole oldest turns go; the last user turn stays or the prompt is too long; room for the reply is kept."""
    long_turn, short = Message("user", "x" * 150), Message("user", "now?")
    prompts = [
        Prompt("fits", (short,)),
        Prompt("shortened", (long_turn, Message("assistant", "y"), short)),
        Prompt("too long", (short, Message("assistant", "y"), long_turn)),
        Prompt("refused", (Message("user", "no " * 2),)),
    ]
    r = renderer(tiny_folder, 160)
    r.tokenizer.chat_template = r.tokenizer.chat_template.replace(
        "{% for", "{% if 'no no' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}{% for", 1
    )
    fits, counts = rendered(prompts, r, max_new_tokens=16)
    assert counts == {"prompts": 4, "shortened": 1, "too_long": 1, "refused": 1}
    assert [one.prompt.id for one in fits] == ["fits", "shortened"]
    assert fits[1].kept == (short,) and fits[1].ids == fits[0].ids
    assert len(fits[0].ids) == len(r.opening((short,)))
    exactly = len(fits[0].ids)
    assert rendered(prompts[:1], r, 160 - exactly)[1]["too_long"] == 0
    assert rendered(prompts[:1], r, 161 - exactly)[1]["too_long"] == 1
