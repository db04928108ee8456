"""Every name that becomes a file or a key, by command: no spelling leads out of the workspace, and an address isn't fetched."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, copy_of, state
from payloads import PAYLOADS
from safetensors.numpy import load_file, save_file

from rlhf.errors import RlhfError
from rlhf.store import Workspace

HOSTILE = {
    "parent": "../out",
    "deep parent": "a/../../../out",
    "root": "/var/out",
    "home": "~/out",
    "folder": "a/b",
    "backslash": "..\\out",
    "dots": "..",
    "dot": ".",
    "encoded": "%2e%2e%2fout",
    "full width": "．．／out",
    "nul": "a\x00b",
    "line": "a\nb",
    "space": " ",
    "empty": "",
    "option": "--out",
    "address": "https://evil.example/x",
    "drive": "c:\\out",
    "long": "n" * 300,
}
# A command with its NAME. What is there and named rightly is done by other tests.
NAMED = [
    "base add NAME --dir base",
    "snapshot cut NAME",
    "snapshot show NAME",
    "snapshot export NAME out.jsonl",
    "reward train NAME --snapshot polite --base tiny max_steps=1",
    "reward train x --snapshot NAME --base tiny",
    "reward train x --snapshot polite --base NAME",
    "reward train x --snapshot polite --base tiny --from NAME",
    "reward score NAME replies.jsonl",
    "reward calibrate NAME --snapshot polite",
    "policy train NAME --reward hh@1 --base tiny --method dpo max_steps=1",
    "policy generate NAME replies.jsonl",
    "adapter show NAME",
    "adapter export NAME out",
    "adapter import stranger --name NAME --base tiny",
    "adapter verify NAME",
    "adapter sign hh@1 --report NAME --as evaluator",
    "adapter sign hh@1 --report 000000000000 --as NAME",
    "alias set NAME hh@1 --why x",
    "alias set hh@NAME hh@1 --why x",
    "alias history NAME",
    "evaluate NAME --snapshot polite",
    "evaluate hh@1 --snapshot NAME",
    "report show NAME",
    "run show NAME",
    "run cancel NAME",
    "feedback show NAME",
    "people add NAME --role labeler",
    "people invite --name NAME",
    "people token NAME",
    "loop init NAME --base tiny --config loop.yaml",
]
# Files that a command reads: an address in their place.
READ = [
    "feedback import ADDRESS",
    "feedback import ADDRESS.jsonl --format trl",
    "base add x --dir ADDRESS",
    "base add x --gguf ADDRESS",
    "reward score hh@1 ADDRESS",
    "reward train x --config ADDRESS",
    "policy train p --reward hh@1 --base tiny --method dpo --prompts ADDRESS",
    "policy generate hh@1 ADDRESS",
    "adapter import ADDRESS",
    "adapter export hh@1 ADDRESS",
    "alias gate hh@champion --rules ADDRESS --why x",
    "compare hh@1 hh@2 --prompts ADDRESS",
    "evaluate hh@1 --snapshot polite --out ADDRESS",
    "snapshot export polite ADDRESS",
    "feedback export ADDRESS",
    "label guidelines ADDRESS",
    "label consent ADDRESS",
    "loop run --config ADDRESS",
    "doctor --estimate ADDRESS",
]


@pytest.fixture(scope="module")
def place(trained_root: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace's copy with a base, an exported adapter and some replies beside it."""
    folder = tmp_path_factory.mktemp("names")
    shutil.copytree(tiny_folder, folder / "base")
    _make_stranger(trained_root, folder / "stranger")
    (folder / "replies.jsonl").write_text('{"id": 1, "prompt": "hi", "reply": "x"}\n', "utf-8")
    yield copy_of(trained_root, folder / "ws")


def _make_stranger(trained_root: Path, folder: Path) -> None:
    """A PEFT folder that the workspace doesn't know: one of its versions with other weights."""
    shutil.copytree(trained_root / "artifacts" / "versions" / "hh" / "1", folder)
    (folder / "manifest.json").unlink()
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, folder / "adapter_model.safetensors")


def words_of(asked: str, key: str, value: str) -> list[str]:
    return [word.replace(key, value) for word in asked.split()]


def everything(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if "/rlhf.db" not in path.as_posix()
    )


@pytest.mark.parametrize("asked", NAMED)
def test_no_name_leads_anywhere(rlhf: CommandLine, place: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Refused in words, and nothing is there that wasn't there before: not in the workspace, not beside it."""
    monkeypatch.chdir(place.parent)
    call, before, rows = rlhf.at(place), everything(place.parent), state(place)[0]
    for kind, name in HOSTILE.items():
        answer = call(*words_of(asked, "NAME", name), "--json")
        assert answer.status in (1, 2), (kind, answer)
        assert answer.error["message"] and "Traceback" not in answer.err, kind
        assert everything(place.parent) == before and state(place)[0] == rows, kind
    assert not Path("/var/out").exists() and not Path.home().joinpath("out").exists()


@pytest.mark.parametrize("asked", READ)
@pytest.mark.parametrize("address", ["https://127.0.0.1:9/x", "file:///etc/passwd", "s3://bucket/key"])
def test_an_address_is_refused_with_words_and_nobody_is_asked(
    rlhf: CommandLine, place: Path, monkeypatch: pytest.MonkeyPatch, asked: str, address: str
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was begun")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(place.parent)
    before, rows = everything(place.parent), state(place)[0]
    answer = rlhf.at(place)(*words_of(asked, "ADDRESS", address), "--json")
    assert answer.status in (1, 2) and address.partition(":")[0] in answer.error["message"], answer
    assert everything(place.parent) == before and state(place)[0] == rows


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_names_neither_a_version_nor_a_snapshot_nor_a_run(rlhf: CommandLine, place: Path, name: str) -> None:
    """So none stands in a report's title, a file's name or a link. A source and a file may be called anything: they are texts."""
    for words in (("snapshot", "cut"), ("reward", "train"), ("base", "add")):
        more = {"reward": ("--snapshot", "polite", "--base", "tiny"), "base": ("--dir", place.parent / "base")}
        answer = rlhf.at(place)(*words, PAYLOADS[name], *more.get(words[0], ()), "--json")
        assert answer.status in (1, 2) and answer.error["message"]


@pytest.mark.parametrize(
    "name", [name for kind, name in HOSTILE.items() if kind not in ("empty", "space", "nul", "line", "long")]
)
def test_a_sources_name_is_a_text_and_no_path(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """It is the one name that may be anything that prints: it is kept in rows and becomes no file."""
    from rlhf import feedback, snapshots

    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"q{i}", "chosen": "x", "rejected": "y"}) + "\n" for i in range(3)), "utf-8"
    )
    try:
        feedback.import_files(workspace, [file], source=name)
    except RlhfError:
        return
    before = everything(tmp_path)
    snapshots.cut(workspace, "s", sources=[name])
    grown = set(everything(tmp_path)) - set(before)
    assert grown and all(path.startswith("ws/") for path in grown)
    assert all("out" not in Path(path).name for path in grown)


def test_no_text_of_a_strangers_is_obeyed_by_the_terminal(rlhf: CommandLine, tmp_path: Path) -> None:
    """Sequences that clear a screen, set a title, fill the clipboard or write over a line are shown as what they are."""
    acts = "\x1b[2J\x1b]0;title\x07\x1b]52;c;eA==\x07\x9b31m\x08\x7f real\rfake"
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"prompt": f"q {acts}", "chosen": f"x{acts}\n\tnext", "rejected": f"y\r\n{acts}"}) + "\n", "utf-8"
    )
    rlhf.json("feedback", "import", file, "--source", "odd")
    shown = rlhf.json("feedback", "list", "--source", "odd")["pairs"][0]["id"]
    assert rlhf.json("feedback", "show", shown)["prompt"][0]["content"] == f"q {acts}", (
        "a program is given the very text"
    )
    for answer in (rlhf("feedback", "list"), rlhf("feedback", "show", shown), rlhf("snapshot", "show", f"x{acts}")):
        said = answer.out + answer.err
        assert said and not [c for c in said if (ord(c) < 32 or 127 <= ord(c) < 160) and c not in "\n\t"]
    assert "\\u001b[2J" in rlhf("feedback", "show", shown).out
