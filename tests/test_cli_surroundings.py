"""Where the command line runs: full disks, foreign folders, broken workspaces, closed pipes, and others at the same time."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import FAST, REAL, CommandLine, copy_of, state
from preferences import write_polite

EVERY_ROOM = (
    "base list",
    "feedback list",
    "snapshot list",
    "adapter verify",
    "alias list",
    "report list",
    "run list",
    "people list",
    "label status",
    "doctor",
    "init",
)
BROKEN_YAML = {
    "empty": "",
    "no YAML": "[1",
    "no settings": "- 1",
    "NUL": "\0",
    "a key less": "database: rlhf.db\nartifacts: artifacts\n",
    "an unknown database": "database: nosuch://x\nartifacts: artifacts\nkey: k\n",
    "an unknown store": "database: rlhf.db\nartifacts: nosuch://x\nkey: k\n",
    "no server": "database: postgresql://u:secret@127.0.0.1:1/x\nartifacts: artifacts\nkey: k\n",
    "code": "!!python/object/apply:os.system [ls]",
}
BROKEN_DATABASE = {
    "absent": None,
    "empty": lambda whole: b"",
    "junk": lambda whole: b"junk" * 5_000,
    "cut": lambda whole: whole[: len(whole) // 2],
    "holes": lambda whole: whole[:8192] + bytes(120_000) + whole[128_192:],
}


def real(root: Path, *words: object, **how: object) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    pipe = subprocess.PIPE
    streams = {"stdout": pipe, "stderr": pipe, "text": True, **how}
    return subprocess.Popen([*REAL, *map(str, words), "--workspace", str(root)], **streams)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("broken", BROKEN_YAML)
def test_broken_settings_are_refused_and_left_as_they_are(rlhf: CommandLine, broken: str) -> None:
    assert rlhf.root is not None
    (rlhf.root / "workspace.yaml").write_text(BROKEN_YAML[broken], "utf-8")
    for asked in ("feedback list", "init", "feedback import absent.jsonl"):
        answer = rlhf(*asked.split(), "--json")
        assert answer.status == 1 and "secret" not in answer.out
        assert answer.error["code"] in ("bad_input", "damaged", "refused")
    assert (rlhf.root / "workspace.yaml").read_text("utf-8") == BROKEN_YAML[broken]


@pytest.mark.parametrize("broken", BROKEN_DATABASE)
def test_a_broken_database_is_refused_and_never_begun_anew(rlhf: CommandLine, tmp_path: Path, broken: str) -> None:
    assert rlhf.root is not None
    whole = (rlhf.root / "rlhf.db").read_bytes()
    for file in rlhf.root.glob("rlhf.db*"):
        file.unlink()
    if (spoil := BROKEN_DATABASE[broken]) is not None:
        (rlhf.root / "rlhf.db").write_bytes(spoil(whole))
    words = ["feedback", "import", str(write_polite(tmp_path / "polite.jsonl")), "--json"]
    for asked in (words, *(f"{each} --json".split() for each in EVERY_ROOM if each != "doctor")):
        answer = rlhf(*asked)
        assert answer.status == 1 and "backup" in answer.error["fix"], asked
        assert answer.error["code"] == "damaged"


def test_a_database_that_breaks_under_way_is_the_database_s_fault(rlhf: CommandLine) -> None:
    """Not only where the workspace is opened: what is asked later is answered in one line, too."""
    assert rlhf.root is not None
    with sqlite3.connect(rlhf.root / "rlhf.db") as connection:
        (page,) = connection.execute("select rootpage from sqlite_master where name = 'versions'").fetchone()
        (page_bytes,) = connection.execute("pragma page_size").fetchone()
        connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    with open(rlhf.root / "rlhf.db", "r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)
    assert rlhf("base", "list").status == 0  # its page is whole
    answer = rlhf("adapter", "list", "--json")
    assert answer.status == 1 and answer.error["code"] == "damaged" and "backup" in answer.error["fix"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_workspace_can_not_be_where_a_file_is(rlhf: CommandLine, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    at = rlhf.at(tmp_path / place)
    for asked in ("init", "people token bob", "adapter list"):
        answer = at(*asked.split(), "--json")
        assert answer.status == 1 and answer.err == "" and answer.error["code"] in ("bad_input", "not_found")
    assert (tmp_path / "file").read_text("utf-8") == "mine"


def test_an_empty_word_for_the_workspace_is_wrong_usage(rlhf: CommandLine) -> None:
    """`--workspace "$UNSET"` must not make one of the folder that one happens to stand in."""
    answer = rlhf.at(None)("init", "--workspace", "", "--json")
    assert answer.status == 2 and "--workspace is empty" in answer.error["message"]


def test_an_import_cut_short_says_so_to_people(rlhf: CommandLine, tmp_path: Path) -> None:
    assert rlhf.root is not None
    file = write_polite(tmp_path / "more.jsonl", 20, seed=5)
    first = rlhf.json("feedback", "import", file)["import"]
    with sqlite3.connect(rlhf.root / "rlhf.db") as connection:
        connection.execute("update imports set state = 'open' where id = ?", (first,))
    connection.close()
    for words in (("receipts",), ("receipts", first)):
        assert "cut short: import the file again" in rlhf("feedback", *words).out
    later = rlhf.json("feedback", "import", file)["import"]
    for words in (("receipts",), ("receipts", first)):
        out = rlhf("feedback", *words).out
        assert f"cut short, imported later as {later}" in out and "import the file again" not in out


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the right to write what is ours."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_folder_that_is_not_ours_to_write_is_refused(rlhf: CommandLine, tmp_path: Path) -> None:
    assert rlhf.root is not None
    for asked in EVERY_ROOM:  # everything that a command imports is imported, whoever may read it
        assert rlhf(*asked.split()).status == 0
    folders = [rlhf.root, *(path for path in rlhf.root.rglob("*") if path.is_dir())]
    for path in [*rlhf.root.rglob("*"), *folders]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # pytest's own, shut to others
        above.chmod(above.stat().st_mode | 0o011)
    before = state(rlhf.root)
    try:
        with as_nobody():
            for asked in (
                "alias set hh@x hh@1 --why x",
                "people token bob",
                "snapshot cut more",
                "adapter retire hh@1",
            ):
                answer = rlhf(*asked.split(), "--json")
                assert answer.status == 1 and (
                    "writable" in answer.error["fix"] or "permissions" in answer.error["fix"]
                )
        (rlhf.root / "workspace.yaml").chmod(0)
        with as_nobody():
            assert "permissions" in rlhf("adapter", "list", "--json").error["fix"]
    finally:
        for path in [*folders, rlhf.root / "workspace.yaml"]:
            path.chmod(0o755)
    assert state(rlhf.root) == before


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file grows beyond n_bytes: what a full disk or a quota says, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_left", [3_000, 70_000])
def test_a_full_disk_is_one_line_and_leaves_no_half(
    rlhf: CommandLine, tmp_path: Path, tiny_folder: Path, room_left: int
) -> None:
    """The smaller limit stops the database's own files, the larger one what is written beside them."""
    assert rlhf.root is not None
    file = write_polite(tmp_path / "more.jsonl", 2_000, seed=9)
    whole = state(rlhf.root)
    for words in (
        ("feedback", "import", file),
        ("base", "add", "twin", "--dir", tiny_folder),
        ("adapter", "export", "hh@1", tmp_path / "out"),
        ("feedback", "export", tmp_path / "out.jsonl"),
        ("snapshot", "export", "polite@1", tmp_path / "cut.jsonl"),
    ):
        with full_disk(room_left):
            answer = rlhf(*words, "--json")
        if answer.status == 0 and room_left > 3_000:
            continue  # small enough to fit
        assert answer.status == 1 and answer.error["fix"], words
    assert room_left > 3_000 or not (tmp_path / "out").exists()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    rows, files = state(rlhf.root)
    assert rows["pairs"] == whole[0]["pairs"] and files == whole[1]
    assert rlhf.json("adapter", "verify")["ok"]


def test_a_reader_who_stops_is_no_failure_and_hides_none(rlhf: CommandLine, tmp_path: Path) -> None:
    """`rlhf … | head -1`: no traceback, and the command's own exit status."""
    assert rlhf.root is not None
    (rlhf.root / "artifacts" / "stray").write_text("x", "utf-8")
    replies = tmp_path / "replies.jsonl"
    replies.write_text("".join(json.dumps({"prompt": "q", "reply": f"r{i}"}) + "\n" for i in range(99)), "utf-8")
    for words, status in (
        (("feedback", "list", "--json"), 0),
        (("adapter", "verify"), 1),
        (("adapter", "show", "hh@9", "--json"), 1),
        (("reward", "score", "hh@1", replies), 0),
    ):
        reading, writing = os.pipe()
        os.close(reading)
        process = real(rlhf.root, *words, stdout=writing)
        os.close(writing)
        _, err = process.communicate(timeout=120)
        assert process.returncode == status and "Traceback" not in err and "Broken" not in err, words


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_that_can_not_be_written_is_a_failure(rlhf: CommandLine, more: tuple[str, ...]) -> None:
    assert rlhf.root is not None
    with open("/dev/full", "w") as full:
        process = real(rlhf.root, "adapter", "list", *more, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and len(err.splitlines()) == 2 and err.startswith("error: standard output")


def test_names_that_are_no_unicode_and_other_encodings_still_give_json(rlhf: CommandLine, tmp_path: Path) -> None:
    assert rlhf.root is not None
    answer = rlhf("feedback", "import", os.fsdecode(b"no-\xff-such.jsonl"), "--json")
    assert answer.status == 1 and "such.jsonl" in answer.error["message"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    rlhf.json("feedback", "import", write_polite(tmp_path / "polite.jsonl", 1), "--source", "süß 源")
    with real(rlhf.root, "feedback", "list", "--json", env=ascii_only) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "süß 源" in json.loads(out)["sources"]


def test_of_movers_at_once_exactly_one_wins(rlhf: CommandLine) -> None:
    assert rlhf.root is not None
    movers = [
        real(rlhf.root, "alias", "set", "hh@champion", "hh@1", "--why", f"mover {i}", "--expect", "2", "--json")
        for i in range(3)
    ]
    answers = [json.loads(mover.communicate(timeout=120)[0]) for mover in movers]
    won = [answer for answer in answers if "error" not in answer]
    lost = [answer["error"] for answer in answers if "error" in answer]
    assert len(won) == 1 and sorted(mover.returncode for mover in movers) == [0, 1, 1]
    assert all(error["code"] == "conflict" and "entry 3" in error["message"] for error in lost)
    moves = rlhf.json("alias", "history", "hh@champion")["moves"]
    assert [move["to"] for move in moves] == ["hh@1", "hh@2", "hh@1"] and moves[-1]["why"] == won[0]["why"]


def test_two_trainings_at_once_give_two_versions(
    trained_root: Path, tmp_path: Path, rlhf: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two heavy jobs are allowed; by default the second is told to wait (`test_store_heavy.py`)."""
    monkeypatch.setenv("RLHF_HEAVY_JOBS", "2")
    root = copy_of(trained_root, tmp_path / "busy")
    words = ("reward", "train", "hh", "--snapshot", "polite@1", "--base", "tiny", "--json", *FAST)
    trainings = [real(root, *words, f"seed={seed}") for seed in (7, 8)]
    answers = [json.loads(training.communicate(timeout=240)[0]) for training in trainings]
    assert sorted(answer["version"] for answer in answers) == ["hh@3", "hh@4"]
    assert len({answer["digest"] for answer in answers}) == 2
    at = rlhf.at(root)
    assert at.json("adapter", "verify")["ok"] and {run["state"] for run in at.json("run", "list")["runs"]} == {"done"}


def test_a_line_of_json_is_one_line_to_every_reader() -> None:
    """U+2028 and its like end a line for `str.splitlines`; a text that holds them must not break an object in two."""
    from rlhf.cli.boundary import json_text

    value = {"reply": "one\u2028two\u2029three\u0085four"}
    assert len(json_text(value).splitlines()) == 1
    assert json.loads(json_text(value)) == value
