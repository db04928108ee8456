"""What comes in from strangers and what lies on the disk: nothing that runs code, fits nothing or was changed gets through."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import FAST, REPLIES, CommandLine, state
from safetensors.numpy import load_file, save_file

Change = Callable[[Path], object]
Weights = dict[str, np.ndarray]


def config(**changed: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changed}), "utf-8")

    return change


def weights(make: Callable[[Weights], Weights]) -> Change:
    return lambda folder: save_file(
        make(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors"
    )


def each(word: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    return weights(lambda all_: {k: np.ascontiguousarray(make(v)) if word in k else v for k, v in all_.items()})


def manifest(**changed: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changed}), "utf-8")

    return change


STRANGE = {
    "a pickle beside": lambda folder: (folder / "optimizer.pt").write_bytes(pickle.dumps(1)),
    "a pickle below": lambda folder: (
        (folder / "sub").mkdir(),
        (folder / "sub" / "x.pkl").write_bytes(pickle.dumps(1)),
    ),
    "pickled weights": lambda folder: (folder / "adapter_model.bin").write_bytes(pickle.dumps(1)),
    "code": lambda folder: (folder / "modeling.py").write_text("1"),
    "a link out": lambda folder: (folder / "notes.json").symlink_to("/etc/passwd"),
    "a link to a folder": lambda folder: (folder / "more").symlink_to("/etc"),
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "an unknown key": config(zork=1),
    "a filled auto_mapping": config(auto_mapping={"base_model_class": "X", "parent_library": "os"}),
    "no LoRA": config(peft_type="PROMPT_TUNING"),
    "another rank": config(r=99),
    "layers that aren't there": config(target_modules=["nothing"]),
    "a policy": config(task_type="CAUSAL_LM"),
    "no configuration": lambda folder: (folder / "adapter_config.json").unlink(),
    "a broken configuration": lambda folder: (folder / "adapter_config.json").write_text("{"),
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "cut weights": lambda folder: os.truncate(folder / "adapter_model.safetensors", 5_000),
    "no head": weights(lambda all_: {k: v for k, v in all_.items() if "score" not in k}),
    "NaN": each("lora_A", lambda w: w * np.float32("nan")),
    "infinity": each("score", lambda w: np.full_like(w, np.inf)),
    "a smaller head": each("score", lambda w: w[:, :5]),
    "other shapes": each("lora_A", lambda w: w[:, :5]),
    "one tensor more": weights(lambda all_: {**all_, "evil": np.zeros(1, np.float32)}),
    "a name that climbs": weights(lambda all_: {**all_, "../../x": np.zeros(1, np.float32)}),
    "a manifest that isn't its own": manifest(settings={"max_length": 1}),
    "a manifest of another base": manifest(base={"name": "x", "digest": "0" * 64}),
    "no manifest that can be read": lambda folder: (folder / "manifest.json").write_text("["),
}


@pytest.fixture
def folder(rlhf: CommandLine, tmp_path: Path) -> Path:
    """A version's exported folder."""
    rlhf.json("adapter", "export", "hh@1", tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize("strange", STRANGE)
def test_an_import_refuses_what_is_strange_and_publishes_nothing(rlhf: CommandLine, folder: Path, strange: str) -> None:
    assert rlhf.root is not None
    change, before = STRANGE[strange], state(rlhf.root)
    if "manifest" not in strange:
        (folder / "manifest.json").unlink()
    change(folder)
    answer = rlhf("adapter", "import", folder, "--name", "stranger", "--json")
    assert answer.status == 1 and answer.error["code"] in ("bad_input", "damaged")
    assert state(rlhf.root) == before


@pytest.mark.parametrize("name", ["../x", "a@1", "7", "", "n" * 200])
def test_an_import_under_a_name_that_can_not_be_is_refused(rlhf: CommandLine, folder: Path, name: str) -> None:
    (folder / "manifest.json").unlink()
    each("score", lambda w: w * 2)(folder)
    assert rlhf("adapter", "import", folder, "--name", name, "--json").error["code"] == "bad_input"


def test_a_wrong_base_is_refused_whatever_differs(
    rlhf: CommandLine, folder: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    from rlhf.engine.tiny import write_tiny_base

    for name, hidden in (("narrow", 32), ("twin", 48)):
        rlhf.json("base", "add", name, "--dir", write_tiny_base(tmp_path / name, seed=5, hidden=hidden))
    for base in ("narrow", "twin", "absent"):
        answer = rlhf("adapter", "import", folder, "--base", base, "--json")
        assert answer.status == 1 and answer.error["code"] in ("bad_input", "not_found")
    (folder / "manifest.json").unlink()
    each("score", lambda w: w * 2)(folder)
    assert "doesn't fit" in rlhf("adapter", "import", folder, "--base", "narrow", "--json").error["message"]
    assert "--base" in rlhf("adapter", "import", folder, "--json").error["fix"]  # two fit: nobody guesses
    assert rlhf.json("adapter", "import", folder, "--base", "tiny", "--name", "doubled")["version"] == "doubled@1"


def test_a_changed_byte_anywhere_under_artifacts_is_named(rlhf: CommandLine) -> None:
    assert rlhf.root is not None
    published = rlhf.root / "artifacts"
    files = sorted(path for path in published.rglob("*") if path.is_file())
    kinds = {(path.relative_to(published).parts[0], path.suffix) for path in files}
    assert {
        ("versions", ".safetensors"),
        ("snapshots", ".parquet"),
        ("reports", ".html"),
        ("snapshots", ".md"),
    } <= kinds
    for file in files:
        whole = file.read_bytes()
        place = len(whole) // 2
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        answer = rlhf("adapter", "verify", "--json")
        assert answer.status == 1 and not answer.value["ok"]
        (problem,) = answer.value["problems"]
        assert problem == f"{file.relative_to(published).as_posix()} was changed after it was published"
        file.write_bytes(whole)
    assert rlhf.json("adapter", "verify")["files"] == len(files)


@pytest.mark.parametrize("stray", ["stray.txt", "versions/hh/1/more.bin", "versions/hh/stray.txt"])
def test_a_file_that_nobody_published_is_named(rlhf: CommandLine, stray: str) -> None:
    assert rlhf.root is not None
    (rlhf.root / "artifacts" / stray).write_bytes(b"")
    assert rlhf("adapter", "verify", "--json").value["problems"] == [f"{stray} was never published"]


def test_what_was_changed_is_used_by_no_command(rlhf: CommandLine, tmp_path: Path) -> None:
    assert rlhf.root is not None

    def refused(*words: object) -> None:
        answer = rlhf(*words, "--json", stdin=REPLIES.encode())
        assert (answer.status, answer.error["code"]) == (1, "damaged"), words

    with open(rlhf.root / "artifacts" / "versions" / "hh" / "2" / "adapter_model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    refused("reward", "score", "hh@2", "-")
    shown = rlhf.json("adapter", "show", "hh@2")
    assert shown["problems"] == ["versions/hh/2/adapter_model.safetensors was changed after it was published"]
    assert "DAMAGED" in rlhf("adapter", "show", "hh@2").out and "DAMAGED" not in rlhf("adapter", "show", "hh@1").out
    refused("evaluate", "hh@2", "--snapshot", "polite@1")
    refused("adapter", "export", "hh@2", tmp_path / "out")
    refused("reward", "train", "x", "--snapshot", "polite@1", "--base", "tiny", "--from", "hh@2", *FAST)
    assert rlhf("reward", "score", "hh@1", "-", stdin=REPLIES.encode()).status == 0  # the others still serve
    (rlhf.root / "artifacts" / "snapshots" / "polite" / "1" / "rows-00000.parquet").write_bytes(b"no rows")
    refused("snapshot", "show", "polite@1")
    refused("snapshot", "export", "polite@1", tmp_path / "out.jsonl")
    refused("reward", "train", "x", "--snapshot", "polite@1", "--base", "tiny", *FAST)
    refused("evaluate", "hh@1", "--snapshot", "polite@1")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.jsonl").exists()
