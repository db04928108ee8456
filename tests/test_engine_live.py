"""The live engine: replies that are what `generate` says, in streams that always end, and scores beside them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from live_versions import CPU, base_in, digest, engine_on, policy_folder, reward_folder

from rlhf.engine import generation, heads, policies, rewards, scoring
from rlhf.engine.bases import Base
from rlhf.engine.live import LiveEngine
from rlhf.engine.packing import Group
from rlhf.engine.sampling import Sampling
from rlhf.engine.wanted import EngineFailed, Piece, Stream, Wanted
from rlhf.errors import BadInput, NotFound

N = 8
ASKED = tuple(range(30, 50))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


@pytest.fixture(scope="module")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    return [policy_folder(base, root / f"p{i}", i) for i in range(N)]


@pytest.fixture(scope="module")
def engine(base: Base, folders: list[Path]) -> Iterator[LiveEngine]:
    """Versions digest(0) to digest(7) are in memory, with one slot to spare."""
    with engine_on(base, slots=N + 1) as made:
        for i, folder in enumerate(folders):
            made.load(digest(i), folder)
        yield made


def said(stream: Stream) -> str:
    return "".join(piece.text for piece in stream)


def generated(base: Base, folder: Path | None, wanted: Wanted) -> str:
    model = policies.bare(base, CPU) if folder is None else policies.load(folder, base, CPU)
    sampling = Sampling(wanted.max_tokens, wanted.temperature, wanted.top_p)
    (reply,) = generation.generate(model, [wanted.prompt], [wanted.seed], sampling)
    return str(base.tokenizer().decode(reply.ids, skip_special_tokens=True))


def endless(engine: LiveEngine) -> Wanted:
    """A wish whose greedy reply goes on and on."""
    for first in range(3, 200):
        wanted = Wanted((first, *ASKED), None, 100, temperature=0.0)
        if sum(piece.n_tokens for piece in engine.reply([wanted])[0]) == 100:
            return wanted
    raise AssertionError("every reply ends early")


def test_replies_are_what_generate_says_version_by_version(engine: LiveEngine, base: Base, folders: list[Path]) -> None:
    wanted = [
        Wanted((1, 10 + i, 20, 30), digest(i), 12, temperature=(0.0, 1.0, 0.7)[i % 3], top_p=(1.0, 0.8)[i % 2], seed=i)
        for i in range(N)
    ]
    wanted += [Wanted((1, 10, 20), None, 12, seed=9), replace(wanted[1], seed=77)]
    folder_of = [*folders, None, folders[1]]
    replies = [said(stream) for stream in engine.reply(wanted)]
    assert replies == [generated(base, f, w) for f, w in zip(folder_of, wanted, strict=True)]
    assert len(set(replies)) == len(replies), "each version says something of its own"
    again = [said(engine.reply([one])[0]) for one in wanted]
    assert again == replies, "alone as in company"


def test_samples_of_one_prompt_share_its_prefix(engine: LiveEngine) -> None:
    wanted = [Wanted((77, *ASKED), digest(0), 6, seed=i) for i in range(4)]
    before = engine.busy().prefix_hits
    assert len({said(stream) for stream in engine.reply(wanted)}) > 1
    assert engine.busy().prefix_hits == before + 3 * (len(ASKED) + 1)


def test_an_unknown_version_is_an_error_and_never_the_base(engine: LiveEngine) -> None:
    good, lost = Wanted(ASKED, digest(0), 4), Wanted(ASKED, digest(99), 4)
    with pytest.raises(NotFound, match="not in memory"):
        engine.reply([good, lost])
    with pytest.raises(NotFound), engine.hold(digest(99)):
        pass
    assert engine.resident()[digest(0)].held == 0, "what was held for the others is let go"


def test_an_end_token_ends_a_reply_and_isnt_said(engine: LiveEngine) -> None:
    tokenizer = engine.renderer.tokenizer
    ended = 0
    for seed in range(16):
        (stream,) = engine.reply([Wanted(ASKED, digest(seed % N), 60, seed=seed, temperature=1.5)])
        pieces = list(stream)
        assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        n = sum(piece.n_tokens for piece in pieces)
        if pieces[-1].finish == "stop":
            ended += 1
            assert n < 60 or tokenizer.eos_token not in "".join(p.text for p in pieces)
        else:
            assert (pieces[-1].finish, n) == ("length", 60)
    assert ended, "none of the replies ended by itself"


def test_a_reply_ends_before_its_stop_string(engine: LiveEngine) -> None:
    wanted = Wanted(ASKED, digest(3), 40, seed=5)
    whole = said(engine.reply([wanted])[0])
    stop = next(whole[i : i + 2] for i in range(5, len(whole) - 2) if "\ufffd" not in whole[i : i + 2])
    (stream,) = engine.reply([replace(wanted, stop=(stop, "never said"))])
    pieces = list(stream)
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish == "stop"
    assert sum(piece.n_tokens for piece in pieces) < 40, "it isn't computed to its end"


def test_logprobs_are_the_models(engine: LiveEngine, base: Base, folders: list[Path]) -> None:
    wanted = Wanted(ASKED, digest(2), 6, seed=1, logprobs=3, temperature=0.8)
    (stream,) = engine.reply([wanted])
    found = [one for piece in stream for one in piece.logprobs]
    model = policies.load(folders[2], base, CPU)
    ids = [one.id for one in found]
    (total,) = generation.log_probabilities(model, [wanted.prompt], [ids])
    assert sum(one.logprob for one in found) == pytest.approx(total, abs=1e-3)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*wanted.prompt, *ids]])).logits[0, len(ASKED) - 1 : -1]
    for one, row in zip(found, logits.log_softmax(-1), strict=True):
        assert [i for i, _, _ in one.top] == row.topk(3).indices.tolist()
        assert one.text == base.tokenizer().decode([one.id])


def test_a_cancelled_reply_frees_its_row_at_the_next_token(base: Base) -> None:
    with engine_on(base, rows=1) as engine:
        wanted = endless(engine)
        first, second, third = engine.reply([replace(wanted, max_tokens=3000), wanted, wanted])
        first.next_piece(5)
        third.cancel()
        assert list(third)[-1] == Piece("", 0, (), "cancelled"), "while it waits, too"
        first.cancel()
        assert list(first)[-1].finish == "cancelled"
        assert list(second)[-1].finish == "length"
        assert engine.busy().rows == engine.busy().waiting == 0


def test_shadow_work_waits_while_anything_else_does(base: Base) -> None:
    with engine_on(base, rows=1) as engine:
        wanted = endless(engine)
        short = replace(wanted, max_tokens=20)
        order: list[str] = []
        streams = engine.reply([wanted, replace(short, low=True), short, short])
        for name, stream in zip(("first", "low", "second", "third"), streams, strict=True):
            stream.on_piece(
                lambda item, name=name: order.append(name) if getattr(item, "finish", None) else None  # type: ignore[misc]
            )
        for _ in range(500):
            if len(order) == 4:
                break
            time.sleep(0.01)
        assert order == ["first", "second", "third", "low"]


def test_a_reader_by_call_gets_every_piece_in_order(engine: LiveEngine) -> None:
    wanted = Wanted(ASKED, digest(1), 30, seed=3)
    whole = said(engine.reply([wanted])[0])
    (stream,) = engine.reply([wanted])
    pieces, done = [stream.next_piece(5)], threading.Event()

    def take(item: Piece | BaseException) -> None:
        assert isinstance(item, Piece)
        pieces.append(item)
        if item.finish:
            done.set()

    stream.on_piece(take)
    assert done.wait(5)
    assert "".join(piece.text for piece in pieces) == whole


def test_a_reader_that_raises_loses_its_reply_and_nobody_elses(engine: LiveEngine) -> None:
    calls = []

    def gone(item: Piece | BaseException) -> None:
        calls.append(item)
        raise RuntimeError("the connection is closed")

    wanted = endless(engine)
    lost, stream = engine.reply([replace(wanted, max_tokens=3000), wanted])
    stream.next_piece(5)
    lost.on_piece(gone)
    assert said(stream)
    assert said(engine.reply([wanted])[0]), "3,000 tokens would take longer"
    assert len(calls) == 1 and engine.busy().rows == 0


def test_no_piece_in_time_is_a_timeout_and_past_the_last_nothing_comes(engine: LiveEngine) -> None:
    (stream,) = engine.reply([Wanted(ASKED, None, 1)])
    assert stream.next_piece(5).finish == "length"
    with pytest.raises(StopIteration):
        stream.next_piece(5)
    assert list(stream) == []
    with engine._turns._work:  # while nobody can tell the engine of anything, nothing comes
        (stream,) = engine.reply([Wanted(ASKED, None, 1)])
        with pytest.raises(TimeoutError):
            stream.next_piece(0.05)
    assert stream.next_piece(5).finish == "length"


def test_a_failure_in_a_step_reaches_every_reply_and_the_engine_goes_on(
    engine: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Wanted(ASKED, digest(i), 200, seed=i) for i in range(4)]
    step, calls = engine.batch.step, []

    def failing(tokens: list[int]) -> torch.Tensor:
        calls.append(len(tokens))
        if len(calls) == 3:
            raise MemoryError("no room")
        return step(tokens)

    expected = said(engine.reply([wanted[0]])[0])
    monkeypatch.setattr(engine.batch, "step", failing)
    for stream in engine.reply(wanted):
        with pytest.raises(EngineFailed, match="no room"):
            list(stream)
    assert all(not one.held for one in engine.resident().values())
    assert said(engine.reply([wanted[0]])[0]) == expected


def test_a_prompt_that_cannot_be_computed_fails_alone(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Wanted(ASKED, digest(0), 30, seed=1), Wanted((5, 6), digest(1), 4)
    expected = said(engine.reply([good])[0])
    join = engine.batch.join

    def failing(groups: list[list[Any]], reading: Any) -> torch.Tensor:
        if any(row.digest == digest(1) for group in groups for row in group):
            raise MemoryError("no room")
        return join(groups, reading)

    monkeypatch.setattr(engine.batch, "join", failing)
    one, lost, other = engine.reply([good, bad, replace(good, prompt=(*ASKED, 9))])
    with pytest.raises(EngineFailed, match="no room"):
        list(lost)
    assert said(one) == expected
    assert said(other)
    assert all(not there.held for there in engine.resident().values())


def test_our_own_mistake_is_an_error_and_no_hang(engine: LiveEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken() -> None:
        monkeypatch.undo()
        raise AssertionError("a mistake of ours")

    (first,) = engine.reply([Wanted(ASKED, digest(0), 3000, seed=1)])
    monkeypatch.setattr(engine._turns, "_let_go", mistaken)
    with pytest.raises(EngineFailed, match="a mistake of ours"):
        list(first)
    assert said(engine.reply([Wanted(ASKED, digest(0), 5)])[0]) is not None


def test_trouble_is_what_failed_last_until_something_works(
    engine: LiveEngine, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load(digest(50), reward_folder(base, tmp_path / "r", 4))
    assert said(engine.reply([Wanted(ASKED, None, 2)])[0]) is not None
    assert engine.is_alive and engine.trouble is None

    def failing(*_: Any) -> Any:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(engine.batch, "join", failing)
        with pytest.raises(EngineFailed):
            list(engine.reply([Wanted(ASKED, None, 2)])[0])
        assert "no room" in (engine.trouble or "") and engine.is_alive
    engine.score(digest(50), GROUPS)
    assert engine.trouble is None
    with pytest.raises(EngineFailed):
        engine.score(digest(50), [[[5, 100_000]]])
    assert "IndexError" in (engine.trouble or "")
    assert said(engine.reply([Wanted(ASKED, None, 2)])[0]) is not None
    assert engine.trouble is None
    engine.unload(digest(50))


def test_a_thread_that_ends_tells_whoever_waits_and_takes_nothing_more(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_on(base, rows=1) as engine:
        wanted = endless(engine)
        streams = engine.reply([replace(wanted, max_tokens=3000)] * 2)

        def deadly() -> None:
            raise SystemExit("as a library may")

        monkeypatch.setattr(engine._turns, "_turn", deadly)
        for stream in streams:
            with pytest.raises(EngineFailed, match="as a library may"):
                list(stream)
        assert not engine.is_alive and "as a library may" in (engine.trouble or "")
        for ask in (lambda: engine.reply([wanted]), lambda: engine.score(digest(0), GROUPS)):
            with pytest.raises((EngineFailed, NotFound)):
                ask()


def test_a_busy_interpreter_does_not_starve_the_engine(engine: LiveEngine) -> None:
    """A step lets go of the interpreter a thousand times; with Python's own 5 ms each it would take seconds."""
    assert sys.getswitchinterval() <= 2e-4


def test_what_cannot_fit_is_refused_before_it_waits(engine: LiveEngine) -> None:
    with pytest.raises(BadInput, match="more than"):
        engine.reply([Wanted(ASKED, None, 5000)])
    with pytest.raises(BadInput, match="not from 0 to 258"):
        engine.reply([Wanted((5, 100_000), None, 4)])
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": 0}, {"logprobs": 99}, {"stop": ("",)}):
        with pytest.raises(BadInput):
            Wanted(**{"prompt": ASKED, "adapter": None, "max_tokens": 4, **wrong})  # type: ignore[arg-type]


def test_rows_never_reserve_more_than_the_engine_may_keep(base: Base) -> None:
    with engine_on(base, rows=16, kv_tokens=250) as engine:
        wanted = endless(engine)
        most = 0
        for stream in engine.reply([wanted] * 5):
            for _ in stream:
                load = engine.busy()
                most = max(most, load.rows)
                assert load.kv_tokens <= load.max_kv_tokens
        assert most == 2


def test_closing_ends_every_reply(base: Base) -> None:
    with engine_on(base, rows=1) as engine:
        wanted = endless(engine)
        streams = engine.reply([replace(wanted, max_tokens=3000)] * 2)
        engine.close()
        for stream in streams:
            with pytest.raises(EngineFailed, match="closed"):
                list(stream)
        with pytest.raises(EngineFailed, match="closed"):
            engine.reply([wanted])


GROUPS = [[[1, 5, 9, 11, 60, 61, 62], [1, 5, 9, 11, 70, 71]], [[5, 9, 80, 81, 82, 83], [5, 9, 90]], [[7, 8, 9]]]


def test_scores_are_those_of_a_reward_alone(engine: LiveEngine, base: Base, tmp_path: Path) -> None:
    folder = reward_folder(base, tmp_path / "r", 4, top_layers=2)
    engine.load(digest(50), folder)
    running = engine.reply([Wanted(ASKED, digest(i), 60, seed=i) for i in range(4)])
    found = engine.score(digest(50), GROUPS)
    wanted = scoring.score(rewards.load(folder, base, CPU), [Group.of(replies) for replies in GROUPS])
    for ours, theirs in zip(found, wanted, strict=True):
        assert [score for score, _ in ours] == pytest.approx(theirs, abs=1e-4)
        assert all(doubt is None for _, doubt in ours)
    assert [said(s) for s in running] == [
        said(engine.reply([Wanted(ASKED, digest(i), 60, seed=i)])[0]) for i in range(4)
    ]


def test_many_scores_take_turns_and_keep_their_order(
    engine: LiveEngine, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf.engine.score_jobs._TOKENS", 16)
    engine.load(digest(50), reward_folder(base, tmp_path / "r", 4))
    together = engine.score(digest(50), GROUPS * 3)
    alone = [engine.score(digest(50), [group])[0] for group in GROUPS] * 3
    for ours, theirs in zip(together, alone, strict=True):
        assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], abs=1e-4)


def test_low_scores_wait_while_a_reply_waits_for_its_row_and_others_do_not(base: Base, tmp_path: Path) -> None:
    with engine_on(base, rows=1) as engine:
        engine.load(digest(50), reward_folder(base, tmp_path / "r", 4))
        first, second = engine.reply([replace(endless(engine), max_tokens=3000)] * 2)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(engine.score(digest(50), GROUPS, low=True)))
        thread.start()
        while not engine._turns._low_jobs:
            time.sleep(0.001)
        wanted = engine.score(digest(50), GROUPS)
        assert engine._turns._low_jobs and not found, "the others are done, and the second reply waits"
        first.cancel()
        thread.join(30)
        assert found == [wanted] and engine.busy().waiting == 0
        second.cancel()


def test_an_instant_reward_scores_with_its_doubt(engine: LiveEngine, base: Base, tmp_path: Path) -> None:
    torch.manual_seed(3)
    reading = heads.Reading((2,), ("last",), ())
    head = heads.Head(
        reading, 48, torch.randn(48), torch.randn(48), torch.ones(48), torch.ones(1), torch.rand(48, 3) * 0.1
    )
    (tmp_path / "h").mkdir()
    head.save(tmp_path / "h")
    engine.load(digest(51), tmp_path / "h")
    assert engine.resident()[digest(51)].slot == 0
    found = engine.score(digest(51), GROUPS)
    alone = heads.load(tmp_path / "h", base, CPU)
    wanted = scoring.score_with_doubt(alone, [Group.of(replies) for replies in GROUPS])
    for ours, theirs in zip(found, wanted, strict=True):
        assert [x for pair in ours for x in pair] == pytest.approx([x for pair in theirs for x in pair], abs=1e-4)


def test_log_probabilities_are_pefts_whatever_else_is_computed(
    engine: LiveEngine, base: Base, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf.engine.score_jobs._TOKENS", 40)  # several turns for each
    prompts = [[1, 5, 9], [7] * 20, [1, 5, 9, 11], list(ASKED)]
    replies = [[30, 31], [40], list(range(60, 75)), [9, 9, 9]]
    running = engine.reply([Wanted(ASKED, digest(i), 60, seed=i) for i in range(4)])
    found = [engine.log_probabilities(digest(i), prompts, replies) for i in range(3)]
    for ours, folder in zip(found, folders, strict=False):
        twin = generation.log_probabilities(policies.load(folder, base, CPU), prompts, replies, token_budget=1)
        assert ours == pytest.approx(twin, abs=1e-4)
    assert found[0] != pytest.approx(found[1], abs=1e-2), "versions that think the same would prove nothing"
    assert [said(s) for s in running] == [
        said(engine.reply([Wanted(ASKED, digest(i), 60, seed=i)])[0]) for i in range(4)
    ]


def test_log_probabilities_that_cannot_be_had_are_refused(
    engine: LiveEngine, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load(digest(50), reward_folder(base, tmp_path / "r", 4))
    with pytest.raises(BadInput, match="is a reward"):
        engine.log_probabilities(digest(50), [ASKED], [[5]])
    with pytest.raises(NotFound):
        engine.log_probabilities(digest(99), [ASKED], [[5]])
    with pytest.raises(BadInput, match="a reply holds tokens"):
        engine.log_probabilities(digest(0), [ASKED], [[]])
    with pytest.raises(BadInput, match="a reply holds tokens"):
        engine.log_probabilities(digest(0), [ASKED], [[100_000]])
    with pytest.raises(BadInput, match="more than"):
        engine.log_probabilities(digest(0), [ASKED], [[5] * engine.max_length])

    def failing(*_: Any, **__: Any) -> Any:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("rlhf.engine.generation.log_probabilities", failing)
        with pytest.raises(EngineFailed, match="no room"):
            engine.log_probabilities(digest(0), [ASKED], [[5]])
    assert engine.log_probabilities(digest(0), [ASKED], [[5]])[0] < 0
    assert all(not one.held for one in engine.resident().values())
    engine.unload(digest(50))


def test_a_version_answers_only_to_what_it_is(engine: LiveEngine, base: Base, tmp_path: Path) -> None:
    engine.load(digest(50), reward_folder(base, tmp_path / "r", 4))
    with pytest.raises(BadInput, match="is a reward"):
        engine.reply([Wanted(ASKED, digest(50), 4)])
    with pytest.raises(BadInput, match="is a policy"):
        engine.score(digest(0), GROUPS)
    assert all(not one.held for one in engine.resident().values())


def test_scores_that_fail_say_so(engine: LiveEngine, base: Base, tmp_path: Path) -> None:
    engine.load(digest(50), reward_folder(base, tmp_path / "r", 4))
    with pytest.raises(EngineFailed, match="IndexError"):
        engine.score(digest(50), [[[5, 100_000]]])
    assert engine.score(digest(50), GROUPS)


@pytest.mark.slow
def test_many_readers_while_versions_come_and_go(base: Base, folders: list[Path]) -> None:
    """Six readers, five slots, eight versions loaded as they are asked for: every reply is its own version's."""
    wanted = [Wanted((1, 10 + i, 20, 30), digest(i % N), 10, seed=i, temperature=float(i % 2)) for i in range(16)]
    expected = [generated(base, folders[i % N], one) for i, one in enumerate(wanted)]
    wrong: list[Any] = []
    with engine_on(base, slots=6, rows=5) as engine:

        def read(reader: int) -> None:
            for n in range(40):
                i = (7 * reader + n * (reader + 1)) % len(wanted)
                try:
                    while True:  # between loading and asking another reader may have pushed it out
                        engine.load(digest(i % N), folders[i % N])
                        try:
                            (stream,) = engine.reply([wanted[i]])
                            break
                        except NotFound:
                            continue
                    text = said(stream)
                except BaseException as error:
                    wrong.append(error)
                    return
                if text != expected[i]:
                    wrong.append((i, text, expected[i]))

        readers = [threading.Thread(target=read, args=(k,)) for k in range(6)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
        assert not wrong
        assert all(not one.held for one in engine.resident().values())


def test_asking_needs_no_torch() -> None:
    code = "import sys; import rlhf.engine.wanted; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
