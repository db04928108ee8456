"""Aliases: moves, races and the way back."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import adapter_folders as made
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound
from rlhf.registry import aliases, open_version, resolve, retire
from rlhf.store import Workspace, audit


@pytest.fixture
def five(workspace: Workspace, tmp_path: Path) -> Workspace:
    for seed in range(5):
        made.published(workspace, tmp_path, seed)
    return workspace


def _now(workspace: Workspace, alias: str = "hh@champion") -> str:
    return str(aliases.current(workspace, alias))


def test_a_move_is_seen_at_once_and_kept_in_the_history(five: Workspace) -> None:
    aliases.move(five, "hh@champion", "hh@1", why="first", evidence={"report": "abc"})
    move = aliases.move(five.as_actor("ann"), "hh@champion", "hh@3", why="better")
    assert _now(five) == "hh@3" and resolve(five, "hh@champion").number == 3
    assert (move.seq, move.who, move.why, move.action) == (2, "ann", "better", "set")
    first, second = aliases.history(five, "hh@champion")
    assert first.evidence == {"report": "abc"} and first.from_digest is None
    assert second == move and second.from_digest == first.to_digest
    assert [(a.alias, str(a.version), a.seq) for a in aliases.list_aliases(five)] == [("hh@champion", "hh@3", 2)]


def test_rollback_is_one_append(five: Workspace) -> None:
    """No file and no older row is touched; what was promoted is still there."""
    for number in (1, 2, 3):
        aliases.move(five, "hh@champion", f"hh@{number}", why="up")
    before = aliases.history(five, "hh@champion")
    stamps = {file: file.stat().st_mtime_ns for file in Path(five.artifacts.root).rglob("*")}
    back = aliases.roll_back(five, "hh@champion", why="worse in the field")
    assert _now(five) == "hh@2" and back.action == "rollback"
    assert aliases.history(five, "hh@champion") == (*before, back)
    assert {file: file.stat().st_mtime_ns for file in Path(five.artifacts.root).rglob("*")} == stamps


def test_a_damaged_version_gets_no_alias_and_nothing_is_appended(five: Workspace) -> None:
    aliases.move(five, "hh@champion", "hh@1", why="first")
    (open_version(five, "hh@2").folder / "adapter_config.json").write_text("{}")
    with pytest.raises(Damaged, match=r"versions/hh/2/adapter_config\.json was changed"):
        aliases.move(five, "hh@champion", "hh@2", why="better")
    assert _now(five) == "hh@1" and len(aliases.history(five, "hh@champion")) == 1


def test_repeated_rollbacks_walk_further_back_and_end_at_the_first(five: Workspace) -> None:
    for number in (1, 2, 3):
        aliases.move(five, "hh@champion", f"hh@{number}", why="up")
    seen = []
    for _ in range(2):
        aliases.roll_back(five, "hh@champion", why="worse")
        seen.append(_now(five))
    assert seen == ["hh@2", "hh@1"]
    with pytest.raises(Conflict, match="first entry"):
        aliases.roll_back(five, "hh@champion", why="worse")
    assert _now(five) == "hh@1"


def test_where_a_rollback_would_go_is_where_it_goes(five: Workspace) -> None:
    for number in (1, 2, 3):
        aliases.move(five, "hh@champion", f"hh@{number}", why="up")
    while (before := aliases.one_back(five, "hh@champion")) is not None:
        assert aliases.roll_back(five, "hh@champion", why="worse").to_digest == before.to_digest
    assert _now(five) == "hh@1"
    with pytest.raises(NotFound):
        aliases.one_back(five, "hh@nobody")


def test_what_was_rolled_back_from_is_not_returned_to(five: Workspace) -> None:
    for number in (1, 2):
        aliases.move(five, "hh@champion", f"hh@{number}", why="up")
    aliases.roll_back(five, "hh@champion", why="2 is bad")
    aliases.move(five, "hh@champion", "hh@3", why="a better one")
    aliases.roll_back(five, "hh@champion", why="3 is bad too")
    assert _now(five) == "hh@1"


def test_rollback_to_names_one_that_it_pointed_at(five: Workspace) -> None:
    for number in (1, 2, 3, 4):
        aliases.move(five, "hh@champion", f"hh@{number}", why="up")
    aliases.roll_back(five, "hh@champion", to="hh@2", why="known to be good")
    assert _now(five) == "hh@2"
    aliases.roll_back(five, "hh@champion", why="or not")
    assert _now(five) == "hh@1"
    with pytest.raises(BadInput, match="never pointed at hh@5"):
        aliases.roll_back(five, "hh@champion", to="hh@5", why="x")
    with pytest.raises(Conflict, match="points at hh@1 already"):
        aliases.roll_back(five, "hh@champion", to="hh@1", why="x")


def test_rollback_to_a_retired_version_is_refused_with_the_way_out(five: Workspace) -> None:
    for number in (1, 2, 3):
        aliases.move(five, "hh@champion", f"hh@{number}", why="up")
    retire(five, "hh@2")
    with pytest.raises(BadInput, match="hh@2, which hh@champion would return to, was retired") as refused:
        aliases.roll_back(five, "hh@champion", why="worse")
    assert "--to" in refused.value.fix
    aliases.roll_back(five, "hh@champion", to="hh@1", why="worse")
    assert _now(five) == "hh@1"


@pytest.mark.parametrize(
    "alias",
    [
        "hh",
        "hh@",
        "@champion",
        "hh@7",
        "hh@" + "a" * 12,
        "hh@" + "0f" * 32,
        "hh@a@b",
        "hh@a b",
        "hh@" + "x" * 101,
        "hh@latest",
    ],
)
def test_what_could_be_read_otherwise_is_no_alias(five: Workspace, alias: str) -> None:
    with pytest.raises(BadUsage):
        aliases.move(five, alias, "hh@1", why="x")


@pytest.mark.parametrize("why", ["", "   ", "\n"])
def test_a_move_without_a_reason_is_refused(five: Workspace, why: str) -> None:
    aliases.move(five, "hh@champion", "hh@1", why="first")
    with pytest.raises(BadInput, match="why"):
        aliases.move(five, "hh@champion", "hh@2", why=why)
    with pytest.raises(BadInput, match="why"):
        aliases.roll_back(five, "hh@champion", why=why)


def test_an_alias_stays_with_its_name_and_role(five: Workspace, tmp_path: Path) -> None:
    made.published(five, tmp_path, 9, "other")
    made.published(five, tmp_path, 10, "hh", head=False)
    aliases.move(five, "hh@champion", "hh@1", why="first")
    with pytest.raises(BadInput, match="other@1 is not a version of hh"):
        aliases.move(five, "hh@champion", "other@1", why="x")
    with pytest.raises(BadInput, match="points at a reward, hh@6 is a policy"):
        aliases.move(five, "hh@champion", "hh@6", why="x")


def test_unknown_names_are_errors(five: Workspace) -> None:
    with pytest.raises(NotFound):
        aliases.move(five, "hh@champion", "hh@99", why="x")
    for ask in (aliases.history, aliases.current):
        with pytest.raises(NotFound, match="no alias hh@champion"):
            ask(five, "hh@champion")
    with pytest.raises(NotFound, match="no alias hh@champion"):
        aliases.roll_back(five, "hh@champion", why="x")


def test_who_moves_it_to_where_it_is_is_told_so(five: Workspace) -> None:
    aliases.move(five, "hh@champion", "hh@1", why="first")
    with pytest.raises(Conflict, match="points at hh@1 already"):
        aliases.move(five, "hh@champion", "hh@1", why="again")
    assert len(aliases.history(five, "hh@champion")) == 1


def test_who_loses_a_race_is_told_what_is_current(five: Workspace) -> None:
    aliases.move(five, "hh@champion", "hh@1", why="first")
    aliases.move(five.as_actor("ann"), "hh@champion", "hh@2", why="quicker", expect=1)
    with pytest.raises(Conflict) as lost:
        aliases.move(five.as_actor("bob"), "hh@champion", "hh@3", why="slower", expect=1)
    assert "ann" in lost.value.message and "hh@2" in lost.value.message
    with pytest.raises(Conflict, match="moved meanwhile"):
        aliases.roll_back(five, "hh@champion", why="slower", expect=1)
    assert _now(five) == "hh@2"


_RACE = """
import sys, time
from rlhf.registry import aliases
from rlhf.store import Workspace
from rlhf.errors import Conflict
ws = Workspace.open(sys.argv[1], actor=sys.argv[2])
print("ready", flush=True); sys.stdin.readline()
try:
    aliases.move(ws, "hh@champion", sys.argv[2], why="race", expect=1); print("won", flush=True)
except Conflict:
    print("lost", flush=True)
"""


def test_a_race_of_two_processes_has_one_winner(five: Workspace) -> None:
    aliases.move(five, "hh@champion", "hh@1", why="first")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(five.root), f"hh@{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (2, 3)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(outcomes) == ["lost", "won"]
    assert _now(five) == f"hh@{2 + outcomes.index('won')}"
    assert len(aliases.history(five, "hh@champion")) == 2


def test_every_move_is_in_the_audit_log_with_its_actor(five: Workspace) -> None:
    aliases.move(five.as_actor("ann"), "hh@champion", "hh@1", why="first")
    aliases.move(five.as_actor("bob"), "hh@champion", "hh@2", why="second")
    aliases.roll_back(five.as_actor("eve"), "hh@champion", why="back")
    with pytest.raises(Conflict):
        aliases.move(five.as_actor("mal"), "hh@champion", "hh@2", why="late", expect=1)
    with five.read() as connection:
        entries = audit.entries(connection, subject="hh@champion")
        audit.verify(connection)
    assert [(e["actor"], e["action"], e["details"]["seq"]) for e in entries] == [
        ("ann", "alias.set", 1),
        ("bob", "alias.set", 2),
        ("eve", "alias.rollback", 3),
    ]


def test_rollback_takes_no_longer_behind_a_hundred_versions(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(100):
        ref = made.published(workspace, tmp_path, seed)
        if seed < 2:
            aliases.move(workspace, "hh@few", str(ref), why="up")
        aliases.move(workspace, "hh@many", str(ref), why="up")

    def seconds(alias: str, other: str) -> float:
        taken = []
        for _ in range(7):
            began = time.perf_counter()
            aliases.roll_back(workspace, alias, why="back")
            taken.append(time.perf_counter() - began)
            aliases.move(workspace, alias, other, why="forth")
        return sorted(taken)[3]

    few, many = seconds("hh@few", "hh@2"), seconds("hh@many", "hh@100")
    assert many < 3 * few + 0.005, f"{few * 1000:.2f} ms behind 2 versions, {many * 1000:.2f} ms behind 100"


class Model:
    """The slow twin: sets form a tree, a rollback goes to the parent, `--to` to the last set of that version."""

    def __init__(self) -> None:
        self.sets: list[tuple[int, int | None]] = []  # version, parent's index
        self.at: int | None = None

    @property
    def version(self) -> int | None:
        return None if self.at is None else self.sets[self.at][0]

    def set(self, version: int) -> bool:
        if version == self.version:
            return False
        self.sets.append((version, self.at))
        self.at = len(self.sets) - 1
        return True

    def back(self, to: int | None) -> bool:
        if self.at is None or to == self.version:
            return False
        same = [index for index, (version, _) in enumerate(self.sets) if version == to]
        found = self.sets[self.at][1] if to is None else max(same, default=None)
        if found is None:
            return False
        self.at = found
        return True


_set = st.tuples(st.just("set"), st.integers(1, 5))
_back = st.tuples(st.just("back"), st.none() | st.integers(1, 5))
_steps = st.lists(st.one_of(_set, _back), max_size=25)


@given(steps=_steps)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_moves_agrees_with_a_simple_model(five: Workspace, steps: list[tuple[str, int | None]]) -> None:
    model = Model()
    alias = f"hh@run-{len(aliases.list_aliases(five))}"
    n_moves = 0
    for action, version in steps:
        try:
            if action == "set":
                aliases.move(five, alias, f"hh@{version}", why="x")
            else:
                aliases.roll_back(five, alias, to=None if version is None else f"hh@{version}", why="x")
            done = True
        except (Conflict, BadInput, NotFound):
            done = False
        assert done == (model.set(version or 0) if action == "set" else model.back(version))
        n_moves += done
        if model.version is not None:
            assert aliases.current(five, alias).number == model.version
            assert len(aliases.history(five, alias)) == n_moves
