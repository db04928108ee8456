"""Versions by name: resolve, open with every byte checked, list, show, retire.

`name@7`, `name@alias` and `sha256:` with 12 or more hex digits each mean exactly one version or are an error; nothing
is ever answered in its place (promise 5). A retired version still resolves and opens, because what it once answered
must stay open to audit; aliases refuse to move to it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound, RlhfError
from rlhf.ids import digest_of, now_text
from rlhf.records import Role, VersionRef
from rlhf.registry import decision_log, ensembles
from rlhf.registry import folder as folders
from rlhf.registry.folder import VersionKind
from rlhf.registry.locks import hold
from rlhf.store import Workspace
from rlhf.store.tables import alias_moves, signoffs, versions

_SHA = re.compile(r"sha256:([0-9a-fA-F]*)")
MIN_HEX = 12


class FilesGone(RlhfError):
    """Of a retired version, removed to make room."""

    code = "files_gone"
    http_status = 410


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """A version whose bytes were just checked: its folder on the local disk and its manifest."""

    ref: VersionRef
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def kind(self) -> VersionKind:
        kind: VersionKind = self.manifest["kind"]
        return kind


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version as the registry lists it. aliases: those that point at it now."""

    ref: VersionRef
    kind: str
    manifest: Mapping[str, Any]
    actor: str
    created_at: str
    retired_at: str | None
    aliases: tuple[str, ...] = ()
    signoffs: tuple[Mapping[str, str], ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        m = self.manifest
        return {
            "version": str(self.ref),
            "digest": self.ref.digest,
            "role": self.ref.role,
            "kind": self.kind,
            "base": m["base"]["name"],
            "snapshot_digest": m["snapshot_digest"],
            "metrics": m["metrics"],
            "simulated": m["simulated"],
            "run": m["run_id"],
            "aliases": list(self.aliases),
            "actor": self.actor,
            "created_at": self.created_at,
            "retired_at": self.retired_at,
        }


def resolve(workspace: Workspace, text: str, *, role: Role | None = None) -> VersionRef:
    """The one version that `text` means. Raises NotFound naming near ones; BadInput for another role, BadUsage for a spelling."""
    with workspace.read() as connection:
        ref = resolve_in(connection, text)
    if role is not None and ref.role != role:
        raise BadInput(
            f"{text} is a {ref.role}, wanted a {role}", fix=f"name a {role}; all versions: rlhf adapter list"
        )
    return ref


def resolve_in(connection: Connection, text: str) -> VersionRef:
    """`resolve` inside a transaction of the caller's."""
    if sha := _SHA.fullmatch(text):
        return _by_digest(connection, sha[1].lower())
    name, at, which = text.partition("@")
    if not at or not name or not which:
        raise _not_a_version(connection, text)
    if which.isascii() and which.isdigit():
        query = select(versions).where(versions.c.name == name, versions.c.number == min(int(which), 2**31 - 1))
    else:
        pointer = select(alias_moves.c.to_digest).where(alias_moves.c.alias == text)
        last = connection.execute(pointer.order_by(alias_moves.c.seq.desc()).limit(1)).scalar()
        query = select(versions).where(versions.c.digest == (last or ""))
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"there is no version {text}", fix=_near(connection, name))
    return ref_of(row)


def open_version(workspace: Workspace, version: VersionRef | str) -> OpenVersion:
    """The version with every byte checked against its checksum and its digest computed anew from its folder (promise
    8).

    An ensemble's members must be here; their own bytes are checked when they are opened. Raises NotFound, or Damaged naming
    the file.
    """
    ref = resolve(workspace, version) if isinstance(version, str) else version
    with workspace.read() as connection:
        row = connection.execute(select(versions).where(versions.c.digest == ref.digest)).first()
        if row is None:
            raise NotFound(f"there is no version {ref}", fix=_near(connection, ref.name))
        if row.retired_at is not None and not workspace.artifacts.recorded(connection, row.path):
            raise FilesGone(
                f"{ref} was retired, and its files were removed to make room",
                fix="restore a backup that was made before",
            )
        path = workspace.artifacts.open(connection, row.path)
    manifest = folders.read_json(path / folders.MANIFEST_FILE)
    adapter = folders.read(path, row.kind)
    found = digest_of(content_of(manifest, adapter.weights_digest, adapter.content))
    if not found == manifest.get("digest") == row.digest:
        raise Damaged(
            f"{ref} in {row.path} has digest {found[:12]}, the registry says {row.digest[:12]}",
            fix="restore the workspace from a backup; until then this version is not used",
        )
    if row.kind == "ensemble":
        with workspace.read() as connection:
            ensembles.check_members(connection, adapter.config, row.base_digest, str(ref))
    return OpenVersion(ref_of(row), path, manifest)


def content_of(manifest: Mapping[str, Any], weights_digest: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a version's digest covers. No name, number, place, time, metric, device or base path."""
    return {
        "role": manifest["role"],
        "kind": manifest["kind"],
        "weights": weights_digest,
        "config": dict(config),
        "base": manifest["base"]["digest"],
        "tokenizer": manifest["tokenizer_digest"],
        "template": manifest["template_digest"],
        "snapshot": manifest["snapshot_digest"],
        "parents": sorted([relation, digest] for relation, digest in manifest["parents"]),
        "settings": manifest["settings"],
        "seeds": manifest["seeds"],
    }


def list_versions(workspace: Workspace, role: Role | None = None) -> tuple[VersionRow, ...]:
    """All versions, by name and number, retired ones too (`retired_at` says so)."""
    query = select(versions).order_by(versions.c.name, versions.c.number)
    with workspace.read() as connection:
        pointing = aliases_in_force(connection)
        rows = connection.execute(query if role is None else query.where(versions.c.role == role)).all()
    return tuple(_row(row, pointing) for row in rows)


def show(workspace: Workspace, version: VersionRef | str) -> VersionRow:
    """One version with its manifest, the aliases on it and its sign-offs. Its bytes aren't read: `open_version` does."""
    with workspace.read() as connection:
        ref = resolve_in(connection, version) if isinstance(version, str) else version
        row = connection.execute(select(versions).where(versions.c.digest == ref.digest)).one()
        signed = connection.execute(
            select(signoffs).where(signoffs.c.version_digest == ref.digest).order_by(signoffs.c.id)
        )
        return _row(
            row,
            aliases_in_force(connection),
            tuple({"role": s.role, "who": s.who, "at": s.at, "report": s.report_digest} for s in signed),
        )


def retire(workspace: Workspace, version: str, *, why: str = "") -> VersionRow:
    """Mark a version as no longer to be promoted, which is recorded as a decision. It stays on the disk and opens for audit; twice
    changes nothing.

    Raises Conflict while an alias points at it: a served version can't go from under its alias.
    """
    with workspace.write() as write:
        ref = resolve_in(write.connection, version)
        hold(write, f"alias:{ref.name}")
        on_it = aliases_in_force(write.connection).get(ref.digest, ())
        if on_it:
            raise Conflict(
                f"{ref} is what {', '.join(on_it)} points at", fix="move the alias first, then retire the version"
            )
        query = versions.update().where(versions.c.digest == ref.digest, versions.c.retired_at.is_(None))
        if write.connection.execute(query.values(retired_at=now_text())).rowcount:
            decision_log.record(write, "retirement", why=why, from_digest=ref.digest, content={"version": str(ref)})
            write.audit("version.retire", str(ref), {"digest": ref.digest})
    return show(workspace, ref)


def require_fits(connection: Connection, alias: str, name: str, to: VersionRef) -> None:
    """Refuse a version of another name, and a retired one."""
    if to.name != name:
        raise BadInput(
            f"{alias} is an alias of {name}, {to} is not a version of {name}",
            fix=f"name a version {name}@… , or set the alias {to.name}@{alias.partition('@')[2]}",
        )
    retired_at = connection.execute(select(versions.c.retired_at).where(versions.c.digest == to.digest)).scalar_one()
    if retired_at is not None:
        raise BadInput(f"{to} was retired at {retired_at}", fix="choose a version that is not retired")


def aliases_in_force(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Version digest -> the aliases that point at it now."""
    pointing: dict[str, str] = {}
    for move in connection.execute(select(alias_moves.c.alias, alias_moves.c.to_digest).order_by(alias_moves.c.seq)):
        pointing[move.alias] = move.to_digest
    found: dict[str, tuple[str, ...]] = {}
    for alias, digest in sorted(pointing.items()):
        found[digest] = (*found.get(digest, ()), alias)
    return found


def ref_of(row: Row[Any]) -> VersionRef:
    return VersionRef(row.name, row.number, row.digest, row.role)


def _row(
    row: Row[Any], pointing: Mapping[str, tuple[str, ...]], signed: tuple[Mapping[str, str], ...] = ()
) -> VersionRow:
    return VersionRow(
        ref_of(row),
        row.kind,
        json.loads(row.manifest),
        row.actor,
        row.created_at,
        row.retired_at,
        pointing.get(row.digest, ()),
        signed,
    )


def _by_digest(connection: Connection, digits: str) -> VersionRef:
    if not MIN_HEX <= len(digits) <= 64:
        raise BadUsage(
            f"sha256:{digits} has {len(digits)} hex digits, wanted {MIN_HEX} to 64",
            fix="copy the digest from: rlhf adapter list",
        )
    rows = connection.execute(select(versions).where(versions.c.digest.startswith(digits))).all()
    if not rows:
        raise NotFound(f"there is no version with digest sha256:{digits}", fix="see: rlhf adapter list")
    if len(rows) > 1:
        names = ", ".join(f"{ref_of(row)} (sha256:{row.digest})" for row in rows)
        raise NotFound(f"sha256:{digits} could be {names}", fix="give more digits, or the name and number")
    return ref_of(rows[0])


def _not_a_version(connection: Connection, text: str) -> BadInput | BadUsage:
    numbers = (
        connection.execute(select(versions.c.number).where(versions.c.name == text).order_by(versions.c.number))
        .scalars()
        .all()
    )
    if numbers:
        return BadUsage(
            f"'{text}' names no single version", fix=f"say which: {', '.join(f'{text}@{n}' for n in numbers[-10:])}"
        )
    if text.startswith("base:"):
        return BadInput(f"'{text}' is a base, wanted an adapter's version", fix="write name@7, name@alias or sha256:…")
    return BadUsage(
        f"'{text}' is no version: wanted name@7, name@alias or sha256: and {MIN_HEX} hex digits",
        fix=_near(connection, text.partition("@")[0]),
    )


def _near(connection: Connection, name: str) -> str:
    """A fix that names what is there: this name's versions and aliases, else the nearest names."""
    of_name = select(versions.c.number).where(versions.c.name == name).order_by(versions.c.number)
    known = [f"{name}@{number}" for number in connection.execute(of_name).scalars()][-5:]
    of_alias = select(alias_moves.c.alias).distinct().where(alias_moves.c.alias.startswith(f"{name}@", autoescape=True))
    known += sorted(
        a for a in connection.execute(of_alias).scalars() if a.startswith(f"{name}@")
    )  # SQLite's LIKE: R = r
    if known:
        return f"{name} has {', '.join(known)}"
    names = connection.execute(select(versions.c.name).distinct()).scalars().all()
    if near := difflib.get_close_matches(name, names, n=3):
        return f"the nearest names are {', '.join(near)}"
    return (
        "see what is there: rlhf adapter list"
        if names
        else "train one (rlhf reward train) or import one (rlhf adapter import)"
    )
