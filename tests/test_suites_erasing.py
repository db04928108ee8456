"""An erased person is gone from suites too: the words, not the digests (promise 9)."""

from __future__ import annotations

from pathlib import Path

import pytest
from suite_files import bench_row, style_row, write

from rlhf import erasure, feedback, suites
from rlhf.errors import BadInput, NotFound
from rlhf.snapshots.opening import Erased
from rlhf.store import Workspace

SECRET = "My sister Gudrun broke her leg on the stairs of the old mill"


def holds_words(workspace: Workspace, text: str) -> list[str]:
    """Every file of the workspace with the text, tables of a suite read as tables."""
    import pyarrow.parquet as pq

    found = []
    for file in workspace.root.rglob("*"):
        if file.is_file():
            raw = (
                str(pq.read_table(file).to_pylist())
                if file.suffix == ".parquet"
                else file.read_bytes().decode("utf-8", "ignore")
            )
            found += [file.name] if text in raw else []
    return found


def require_gone(workspace: Workspace, ref: str, n_rows: int) -> None:
    suite = suites.open_suite(workspace, ref)  # the root still verifies
    assert suite.n_erased == n_rows and SECRET not in str(suite.manifest)
    with pytest.raises(Erased, match=f"{n_rows} of the"):
        list(suite.rows())
    with workspace.read() as connection:
        assert workspace.artifacts.verify_all(connection)[1] == []


def test_a_pair_erased_from_the_store_is_gone_from_suites_and_does_not_come_back(
    workspace: Workspace, tmp_path: Path
) -> None:
    file = write(tmp_path / "b.jsonl", [bench_row(0, prompt=SECRET), bench_row(1)])
    feedback.import_files(workspace, [file])
    suite = suites.import_files(workspace, "b", [file]).suite
    pair_id = next(row.pair.id for row in suite.rows() if row.pair.prompt[0].content == SECRET)
    done = erasure.erase(workspace, "pair", pair_id)
    assert done.rows == {"suite b@1": 1} and suites.open_suite(workspace, "b").digest == suite.digest
    require_gone(workspace, "b", 1)
    assert holds_words(workspace, SECRET) == []
    again = suites.import_files(workspace, "b", [file])
    assert (again.suite.ref, again.accepted, again.rejected) == ("b@2", 1, 1) and "was erased" in again.errors[0].reason


def test_a_pair_that_stands_in_a_suite_alone_can_be_erased(workspace: Workspace, tmp_path: Path) -> None:
    suite = suites.import_files(
        workspace, "b", [write(tmp_path / "b.jsonl", [bench_row(0, prompt=SECRET), bench_row(1)])]
    ).suite
    (workspace.root / "runs").mkdir(exist_ok=True)
    (workspace.root / "runs" / "log.txt").write_text(f"{SECRET}\nanother line\n", "utf-8")
    pair_id = next(row.pair.id for row in suite.rows() if row.pair.prompt[0].content == SECRET)
    erasure.erase(workspace, "pair", pair_id[:16])
    require_gone(workspace, "b", 1)
    assert holds_words(workspace, SECRET) == []
    with pytest.raises(NotFound):
        erasure.erase(workspace, "pair", "0" * 64)


def test_a_subjects_prompt_goes_with_all_its_replies(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{**style_row(1), "prompt": SECRET, "subject": "gudrun"}, style_row(2)]
    suites.import_files(workspace, "styles", [write(tmp_path / "s.jsonl", rows)])
    alone = suites.import_files(workspace, "tales", [write(tmp_path / "p.jsonl", [{"prompt": SECRET}])])
    assert alone.suite.entry.n_prompts == 1
    done = erasure.erase(workspace, "subject", "gudrun")
    assert done.rows == {"suite styles@1": 9, "suite tales@1": 1}
    require_gone(workspace, "styles", 9)
    assert holds_words(workspace, SECRET) == [] and holds_words(workspace, "gudrun") == []
    refused = write(tmp_path / "again.jsonl", rows)
    assert suites.import_files(workspace, "styles", [refused]).rejected == 1


def test_an_erased_labelers_verdicts_are_gone_and_others_stay(workspace: Workspace, tmp_path: Path) -> None:
    rows = [bench_row(i, labeler=name) for i in range(2) for name in ("anna-1", "ben-2")]
    suite = suites.import_files(workspace, "v", [write(tmp_path / "v.jsonl", rows)]).suite
    done = erasure.erase(workspace, "labeler", "anna-1")
    assert done.rows == {"suite v@1": 2}
    assert holds_words(workspace, "anna-1") == [] and suites.open_suite(workspace, "v").digest == suite.digest
    again = suites.import_files(workspace, "v", [write(tmp_path / "v.jsonl", rows)])
    assert again.rejected == 2 and {j.labeler for row in again.suite.rows() for j in row.judgements} == {"ben-2"}


def test_a_name_in_several_sources_must_say_which(workspace: Workspace, tmp_path: Path) -> None:
    rows = [bench_row(i, labeler="w1", source=source) for i, source in enumerate(("here", "there"))]
    suites.import_files(workspace, "v", [write(tmp_path / "v.jsonl", rows)])
    with pytest.raises(BadInput, match="stands in 2 sources"):
        erasure.erase(workspace, "labeler", "w1")
    assert erasure.erase(workspace, "labeler", "w1", source="there").rows == {"suite v@1": 1}
