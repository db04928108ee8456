"""An opened suite: every byte checked, and the Merkle root over its rows' digests against the recorded one (promise 8)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import Damaged
from rlhf.ids import merkle_root
from rlhf.people import took_back, withdrawn
from rlhf.snapshots.opening import Erased
from rlhf.snapshots.rows import read_columns
from rlhf.store import Workspace
from rlhf.suites.names import SuiteEntry, find
from rlhf.suites.rows import SuiteRow, is_prompt, read_rows, row_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Suite:
    """A checked suite. `path`: its folder on this disk. `withdrawn`: accounts that have taken their consent back; what they judged
    stays in the frozen file and in the digest, and is read by nobody."""

    entry: SuiteEntry
    path: Path
    withdrawn: frozenset[str] = frozenset()

    @property
    def ref(self) -> str:
        return self.entry.ref

    @property
    def digest(self) -> str:
        return self.entry.digest

    @property
    def manifest(self) -> dict[str, Any]:
        """Counts by stratum, style, tag, source and kind; what was left out; how many rows were erased."""
        manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text("utf-8"))
        return {**manifest, "held_out": self.entry.held_out}

    @property
    def strata(self) -> Mapping[str, int]:
        """Rows of each."""
        found: Mapping[str, int] = self.manifest["strata"]
        return found

    @property
    def shards(self) -> list[Path]:
        return sorted(self.path.glob("rows-*.parquet"))

    @property
    def n_erased(self) -> int:
        return int(self.manifest.get("erased_rows", 0))

    def rows(self) -> Iterator[SuiteRow]:
        """All rows in order of pair id, streamed, each checked against its digest.

        Raises Erased where an erasure took words from it. Without the judgements of those who took their consent back; a pair that
        has no other is passed over.
        """
        if self.n_erased:
            raise Erased(
                f"{self.n_erased} of the {self.entry.n_pairs + self.entry.n_prompts} rows of suite {self.ref} were erased, so it "
                "can't be read any more",
                fix=f"import it again: what was erased is refused, and the rest becomes {self.entry.name}@N",
            )
        for row in read_rows(self.shards):
            kept = tuple(j for j in row.judgements if not took_back(j, self.withdrawn))
            if len(kept) == len(row.judgements):
                yield row
            elif kept:
                yield row_of(
                    row.pair,
                    kept,
                    sources=row.sources,
                    strata=row.strata,
                    styles=row.styles,
                    tags=row.tags,
                    template=row.template,
                )

    def groups(self) -> Iterator[tuple[str, str]]:
        """(pair id, opening turn's digest) of every row; erased ones have theirs still."""
        yield from ((pair_id, group) for pair_id, group in read_columns(self.shards, ("pair_id", "group")))

    def prompts(self) -> list[SuiteRow]:
        """One row for each prompt that a reply can follow, prompts alone and those of pairs, in order of pair id."""
        found: dict[Any, SuiteRow] = {}
        for row in self.rows():
            if row.pair.prompt and row.pair.prompt[-1].role != "assistant":
                found.setdefault(row.pair.prompt, row)
        return list(found.values())

    def pairs(self) -> list[SuiteRow]:
        """The rows with two replies."""
        return [row for row in self.rows() if not is_prompt(row.pair)]


def open_suite(workspace: Workspace, ref: str) -> Suite:
    """The suite that `ref` names, checked. Raises NotFound with the nearest name, Damaged naming what changed."""
    with workspace.read() as connection:
        entry = find(connection, ref)
        folder = workspace.artifacts.open(connection, entry.path)
        gone = frozenset(withdrawn(connection))
    suite = Suite(entry, folder, gone)
    digests = [digest for (digest,) in read_columns(suite.shards, ("row_digest",))]
    root = merkle_root(digests)
    if root != entry.digest or len(digests) != entry.n_pairs + entry.n_prompts:
        raise Damaged(
            f"the rows of suite {entry.ref} in {entry.path} give the digest {root[:12]}…, recorded is {entry.digest[:12]}…",
            fix="restore the suite's folder and the database from one backup, or import it again",
        )
    return suite
