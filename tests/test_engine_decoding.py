"""The continuous batch: a row's logits are its own, whatever else is in the batch and whenever it came or went."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from live_versions import CPU, base_in, policy_folder
from test_engine_classifiers import KINDS, base_of

from rlhf.engine import generation, lora_files, policies
from rlhf.engine.bases import Base
from rlhf.engine.decoding import ContinuousBatch, Row
from rlhf.engine.kept_keys import Prefixes
from rlhf.engine.picking import Chance, likeliest, pick
from rlhf.engine.placement import Placement
from rlhf.engine.slots import BASE, Slot, SlotBank

SAME = 1e-4
N = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


@pytest.fixture(scope="module")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    return [policy_folder(base, root / f"p{i}", i, r=2 + i % 3, top_layers=i % 3) for i in range(N)]


class Served:
    """A batch with eight versions in slots, and each version on a model of its own."""

    def __init__(self, base: Base, folders: list[Path], *, prefix_tokens: int = 4096, attention: str = "") -> None:
        model = policies.bare(base, CPU)
        if attention:
            model.set_attn_implementation(attention)
        self.bank = SlotBank(model, slots=N, max_rank=8)
        self.batch = ContinuousBatch(model, self.bank, prefix_tokens=prefix_tokens)
        self.slots: list[Slot] = []
        for folder in folders:
            weights = lora_files.read(folder)
            self.slots.append(self.bank.reserve(weights))
            self.bank.write(self.slots[-1], weights)
        self.base, self.folders = base, folders
        self._alone: dict[int, Any] = {}

    def row(self, version: int, tokens: list[int]) -> Row:
        slot = BASE if version < 0 else self.slots[version]
        return Row(list(tokens), None if version < 0 else f"v{version}", slot, len(tokens) + 40)

    def alone(self, version: int, tokens: list[int]) -> torch.Tensor:
        """The last token's logits from a plain forward of the version by itself."""
        if version not in self._alone:
            load: Callable[[], Any] = (
                (lambda: policies.bare(self.base, CPU))
                if version < 0
                else (lambda: policies.load(self.folders[version], self.base, CPU))
            )
            self._alone[version] = load()
        with torch.inference_mode():
            logits: torch.Tensor = self._alone[version](input_ids=torch.tensor([tokens])).logits[0, -1]
        return logits


@pytest.fixture
def served(base: Base, folders: list[Path]) -> Iterator[Served]:
    with torch.inference_mode():
        yield Served(base, folders)


def prompts(n: int, seed: int = 0) -> list[list[int]]:
    drawn = random.Random(seed)
    return [[drawn.randrange(3, 250) for _ in range(drawn.randint(1, 30))] for _ in range(n)]


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (found - wanted).abs().max() <= SAME


def test_eight_rows_over_eight_versions_are_each_alone_and_pefts_mixed_batch(
    served: Served, base: Base, folders: list[Path]
) -> None:
    rows = [served.row(i, tokens) for i, tokens in enumerate(prompts(N))]
    peft = policies.load(folders[0], base, CPU)
    for i in range(1, N):
        peft.load_adapter(str(folders[i]), f"v{i}")
    logits = served.batch.join([[row] for row in rows])
    for _ in range(5):
        width = max(len(row.tokens) for row in rows)
        ids = torch.tensor([row.tokens + [0] * (width - len(row.tokens)) for row in rows])
        ends = torch.tensor([len(row.tokens) - 1 for row in rows])
        mixed = peft(input_ids=ids, adapter_names=["default", *(f"v{i}" for i in range(1, N))]).logits
        close(logits, mixed[torch.arange(N), ends])
        for i, row in enumerate(rows):
            close(logits[i], served.alone(i, row.tokens))
        logits = served.batch.step(logits.argmax(-1).tolist())


@pytest.mark.parametrize("attention", ["", "sdpa", "eager"])
@pytest.mark.parametrize("prefix_tokens", [0, 200])
def test_rows_that_join_and_leave_at_every_token_stay_their_own(
    base: Base, folders: list[Path], prefix_tokens: int, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come in ones and in groups of equal prompts, some with the beginning of an older one; they leave in any order."""
    monkeypatch.setattr("rlhf.engine.decoding._SETTLED", 3)
    drawn = random.Random(7)
    with torch.inference_mode():
        served = Served(base, folders, prefix_tokens=prefix_tokens, attention=attention)
        asked = prompts(6, seed=1)
        versions: dict[Row, int] = {}
        logits: dict[Row, torch.Tensor] = {}
        for _ in range(25):
            if len(versions) < N and drawn.random() < 0.6:
                version, tokens = drawn.randrange(-1, N), drawn.choice(asked) + prompts(1, drawn.randrange(99))[0]
                group = [served.row(version, tokens) for _ in range(drawn.randint(1, 3))]
                other = [served.row(drawn.randrange(-1, N), drawn.choice(asked))]
                versions |= dict.fromkeys(group, version)
                versions[other[0]] = -1 if other[0].digest is None else int(other[0].digest[1:])
                found = served.batch.join([group, other])
                logits |= dict(zip([*group, *other], found, strict=True))
            for row in [row for row in versions if drawn.random() < 0.15]:
                served.batch.leave(row)
                del versions[row], logits[row]
            for row, version in versions.items():
                close(logits[row], served.alone(version, row.tokens))
            if versions:
                rows = list(served.batch.rows)
                found = served.batch.step([int(logits[row].argmax()) for row in rows])
                logits = dict(zip(rows, found, strict=True))
        assert (served.batch.prefix_hits > 0) or not prefix_tokens


def test_a_kept_prefix_is_never_another_versions(served: Served) -> None:
    tokens = list(range(20, 50))
    first = served.batch.join([[served.row(0, tokens)]])
    served.batch.leave(served.batch.rows[0])
    again = served.batch.join([[served.row(0, tokens)]])
    assert served.batch.prefix_hits == len(tokens) - 1
    close(first, again)
    other = served.batch.join([[served.row(1, tokens)]])
    assert served.batch.prefix_hits == len(tokens) - 1
    close(other[0], served.alone(1, tokens))


def test_a_reply_is_the_beginning_of_the_next_turns_prompt(served: Served) -> None:
    tokens = list(range(20, 50))
    logits = served.batch.join([[served.row(0, tokens)]])
    for _ in range(4):
        logits = served.batch.step(logits.argmax(-1).tolist())
    (row,) = served.batch.rows
    served.batch.leave(row)
    longer = [*row.tokens, 99, 98, 97]
    found = served.batch.join([[served.row(0, longer)]])
    assert served.batch.prefix_hits == len(row.tokens)
    close(found[0], served.alone(0, longer))


def test_a_long_prompt_is_computed_in_stretches(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.engine.decoding._PACKED_TOKENS", 16)
    long = [3 + i % 200 for i in range(45)]
    found = served.batch.join([[served.row(2, long)], [served.row(1, long[:9])], [served.row(0, long[:12])]])
    for logits, version, tokens in zip(found, (2, 1, 0), (long, long[:9], long[:12]), strict=True):
        close(logits, served.alone(version, tokens))


def test_a_join_that_fails_leaves_the_batch_as_it_was(served: Served) -> None:
    logits = served.batch.join([[served.row(0, [5, 6, 7])]])
    beyond = served.row(1, [5, 6, 10_000])
    with pytest.raises(IndexError):
        served.batch.join([[served.row(2, [8, 9])], [beyond]])
    assert [row.digest for row in served.batch.rows] == ["v0"] and beyond.index == -1
    found = served.batch.step(logits.argmax(-1).tolist())
    close(found[0], served.alone(0, served.batch.rows[0].tokens))


def test_kept_prefixes_keep_to_their_bound_and_the_oldest_goes_first() -> None:
    prefixes = Prefixes(30)
    keys = torch.zeros(1, 1, 12, 1)
    for i in range(3):
        prefixes.keep("v", [i] * 12, keys, keys)
    assert prefixes.n_tokens == 24
    assert prefixes.find("v", [0] * 12) is None and prefixes.find("v", [1] * 12) is not None
    prefixes.keep("v", [3] * 12, keys, keys)
    assert prefixes.find("v", [2] * 12) is None, "1 was used later"
    prefixes.keep("v", [1] * 12 + [9], keys, keys)
    assert prefixes.n_tokens == 25, "what a longer one begins with needn't be kept beside it"
    prefixes.keep("v", [4] * 31, keys, keys)
    assert prefixes.n_tokens == 25, "a sequence beyond the bound is not kept"
    assert prefixes.find("w", [1] * 12) is None


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_token_is_drawn_as_generate_draws_it(temperature: float, top_p: float) -> None:
    """Slow twin: the steps that `generation.generate` hands to transformers."""
    torch.manual_seed(0)
    device = torch.device("cpu")
    logits = torch.randn(4, 2000) * 3
    chances = [Chance.of(temperature, top_p, seed, device) for seed in range(4)]
    noise = generation.SeededNoise(range(4), device)
    for _ in range(20):
        scores = generation.TemperatureLogitsWarper(temperature)(None, logits)
        if top_p < 1.0:
            scores = generation.TopPLogitsWarper(top_p)(None, scores)
        assert pick(logits, chances) == noise(None, scores).argmax(-1).tolist()  # type: ignore[arg-type]


def test_a_flat_distribution_is_cut_rightly_too() -> None:
    logits = torch.linspace(0, 0.5, 3000)[None]
    cut = generation.TopPLogitsWarper(0.9)(None, logits)
    chance = Chance.of(1.0, 0.9, 0, torch.device("cpu"))
    noise = generation.SeededNoise([0], torch.device("cpu"))
    assert pick(logits, [chance]) == noise(None, cut).argmax(-1).tolist()  # type: ignore[arg-type]


def test_logprobs_are_those_of_the_whole_distribution() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0])
    logp = logits.log_softmax(-1)
    chosen, top = likeliest(logits, 0, 2)
    assert chosen == pytest.approx(float(logp[0]))
    assert top == [(1, pytest.approx(float(logp[1]))), (2, pytest.approx(float(logp[2])))]
    assert likeliest(logits, 3, 0) == (pytest.approx(float(logp[3])), [])


@pytest.mark.parametrize("name", KINDS)
def test_other_decoders_keep_rows_apart_too(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    """Packed or not, by their own forward or the quick way, and no further than their window."""
    kind, options, _ = KINDS[name]
    other = base_of(tmp_path / "base", tiny_folder, kind, options)
    folders = [policy_folder(other, tmp_path / f"p{i}", i) for i in range(2)]
    with torch.inference_mode():
        served = Served(other, folders)
        assert (served.batch._quick is not None) == (kind in ("Qwen2", "Mistral"))
        assert served.batch.max_length == options.get("sliding_window", served.batch.max_length)
        rows = [served.row(version, [5 + version, 7]) for version in (0, -1, 1)]
        logits = served.batch.join([[row] for row in rows])
        for _ in range(2):
            for row, version, found in zip(rows, (0, -1, 1), logits, strict=True):
                close(found, served.alone(version, row.tokens))
            logits = served.batch.step(logits.argmax(-1).tolist())


def test_a_model_whose_forward_says_something_else_keeps_it(base: Base) -> None:
    """A Llama with another activation in one layer is no Llama to the quick way."""
    model = policies.bare(base, CPU)
    model.model.layers[0].mlp.act_fn = torch.nn.Tanh()
    batch = ContinuousBatch(model, SlotBank(model, slots=1, max_rank=4), prefix_tokens=0)
    assert batch._quick is None
    with torch.inference_mode():
        row = Row([5, 6, 7], None, BASE, 9)
        batch.join([[row]])
        found = batch.step([8])
        close(found[0], model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0, -1])


def test_a_bfloat16_body_stays_near_float32(base: Base, folders: list[Path]) -> None:
    narrow = Placement("cpu", "bfloat16", "tests")
    with torch.inference_mode():
        model = policies.bare(base, narrow)
        bank = SlotBank(model, slots=2, max_rank=8)
        batch = ContinuousBatch(model, bank, prefix_tokens=0)
        wide = Served(base, folders)
        rows = []
        for i in (0, 1):
            weights = lora_files.read(folders[i])
            slot = bank.reserve(weights)
            bank.write(slot, weights)
            rows.append(Row([9 + i, 8, 7], str(i), slot, 20))
        logits = batch.join([[row] for row in rows])
        for _ in range(3):
            for i, row in enumerate(rows):
                wanted = wide.alone(i, row.tokens)
                assert (logits[i] - wanted).abs().max() <= 0.03 * wanted.abs().max() + 0.02
            logits = batch.step(logits.argmax(-1).tolist())
