"""Probes: fixed chats whose scores prove that what was saved is what was trained.

Before publication the trained tensors, still in memory, and the folder, reloaded from disk on a fresh base, score the same
probes with a float32 body. Probes are text in the code, so that any machine can ask a version the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.engine import scoring
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.ids import digest_of
from rlhf.records import Message
from rlhf.registry.folder import VersionKind
from rlhf.reward.opening import model_in
from rlhf.store import Workspace

PROBES: tuple[tuple[str, str], ...] = (
    ("How do I boil an egg?", "Put it in boiling water for seven minutes, then cool it under cold water."),
    ("How do I boil an egg?", "No."),
    ("Name three rivers.", "The Nile, the Danube and the Amazon."),
    ("Name three rivers.", "rivers rivers rivers rivers rivers rivers"),
    (
        "My neighbour is loud at night. What can I do?",
        "Talk to them kindly first; write down the times; then ask the landlord for help.",
    ),
    ("Write one line about rain.", "Soft rain taps the window like a friend who forgot the key."),
)

FLOAT32 = Placement("cpu", "float32", "probes run in float32 on the CPU")


def probe_digest() -> str:
    return digest_of([list(probe) for probe in PROBES])


def probe_scores(model: Any, base: Base) -> tuple[float, ...]:
    """The model's score of each probe, alone in its row."""
    renderer = Renderer(base.tokenizer(), max_length=2**31)
    groups = []
    for prompt, reply in PROBES:
        ids = renderer.ids((Message("user", prompt), Message("assistant", reply)))
        groups.append(Group((), (tuple(ids),)))
    return tuple(scores[0] for scores in scoring.score(model, groups, token_budget=1))


def continuations(renderer: Renderer) -> tuple[list[list[int]], list[list[int]]]:
    """The probes as a policy reads them: (tokens up to where each reply begins, the reply's own tokens)."""
    openings = [list(renderer.opening((Message("user", prompt),))) for prompt, _ in PROBES]
    replies = [list(renderer.tokenizer(reply, add_special_tokens=False)["input_ids"]) for _, reply in PROBES]
    return openings, replies


def scores_from_disk(
    workspace: Workspace, folder: Path, kind: VersionKind, base: Base, *, seed: int = 1
) -> tuple[float, ...]:
    """Probe scores of the folder, loaded on a fresh float32 base. seed: see `rewards.load`."""
    return probe_scores(model_in(workspace, folder, kind, base, FLOAT32, seed=seed), base)
