"""vLLM as the engine, over HTTP: what the embedded engine says, under names that are never given twice, and never the base."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from live_versions import CPU, base_in, engine_on, policy_folder, reward_folder
from safetensors.torch import load_file, save_file
from vllm_server import TinyVllm, listening, wait_until

from rlhf.engine import generation, policies
from rlhf.engine.bases import Base
from rlhf.engine.live import LiveEngine
from rlhf.engine.vllm.addresses import Addresses, served_name
from rlhf.engine.vllm.engine import VllmEngine
from rlhf.engine.wanted import EngineFailed, Piece, Stream, Wanted
from rlhf.errors import BadInput, BadUsage, Conflict, NotFound

ASKED = tuple(range(30, 50))


def digest(i: int) -> str:
    """Of a version: unlike others' from the first digits on, as digests are."""
    return f"{i:02x}" * 32


REWARD = digest(50)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


@pytest.fixture(scope="module")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    return [policy_folder(base, root / f"p{i}", i) for i in range(3)]


@pytest.fixture(scope="module")
def reward(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reward_folder(base, tmp_path_factory.mktemp("reward") / "r", 7)


@pytest.fixture(scope="module")
def live(base: Base, folders: list[Path], reward: Path) -> Iterator[LiveEngine]:
    """The slow twin: the embedded engine with the same versions."""
    with engine_on(base) as made:
        for i, folder in enumerate(folders):
            made.load(digest(i), folder)
        made.load(REWARD, reward)
        yield made


@dataclass
class Pair:
    """Both processes, and the engine over them."""

    writes: TinyVllm
    scores: TinyVllm
    engine: VllmEngine


@contextmanager
def pair_on(base: Base, scratch: Path, *, server: Any = (), scores: Any = (), **settings: Any) -> Iterator[Pair]:
    """server: settings of the process that writes; scores: of the one that pools."""
    writes, pools = TinyVllm(base, **dict(server)), TinyVllm(base, pools=True, **dict(scores))
    with listening(writes) as url, listening(pools) as other:
        engine = VllmEngine(base, Addresses(url, other), scratch, **{"slots": 4, "max_rank": 8, "rows": 8, **settings})
        try:
            yield Pair(writes, pools, engine)
        finally:
            engine.close()


@pytest.fixture(scope="module")
def pair(base: Base, folders: list[Path], reward: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """digest(0) to digest(2) and the reward are loaded."""
    with pair_on(base, tmp_path_factory.mktemp("scratch")) as made:
        for i, folder in enumerate(folders):
            made.engine.load(digest(i), folder)
        made.engine.load(REWARD, reward)
        yield made


def said(stream: Stream) -> str:
    return "".join(piece.text for piece in stream)


def test_greedy_replies_are_the_embedded_engines_version_by_version(pair: Pair, live: LiveEngine) -> None:
    wanted = [Wanted((1, 10 + i, 20, 30), digest(i), 12, temperature=0.0) for i in range(3)]
    wanted.append(Wanted((1, 10, 20, 30), None, 12, temperature=0.0))
    replies = [said(stream) for stream in pair.engine.reply(wanted)]
    assert replies == [said(stream) for stream in live.reply(wanted)]
    assert len(set(replies)) == len(replies), "each version says something of its own"


def test_a_seed_gives_the_same_reply_again_and_another_another(pair: Pair) -> None:
    wanted = [Wanted(ASKED, digest(0), 20, seed=seed) for seed in (1, 2, 3, 1)]
    one, two, three, again = (said(stream) for stream in pair.engine.reply(wanted))
    assert one == again and len({one, two, three}) == 3


def test_logprobs_are_the_embedded_engines(pair: Pair, live: LiveEngine) -> None:
    for k in (0, 3):
        wanted = Wanted(ASKED, digest(1), 8, temperature=0.0, logprobs=k)
        ours, theirs = (
            [one for piece in engine.reply([wanted])[0] for one in piece.logprobs] for engine in (pair.engine, live)
        )
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours, theirs, strict=True):
            assert (a.id, a.text, len(a.top)) == (b.id, b.text, len(b.top)) and len(a.top) == k
            assert math.isclose(a.logprob, b.logprob, abs_tol=1e-4)
            assert [i for i, *_ in a.top] == [i for i, *_ in b.top]


def test_log_probabilities_of_replies_are_the_models(pair: Pair, base: Base, folders: list[Path]) -> None:
    prompts, replies = [ASKED, ASKED[:5]], [(40, 41, 42), (50, 51)]
    models = {digest(2): policies.load(folders[2], base, CPU), None: policies.bare(base, CPU)}
    for adapter, model in models.items():
        ours = pair.engine.log_probabilities(adapter, prompts, replies)
        assert ours == pytest.approx(generation.log_probabilities(model, prompts, replies), abs=1e-4)


def test_a_reply_ends_before_its_stop_string_and_vllm_writes_no_more(pair: Pair, live: LiveEngine) -> None:
    wanted = Wanted(ASKED, digest(0), 40, temperature=0.0)
    whole = said(live.reply([wanted])[0])
    stop = next(whole[i : i + 2] for i in range(4, len(whole) - 2) if "\ufffd" not in whole[i : i + 2])
    stopped = replace(wanted, stop=(stop, "never said"))
    ours, theirs = list(pair.engine.reply([stopped])[0]), list(live.reply([stopped])[0])
    assert "".join(piece.text for piece in ours) == "".join(piece.text for piece in theirs) == whole.split(stop)[0]
    assert ours[-1].finish == theirs[-1].finish == "stop"
    assert sum(piece.n_tokens for piece in ours) == sum(piece.n_tokens for piece in theirs)
    wait_until(lambda: pair.writes.n_streams == 0)


def test_what_a_generation_config_could_ask_for_is_said_to_vllm(pair: Pair) -> None:
    said(pair.engine.reply([Wanted(ASKED, digest(0), 2, temperature=0.5, top_p=0.9, seed=3)])[0])
    _, body = pair.writes.asked[-1]
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert neutral.items() <= body.items()
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.5, 0.9, 3)
    assert body["prompt"] == list(ASKED), "token ids, so that no second tokenizer reads the prompt"
    assert body["cache_salt"] == digest(0), "what was computed for another digest is never read"


def test_who_cancels_frees_the_row_at_vllm(base: Base, folders: list[Path], tmp_path: Path) -> None:
    with pair_on(base, tmp_path, server={"token_s": 0.02}) as pair:
        pair.engine.load(digest(0), folders[0])
        wanted = [Wanted((40 + i, *ASKED), digest(0), 400, temperature=1.0, seed=i) for i in range(3)]
        streams = pair.engine.reply(wanted)
        for stream in streams:
            stream.next_piece(30)
        assert pair.engine.busy().rows == pair.engine.resident()[digest(0)].held == pair.writes.n_streams == 3
        streams[0].cancel()
        assert list(streams[0])[-1].finish == "cancelled"
        wait_until(lambda: pair.writes.n_streams == 2)
        assert pair.engine.busy().rows == pair.engine.resident()[digest(0)].held == 2
        for stream in streams[1:]:
            stream.cancel()


def test_a_reader_that_fails_loses_its_reply_and_nobody_elses(pair: Pair) -> None:
    broken, good = pair.engine.reply([Wanted(ASKED, digest(i), 30, seed=1) for i in range(2)])

    def fail(_news: Any) -> None:
        raise RuntimeError("gone")

    broken.on_piece(fail)
    assert list(good)[-1].finish in ("stop", "length")
    wait_until(lambda: pair.engine.busy().rows == 0)
    assert pair.engine.resident()[digest(0)].held == 0
    wait_until(lambda: pair.writes.n_streams == 0)


def test_no_more_rows_than_were_said_and_shadows_wait_for_everybody(
    base: Base, folders: list[Path], tmp_path: Path
) -> None:
    with pair_on(base, tmp_path, server={"token_s": 0.01}, rows=1) as pair:
        pair.engine.load(digest(0), folders[0])
        order: list[int] = []
        wishes = [(False, 1), (True, 2), (False, 3), (False, 4)]
        wanted = [Wanted((n, *ASKED), digest(0), 5, temperature=0.0, low=low) for low, n in wishes]
        done = threading.Event()

        def note(n: int, news: Piece | BaseException) -> None:
            assert isinstance(news, Piece)
            if news.finish is not None:
                order.append(n)
                if len(order) == len(wishes):
                    done.set()

        for (_, n), stream in zip(wishes, pair.engine.reply(wanted), strict=True):
            stream.on_piece(lambda news, n=n: note(n, news))  # type: ignore[misc]
        assert pair.engine.busy().waiting >= 2
        assert done.wait(30)
        assert order == [1, 3, 4, 2]
        assert pair.writes.most_streams == 1


def test_a_waiting_reply_that_is_cancelled_is_never_asked_for(base: Base, folders: list[Path], tmp_path: Path) -> None:
    with pair_on(base, tmp_path, server={"token_s": 0.02}, rows=1) as pair:
        pair.engine.load(digest(0), folders[0])
        first, second = pair.engine.reply([Wanted((n, *ASKED), digest(0), 200, seed=1) for n in (5, 6)])
        second.cancel()
        assert [piece.finish for piece in second] == ["cancelled"]
        first.next_piece(30)
        first.cancel()
        assert list(first)[-1].finish == "cancelled"
        assert sum(path == "/v1/completions" and body.get("stream", False) for path, body in pair.writes.asked) == 1


def test_scores_are_the_embedded_engines(pair: Pair, live: LiveEngine) -> None:
    renderings = [[[1, *range(20, 20 + n), 2, 199] for n in (3, 9)], [[1, 50, 60, 2, 199]]]
    ours, theirs = pair.engine.score(REWARD, renderings), live.score(REWARD, renderings)
    assert [len(row) for row in ours] == [2, 1]
    for a, b in zip(ours, theirs, strict=True):
        for (score, doubt), (expected, _) in zip(a, b, strict=True):
            assert doubt is None and math.isclose(score, expected, abs_tol=1e-4)
    assert len({score for row in ours for score, _ in row}) == 3
    assert pair.engine.score(REWARD, []) == []


def test_a_version_has_one_name_for_ever_and_is_never_loaded_in_place(pair: Pair, reward: Path, tmp_path: Path) -> None:
    loads = [
        body for vllm in (pair.writes, pair.scores) for path, body in vllm.asked if path.endswith("load_lora_adapter")
    ]
    loads = [body for body in loads if "lora_path" in body]
    names = {*(f"policy-{digest(i)[:12]}" for i in range(3)), f"reward-{REWARD[:12]}"}
    assert {body["lora_name"] for body in loads} == names
    assert all(set(body) == {"lora_name", "lora_path"} for body in loads)
    named = tmp_path / "named"
    named.mkdir()
    for file in reward.iterdir():
        (named / file.name).write_bytes(file.read_bytes())
    (named / "manifest.json").write_text(json.dumps({"name": "judge"}))
    pair.engine.load("ab" * 32, named)
    assert "judge-abababababab" in pair.scores.adapters
    pair.engine.unload("ab" * 32)


def test_a_head_stays_here_and_its_lora_goes_as_plain_as_can_be(pair: Pair, reward: Path) -> None:
    folder = Path(pair.scores.adapters[f"reward-{REWARD[:12]}"])
    sent, own = load_file(folder / "adapter_model.safetensors"), load_file(reward / "adapter_model.safetensors")
    assert own.keys() - sent.keys() == {"base_model.model.score.weight"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] and "modules_to_save" not in config
    key = next(key for key in sent if "lora_B" in key and own[key].any())
    assert torch.allclose(sent[key], own[key] * 2)  # alpha 8 over rank 4


def test_two_digests_never_share_a_name(pair: Pair, folders: list[Path]) -> None:
    with pytest.raises(Conflict, match="another version"):
        pair.engine.load(digest(0)[:12] + "ab" * 26, folders[1])
    assert len(pair.engine.resident()) == 4


def test_an_unknown_version_is_an_error_and_never_the_base(pair: Pair) -> None:
    with pytest.raises(NotFound, match="not in memory"):
        pair.engine.reply([Wanted(ASKED, digest(0), 4), Wanted(ASKED, digest(99), 4)])
    with pytest.raises(NotFound), pair.engine.hold(digest(99)):
        pass
    assert pair.engine.resident()[digest(0)].held == 0, "what was held for the others is let go"


def test_room_is_made_by_who_is_idle_longest_and_nobody_in_use_goes(
    base: Base, folders: list[Path], tmp_path: Path
) -> None:
    with pair_on(base, tmp_path, slots=2) as pair:
        for i in range(2):
            pair.engine.load(digest(i), folders[i])
        with pair.engine.hold(digest(0)) as held:
            assert held.slot == 1
            pair.engine.load(digest(2), folders[2])
            assert set(pair.engine.resident()) == {digest(0), digest(2)}
            assert set(pair.writes.adapters) == {f"policy-{digest(i)[:12]}" for i in (0, 2)}
            assert pair.engine.resident()[digest(2)].slot == 2
            with pair.engine.hold(digest(2)), pytest.raises(Conflict, match="no slot is free"):
                pair.engine.load(digest(1), folders[1])
            with pytest.raises(Conflict, match="in use"):
                pair.engine.unload(digest(0))
        pair.engine.unload(digest(0))
        assert set(pair.writes.adapters) == {f"policy-{digest(2)[:12]}"}
        with pytest.raises(NotFound):
            pair.engine.unload(digest(0))


def test_what_doesnt_fit_is_refused_before_vllm_is_asked(base: Base, folders: list[Path], tmp_path: Path) -> None:
    """vLLM takes a matrix of another width without a word, and computes something with it."""
    tensors = load_file(folders[0] / "adapter_model.safetensors")
    config = (folders[0] / "adapter_config.json").read_bytes()
    wide = {key: value[:, :20].contiguous() if "lora_A" in key else value for key, value in tensors.items()}
    lost = {key.replace("model.model.layers", "model.layers"): value for key, value in tensors.items()}
    cases = {"wide": wide, "lost": lost, "odd": {**tensors, "base_model.model.extra.weight": torch.ones(2)}}
    with pair_on(base, tmp_path) as pair:
        asked = len(pair.writes.asked)
        for name, tensors in cases.items():
            folder = tmp_path / name
            folder.mkdir()
            save_file(tensors, folder / "adapter_model.safetensors")
            (folder / "adapter_config.json").write_bytes(config)
            with pytest.raises(BadInput):
                pair.engine.load(digest(1), folder)
        big = policy_folder(base, tmp_path / "big", 3, r=12)
        with pytest.raises(BadInput, match="rank 12, this engine takes 1 to 8"):
            pair.engine.load(digest(1), big)
        (tmp_path / "head").mkdir()
        (tmp_path / "head" / "head.json").write_text("{}")
        with pytest.raises(BadInput, match="instant reward"):
            pair.engine.load(digest(1), tmp_path / "head")
        assert len(pair.writes.asked) == asked
        assert pair.engine.resident() == {}


def test_what_vllm_refuses_is_refused_in_its_words(base: Base, tmp_path: Path) -> None:
    with pair_on(base, tmp_path, server={"max_rank": 2}) as pair:
        with pytest.raises(BadInput, match="LoRA rank 4 is greater than max_lora_rank 2"):
            pair.engine.load(digest(1), policy_folder(base, tmp_path / "p", 3))
        assert pair.engine.resident() == {}
        assert not any(pair.engine._folder.iterdir())


def test_an_adapter_that_vllm_has_no_place_for_never_counts_as_there(
    base: Base, folders: list[Path], reward: Path, tmp_path: Path
) -> None:
    """vllm#12808: keys that fit nothing are passed over in silence, and the base would answer under the version's name."""
    with pair_on(base, tmp_path, server={"misses": "layers"}, scores={"misses": "layers"}) as pair:
        for one, folder in ((digest(0), folders[0]), (REWARD, reward)):
            with pytest.raises(BadInput, match="computes as without it"):
                pair.engine.load(one, folder)
        assert pair.engine.resident() == pair.writes.adapters == pair.scores.adapters == {}


def test_a_lora_that_does_nothing_may_do_nothing(base: Base, tmp_path: Path) -> None:
    idle = policy_folder(base, tmp_path / "idle", 1, std=0.0)
    with pair_on(base, tmp_path) as pair:
        pair.engine.load(digest(0), idle)
        assert pair.engine.resident()[digest(0)].kind == "policy"


def test_a_vllm_that_was_started_anew_is_an_error_once_and_then_has_the_version_again(
    pair: Pair, folders: list[Path], reward: Path
) -> None:
    before = said(pair.engine.reply([Wanted(ASKED, digest(0), 5, temperature=0.0)])[0])
    pair.writes.restart()
    pair.scores.restart()
    with pytest.raises(EngineFailed, match="does not exist"):
        said(pair.engine.reply([Wanted(ASKED, digest(0), 5, temperature=0.0)])[0])
    with pytest.raises(NotFound), pair.engine.hold(digest(0)):
        pass
    with pytest.raises(EngineFailed, match="does not exist"):
        pair.engine.score(REWARD, [[[1, 2, 3]]])
    assert set(pair.engine.resident()) == {digest(1), digest(2)}
    pair.engine.load(digest(0), folders[0])
    assert said(pair.engine.reply([Wanted(ASKED, digest(0), 5, temperature=0.0)])[0]) == before
    for one, folder in ((digest(1), folders[1]), (digest(2), folders[2]), (REWARD, reward)):
        with suppress(NotFound):
            pair.engine.unload(one)
        pair.engine.load(one, folder)


def test_a_name_that_vllm_has_from_before_is_loaded_afresh(base: Base, folders: list[Path], tmp_path: Path) -> None:
    """Another server of ours was killed: the name is there, the folder that it came from isn't."""
    writes = TinyVllm(base)
    with listening(writes) as url:
        writes.adapters[f"policy-{digest(0)[:12]}"] = "gone"
        engine = VllmEngine(base, Addresses(url), tmp_path, slots=2, max_rank=8)
        engine.load(digest(0), folders[0])
        assert Path(writes.adapters[f"policy-{digest(0)[:12]}"]).is_dir()
        engine.close()
        assert writes.adapters == {} and not list(tmp_path.glob("tmp-vllm-*"))


def test_a_stream_that_breaks_off_is_an_error_and_gives_everything_back(
    base: Base, folders: list[Path], tmp_path: Path
) -> None:
    with pair_on(base, tmp_path, server={"breaks_after": 2}) as pair:
        pair.engine.load(digest(0), folders[0])
        with pytest.raises(EngineFailed, match="broke off"):
            said(pair.engine.reply([Wanted(ASKED, digest(0), 30, temperature=0.0)])[0])
        assert pair.engine.resident()[digest(0)].held == pair.engine.busy().rows == 0
        assert "broke off" in str(pair.engine.trouble) and pair.engine.is_alive
        pair.writes.breaks_after = None
        assert said(pair.engine.reply([Wanted(ASKED, digest(0), 30, temperature=0.0)])[0])
        assert pair.engine.trouble is None
    assert not pair.engine.is_alive


def test_closing_ends_replies_with_an_error(base: Base, folders: list[Path], tmp_path: Path) -> None:
    with pair_on(base, tmp_path, server={"token_s": 0.02}, rows=1) as pair:
        pair.engine.load(digest(0), folders[0])
        streams = pair.engine.reply([Wanted((n, *ASKED), digest(0), 300, seed=1) for n in (5, 6)])
        streams[0].next_piece(30)
        pair.engine.close()
        for stream in streams:
            with pytest.raises(EngineFailed, match="closed"):
                list(stream)
        with pytest.raises(EngineFailed, match="closed"):
            pair.engine.reply([Wanted(ASKED, None, 3)])


def test_what_cannot_fit_is_refused_before_it_is_asked(pair: Pair) -> None:
    assert pair.engine.renderer.max_length == pair.engine.max_length == 512
    with pytest.raises(BadInput, match="come to more than 512"):
        pair.engine.reply([Wanted(ASKED, digest(0), 500)])
    with pytest.raises(BadInput, match="tokens that are not from 0"):
        pair.engine.reply([Wanted((5000,), digest(0), 5)])
    with pytest.raises(BadInput, match="temperature"):
        pair.engine.reply([Wanted(ASKED, digest(0), 5, temperature=3.0)])
    with pytest.raises(BadInput, match="is a policy"):
        pair.engine.score(digest(0), [[[1]]])
    with pytest.raises(BadInput, match="is a reward"):
        pair.engine.reply([Wanted(ASKED, REWARD, 5)])


def test_a_vllm_for_something_else_is_not_spoken_to(base: Base, tmp_path: Path) -> None:
    right = TinyVllm(base)
    cases = {
        "wanted tiny-": TinyVllm(base, name="other"),
        "takes no adapters": TinyVllm(base, takes_adapters=False),
        "doesn't generate": TinyVllm(base, pools=True),
    }
    for words, wrong in cases.items():
        with listening(wrong) as url, pytest.raises(BadUsage, match=words):
            VllmEngine(base, Addresses(url), tmp_path)
    with listening(right) as url, pytest.raises(BadUsage, match="doesn't pool"):
        VllmEngine(base, Addresses(url, url), tmp_path)
    with pytest.raises(EngineFailed, match="doesn't answer"):
        VllmEngine(base, Addresses(url), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_key_is_sent_and_a_wrong_one_is_said(base: Base, folders: list[Path], tmp_path: Path) -> None:
    with listening(TinyVllm(base, api_key="k1")) as url:
        with pytest.raises(EngineFailed, match="doesn't take our key"):
            VllmEngine(base, Addresses(url, None, "k2"), tmp_path)
        engine = VllmEngine(base, Addresses(url, None, "k1"), tmp_path, slots=1, max_rank=8)
        engine.load(digest(0), folders[0])
        assert said(engine.reply([Wanted(ASKED, digest(0), 4, temperature=0.0)])[0])
        engine.close()


def test_a_reward_without_a_vllm_that_pools_is_refused(base: Base, reward: Path, tmp_path: Path) -> None:
    with listening(TinyVllm(base)) as url:
        engine = VllmEngine(base, Addresses(url), tmp_path, max_rank=8)
        with pytest.raises(BadInput, match="needs a vLLM that pools"):
            engine.load(REWARD, reward)
        engine.close()


def test_the_base_is_named_by_its_digest(base: Base) -> None:
    assert served_name(base) == f"tiny-{base.digest[:12]}"
