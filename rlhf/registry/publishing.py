"""Publish: a finished run's folder and its evidence become an immutable version.

A reward is refused unless it was scored before saving and after a reload on a fresh base, and both agree: adapters
lose their head in more ways than one, and a lost head scores on without an error (promise 1).
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from rlhf.errors import BadInput, NotFound
from rlhf.ids import canonical_json, digest_of, now_text
from rlhf.records import Role, VersionRef
from rlhf.registry import checks, curves, ensembles
from rlhf.registry import folder as folders
from rlhf.registry.folder import AdapterFolder, VersionKind
from rlhf.registry.locks import hold
from rlhf.registry.portability import manifest_of, require_own
from rlhf.registry.versions import content_of, ref_of
from rlhf.store import Workspace, Write
from rlhf.store.tables import bases, version_parents, versions

SCHEMA_VERSION = 1
RELATIONS = ("from", "reward", "member", "calibrates")
WIDEST_TOLERANCE = 1e-3  # what another machine may change in a float32 score; a difference above it is another model
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}")  # with a dash before it a name reads as an option


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """What a training says about the version it wants published.

    settings, seeds: what made it, as JSON, without paths, times or devices. Covered by the digest: role, kind,
    base_digest, tokenizer_digest, template_digest, snapshot_digest, parents, settings, seeds. Not covered: name,
    base_name, metrics, simulated, run_id, details. parents: (relation, version digest), relation one of from, reward,
    member, calibrates.
    """

    role: Role
    kind: VersionKind
    name: str
    base_name: str
    base_digest: str
    tokenizer_digest: str
    template_digest: str
    snapshot_digest: str | None = None
    parents: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False
    run_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Scores of the same probe texts before saving and after a reload from the folder on a fresh base.

    probe_texts: digest of the texts. tolerance: largest absolute difference that still counts as the same score.
    """

    probe_texts: str
    trained_scores: tuple[float, ...]
    reloaded_scores: tuple[float, ...]
    tolerance: float = 1e-4

    @property
    def largest_difference(self) -> float:
        """Over the probes; infinite where the two scored different numbers of them."""
        if len(self.trained_scores) != len(self.reloaded_scores):
            return math.inf
        return max((abs(a - b) for a, b in zip(self.trained_scores, self.reloaded_scores, strict=True)), default=0.0)


def publish(workspace: Workspace, staged: Path, draft: VersionDraft, evidence: Evidence | None = None) -> VersionRef:
    """Make `staged` (a folder of the draft's kind; it stays) the next version of `draft.name`, or return what it already is.

    Raises BadInput where the folder fails the static checks, doesn't fit the draft or its base, or a reward's
    evidence is missing or doesn't hold; NotFound for an unknown parent.
    """
    _check_draft(draft)
    adapter, role = checks.check_folder(staged, kind=draft.kind)
    if role != draft.role:
        raise BadInput(
            f"the folder's task_type makes it a {role}, the draft says {draft.role}", fix="publish it as what it is"
        )
    own = manifest_of(staged)
    if own is not None:
        require_own(own, adapter)
        if own["base"]["digest"] != draft.base_digest:
            raise BadInput(
                f"the folder is for base {own['base']['name']} ({own['base']['digest'][:12]}), "
                f"not for {draft.base_name} ({draft.base_digest[:12]})",
                fix="add the base that it was trained on and name it with --base",
            )
    if draft.kind == "ensemble":
        ensembles.check_parents(adapter.config, draft.parents)
    if draft.role == "reward":
        check_evidence(evidence)
    manifest = _manifest(draft, evidence, adapter)
    with workspace.artifacts.staging() as folder:
        _copy(adapter, folder)
        with workspace.write() as write:
            hold(write, f"versions:{manifest['digest']}")
            there = write.connection.execute(select(versions).where(versions.c.digest == manifest["digest"])).first()
            if there is not None:
                return ref_of(there)
            _check_base(write, draft, adapter)
            _check_parents(write, draft, known_elsewhere=own["parents"] if own else ())
            if draft.kind == "ensemble":
                ensembles.check_members(write.connection, adapter.config, draft.base_digest, draft.name)
            return _record(workspace, write, folder, draft, manifest)


def check_evidence(evidence: Evidence | None) -> None:
    """Refuse a reward whose head was not shown to survive saving and a reload."""
    train_again = (
        "train with modules_to_save=['score'] and score the probes before saving and after a reload on a fresh base"
    )
    if evidence is None:
        raise BadInput("a reward needs evidence that its head survives a reload; there is none", fix=train_again)
    before, after = evidence.trained_scores, evidence.reloaded_scores
    if not before or len(before) != len(after):
        raise BadInput(
            f"{len(before)} probe scores before saving, {len(after)} after the reload; wanted equally many, not none",
            fix=train_again,
        )
    if not all(math.isfinite(score) for score in (*before, *after)):
        raise BadInput("a probe's score is NaN or infinite", fix="train again; this training diverged")
    if not 0.0 <= evidence.tolerance <= WIDEST_TOLERANCE:
        raise BadInput(
            f"a tolerance of {evidence.tolerance:g} hides a lost head; the widest is {WIDEST_TOLERANCE:g}",
            fix="compare in float32 with the tolerance of 1e-4",
        )
    if all(score == 0.0 for score in after) or (len(after) > 1 and len(set(after)) == 1):
        raise BadInput(
            f"every probe scores {after[0]:g} after the reload: the head is lost or was never trained", fix=train_again
        )
    if evidence.largest_difference > evidence.tolerance:
        raise BadInput(
            f"the head doesn't survive a reload: probe scores differ by up to {evidence.largest_difference:.6g}, "
            f"wanted at most {evidence.tolerance:g}",
            fix=train_again,
        )


def check_name(name: str) -> None:
    """Refuse a name that can't be told from a number, an alias or a path; for a training to ask before it starts."""
    if not _NAME.fullmatch(name) or name.isdigit() or not name.strip("."):
        raise BadInput(
            f"'{name}' is no version's name: wanted up to 100 letters, digits, - _ or ., not all digits and no dash first",
            fix="choose another name",
        )


def _check_draft(draft: VersionDraft) -> None:
    check_name(draft.name)
    wrong = sorted({relation for relation, _ in draft.parents} - set(RELATIONS))
    if wrong:
        raise BadInput(f"a parent's relation is '{wrong[0]}', wanted one of {', '.join(RELATIONS)}", fix="correct it")
    for what in ("settings", "seeds", "metrics", "details"):
        try:
            canonical_json(dict(getattr(draft, what)))
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"the draft's {what} are no JSON: {error}", fix="keep numbers finite, texts whole, no objects"
            ) from None


def _manifest(draft: VersionDraft, evidence: Evidence | None, adapter: AdapterFolder) -> dict[str, Any]:
    """Everything but number, actor and time, which come with the lock."""
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": draft.name,
        "role": draft.role,
        "kind": draft.kind,
        "base": {"name": draft.base_name, "digest": draft.base_digest},
        "tokenizer_digest": draft.tokenizer_digest,
        "template_digest": draft.template_digest,
        "snapshot_digest": draft.snapshot_digest,
        "parents": sorted([relation, digest] for relation, digest in draft.parents),
        "settings": dict(draft.settings),
        "seeds": dict(draft.seeds),
        "weights_digest": adapter.weights_digest,
        "config_digest": adapter.config_digest,
        "metrics": dict(draft.metrics),
        "simulated": draft.simulated,
        "run_id": draft.run_id,
        "details": dict(draft.details),
        "probe": None
        if evidence is None
        else {
            "texts_digest": evidence.probe_texts,
            "scores": list(evidence.reloaded_scores),
            "tolerance": evidence.tolerance,
            "trained_scores": list(evidence.trained_scores),
            "largest_difference": evidence.largest_difference,
        },
    }
    manifest["digest"] = digest_of(content_of(manifest, adapter.weights_digest, adapter.content))
    return manifest


def _copy(adapter: AdapterFolder, folder: Path) -> None:
    """Only what a version knows; the configuration without the base's place, so that a moved base changes no byte."""
    if adapter.weights_file is not None:
        shutil.copyfile(adapter.weights_file, folder / adapter.weights_file.name)
    for name in (folders.README_FILE, *folders.TOKENIZER_FILES):
        if (adapter.path / name).is_file():
            shutil.copyfile(adapter.path / name, folder / name)
    if curves.is_ours(adapter.path / folders.CURVES_FILE):
        shutil.copyfile(adapter.path / folders.CURVES_FILE, folder / folders.CURVES_FILE)
    config = folders.stored_config(adapter.config) if adapter.kind == "lora" else adapter.config
    _write_json(folder / folders.FILES[adapter.kind][0], config)


def _record(
    workspace: Workspace, write: Write, folder: Path, draft: VersionDraft, manifest: dict[str, Any]
) -> VersionRef:
    connection = write.connection
    hold(write, f"versions:{draft.name}")
    last = connection.execute(select(func.max(versions.c.number)).where(versions.c.name == draft.name)).scalar()
    number, at = (last or 0) + 1, now_text()
    manifest |= {"number": number, "version": f"{draft.name}@{number}", "actor": write.actor, "created_at": at}
    _write_json(folder / folders.MANIFEST_FILE, manifest)
    path = f"versions/{draft.name}/{number}"
    workspace.artifacts.publish(connection, folder, path)
    connection.execute(
        versions.insert().values(
            digest=manifest["digest"],
            name=draft.name,
            number=number,
            role=draft.role,
            kind=draft.kind,
            path=path,
            base_digest=draft.base_digest,
            snapshot_digest=draft.snapshot_digest,
            manifest=canonical_json(manifest).decode(),
            run_id=draft.run_id,
            actor=write.actor,
            created_at=at,
        )
    )
    if manifest["parents"]:
        connection.execute(
            version_parents.insert(),
            [
                {"digest": manifest["digest"], "parent": digest, "relation": relation}
                for relation, digest in sorted(set(draft.parents))
            ],
        )
    ref = VersionRef(draft.name, number, manifest["digest"], draft.role)
    write.audit("version.publish", str(ref), {"digest": ref.digest, "role": ref.role, "run": draft.run_id})
    return ref


def _check_base(write: Write, draft: VersionDraft, adapter: AdapterFolder) -> None:
    base = write.connection.execute(select(bases).where(bases.c.digest == draft.base_digest)).first()
    named = write.connection.execute(select(bases).where(bases.c.name == draft.base_name)).first()
    if named is not None and named.digest != draft.base_digest:
        raise BadInput(
            f"base {draft.base_name} has digest {named.digest[:12]}, the adapter is for {draft.base_digest[:12]}",
            fix="add the base that it was trained on: rlhf base add",
        )
    if base is not None:
        checks.check_base(adapter, json.loads(base.details))


def _check_parents(write: Write, draft: VersionDraft, *, known_elsewhere: Sequence[Sequence[str]]) -> None:
    """Each parent is a version here, or one that the folder's own, verified manifest names: it came from elsewhere."""
    for relation, digest in draft.parents:
        here = write.connection.execute(select(versions.c.digest).where(versions.c.digest == digest)).first()
        if here is None and [relation, digest] not in [list(one) for one in known_elsewhere]:
            raise NotFound(
                f"the parent sha256:{digest[:12]} ({relation}) is no version here", fix="publish or import it first"
            )


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
