"""Documentation kept true: commands parse, files exist, examples run, settings load, configurations start what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from preferences import cut_polite
from test_rooms import ORDER

from rlhf import config, feedback
from rlhf.cli import build
from rlhf.feedback.drafts import PairDraft, Rejected
from rlhf.policy.settings import PolicySettings
from rlhf.reward.settings import RewardSettings
from rlhf.store import Workspace

PROJECT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("architecture", "figures", "hh", "operating", "statistics")),
)
ACCELERATE = sorted((PROJECT / "configs" / "accelerate").glob("*.yaml"))
SETTINGS = sorted((PROJECT / "configs" / "reward").glob("*.yaml"))
README = (PROJECT / "README.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> Iterator[list[str]]:
    """Words of every `rlhf …` in a page: lines of bash blocks, and code in a line that names a verb."""
    text = (PROJECT / page).read_text("utf-8")
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(rlhf [^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines:
        words = shlex.split(line.replace("\n", " "), comments=True)
        if words[:1] == ["rlhf"] and not any("…" in word or "<" in word for word in words):
            yield words[1:]


def parse(words: list[str]) -> str:
    """The command that the words name, its arguments checked by Typer, not run. Raises what a user would see."""
    command: Any = typer.main.get_command(build())
    context = command.make_context("rlhf", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return str(context.command_path)


COMMANDS = sorted({tuple(words) for page in PAGES for words in commands_of(page) if words != ["--help"]})


def test_the_readme_shows_each_door() -> None:
    shown = {" ".join(words[:2]) for words in COMMANDS}
    wanted = {"feedback import", "snapshot cut", "reward train", "web", "evaluate hh@1", "alias set", "alias rollback"}
    assert wanted <= shown


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_in_the_pages_exists_with_its_options(words: tuple[str, ...]) -> None:
    assert parse(list(words)).startswith("rlhf ")


def test_a_misspelt_option_would_be_found() -> None:
    with pytest.raises(Exception, match="shapshot"):
        parse(["reward", "train", "hh", "--shapshot", "hh"])


def tree() -> list[str]:
    """The paths in the README's file tree."""
    listed = README.split("## Files", 1)[1].split("```")[1]
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def test_every_file_of_the_readmes_tree_exists() -> None:
    for path in tree():
        there = PROJECT / path
        assert there.is_dir() if path.endswith("/") else there.is_file(), f"{path} is in the README and not there"


def test_every_room_script_and_configuration_folder_is_in_the_readmes_tree() -> None:
    listed = {path.rstrip("/") for path in tree()}
    rooms = [f"rlhf/{room}" for room in ORDER if (PROJECT / "rlhf" / room / "__init__.py").is_file()]
    rooms += [f"rlhf/{room}.py" for room in ORDER if (PROJECT / "rlhf" / f"{room}.py").is_file()]
    scripts = [f"scripts/{file.name}" for file in (PROJECT / "scripts").iterdir() if file.is_file()]
    folders = [f"configs/{folder.name}" for folder in (PROJECT / "configs").iterdir() if folder.is_dir()]
    assert sorted({*rooms, *scripts, *folders} - listed) == []


def test_the_architecture_names_every_room_in_order() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)/?` \|", text, re.MULTILINE) == ORDER


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_in_a_page_exists(page: str) -> None:
    """Paths with a folder; a room's file may be named without `rlhf/`."""
    text = re.sub(
        r"^```(python|toml)\n.*?^```$", "", (PROJECT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    named = set(re.findall(r"(?<![\w./<-])(?:[\w.-]+/)+[\w-]+\.(?:py|md|yaml|toml)\b", text))
    named |= set(re.findall(r"(?<![\w./-])(?:scripts|\.ci)/\w+(?![\w.])", text))
    missing = [p for p in named if not (PROJECT / p).exists() and not (PROJECT / "rlhf" / p).exists()]
    missing = [p for p in missing if not (PROJECT / "rlhf" / "store" / p).exists() and "000N" not in p]
    assert named
    assert sorted(missing) == []


def test_every_name_after_a_file_in_the_architecture_exists() -> None:
    """`store/database.SCHEMA_HEAD` and the like."""
    text = (PROJECT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"`((?:\w+/)\w+)\.(\w+)(?:\.\w+)?`", text)
    assert len(named) > 5
    for module, name in named:
        if name in ("py", "md", "yaml"):
            continue
        source = (PROJECT / "rlhf" / f"{module}.py").read_text("utf-8")
        assert re.search(rf"^(?:class |def )?{name}\b", source, re.MULTILINE), f"{module}.py has no {name}"


def test_every_metric_and_variable_named_for_operators_exists() -> None:
    text = (PROJECT / "docs" / "operating.md").read_text("utf-8")
    sources = "".join(file.read_text("utf-8") for file in (PROJECT / "rlhf").rglob("*.py"))
    metrics = set(re.findall(r"`(rlhf_[a-z_]+)`", text))
    served = "".join((PROJECT / "rlhf" / "serving" / name).read_text("utf-8") for name in ("metrics.py", "serve.py"))
    assert metrics == set(re.findall(r'"(rlhf_[a-z_]+)"', served))
    variables = set(re.findall(r"\bRLHF_[A-Z_]+\b", text))
    assert variables and [name for name in variables if name not in sources] == []


FORMATS = re.findall(r"^\| `(\w+)` \| `(\{.*\})` \|$", README, re.MULTILINE)


def test_the_readme_shows_every_format() -> None:
    from rlhf.feedback.formats import available

    own = {name for name, form in available().items() if type(form).__module__.startswith("rlhf.")}
    assert {name for name, _ in FORMATS} == own


@pytest.mark.parametrize(("name", "row"), FORMATS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FORMATS)])
def test_every_row_shown_in_the_readme_is_imported_as_that_format(workspace: Workspace, name: str, row: str) -> None:
    file = workspace.root / "shown.jsonl"
    file.write_text(row + "\n", "utf-8")
    receipt = feedback.import_files(workspace, [file])
    assert (receipt.format, receipt.accepted, receipt.rejected) == (name, 1, 0)


def test_the_readmes_own_format_reads_and_rejects() -> None:
    code = next(block for block in blocks(README, "python") if "FORMAT = " in block)
    names: dict[str, Any] = {}
    exec(code, names)  # the README's example, as a reader would paste it
    own = names["FORMAT"]
    good = {"question": "Name a bird.", "better": "The wren.", "worse": "Bread.", "who": "ann"}
    assert own.sniff(good)
    assert not own.sniff({"question": "Name a bird."})
    draft = own.read(good)
    assert isinstance(draft, PairDraft)
    assert (draft.first, draft.votes[0].side, draft.votes[0].labeler) == ("The wren.", "first", "ann")
    with pytest.raises(Rejected):
        own.read({**good, "worse": good["better"]})


def test_the_page_of_the_loop_is_the_readmes_notebook() -> None:
    """Names and keywords of the README's notebook are those of `rlhf/loop.py`; the demo runs the same calls."""
    import ast
    import inspect

    from rlhf import loop

    code = next(block for block in blocks(README, "python") if "loop.turn" in block)
    for call in ast.walk(ast.parse(code)):
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("loop."):
            function: Any = eval(ast.unparse(call.func), {"loop": loop})
            known = inspect.signature(function).parameters
            kinds = {loop.turn: RewardSettings, loop.improve: PolicySettings}
            settings = kinds[function].model_fields if function in kinds else {}
            assert {word.arg for word in call.keywords} <= {*known, *settings}


@pytest.mark.parametrize("file", SETTINGS, ids=lambda f: f.name)
def test_every_reward_configuration_loads_and_opens_with_its_command(file: Path) -> None:
    settings = config.load(RewardSettings, file, name="hh", snapshot="hh")
    assert settings.base
    first = file.read_text("utf-8").splitlines()[0]
    words = shlex.split(first.removeprefix("# "))
    assert parse(words[1:]) == "rlhf reward train"
    assert words[words.index("--config") + 1] == file.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("file", ACCELERATE, ids=lambda f: f.name)
def test_every_accelerate_configuration_loads_with_accelerates_own_loader(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    loaded = load_config_from_file(str(file))
    assert loaded.mixed_precision == "no", "the body's type is our setting `dtype`"
    known = {action.dest for action in launch_command_parser()._actions}
    assert set(loaded.fsdp_config) | set(loaded.deepspeed_config) <= known
    assert (loaded.num_processes > 1) == (file.name != "one_gpu.yaml")


@pytest.mark.parametrize("file", ACCELERATE, ids=lambda f: f.name)
def test_every_accelerate_configuration_opens_with_its_command_and_what_was_measured(file: Path) -> None:
    from accelerate.commands.launch import launch_command_parser

    comments = [line for line in file.read_text("utf-8").splitlines() if line.startswith("# ")]
    words = shlex.split(comments[0].removeprefix("# "))
    assert words[:2] == ["accelerate", "launch"]
    launched = launch_command_parser().parse_args(words[2:])
    assert launched.config_file == file.relative_to(PROJECT).as_posix()
    assert launched.training_script == "scripts/train_reward.py"
    settings = [word for word in launched.training_script_args if "=" in word]
    at = launched.training_script_args.index("--config") + 1
    assert config.load(RewardSettings, PROJECT / launched.training_script_args[at], settings).snapshot == "hh"
    assert any(re.match(r"# (Not m|M)easured", line) for line in comments)


@pytest.mark.slow
def test_two_processes_by_the_cpu_configuration_equal_one(
    workspace: Workspace, tiny_base: object, tmp_path: Path
) -> None:
    """The configuration starts two processes (accelerate's `--cpu --num_processes 2` starts one), and they train what one
    does."""
    from safetensors.numpy import load_file

    from rlhf import registry, reward

    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    launcher.append(str(PROJECT / "configs" / "accelerate" / "cpu.yaml"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    probe = tmp_path / "probe.py"
    count = f"(pathlib.Path({str(tmp_path)!r}) / f'of-{{s.num_processes}}-{{s.process_index}}').touch()"
    probe.write_text(f"import pathlib\nfrom accelerate import PartialState\ns = PartialState(cpu=True)\n{count}\n")
    subprocess.run([*launcher, str(probe)], check=True, capture_output=True, env=environment, timeout=120)
    assert sorted(file.name for file in tmp_path.glob("of-*")) == ["of-2-0", "of-2-1"]

    cut_polite(workspace, tmp_path)
    # 7 pairs a step: the two shares differ in size.
    quick = {
        "base": "tiny",
        "snapshot": "polite",
        "device": "cpu",
        "dtype": "float32",
        "epochs": 1,
        "pairs_per_step": 7,
    }
    quick |= {"learning_rate": 3e-3, "lora_r": 4}
    one = reward.train(workspace, reward.RewardSettings(name="one", **quick))  # type: ignore[arg-type]
    script = [str(PROJECT / "scripts" / "train_reward.py"), "--workspace", str(workspace.root), "--json", "name=two"]
    words = [f"{key}={value}" for key, value in quick.items()]
    done = subprocess.run([*launcher, *script, *words], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    two = registry.resolve(workspace, json.loads(done.stdout.strip().splitlines()[-1])["version"])
    expected, found = (
        load_file(registry.open_version(workspace, ref).folder / "adapter_model.safetensors")
        for ref in (one.version, two)
    )
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert abs(tensor - expected[name]).max() < 1e-5, name


def test_no_tracked_file_names_a_place_on_somebodys_machine() -> None:
    if not (PROJECT / ".git").exists():
        pytest.skip("no git checkout here")
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    place = re.compile(r"(?<![\w.}])/(?:" + "|".join(("work", "tmp", "root", "home", "Users")) + r")/\w")
    found = []
    for name in listed.splitlines():
        file = PROJECT / name
        if file.suffix == ".gz" or not file.is_file():
            continue
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if place.search(line):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert found == []


def test_the_marks_in_contributing_are_those_of_the_tests() -> None:
    text = (PROJECT / "pyproject.toml").read_text("utf-8")
    listed = yaml.safe_load(re.search(r"^markers = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    contributing = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
    shown = set(re.findall(r"^\| `(\w+)` \|", contributing, re.MULTILINE))
    assert shown == {line.split(":")[0] for line in listed}
