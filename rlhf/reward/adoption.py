"""Adopt: a PEFT folder from elsewhere becomes a version, after the same proof as one of ours."""

from __future__ import annotations

from pathlib import Path

from rlhf import registry
from rlhf.engine import bases
from rlhf.errors import BadInput
from rlhf.records import VersionRef
from rlhf.registry.ensembles import check_members
from rlhf.reward import probes
from rlhf.store import Workspace, room
from rlhf.store.walking import size_of


def adopt(workspace: Workspace, folder: Path | str, *, name: str | None = None, base: str | None = None) -> VersionRef:
    """Publish a reward adapter's folder; what is there already gives its version.

    A folder that a workspace exported keeps its identity: settings, seeds, snapshot and parents (which must be here). A stock
    folder has none of them. base: the workspace's name of the base that it was trained on; None = the one that fits. Raises
    BadInput where the folder holds pickles, unknown configuration, no head, NaN, or doesn't fit the base.
    """
    folder = Path(folder)
    found = registry.read_folder(folder)
    if found.role != "reward":
        raise BadInput(
            f"{folder.name} is a {found.role} adapter; wanted a reward with a score head",
            fix="import a SEQ_CLS adapter; policies come from `rlhf policy train`",
        )
    wanted = bases.get(workspace, base).digest if base is not None else None
    if (there := registry.find_published(workspace, found, base_digest=wanted)) is not None:
        return there
    own = name if name is not None else found.name or folder.resolve().name
    registry.check_name(own)
    room.require(workspace, size_of(folder), f"importing {own}")
    known = found.manifest or {}
    model = _base(workspace, base, known.get("base", {}).get("digest"), found.hidden_size)
    bases.check(workspace, model)
    kind = found.adapter.kind
    if kind == "ensemble":
        with workspace.read() as connection:
            check_members(connection, found.adapter.config, model.digest, own)
    scores = probes.scores_from_disk(workspace, folder, kind, model)
    draft = registry.VersionDraft(
        role="reward",
        kind=kind,
        name=own,
        base_name=model.name,
        base_digest=model.digest,
        tokenizer_digest=model.tokenizer_digest,
        template_digest=model.template_digest,
        snapshot_digest=known.get("snapshot_digest"),
        parents=tuple((r, d) for r, d in known.get("parents", ())),
        settings=known.get("settings", {}),
        seeds=known.get("seeds", {}),
        metrics=known.get("metrics", {}),
        simulated=bool(known.get("simulated")),
        details={"imported_from": folder.name},
    )
    return registry.publish(
        workspace,
        folder,
        draft,
        registry.Evidence(probes.probe_digest(), scores, probes.scores_from_disk(workspace, folder, kind, model)),
    )


def _base(workspace: Workspace, name: str | None, digest: str | None, hidden_size: int | None) -> bases.Base:
    """The base that is named, or was recorded, or alone fits the head's size."""
    if name is not None:
        return bases.get(workspace, name)
    if digest is not None:
        return bases.by_digest(workspace, digest)
    fits = [base for base in bases.list_bases(workspace) if base.details.get("hidden_size") == hidden_size]
    if len(fits) == 1:
        return fits[0]
    there = ", ".join(base.name for base in fits) or "none"
    raise BadInput(
        f"the folder doesn't say which base it needs, and {len(fits)} here fit a head of size {hidden_size} ({there})",
        fix="name it with --base NAME",
    )
