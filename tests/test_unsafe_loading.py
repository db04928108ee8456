"""No pickle crosses a trust boundary: what runs code of a file's is nowhere in our sources, and files of that kind are refused."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import adapter_folders as made
import pytest

from rlhf import registry
from rlhf.errors import BadInput
from rlhf.registry.checks import UNSAFE_SUFFIXES

PROJECT = Path(__file__).parent.parent
SOURCES = [*(PROJECT / "rlhf").rglob("*.py"), *(PROJECT / "scripts").glob("*.py")]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "pandas.read_pickle",
    "pd.read_pickle",
}
WORDS = {  # a call's keyword and the value that it may not have
    "allow_pickle": True,
    "weights_only": False,
    "trust_remote_code": True,
    "shell": True,
}


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: import {name}" for name in named if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            said = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if called in CALLS:
                yield f"line {node.lineno}: {called}"
            if called == "torch.load" and said.get("weights_only") is not True:
                yield f"line {node.lineno}: torch.load without weights_only=True"
            yield from (
                f"line {node.lineno}: {word}={value}"
                for word, value in said.items()
                if word in WORDS and WORDS[word] is value
            )


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "yaml.load(text)",
        "eval(text)",
        "subprocess.run(words, shell=True)",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert list(unsafe(ast.parse(source)))
    assert not list(unsafe(ast.parse("np.load(f); model.eval(); yaml.safe_load(t); torch.load(f, weights_only=True)")))


def test_no_source_of_ours_loads_what_could_run() -> None:
    found = {
        file.relative_to(PROJECT).as_posix(): said
        for file in SOURCES
        if (said := list(unsafe(ast.parse(file.read_text("utf-8")))))
    }
    assert found == {} and len(SOURCES) > 100


@pytest.mark.parametrize("suffix", UNSAFE_SUFFIXES)
def test_an_adapter_with_a_file_that_could_run_is_refused(tmp_path: Path, suffix: str) -> None:
    folder = made.make(tmp_path / "adapter")
    (folder / f"adapter_model{suffix}").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(BadInput, match="could run code"):
        registry.read_folder(folder)


def test_pickled_weights_in_place_of_safetensors_are_refused(tmp_path: Path) -> None:
    folder = made.make(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(BadInput, match="could run code"):
        registry.read_folder(folder)
