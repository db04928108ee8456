"""Loops small enough for tests: a tiny base, polite preferences, two optimiser steps."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from preferences import write_polite
from sqlalchemy import func, select, update

from rlhf import feedback, rounds
from rlhf.rounds import LoopSettings
from rlhf.store import Workspace, runs
from rlhf.store import tables as t

REWARD = {"learning_rate": 3e-3, "max_steps": 2, "pairs_per_step": 8, "dtype": "float32", "lora_r": 4, "save_steps": 1}
POLICY = {
    "method": "dpo",
    "learning_rate": 3e-3,
    "max_steps": 2,
    "pairs_per_step": 4,
    "max_new_tokens": 6,
    "dtype": "float32",
    "lora_r": 4,
    "watch_steps": 0,
    "save_steps": 1,
}
OPEN = {"gate": "none", "reward_gate": "none"}
COUNTED = ("snapshots", "versions", "runs", "reports", "alias_moves", "imports", "pairs", "judgements")
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["rlhf.reward.training", "rlhf.policy.training", "rlhf.policy.writing", "rlhf.rounds"])


def loop(**more: Any) -> LoopSettings:
    said: dict[str, Any] = {
        "name": "hh",
        "base": "tiny",
        "min_new_judgements": 10,
        "holdout": 0.3,
        "reward": REWARD,
        "policy": POLICY,
        "exploit": {"samples": 2},
        "explore": {"samples": 2, "prompts": 6, "pairs": 3},
        "compare_prompts": 6,
        "processes": "own",
        "poll_seconds": 0.05,
        **more,
    }
    return LoopSettings(**said)


def rewards_alone(**more: Any) -> LoopSettings:
    return loop(policy=None, **{**OPEN, **more})


def say_more(workspace: Workspace, folder: Path, n: int = 40, seed: int = 0) -> None:
    """Import n polite preferences that differ by seed."""
    feedback.import_files(workspace, [write_polite(folder / f"said-{seed}.jsonl", n, seed)])


def counts(workspace: Workspace) -> dict[str, int]:
    """Rows of the tables that nothing done twice may add to."""
    with workspace.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(getattr(t, name))).scalar_one()
            for name in COUNTED
        }


def state_of(workspace: Workspace, run_id: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((workspace.root / "runs" / run_id / "state.json").read_bytes())
    return value


def rewind(workspace: Workspace, run_id: str, keep: int) -> None:
    """As if the process had been killed when the first `keep` steps were written down."""
    kept = state_of(workspace, run_id)
    order = [name for name, _, _ in rounds.round.STEPS if name in kept["results"]]
    for name in order[keep:]:
        del kept["results"][name]
    (workspace.root / "runs" / run_id / "state.json").write_text(json.dumps(kept))
    with workspace.write() as write:
        write.connection.execute(update(t.runs).where(t.runs.c.id == run_id).values(state="running", ended_at=None))


def loop_run(workspace: Workspace) -> str | None:
    """Id of the last run of kind loop."""
    found = [row.id for row in runs.list_runs(workspace) if row.kind == "loop"]
    return found[-1] if found else None


def in_a_process(root: Path, settings: LoopSettings, *, watch: bool = False) -> BaseProcess:
    """The loop in a process of its own, forked from one that has loaded everything."""
    process = _forks.Process(target=_run, args=(str(root), settings.model_dump(mode="json"), watch))
    process.start()
    return process


def until(is_so: Callable[[], Any], process: BaseProcess, seconds: float = 60) -> Any:
    """What `is_so` gives once it gives something; the process must still be there."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert process.is_alive(), f"it ended with {process.exitcode}"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.002)
    return found


def reached(workspace: Workspace, step: str) -> Callable[[], bool]:
    """Whether the last round is at this step or, where that takes no time, past it, as its state.json says."""

    def is_there() -> bool:
        run_id = loop_run(workspace)
        file = workspace.root / "runs" / (run_id or "") / "state.json"
        if run_id is None or not file.exists():
            return False
        kept = json.loads(file.read_bytes())
        return kept["doing"] == step or step in kept["results"]

    return is_there


def kill(process: BaseProcess, number: int = signal.SIGKILL) -> int | None:
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


def _run(root: str, said: Mapping[str, Any], watch: bool) -> None:
    from rlhf.errors import RlhfError
    from rlhf.rounds.stopping import Stop

    settings, workspace, stop = LoopSettings(**said), Workspace.open(root, actor="tester"), Stop()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        if watch:
            rounds.watch(workspace, settings)
            return
        with stop.listening():
            rounds.once(workspace, settings, stop=stop)
    except RlhfError as error:
        sys.exit({"interrupted": 3}.get(error.code, 4))
