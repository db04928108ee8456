"""Adopt: a stock PEFT folder from elsewhere becomes a version, after the same proof as one of ours."""

from __future__ import annotations

from pathlib import Path

from rlhf import registry
from rlhf.engine import bases
from rlhf.errors import BadInput, RlhfError
from rlhf.records import VersionRef
from rlhf.reward import probes
from rlhf.store import Workspace


def adopt(workspace: Workspace, folder: Path | str, *, name: str | None = None, base: str | None = None) -> VersionRef:
    """Publish a reward adapter's folder; what is there already gives its version.

    base: the workspace's name of the base that it was trained on; None = the only one there that fits. Raises BadInput where the
    folder holds pickles, unknown configuration, no head, NaN, or doesn't fit the base.
    """
    folder = Path(folder)
    found = registry.read_folder(folder)
    if found.role != "reward":
        raise BadInput(f"{folder.name} is a {found.role} adapter; wanted a reward with a score head", fix="import a SEQ_CLS adapter")
    model = bases.get(workspace, base) if base else _fitting(workspace, found.hidden_size)
    evidence = registry.Evidence(probes.probe_digest(), probes.scores_from_disk(folder, model), probes.scores_from_disk(folder, model))
    draft = registry.VersionDraft(
        role="reward", kind="lora", name=name or found.name or folder.resolve().name, base_name=model.name, base_digest=model.digest,
        tokenizer_digest=model.tokenizer_digest, template_digest=model.template_digest, details={"imported_from": folder.name})
    return registry.publish(workspace, folder, draft, evidence)


def _fitting(workspace: Workspace, hidden_size: int | None) -> bases.Base:
    fits = [base for base in bases.list_bases(workspace) if base.details.get("hidden_size") == hidden_size]
    if len(fits) == 1:
        return fits[0]
    raise RlhfError(f"{len(fits)} bases in the workspace fit a head of size {hidden_size}", fix="name the base with --base NAME")
