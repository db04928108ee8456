"""A workspace with versions behind an alias, and exposures as a server would have written them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import adapter_folders as made
from preferences import WORDS
from sqlalchemy import insert

from rlhf.ids import now
from rlhf.registry import aliases
from rlhf.serving import Exposure, Outcome, Router, pseudonym, rollouts, sums
from rlhf.serving.exposures import _exposure_row
from rlhf.serving.log import Rollout
from rlhf.serving.settings import RolloutSettings
from rlhf.store import Workspace
from rlhf.store.tables import exposures

ALIAS = "hh@champion"


def with_versions(workspace: Workspace, scratch: Path, n: int = 4) -> Workspace:
    """hh@1 to hh@n, policies; hh@champion at hh@1."""
    for seed in range(n):
        made.published(workspace, scratch, seed, head=False)
    aliases.move(workspace, ALIAS, "hh@1", why="first")
    return workspace


def settings(kind: str, *versions: str, **changed: Any) -> RolloutSettings:
    """Arms b, c, … of these versions."""
    arms = {chr(ord("b") + i): {"version": version} for i, version in enumerate(versions)}
    return RolloutSettings(**{"kind": kind, "arms": arms, **changed})


def started(workspace: Workspace, kind: str = "canary", *versions: str, **changed: Any) -> Rollout:
    return rollouts.start(workspace, ALIAS, settings(kind, *(versions or ("hh@2",)), **changed), why="try it")


def serve(
    workspace: Workspace,
    router: Router,
    n: int,
    reply: Callable[[str, random.Random], Mapping[str, Any]],
    *,
    first: int = 0,
    seed: int = 0,
) -> list[Exposure]:
    """`n` users ask once each; reply: arm and chance -> what was measured. Written in one go."""
    chance = random.Random(seed)
    rows = []
    for number in range(first, first + n):
        route = router.resolve(ALIAS, pseudonym(workspace, f"user-{number}"))
        measured = reply(route.arm or "none", chance)
        rows.append(route.exposure(f"r{seed}-{number}", at=now().isoformat(timespec="microseconds"), **measured))
        for shadow in route.shadows:
            of_shadow = reply(shadow.arm, chance)
            rows.append(route.shadow_exposure(shadow, f"s{seed}-{number}", f"r{seed}-{number}", **of_shadow))
    with workspace.write() as write:
        kept = [_exposure_row(row) for row in rows]
        write.connection.execute(insert(exposures), kept)
        sums.add(workspace.database, write.connection, kept)
    return rows


def shown(
    workspace: Workspace, n: int, *, seed: int = 0, tag: str = "r", long_turns: bool = False, **changed: Any
) -> None:
    """`n` replies like those of `preferences.cut_polite`; long_turns: prompts of several turns are five times as long."""
    chance = random.Random(seed)
    phrase = lambda: " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 4)))  # noqa: E731
    rows = []
    for i in range(n):
        turns = [f"Question {i} about {phrase()}?"]
        if i % 5 == 0:
            turns.append(f"And {' and '.join(phrase() for _ in range(15 if long_turns else 1))}?")
        prompt = tuple({"role": "user", "content": turn} for turn in turns)
        reply = f"Yes {phrase()} thanks" if i % 2 else f"No {phrase()}"
        said = {"prompt": prompt, "reply": reply, "length_chars": len(reply), "reward": chance.gauss(0, 1), **changed}
        exposure = Exposure(f"{tag}{i}", ALIAS, "hh", None, alias=ALIAS, unit=f"u{seed}-{i}", **said)
        rows.append(_exposure_row(exposure))
    with workspace.write() as write:
        write.connection.execute(insert(exposures), rows)


def thumb(request_id: str, up: bool, unit: str | None = None) -> Outcome:
    return Outcome(request_id, "thumb", "thumb", 1.0 if up else 0.0, unit=unit)
