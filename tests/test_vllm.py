"""Real vLLM against the embedded engine on SmolLM2, in float32:

scripts/try_vllm .venv/bin/python -m pytest tests/test_vllm.py -m vllm -n 0 -s
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_versions import CPU, engine_on, policy_folder, reward_folder

from rlhf import engine as engines
from rlhf.engine import generation, policies
from rlhf.engine.bases import Base
from rlhf.engine.live import LiveEngine
from rlhf.engine.vllm import folders as vllm_folders
from rlhf.engine.vllm.addresses import Addresses
from rlhf.engine.vllm.engine import VllmEngine
from rlhf.engine.wanted import Wanted
from rlhf.errors import BadInput, NotFound
from rlhf.records import Message
from rlhf.reward.probes import PROBES
from rlhf.store import Workspace

GENERATE, SCORE = os.environ.get("RLHF_VLLM_GENERATE"), os.environ.get("RLHF_VLLM_SCORE")
FOLDER = Path(__file__).parent.parent / ".bases" / "smollm2-135m"
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not (GENERATE and SCORE), reason="no vLLM runs here: scripts/try_vllm starts it"),
]
POLICIES, REWARD = ("a1" * 32, "b2" * 32), "c3" * 32
ASKED = (
    "Hi!",
    "Name three rivers.",
    "How do I boil an egg?",
    "Sing a song in 日本語.",
    "What is 2 + 2?",
    "Why is it dark?",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    workspace = Workspace.create(tmp_path_factory.mktemp("base") / "ws", actor="tester")
    added = engines.add_from_dir(workspace, "smollm2-135m", FOLDER)
    workspace.close()
    return added


@pytest.fixture(scope="module")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("versions")
    made = {one: policy_folder(base, root / one[:2], i, top_layers=10, std=0.02) for i, one in enumerate(POLICIES)}
    return made | {REWARD: reward_folder(base, root / "r", 7)}


@pytest.fixture(scope="module")
def live(base: Base, folders: dict[str, Path]) -> Iterator[LiveEngine]:
    with engine_on(base, slots=3, rows=8) as made:
        for one, folder in folders.items():
            made.load(one, folder)
        yield made


@pytest.fixture(scope="module")
def vllm(base: Base, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    scratch = tmp_path_factory.mktemp("scratch")
    made = VllmEngine(base, Addresses(str(GENERATE), SCORE), scratch, slots=4, max_rank=16, rows=8)
    for one, folder in folders.items():
        made.load(one, folder)
    yield made
    made.close()


def test_greedy_tokens_are_the_embedded_engines(vllm: VllmEngine, live: LiveEngine) -> None:
    prompts = [tuple(live.renderer.opening([Message("user", text)])) for text in ASKED]
    wanted = [Wanted(p, one, 32, temperature=0.0, logprobs=2) for p in prompts for one in (*POLICIES, None)]
    found: dict[str, list[Any]] = {}
    for name, engine in (("vllm", vllm), ("embedded", live)):
        streams = engine.reply(wanted)
        found[name] = [[one for piece in stream for one in piece.logprobs] for stream in streams]
    equal = n_tokens = 0
    off = 0.0
    for ours, theirs in zip(found["vllm"], found["embedded"], strict=True):
        same = [a.id == b.id for a, b in zip(ours, theirs, strict=False)]
        upto = same.index(False) if False in same else len(same)
        off = max([off, *(abs(a.logprob - b.logprob) for a, b in zip(ours[:upto], theirs[:upto], strict=True))])
        equal += [a.id for a in ours] == [b.id for b in theirs]
        n_tokens += len(theirs)
        if upto < len(same):  # they may part only where two tokens are as likely as rounding can tell
            (_, first), (_, second) = ((i, value) for i, _, value in theirs[upto].top)
            assert first - second < 1e-2
    print(
        f"\n{equal} of {len(wanted)} greedy replies ({n_tokens} tokens) are equal; log-probabilities within {off:.2g}"
    )
    assert equal >= len(wanted) - 1
    assert off < 1e-3


def test_scores_are_the_embedded_engines(vllm: VllmEngine, live: LiveEngine) -> None:
    chats = [(Message("user", prompt), Message("assistant", reply)) for prompt, reply in PROBES]
    renderings = [[live.renderer.ids(chat)] for chat in chats]
    ours, theirs = ([row[0][0] for row in engine.score(REWARD, renderings)] for engine in (vllm, live))
    off = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"\n{len(ours)} scores from {min(theirs):.3f} to {max(theirs):.3f} within {off:.2g}")
    assert off < 1e-3
    assert len({round(score, 3) for score in theirs}) > 1


def test_log_probabilities_are_the_models(
    vllm: VllmEngine, live: LiveEngine, base: Base, folders: dict[str, Path]
) -> None:
    prompts = [live.renderer.opening([Message("user", prompt)]) for prompt, _ in PROBES]
    replies = [live.renderer.tokenizer(reply, add_special_tokens=False)["input_ids"] for _, reply in PROBES]
    for adapter in (POLICIES[0], None):
        model = policies.bare(base, CPU) if adapter is None else policies.load(folders[adapter], base, CPU)
        expected = generation.log_probabilities(model, prompts, replies)
        found = vllm.log_probabilities(adapter, prompts, replies)
        off = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        print(f"\nsums of log-probabilities of {len(replies)} replies within {off:.2g}")
        assert off < 1e-2


def test_one_reply_has_one_version_while_others_are_asked(vllm: VllmEngine) -> None:
    """Together as alone: what a batch holds changes no greedy reply. That two versions aren't one their probabilities say: drawn
    adapters are weak, and the words of both may be the base's."""
    prompts = [tuple(vllm.renderer.opening([Message("user", text)])) for text in ASKED]
    wanted = [Wanted(prompt, one, 16, temperature=0.0) for one in (*POLICIES, None) for prompt in prompts]
    alone = ["".join(piece.text for piece in vllm.reply([one])[0]) for one in wanted]
    together = ["".join(piece.text for piece in stream) for stream in vllm.reply(wanted)]
    assert together == alone
    said = [prompt[1:9] for prompt in prompts]
    one, other = (np.array(vllm.log_probabilities(digest, prompts, said)) for digest in POLICIES)
    assert abs(one - other).min() > 1e-3


def test_stop_strings_and_seeds_hold(vllm: VllmEngine) -> None:
    prompt = tuple(vllm.renderer.opening([Message("user", ASKED[1])]))
    wanted = Wanted(prompt, POLICIES[0], 24, temperature=0.8, top_p=0.9, seed=11)
    whole = "".join(piece.text for piece in vllm.reply([wanted])[0])
    assert whole == "".join(piece.text for piece in vllm.reply([wanted])[0])
    word = whole.split()[3]
    stopped = list(vllm.reply([Wanted(prompt, POLICIES[0], 24, temperature=0.8, top_p=0.9, seed=11, stop=(word,))])[0])
    assert "".join(piece.text for piece in stopped) == whole[: whole.index(word)]
    assert stopped[-1].finish == "stop"


def test_who_cancels_frees_the_row_at_vllm(vllm: VllmEngine) -> None:
    prompt = tuple(vllm.renderer.opening([Message("user", ASKED[1])]))
    streams = vllm.reply([Wanted(prompt, POLICIES[0], 400, temperature=1.5, seed=i) for i in range(3)])
    for stream in streams:
        stream.next_piece(60)
        stream.cancel()
        assert list(stream)[-1].finish == "cancelled"
    for _ in range(100):
        if running() == 0:
            break
        time.sleep(0.1)
    assert running() == 0


def running() -> float:
    """Requests that vLLM works on, by its own figures."""
    lines = httpx.get(f"{GENERATE}/metrics", trust_env=False).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{"))


def test_keys_that_vllm_has_no_layer_for_are_caught_before_anybody_is_answered(
    vllm: VllmEngine, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vllm#12808 is as it was: it says 200 and computes the base. Its pooling model finds the layers by either name."""
    from safetensors.torch import load_file, save_file

    honest = vllm_folders.write

    def misnamed(folder: Path, weights: Any) -> Path:
        file = honest(folder, weights) / "adapter_model.safetensors"
        save_file({k.replace("model.model.layers", "model.layers"): v for k, v in load_file(file).items()}, file)
        return folder

    monkeypatch.setattr(vllm_folders, "write", misnamed)
    vllm.unload(POLICIES[0])
    with pytest.raises(BadInput, match="computes as without it"):
        vllm.load(POLICIES[0], folders[POLICIES[0]])
    with pytest.raises(NotFound), vllm.hold(POLICIES[0]):
        pass
    monkeypatch.undo()
    vllm.load(POLICIES[0], folders[POLICIES[0]])


def test_what_vllm_refuses_does_not_end_it(
    vllm: VllmEngine, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "max_rank", 64)
    with pytest.raises(BadInput, match="greater than max_lora_rank"):
        vllm.load("d4" * 32, policy_folder(base, tmp_path / "wide", 3, r=32))
    prompt = tuple(vllm.renderer.opening([Message("user", ASKED[0])]))
    assert list(vllm.reply([Wanted(prompt, POLICIES[1], 4, temperature=0.0)])[0])[-1].finish == "length"
