"""Slots: many versions' LoRAs beside one base, each row its own, nothing of a folder passed over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from live_versions import CPU, base_in, digest, drawn, engine_on, policy_folder, reward_folder
from safetensors.torch import load_file, save_file

from rlhf.engine import lora_files, policies
from rlhf.engine.bases import Base
from rlhf.engine.rewards import LoraShape
from rlhf.engine.slots import BASE, Masked, Nothing, Ordered, SlotBank, Stretches
from rlhf.errors import BadInput, Conflict

IDS = [1, 10, 20, 30, 40, 50]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


def bank_on(base: Base, slots: int = 4, max_rank: int = 8) -> tuple[Any, SlotBank]:
    model = policies.bare(base, CPU)
    return model, SlotBank(model, slots=slots, max_rank=max_rank)


def taken(bank: SlotBank, folder: Path) -> Any:
    weights = lora_files.read(folder)
    slot = bank.reserve(weights)
    bank.write(slot, weights)
    return slot


def logits(model: Any, rows: list[list[int]]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor(rows)).logits
    return found


def edited(folder: Path, **settings: Any) -> Path:
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}), "utf-8")
    return folder


def test_a_slot_computes_what_peft_computes(base: Base, tmp_path: Path) -> None:
    model, bank = bank_on(base)
    bare = logits(model, [IDS])
    for seed, shape in enumerate([{"r": 4}, {"r": 8}, {"r": 2, "top_layers": 1}]):
        folder = policy_folder(base, tmp_path / f"p{seed}", seed, **shape)
        bank.choice = Stretches([(0, len(IDS), taken(bank, folder))])
        found = logits(model, [IDS])
        assert torch.allclose(found, logits(policies.load(folder, base, CPU), [IDS]), atol=1e-4)
        assert (found - bare).abs().max() > 0.01, "the LoRA must be seen"
    bank.choice = Nothing()
    assert torch.equal(logits(model, [IDS]), bare)


def test_ranks_and_scalings_by_layer_are_pefts(base: Base, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2},
        alpha_pattern={"down_proj": 3},
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    peft = drawn(get_peft_model(policies.bare(base, CPU), config), 1).eval()
    peft.save_pretrained(tmp_path / "p")
    model, bank = bank_on(base)
    bank.choice = Stretches([(0, len(IDS), taken(bank, tmp_path / "p"))])
    assert torch.allclose(logits(model, [IDS]), logits(peft, [IDS]), atol=1e-4)


def test_a_batch_of_versions_is_pefts_mixed_batch(base: Base, tmp_path: Path) -> None:
    """Slow twin: `adapter_names=`. One token a row (masked), and stretches of tokens."""
    folders = [policy_folder(base, tmp_path / f"p{i}", i, top_layers=i % 2) for i in range(3)]
    model, bank = bank_on(base)
    slots = [taken(bank, folder) for folder in folders]
    peft = policies.load(folders[0], base, CPU)
    for i in (1, 2):
        peft.load_adapter(str(folders[i]), f"v{i}")
    names = ["v2", "__base__", "default", "v1", "v2"]
    own = [slots[2], BASE, slots[0], slots[1], slots[2]]
    rows = [[7 + i, 30 + i, 50 + i] for i in range(len(names))]
    with torch.inference_mode():
        wanted = peft(input_ids=torch.tensor(rows), adapter_names=names).logits
        singles = peft(input_ids=torch.tensor(rows)[:, :1], adapter_names=names).logits
    bank.choice = Stretches([(3 * i, 3 * i + 3, slot) for i, slot in enumerate(own)])
    assert torch.allclose(logits(model, rows), wanted, atol=1e-4)
    for settled, kind in ((False, Masked), (True, Ordered)):
        bank.choice = bank.chosen(own, settled=settled)
        assert isinstance(bank.choice, kind)
        assert torch.allclose(logits(model, [row[:1] for row in rows]), singles, atol=1e-4)


def test_what_a_slot_held_before_leaves_no_trace(base: Base, tmp_path: Path) -> None:
    whole = policy_folder(base, tmp_path / "whole", 0, r=8)
    top = policy_folder(base, tmp_path / "top", 1, r=4, top_layers=1)
    model, bank = bank_on(base, slots=1)
    bank.free(taken(bank, whole))
    slot = taken(bank, top)
    bank.choice = Masked([BASE, slot], bank.like)
    found = logits(model, [[9], [9]])
    assert torch.allclose(found[1:], logits(policies.load(top, base, CPU), [[9]]), atol=1e-4)
    assert torch.allclose(found[:1], logits(policies.bare(base, CPU), [[9]]), atol=1e-4)


def test_an_order_ends_when_a_version_is_written_and_serves_versions_in_turn(base: Base, tmp_path: Path) -> None:
    folders = [policy_folder(base, tmp_path / f"p{i}", i) for i in range(4)]
    model, bank = bank_on(base, slots=5)
    slots = [taken(bank, folder) for folder in (*folders[:3], folders[0], folders[0])]
    alone = [logits(policies.load(folder, base, CPU), [[9]]) for folder in folders]
    bank.choice = bank.chosen(slots, settled=True)
    wanted = torch.cat([*alone[:3], alone[0], alone[0]])
    assert torch.allclose(logits(model, [[9]] * 5), wanted, atol=1e-4)
    assert isinstance(bank.chosen(slots[:3]), Ordered), "most of what is in order"
    assert isinstance(bank.chosen(slots[:2]), Masked), "less than half of it"
    bank.free(slots[1])
    slots[1] = taken(bank, folders[3])
    assert isinstance(bank.chosen(slots[:3]), Masked)
    bank.choice = bank.chosen(slots[:3], settled=True)
    assert isinstance(bank.choice, Ordered)
    assert torch.allclose(logits(model, [[9]] * 3), torch.cat([alone[0], alone[3], alone[2]]), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"a_setting_of_tomorrow": 1}, "a_setting_of_tomorrow"),
    ],
)
def test_more_than_a_lora_is_refused(base: Base, tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    folder = edited(policy_folder(base, tmp_path / "p", 0), **settings)
    with pytest.raises(BadInput, match=named):
        lora_files.read(folder)


def test_a_tensor_without_a_place_is_refused(base: Base, tmp_path: Path) -> None:
    folder = policy_folder(base, tmp_path / "p", 0)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_A" in name)
    _, bank = bank_on(base)
    save_file({**tensors, "base_model.model.model.norm.weight": torch.ones(48)}, file)
    with pytest.raises(BadInput, match="norm"):
        lora_files.read(folder)
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(BadInput, match="lora_B"):
        lora_files.read(folder)
    renamed = {key.replace("layers.1.", "layers.7."): value for key, value in tensors.items()}
    save_file(renamed, file)
    with pytest.raises(BadInput, match=r"layers\.7"):
        bank.reserve(lora_files.read(folder))
    save_file({**tensors, name: torch.full_like(tensors[name], torch.inf)}, file)
    weights = lora_files.read(folder)
    with pytest.raises(BadInput, match="not finite"):
        bank.write(bank.reserve(weights), weights)


def test_a_rank_beyond_the_engines_is_refused(base: Base, tmp_path: Path) -> None:
    _, bank = bank_on(base, max_rank=4)
    with pytest.raises(BadInput, match="rank 8"):
        bank.reserve(lora_files.read(policy_folder(base, tmp_path / "p", 0, r=8)))


def test_a_full_bank_says_so_and_a_gap_is_used_again(base: Base, tmp_path: Path) -> None:
    weights = lora_files.read(policy_folder(base, tmp_path / "p", 0))
    _, bank = bank_on(base, slots=2, max_rank=4)
    first, second = bank.reserve(weights), bank.reserve(weights)
    with pytest.raises(Conflict, match="2 of 2"):
        bank.reserve(weights)
    bank.free(first)
    again = bank.reserve(weights)
    assert (again.start, again.stop, again.number) == (first.start, first.stop, first.number)
    assert not set(range(second.start, second.stop)) & set(range(again.start, again.stop))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_slots_that_nobody_uses_take_no_memory(base: Base) -> None:
    model = policies.bare(base, CPU)

    def resident_mib() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = resident_mib()
    bank = SlotBank(model, slots=64, max_rank=512)
    promised = sum(pool.a.nbytes + pool.b.nbytes for pool in bank.pools) / 2**20
    assert promised > 200 and resident_mib() - before < promised / 10


def test_a_version_in_use_is_never_written_over(base: Base, tmp_path: Path) -> None:
    folders = [policy_folder(base, tmp_path / f"p{i}", i) for i in range(3)]
    with engine_on(base, slots=2) as engine:
        for i in (0, 1):
            engine.load(digest(i), folders[i])
        with engine.hold(digest(0)), engine.hold(digest(1)):
            with pytest.raises(Conflict):
                engine.load(digest(2), folders[2])
            with pytest.raises(Conflict, match="in use"):
                engine.unload(digest(0))
        with engine.hold(digest(0)) as held:
            assert held.held == 1
            engine.load(digest(2), folders[2])  # takes the place of 1, used longer ago than nothing that is held
        assert set(engine.resident()) == {digest(0), digest(2)}
        engine.load(digest(1), folders[1])
        assert set(engine.resident()) == {digest(2), digest(1)}, "0 was used longest ago"


def test_a_version_that_cannot_be_loaded_leaves_its_slot_free(base: Base, tmp_path: Path) -> None:
    good = policy_folder(base, tmp_path / "good", 0)
    bad = reward_folder(base, tmp_path / "bad", 1)
    file = bad / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, lora_files.HEAD: torch.ones(1, 7)}, file)
    with engine_on(base, slots=1) as engine:
        with pytest.raises(BadInput, match="score head"):
            engine.load(digest(1), bad)
        assert engine.resident() == {}
        engine.load(digest(0), good)
        assert engine.resident()[digest(0)].kind == "policy"


def test_an_adapter_of_another_base_is_refused(base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    drawn(policies.fresh(base, CPU, LoraShape(4, 8, 0.0, 0), seed=0), 0).save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    wider = {n: torch.cat([t, t], 1) if "lora_A" in n else t for n, t in load_file(file).items()}
    save_file({name: tensor.contiguous() for name, tensor in wider.items()}, file)
    _, bank = bank_on(base)
    with pytest.raises(BadInput, match="down_proj is \\(4, 192\\)"):
        bank.reserve(lora_files.read(folder))
