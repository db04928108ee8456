"""Lineage: from a version to every version, snapshot and source behind it, and back from either to what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import BadInput, NotFound
from rlhf.records import VersionRef
from rlhf.registry.versions import MIN_HEX, ref_of, resolve_in
from rlhf.store import Workspace
from rlhf.store.tables import snapshots, version_parents, versions


@dataclass(frozen=True, slots=True)
class Relative:
    """A version and how it is related. relation: what the parent is to the child (from, reward, member, calibrates) or
    `trained-on` for a snapshot; of: the version or snapshot, nearer to the one asked about, that it is related to.
    """

    version: VersionRef
    relation: str
    of: str

    def as_json(self) -> dict[str, Any]:
        return {
            "version": str(self.version),
            "digest": self.version.digest,
            "role": self.version.role,
            "relation": self.relation,
            "of": self.of,
        }


@dataclass(frozen=True, slots=True)
class SnapshotOrigin:
    """A snapshot behind a version. names: every cut with this digest; empty where it isn't in this workspace.

    sources: source -> pairs. by_source: source -> pairs, judgements, labelers and judgements_of_unknown; None in
    snapshots that were cut before it was counted. labelers, kinds, consents, judgements: as the snapshot's manifest
    counts them.
    """

    digest: str
    of: tuple[str, ...]
    names: tuple[str, ...] = ()
    pairs: int | None = None
    judgements: int | None = None
    sources: Mapping[str, Any] | None = None
    by_source: Mapping[str, Mapping[str, int]] | None = None
    labelers: Mapping[str, Any] | None = None
    kinds: Mapping[str, Any] | None = None
    consents: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "snapshot": self.names[-1] if self.names else None,
            "names": list(self.names),
            "digest": self.digest,
            "of": list(self.of),
            "pairs": self.pairs,
            "judgements": self.judgements,
            "sources": self.sources,
            "by_source": self.by_source,
            "labelers": self.labelers,
            "kinds": self.kinds,
            "consents": self.consents,
        }


@dataclass(frozen=True, slots=True)
class Lineage:
    """A version with all that it stands on and all that stands on it.

    absent: (relation, digest, of) of parents that were left behind where an imported version came from.
    """

    version: VersionRef
    base_name: str
    base_digest: str
    simulated: bool
    ancestors: tuple[Relative, ...]
    snapshots: tuple[SnapshotOrigin, ...]
    descendants: tuple[Relative, ...]
    absent: tuple[tuple[str, str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "version": str(self.version),
            "digest": self.version.digest,
            "role": self.version.role,
            "base": {"name": self.base_name, "digest": self.base_digest},
            "simulated": self.simulated,
            "ancestors": [one.as_json() for one in self.ancestors],
            "snapshots": [one.as_json() for one in self.snapshots],
            "descendants": [one.as_json() for one in self.descendants],
            "absent": [{"relation": relation, "digest": digest, "of": of} for relation, digest, of in self.absent],
        }


def lineage(workspace: Workspace, version: VersionRef | str) -> Lineage:
    """Every ancestor, snapshot and descendant of a version, nearest first."""
    with workspace.read() as connection:
        ref = resolve_in(connection, version) if isinstance(version, str) else version
        row = connection.execute(select(versions).where(versions.c.digest == ref.digest)).one()
        above = _walk(connection, ref, upwards=True)
        line = tuple(dict.fromkeys((ref, *(one.version for one in above))))
        manifest = json.loads(row.manifest)
        return Lineage(
            ref,
            manifest["base"]["name"],
            manifest["base"]["digest"],
            manifest["simulated"],
            above,
            _snapshots_behind(workspace, connection, line),
            _walk(connection, ref, upwards=False),
            _absent(connection, line),
        )


def descendants(
    workspace: Workspace, *, version: VersionRef | str | None = None, snapshot: str | None = None
) -> tuple[Relative, ...]:
    """Every version that came of a version, or of a snapshot (`name`, `name@2`, or its digest), nearest first."""
    if (version is None) == (snapshot is None):
        raise BadInput("one version or one snapshot was wanted", fix="name either")
    with workspace.read() as connection:
        if version is not None:
            ref = resolve_in(connection, version) if isinstance(version, str) else version
            return _walk(connection, ref, upwards=False)
        digest = _snapshot_digest(connection, snapshot or "")
        trained = select(versions).where(versions.c.snapshot_digest == digest)
        rows = connection.execute(trained.order_by(versions.c.created_at, versions.c.name, versions.c.number)).all()
        found = [Relative(ref_of(row), "trained-on", str(snapshot)) for row in rows]
        for one in tuple(found):
            found += _walk(connection, one.version, upwards=False)
    return tuple({one.version.digest: one for one in reversed(found)}.values())[::-1]


def _walk(connection: Connection, start: VersionRef, *, upwards: bool) -> tuple[Relative, ...]:
    """Breadth first over the parent table. One entry for each edge: a policy may come from and be rewarded by one
    version.
    """
    here, there = version_parents.c.digest, version_parents.c.parent
    near, far = (here, there) if upwards else (there, here)
    found: list[Relative] = []
    seen, wave = {start.digest}, [start]
    while wave:
        following: list[VersionRef] = []
        for ref in wave:
            query = select(versions, version_parents.c.relation).join(version_parents, versions.c.digest == far)
            for row in connection.execute(query.where(near == ref.digest).order_by(version_parents.c.relation, far)):
                found.append(Relative(ref_of(row), row.relation, str(ref)))
                if row.digest not in seen:
                    seen.add(row.digest)
                    following.append(ref_of(row))
        wave = following
    return tuple(found)


def _absent(connection: Connection, refs: tuple[VersionRef, ...]) -> tuple[tuple[str, str, str], ...]:
    here = select(versions.c.digest).where(versions.c.digest == version_parents.c.parent).exists()
    found: list[tuple[str, str, str]] = []
    for ref in refs:
        query = select(version_parents).where(version_parents.c.digest == ref.digest, ~here)
        rows = connection.execute(query.order_by(version_parents.c.relation, version_parents.c.parent))
        found += [(row.relation, row.parent, str(ref)) for row in rows]
    return tuple(found)


def _snapshots_behind(
    workspace: Workspace, connection: Connection, refs: tuple[VersionRef, ...]
) -> tuple[SnapshotOrigin, ...]:
    users: dict[str, list[str]] = {}
    for ref in refs:
        query = select(versions.c.snapshot_digest).where(versions.c.digest == ref.digest)
        if digest := connection.execute(query).scalar():
            users.setdefault(digest, []).append(str(ref))
    return tuple(_origin(workspace, connection, digest, tuple(of)) for digest, of in users.items())


def _origin(workspace: Workspace, connection: Connection, digest: str, of: tuple[str, ...]) -> SnapshotOrigin:
    query = select(snapshots).where(snapshots.c.digest == digest).order_by(snapshots.c.created_at)
    cuts = connection.execute(query).all()
    if not cuts:
        return SnapshotOrigin(digest, of)
    manifest = json.loads(workspace.artifacts.read_file(connection, f"{cuts[0].path}/manifest.json"))
    return SnapshotOrigin(
        digest,
        of,
        tuple(f"{cut.name}@{cut.number}" for cut in cuts),
        cuts[0].n_pairs,
        manifest.get("judgements"),
        manifest.get("sources"),
        manifest.get("by_source"),
        manifest.get("labelers"),
        manifest.get("kinds"),
        manifest.get("consents"),
    )


def _snapshot_digest(connection: Connection, text: str) -> str:
    digits = text.removeprefix("sha256:")
    name, at, number = text.partition("@")
    query = select(snapshots.c.digest).order_by(snapshots.c.number.desc())
    if text != digits and len(digits) >= MIN_HEX:
        query = query.where(snapshots.c.digest.startswith(digits.lower(), autoescape=True))
    elif at and number.isascii() and number.isdigit():
        query = query.where(snapshots.c.name == name, snapshots.c.number == min(int(number), 2**31 - 1))
    else:
        query = query.where(snapshots.c.name == text)
    digest = connection.execute(query.limit(1)).scalar()
    if digest is None:
        raise NotFound(f"there is no snapshot {text}", fix="see: rlhf snapshot list")
    return str(digest)
