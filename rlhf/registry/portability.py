"""Versions as plain PEFT folders: out for any tool that loads one, and in from anybody.

An exported folder is a version's folder with the base's place written in, where stock PEFT looks for it. Its manifest
travels along, so that a folder that comes back is known again; stock PEFT passes over it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from rlhf.errors import BadInput, Conflict, Damaged
from rlhf.ids import digest_of, new_id
from rlhf.records import Role, VersionRef
from rlhf.registry import checks, heads
from rlhf.registry import folder as folders
from rlhf.registry.folder import AdapterFolder
from rlhf.registry.versions import OpenVersion, content_of, open_version, ref_of, resolve
from rlhf.store import Workspace
from rlhf.store.tables import bases, versions

_OWN_FOLDERS = ("artifacts", "bases", "runs", "cache")


@dataclass(frozen=True, slots=True)
class ImportedFolder:
    """A version's folder or a stock PEFT folder that passed the static checks. Nothing of it has been run.

    name: as its manifest calls it, None without one. base_name: the base's name or path as its writer called it.
    hidden_size: what a reward's head reads, None for a policy.
    manifest: the manifest of the version that it was exported from, checked against its digest; None where it has none.
    """

    path: Path
    role: Role
    config: Mapping[str, Any]
    weights_digest: str
    config_digest: str
    name: str | None
    base_name: str | None
    hidden_size: int | None
    manifest: Mapping[str, Any] | None
    adapter: AdapterFolder


def export_folder(
    workspace: Workspace,
    version: VersionRef | str,
    target: Path,
    *,
    base_path: str,
    extra_files: Mapping[str, bytes | Path] | None = None,
) -> Path:
    """Write a LoRA version as a folder that `AutoPeftModelForSequenceClassification.from_pretrained(dir, num_labels=1)`
    loads.

    base_path: folder or hub id of the base. extra_files: name -> content or file, for instance the tokenizer's; they
    win over the version's own. It appears whole or not at all. Raises Conflict where `target` holds something,
    BadInput where it lies in one of the workspace's own folders, or the version is of a kind that PEFT can't express.
    """
    target = target.absolute()
    _require_outside(workspace, target)
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise Conflict(f"{target} is there already", fix="name a folder that is new or empty")
    opened = open_version(workspace, version)
    _require_expressible(workspace, opened)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.parent / f".{target.name}.{new_id()}"
    try:
        shutil.copytree(opened.folder, staged)
        config = {**folders.read_json(staged / folders.CONFIG_FILE), "base_model_name_or_path": base_path}
        (staged / folders.CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        (staged / folders.README_FILE).write_text(_readme(opened.ref, opened.manifest, base_path), "utf-8")
        for name, content in (extra_files or {}).items():
            if name != Path(name).name or name in (folders.CONFIG_FILE, folders.WEIGHTS_FILE, folders.MANIFEST_FILE):
                raise BadInput(f"'{name}' can't be added to an export", fix="add plain file names beside the adapter's")
            (staged / name).write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        os.replace(staged, target)  # over an empty folder too; a filled one is refused by the system
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return target


def _require_expressible(workspace: Workspace, opened: OpenVersion) -> None:
    """Only what stock PEFT can hold is exported: nothing of a version goes missing without a word."""
    if opened.kind == "ensemble":
        config = folders.read(opened.folder, "ensemble").config
        names = [str(resolve(workspace, f"sha256:{digest}")) for digest in config["members"]]
        raise BadInput(
            f"{opened.ref} is an ensemble of {len(names)} versions; a PEFT folder holds one adapter",
            fix=f"export its members: {', '.join(names)}",
        )
    if opened.kind == "head":
        with workspace.read() as connection:
            query = select(bases.c.details).where(bases.c.digest == opened.manifest["base"]["digest"])
            details = json.loads(connection.execute(query).scalar() or "{}")
        lost = heads.not_in_peft(folders.read(opened.folder, "head").config, details.get("layers"))
        raise BadInput(
            f"{opened.ref} is a head on inner states, and a PEFT folder can't express: {'; '.join(lost)}",
            fix=f"take it to another workspace with: rlhf adapter import {opened.folder}",
        )


def _require_outside(workspace: Workspace, target: Path) -> None:
    """What lies in the workspace's own folders is taken for something published, or swept away."""
    own = [workspace.root / name for name in _OWN_FOLDERS]
    own += [Path(workspace.artifacts.root)] if workspace.artifacts.is_local else []
    for folder in own:
        if target.resolve().is_relative_to(folder.resolve()):
            raise BadInput(
                f"{target} lies in {folder}, which the workspace keeps for itself",
                fix="name a folder outside the workspace",
            )


def read_folder(folder: Path | str) -> ImportedFolder:
    """Check a folder of any kind, with or without our manifest. Raises BadInput naming what is wrong with it."""
    folder = Path(folder)
    manifest = manifest_of(folder)
    adapter, role = checks.check_folder(folder, kind=folders.kind_of(folder))
    if manifest is not None:
        require_own(manifest, adapter)
    base = adapter.config.get("base_model_name_or_path")
    return ImportedFolder(
        folder,
        role,
        adapter.config,
        adapter.weights_digest,
        adapter.config_digest,
        None if manifest is None else str(manifest["name"]),
        base if isinstance(base, str) and base else None,
        checks.hidden_size(adapter),
        manifest,
        adapter,
    )


def find_published(
    workspace: Workspace, imported: ImportedFolder, *, base_digest: str | None = None
) -> VersionRef | None:
    """The version that this folder already is: same weights, same configuration, same base (None = any); the first one.

    A folder with a manifest is the version with the manifest's digest, where that is here. Raises Damaged where the
    version's stored files have changed: the answer would send its reader to bytes that nobody may use.
    """
    query = (
        select(versions).where(versions.c.manifest.contains(imported.weights_digest)).order_by(versions.c.created_at)
    )
    with workspace.read() as connection:
        found = [row for row in connection.execute(query) if _same(json.loads(row.manifest), imported, base_digest)]
    exact = [row for row in found if imported.manifest is not None and row.digest == imported.manifest["digest"]]
    return open_version(workspace, ref_of((exact or found)[0])).ref if found else None


def _same(manifest: Mapping[str, Any], imported: ImportedFolder, base_digest: str | None) -> bool:
    return (manifest["weights_digest"], manifest["config_digest"]) == (
        imported.weights_digest,
        imported.config_digest,
    ) and (base_digest is None or manifest["base"]["digest"] == base_digest)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest if it is one of ours; other tools write a manifest.json of their own, which says nothing
    to us.
    """
    file = folder / folders.MANIFEST_FILE
    if file.is_symlink() or not file.is_file():
        return None
    manifest = folders.read_json(file)
    return manifest if {"schema_version", "weights_digest", "digest", "name"} <= manifest.keys() else None


def require_own(manifest: Mapping[str, Any], adapter: AdapterFolder) -> None:
    """A manifest speaks for its own folder only: its digest is computed anew."""
    try:
        content = content_of(manifest, adapter.weights_digest, adapter.content)
        found = digest_of(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{folders.MANIFEST_FILE} is not whole: {error!r}", fix="export the version again") from None
    if found != manifest["digest"]:
        raise Damaged(
            f"{folders.MANIFEST_FILE} is another version's: it says {str(manifest['digest'])[:12]}, the folder has "
            f"{found[:12]}",
            fix=f"export the version again, or remove {folders.MANIFEST_FILE} to import it as new",
        )


def _readme(ref: VersionRef, manifest: Mapping[str, Any], base_path: str) -> str:
    kind = "AutoPeftModelForSequenceClassification" if ref.role == "reward" else "AutoPeftModelForCausalLM"
    labels = ", num_labels=1" if ref.role == "reward" else ""
    simulated = "\nIt was trained on **simulated** preferences, not on people's.\n" if manifest["simulated"] else ""
    figures = (
        "\n".join(f"- {name}: {value}" for name, value in sorted(manifest["metrics"].items())) or "- none recorded"
    )
    scored = (
        "\nThe score is read at the last token that the base's chat template renders for prompt and reply. To score several\n"
        "rows padded into one batch, pad with this folder's tokenizer, whose pad token differs from the end token, and set\n"
        "`model.config.pad_token_id = tokenizer.pad_token_id` first: stock pooling looks for the last token that isn't pad.\n"
        if ref.role == "reward"
        else ""
    )
    return (
        f"---\nlibrary_name: peft\nbase_model: {json.dumps(base_path)}\n---\n# {ref}\n\n"
        f"A {ref.role} adapter, version sha256:{ref.digest}.\n{simulated}\n"
        f'```python\nfrom peft import {kind}\n\nmodel = {kind}.from_pretrained("this folder"{labels})\n```\n{scored}\n'
        f"Figures at publication:\n\n{figures}\n"
    )
