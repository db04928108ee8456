"""Several members of one reward, each on its own draw of the pairs and with its own seed, and the version that combines them.

Members are versions of their own (NAME.1, NAME.2, ...), trained one after the other on the same kept states. The version that
combines them has no weights: `ensemble.json` names the members by digest and says how their scores become one. With
`combine: average` it is one plain adapter instead, whose weights are the members' average.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from rlhf import registry
from rlhf.engine import ensembles
from rlhf.engine.ensembles import Combine, EnsembleReward, Rule
from rlhf.errors import Interrupted
from rlhf.ids import chance, digest_of
from rlhf.records import VersionRef
from rlhf.registry.folder import VersionKind
from rlhf.reward import probes
from rlhf.reward.lora_training import train_one
from rlhf.reward.material import Material, Say, open_material
from rlhf.reward.opening import model_in
from rlhf.reward.publication import baseline, draft_of, held_out, write_report
from rlhf.reward.settings import RewardSettings
from rlhf.store import Workspace, runs
from rlhf.store.heavy import heavy
from rlhf.training import Plan, Run, Trained, told_to_all, under_way


def train_members(
    workspace: Workspace, settings: RewardSettings, state: PartialState, *, resume: bool, say: Say
) -> Trained:
    """Train `settings.members` members and publish their combination. Raises as `reward.train`.

    resume: members that are done are taken as they are, an interrupted one goes on, the rest is trained.
    """
    with contextlib.ExitStack() as stack:
        if state.is_main_process:  # one heavy job from the first member to the last
            stack.enter_context(heavy(workspace, f"reward {settings.name}"))
        members = [
            _member(workspace, settings, number, state, resume=resume, say=say)
            for number in range(1, settings.members + 1)
        ]
        material = open_material(workspace, settings, state.num_processes, say)
        identity = {**material.identity, "members_of": [member.digest for member in members]}
        with under_way(workspace, Plan("reward", settings.name, material.settings, identity), False, state) as run:
            version, metrics = told_to_all(state, lambda: _published(workspace, material, run, members, say))
    is_new = registry.show(workspace, version).manifest["run_id"] == run.id
    return Trained(version, run.id, run.folder, metrics, is_new)


def _member(
    workspace: Workspace, settings: RewardSettings, number: int, state: PartialState, *, resume: bool, say: Say
) -> VersionRef:
    """One member's version: trained, gone on with, or (resume) the one that is there."""
    own = settings.model_copy(
        update={
            "name": f"{settings.name}.{number}",
            "seed": chance(settings.seed, "member", str(number)).getrandbits(31),
            "members": 1,
            "bootstrap": True,
            "baseline": False,  # shown once, beside their combination
            "combine": "mean",  # how they are combined is not the members': other combinations find them trained
            "doubt_k": 1.0,
        }
    )
    say(f"member {number} of {settings.members}: {own.name}")
    material = open_material(workspace, own, state.num_processes, say)
    before = runs.latest(workspace, "reward", own.name, digest_of(dict(material.identity))) if resume else None
    if before is not None and before.state == "done" and before.version_digest:
        say(f"{own.name} is done: it is taken as it is")
        return registry.resolve(workspace, f"sha256:{before.version_digest}", role="reward")
    try:
        return train_one(workspace, material, state, resume=before is not None, say=say).version
    except Interrupted as stop:
        raise Interrupted(
            f"{own.name}, member {number} of {settings.members}: {stop.message}",
            fix=f"go on with the command that trains {settings.name} and --resume: members that are done are kept",
        ) from None


def combine(
    workspace: Workspace, material: Material, members: Sequence[VersionRef], how: Combine, k: float, folder: Path
) -> tuple[EnsembleReward, registry.Evidence]:
    """Write `ensemble.json` into the folder. Gives the live ensemble, and its evidence: what the members scored when each was
    trained, combined, against the reloaded members together."""
    rule = Rule(how, k)
    opened = [registry.open_version(workspace, member) for member in members]
    config = {"members": [m.digest for m in members], "combine": how, "k": k, "scale": rule.scale}
    (folder / "ensemble.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    trained = torch.tensor([one.manifest["probe"]["trained_scores"] for one in opened], dtype=torch.float32).T
    wanted = tuple(rule.of(trained)[:, 0].tolist())
    live = EnsembleReward([one.folder for one in opened], material.base, probes.FLOAT32, rule, seed=1)
    return live, registry.Evidence(probes.probe_digest(), wanted, probes.probe_scores(live, material.base))


def _published(
    workspace: Workspace, material: Material, run: Run, members: Sequence[VersionRef], say: Say
) -> tuple[VersionRef, dict[str, Any]]:
    settings = material.settings
    parents = tuple(("member", member.digest) for member in members)
    with workspace.artifacts.staging() as staged:
        if settings.combine == "average":
            folders = [registry.open_version(workspace, member).folder for member in members]
            ensembles.write_average(folders, staged)
            live = model_in(workspace, staged, "lora", material.base, material.place)
            scores = probes.probe_scores(
                model_in(workspace, staged, "lora", material.base, probes.FLOAT32), material.base
            )
            again = probes.scores_from_disk(workspace, staged, "lora", material.base, seed=settings.seed + 1)
            evidence = registry.Evidence(probes.probe_digest(), scores, again)
        else:
            live, evidence = combine(workspace, material, members, settings.combine, settings.doubt_k, staged)
        metrics = {"members": len(members), **held_out(material, live), **baseline(workspace, material, say)}
        kind: VersionKind = "lora" if settings.combine == "average" else "ensemble"
        draft = draft_of(material, run, kind, metrics, parents, members=[str(member) for member in members])
        version = registry.publish(workspace, staged, draft, evidence)
    (run.folder / "metrics.jsonl").write_text("", "utf-8")
    how = f"mean - {settings.doubt_k:g} sd" if settings.combine == "mean_minus_sd" else settings.combine
    names = ", ".join(f"{member} ({member.digest[:12]})" for member in members)
    write_report(material, run, version, metrics, **{"members, each on its own draw": names, "combined by": how})
    runs.finish(workspace, run.id, "done", version_digest=version.digest)
    return version, metrics
