"""A long prompt is read in pieces: who comes behind it passes, who speaks goes on, and its own reply is what it would be alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_versions import base_in, policy_folder
from test_engine_live import ASKED, digest, engine_on, generated, said

from rlhf.engine import turns, waiting
from rlhf.engine.bases import Base
from rlhf.engine.live import LiveEngine
from rlhf.engine.wanted import EngineFailed, Wanted

JOIN, PIECE = 24, 4
LONG = tuple(3 + (7 * i) % 200 for i in range(150))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


@pytest.fixture(scope="module")
def folder(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_folder(base, tmp_path_factory.mktemp("versions") / "p", 0)


@pytest.fixture
def engine(base: Base, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveEngine]:
    for module in (turns, waiting):
        monkeypatch.setattr(module, "JOIN_TOKENS", JOIN)
        monkeypatch.setattr(module, "PIECE", PIECE)
    with engine_on(base, slots=2, rows=4, prefix_tokens=400) as made:
        made.load(digest(0), folder)
        yield made


def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Reading takes its time; gives the sizes of the pieces as they are read."""
    sizes: list[int] = []
    read_on = waiting.Reading.advance

    def slowly(self: waiting.Reading, n: int) -> None:
        time.sleep(0.02)
        sizes.append(n)
        read_on(self, n)

    monkeypatch.setattr(waiting.Reading, "advance", slowly)
    return sizes


def until(seen: Any) -> None:
    end = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


@pytest.mark.parametrize("version", [None, 0])
def test_its_reply_is_what_it_is_alone(engine: LiveEngine, base: Base, folder: Path, version: int | None) -> None:
    adapter = None if version is None else digest(version)
    wanted = Wanted(LONG, adapter, 12, temperature=0.0)
    alone = generated(base, None if version is None else folder, wanted)
    other = Wanted(LONG[:100] + ASKED + LONG, adapter, 8, temperature=0.0)
    streams = engine.reply([wanted, wanted, Wanted(ASKED, adapter, 12, temperature=0.0), other, wanted])
    found = [said(stream) for stream in streams]
    assert found[0] == found[1] == found[4] == alone
    assert found[3] == generated(base, None if version is None else folder, other)
    hits = engine.busy().prefix_hits
    assert said(engine.reply([wanted])[0]) == alone and engine.busy().prefix_hits > hits, "what was read is kept"


def test_who_comes_behind_passes_and_who_speaks_goes_on(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = slow(monkeypatch)
    speaking = engine.reply([Wanted(ASKED, digest(0), 400, seed=1)])[0]
    next(iter(speaking))
    long = engine.reply([Wanted(LONG, digest(0), 4, seed=1)])[0]
    until(lambda: sizes)
    n_before = engine.busy().tokens
    short = engine.reply([Wanted(ASKED, None, 3, seed=1)])[0]
    assert said(short) is not None
    assert len(sizes) < len(LONG) // PIECE - 5, "the short one didn't wait for the long one to be read"
    assert engine.busy().waiting == 1 and engine.busy().tokens > n_before + 3, "the first one spoke meanwhile"
    assert said(long) is not None and {*sizes} == {PIECE}
    speaking.cancel()


def test_alone_it_is_read_in_larger_pieces(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = slow(monkeypatch)
    assert said(engine.reply([Wanted(LONG, digest(0), 2, seed=1)])[0]) is not None
    assert {*sizes} == {JOIN}


def test_who_hangs_up_is_not_read_to_the_end(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = slow(monkeypatch)
    long, next_long = engine.reply([Wanted(LONG, digest(0), 4, seed=1), Wanted((9, *LONG), digest(0), 4, seed=1)])
    until(lambda: len(sizes) > 2)
    long.cancel()
    assert [piece.finish for piece in long][-1] == "cancelled" and len(sizes) < len(LONG) // PIECE
    assert said(next_long) is not None
    until(lambda: engine.resident()[digest(0)].held == 0)
    assert engine.busy().waiting == 0


def test_a_failure_on_the_way_is_its_own(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: waiting.Reading, n: int) -> None:
        raise RuntimeError("no such keys")

    monkeypatch.setattr(waiting.Reading, "advance", fails)
    long, short = engine.reply([Wanted(LONG, digest(0), 4, seed=1), Wanted(ASKED, digest(0), 4, seed=1)])
    with pytest.raises(EngineFailed, match="no such keys"):
        list(long)
    assert said(short) is not None
    monkeypatch.undo()
    assert said(engine.reply([Wanted(LONG, digest(0), 4, seed=1)])[0]) is not None
    assert engine.resident()[digest(0)].held == 0


def test_a_shadows_long_prompt_gives_way(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = slow(monkeypatch)
    shadow = engine.reply([Wanted(LONG, digest(0), 4, seed=1, low=True)])[0]
    until(lambda: sizes)
    shown = engine.reply([Wanted((9, *LONG), digest(0), 4, seed=1)])[0]
    assert said(shown) is not None and engine.busy().waiting == 1
    assert said(shadow) is not None
