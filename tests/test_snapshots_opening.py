"""Opening: which snapshot is meant, and that nothing published has changed."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snapshot_rows import judged, pair_of, put
from sqlalchemy import update

from rlhf import snapshots
from rlhf.errors import BadUsage, Damaged, NotFound
from rlhf.ids import digest_file
from rlhf.records import Judgement
from rlhf.snapshots.rows import row_of
from rlhf.store import Workspace
from rlhf.store.tables import files


@pytest.fixture
def cut(workspace: Workspace) -> snapshots.Snapshot:
    put(workspace, [judged(pair_of(i), "ab"[i % 2], labeler=f"w{i % 3}", strength=2, cohort="same") for i in range(40)])
    return snapshots.cut(workspace, "hh", holdout=0.25)


def _rewrite(workspace: Workspace, shard: Path, column: str, place: int, value: str) -> None:
    """Change one cell and, as somebody with the database could, its checksum too."""
    table = pq.read_table(shard)
    values = table.column(column).to_pylist()
    values[place] = value
    position = table.schema.get_field_index(column)
    table = table.set_column(position, table.schema.field(column), pa.array(values))
    pq.write_table(table, shard)
    with workspace.write() as write:
        write.connection.execute(
            update(files)
            .where(files.c.path == f"snapshots/hh/1/{shard.name}")
            .values(sha256=digest_file(shard), n_bytes=shard.stat().st_size)
        )


def test_nothing_published_changes_a_flipped_byte_in_a_shard_is_found_and_named(
    workspace: Workspace, cut: snapshots.Snapshot
) -> None:
    (shard,) = cut.shards
    whole = shard.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Damaged, match=r"snapshots/hh/1/rows-00000\.parquet was changed"):
            snapshots.open_snapshot(workspace, "hh")
    shard.write_bytes(whole)
    assert snapshots.open_snapshot(workspace, "hh").digest == cut.digest


@pytest.mark.parametrize("file", ["manifest.json", "card.md", "rows-00000.parquet"])
def test_nothing_published_changes_a_missing_or_added_file_is_named(
    workspace: Workspace, cut: snapshots.Snapshot, file: str
) -> None:
    (cut.path / "extra").write_text("x")
    with pytest.raises(Damaged, match="extra was never published"):
        snapshots.open_snapshot(workspace, "hh")
    (cut.path / "extra").unlink()
    (cut.path / file).unlink()
    with pytest.raises(Damaged, match=f"{file} is missing"):
        snapshots.open_snapshot(workspace, "hh")


@pytest.mark.parametrize("column", ["row_digest", "split"])
def test_rows_that_do_not_give_the_digest_are_refused_even_with_fresh_checksums(
    workspace: Workspace, cut: snapshots.Snapshot, column: str
) -> None:
    moved = {"row_digest": "0" * 64, "split": "test" if next(iter(cut.rows())).split == "train" else "train"}
    _rewrite(workspace, cut.shards[0], column, 0, moved[column])
    with pytest.raises(Damaged, match="give the digest"):
        snapshots.open_snapshot(workspace, "hh")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("reply_a", "another reply"),
        ("prompt", "[]"),
        ("prompt", "{"),
        ("judgements", "[]"),
        ("sources", '["x"]'),
        ("group", "0"),
    ],
)
def test_a_text_that_does_not_give_its_rows_digest_is_found_when_it_is_read(
    workspace: Workspace, cut: snapshots.Snapshot, column: str, value: str
) -> None:
    _rewrite(workspace, cut.shards[0], column, 7, value)
    with pytest.raises(Damaged, match=r"rows-00000\.parquet"):
        list(snapshots.open_snapshot(workspace, "hh").rows())


def test_a_row_comes_back_as_it_was_cut(workspace: Workspace, cut: snapshots.Snapshot) -> None:
    row = next(r for r in cut.rows() if r.pair.id == pair_of(3).id)
    wanted = Judgement(row.pair.id, "b", "s", "w0", strength=2, cohort="same")
    assert row == row_of(pair_of(3), [wanted], row.split, ["s"])


def test_a_reference_names_the_latest_cut_a_number_or_a_digest(workspace: Workspace, cut: snapshots.Snapshot) -> None:
    put(workspace, [judged(pair_of(100), "a")])
    second = snapshots.cut(workspace, "hh", holdout=0.25)
    wanted = {"hh": 2, "hh@latest": 2, "hh@2": 2, "hh@1": 1}
    wanted |= {f"sha256:{cut.digest}": 1, f"sha256:{second.digest[:12]}": 2}
    assert {ref: snapshots.open_snapshot(workspace, ref).number for ref in wanted} == wanted


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("hj", "nearest: 'hh'"),
        ("hh@9", "no snapshot hh@9"),
        ("zzz", "no snapshot zzz"),
        ("sha256:" + "0" * 12, "the digest"),
    ],
)
def test_an_unknown_snapshot_is_an_error_with_the_nearest_name(
    workspace: Workspace, cut: snapshots.Snapshot, ref: str, said: str
) -> None:
    with pytest.raises(NotFound, match=said):
        snapshots.open_snapshot(workspace, ref)


@pytest.mark.parametrize("ref", ["hh@", "hh@0", "hh@x", "hh@1@2", "sha256:abc", "sha256:" + "%" * 12, "../hh"])
def test_what_can_not_be_a_reference_is_wrong_usage(workspace: Workspace, cut: snapshots.Snapshot, ref: str) -> None:
    with pytest.raises(BadUsage):
        snapshots.open_snapshot(workspace, ref)


def test_the_dataset_has_trl_rows_by_majority_and_counts_the_undecided(workspace: Workspace) -> None:
    put(
        workspace,
        [
            *(judged(pair_of(0), choice, labeler=f"w{k}") for k, choice in enumerate("bba")),
            *(judged(pair_of(1), choice, labeler=f"w{k}") for k, choice in enumerate("ab")),
            judged(pair_of(2), "tie"),
            judged(pair_of(3), "a"),
            judged(pair_of(3), "skip", labeler="2"),
        ],
    )
    made = snapshots.cut(workspace, "v", holdout=0.0).dataset("train")
    by_id = {row["pair_id"]: row for row in made}
    assert by_id.keys() == {pair_of(0).id, pair_of(3).id}
    row, pair = by_id[pair_of(0).id], pair_of(0)
    assert row["prompt"] == [{"role": m.role, "content": m.content} for m in pair.prompt]
    assert row["chosen"] == [{"role": "assistant", "content": pair.reply_b}]
    assert row["rejected"] == [{"role": "assistant", "content": pair.reply_a}]
    assert "2 decided, 2 without a majority" in made.info.description


def test_an_empty_side_is_an_empty_dataset(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(0), "a")])
    made = snapshots.cut(workspace, "one", holdout=0.0)
    assert list(made.rows("test")) == [] and len(made.dataset("test")) == 0
    with pytest.raises(ValueError, match="split"):
        made.rows("dev")  # type: ignore[arg-type]


def test_rebuilding_and_checking_a_row_takes_well_under_a_millisecond(workspace: Workspace) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(1_000)])
    made = snapshots.cut(workspace, "big")
    before = time.process_time()
    assert sum(1 for _ in made.rows()) == 1_000
    assert time.process_time() - before < 0.5  # some 0.1 s on an idle core
