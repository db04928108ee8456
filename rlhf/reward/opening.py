"""A reward version as a live model: the one place that asks what kind a version is.

What comes back looks to `engine.scoring` like a classification model: logits (R, 1), or (R, 2) whose second column is the doubt
(the score's standard deviation). P(a beats b) is sigmoid(score a - score b), whatever the kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel

from rlhf import registry
from rlhf.engine import heads, rewards
from rlhf.engine.bases import Base
from rlhf.engine.ensembles import EnsembleReward, Rule, SharedEnsemble
from rlhf.engine.heads import SharedHead
from rlhf.engine.placement import Placement
from rlhf.engine.shared import SharedReward
from rlhf.errors import BadInput
from rlhf.registry.folder import VersionKind
from rlhf.store import Workspace


def model_of(workspace: Workspace, opened: registry.OpenVersion, base: Base, place: Placement) -> Any:
    """An opened version on its base, in eval mode. Raises BadInput where it doesn't fit the base."""
    return model_in(workspace, opened.folder, opened.kind, base, place)


def model_in(
    workspace: Workspace, folder: Path, kind: VersionKind, base: Base, place: Placement, *, seed: int = 0
) -> Any:
    """The same of a folder that is no version yet: what publication and import prove. seed: see `rewards.load`."""
    if kind == "lora":
        return rewards.load(folder, base, place, seed=seed)
    if kind == "ensemble":
        members, rule = _members(workspace, folder)
        return EnsembleReward([member.folder for member in members], base, place, rule, seed=seed)
    if kind == "head":
        return heads.load(folder, base, place)
    raise _unknown(kind)


def shared_on(model: PeftModel, workspace: Workspace, opened: registry.OpenVersion, adapter: str) -> Any:
    """An opened version on a policy's own base, which is left as it was found. adapter: a name that is free in there."""
    if opened.kind == "lora":
        return SharedReward(model, opened.folder, adapter)
    if opened.kind == "ensemble":
        members, rule = _members(workspace, opened.folder)
        own = [shared_on(model, workspace, member, f"{adapter}m{i}") for i, member in enumerate(members)]
        return SharedEnsemble(own, rule)
    if opened.kind == "head":
        return SharedHead(model, opened.folder)
    raise _unknown(opened.kind)


def _members(workspace: Workspace, folder: Path) -> tuple[list[registry.OpenVersion], Rule]:
    """An ensemble's members, every byte checked, and how they are combined. Raises BadInput where one has no LoRA."""
    config = json.loads((folder / "ensemble.json").read_text("utf-8"))
    refs = [registry.resolve(workspace, f"sha256:{digest}", role="reward") for digest in config["members"]]
    members = [registry.open_version(workspace, ref) for ref in refs]
    for member in members:
        if member.kind != "lora":
            raise BadInput(
                f"the member {member.ref} is a reward of kind {member.kind}; only LoRA members score together",
                fix="make an ensemble of versions that reward train with members=K published",
            )
    return members, Rule(config["combine"], config["k"], config["scale"])


def _unknown(kind: str) -> BadInput:
    return BadInput(f"this release can't score with a version of kind {kind}", fix="use the release that made it")
