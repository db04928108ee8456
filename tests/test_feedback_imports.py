"""Every row of an import is accounted for, once, whatever it is and however often it comes."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from rlhf import feedback
from rlhf.cli.feedback import app
from rlhf.errors import BadInput, BadUsage, Interrupted
from rlhf.feedback import intake, tombstones
from rlhf.feedback.hub import numbered
from rlhf.records import Receipt
from rlhf.store import Workspace, audit
from rlhf.store.tables import comments, imports, judgements, pair_sources, pairs, rejected_rows
from rlhf.store.tables import tombstones as buried


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"question {number}", "chosen": f"good {number}", "rejected": f"bad {number}", **more}


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def count(workspace: Workspace, table: Any, *where: Any) -> int:
    with workspace.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one())


def figures(receipt: Receipt) -> tuple[int, int, int, int]:
    assert receipt.accepted + receipt.duplicates + receipt.rejected == receipt.rows
    return receipt.rows, receipt.accepted, receipt.duplicates, receipt.rejected


def test_every_bad_line_is_named_and_the_rest_goes_in(workspace: Workspace, tmp_path: Path) -> None:
    bad = {
        2: "not json",
        3: "[]",
        4: json.dumps({"prompt": "q", "chosen": "x"}),
        5: json.dumps(row(1, chosen=3)),
        6: json.dumps(row(1, chosen="")),
        7: json.dumps(row(1, chosen="bad 1")),
        8: json.dumps(row(1, prompt="a\x00")),
        9: json.dumps(row(1, chosen="\ud800")),
        10: json.dumps(row(1, prompt=[{"role": "assistant", "content": "x"}])),
        11: '{"prompt":"a","prompt":"b","chosen":"c","rejected":"d"}',
        12: json.dumps(row(1, chosen="x" * 1_000_001)),
        13: json.dumps(row(1, chosen="x" * 10_000_000)),
    }
    path = write(tmp_path / "prefs.jsonl", [row(0), *bad.values(), row(2)])
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff"}\n')
    receipt = feedback.import_files(workspace, [path], format="trl")
    assert figures(receipt) == (15, 2, 0, 13) and receipt.source == "prefs"
    assert [error.line for error in receipt.errors] == [*bad, 15] and all(
        error.file == str(path) for error in receipt.errors
    )
    assert count(workspace, rejected_rows) == 13 and count(workspace, pairs) == 2


def test_second_import_adds_nothing_under_any_name(workspace: Workspace, tmp_path: Path) -> None:
    first = write(tmp_path / "one.jsonl", [row(n) for n in range(5)])
    assert figures(feedback.import_files(workspace, [first])) == (5, 5, 0, 0)
    renamed = tmp_path / "other.jsonl.gz"
    renamed.write_bytes(gzip.compress(first.read_bytes()))
    for path in (first, renamed):
        receipt = feedback.import_files(workspace, [path])
        assert figures(receipt) == (5, 0, 5, 0) and receipt.source == "one" and receipt.pairs == 0
    assert count(workspace, judgements) == 5


def test_the_same_pair_from_two_sources_is_one_pair_with_two_sources(workspace: Workspace, tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(1)])], source=name)
    assert (count(workspace, pairs), count(workspace, pair_sources), count(workspace, judgements)) == (1, 2, 2)


def test_an_opposite_choice_is_kept_and_the_same_one_is_not(workspace: Workspace, tmp_path: Path) -> None:
    turned = {"prompt": "question 1", "chosen": "bad 1", "rejected": "good 1"}
    receipt = feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(1), turned, row(1)])])
    assert figures(receipt) == (3, 2, 1, 0) and receipt.pairs == 1


def test_strict_refuses_the_file_whole_and_keeps_the_receipt(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1), "oops", row(2)])
    with pytest.raises(feedback.Refused, match="line 2: not JSON") as refusal:
        feedback.import_files(workspace, [path], strict=True)
    assert refusal.value.exit_status == 1 and {"error", "rows", "errors"} <= refusal.value.as_json().keys()
    assert figures(refusal.value.receipt) == (3, 0, 0, 3)
    assert count(workspace, pairs) == 0 and feedback.receipts(workspace)[0].state == "refused"
    good = write(tmp_path / "y.jsonl", [row(1), row(2)])
    assert figures(feedback.import_files(workspace, [good], strict=True)) == (2, 2, 0, 0)


def test_a_strict_import_cut_short_claims_nothing_and_is_marked_as_made_good(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_ROWS", 10)
    path = write(tmp_path / "x.jsonl", [row(n) for n in range(35)])
    first_look, real = [], intake.Intake.flush

    def cut_short(self: intake.Intake, state: str = "open") -> None:
        real(self, state)
        first_look.append(self.trial)
        if len(first_look) == 2:
            raise SystemError("power cut")

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(intake.Intake, "flush", cut_short)
        feedback.import_files(workspace, [path], strict=True)
    (left,) = feedback.receipts(workspace)
    assert first_look == [True, True] and left.state == "open" and left.imported_as is None
    assert figures(left) == (0, 0, 0, 0) and count(workspace, judgements) == 0
    other = feedback.import_files(workspace, [path], source="elsewhere")
    assert feedback.receipts(workspace, id=left.id)[0].imported_as is None and other.source == "elsewhere"
    again = feedback.import_files(workspace, [path], strict=True)
    assert figures(again) == (35, 35, 0, 0)
    assert feedback.receipts(workspace, id=left.id)[0].imported_as == again.id


def test_rows_that_describe_a_pair_again_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    """The same two replies in either order are one pair, under whatever pair_id."""
    described = [{"pair_id": f"p{n}", "prompt": "q", "reply_a": "x", "reply_b": f"y{n}"} for n in range(3)]
    described += [{"pair_id": "again", "prompt": "q", "reply_a": "y0", "reply_b": "x"}]
    described += [{"pair_id": "bad", "prompt": "q", "reply_a": "x", "reply_b": "x"}]
    voted = [{"pair_id": key, "vote": "a", "labeler": f"l{n}"} for n, key in enumerate(("p0", "p1", "again"))]
    files = [write(tmp_path / "pairs.jsonl", described), write(tmp_path / "votes.jsonl", voted)]
    receipt = feedback.import_files(workspace, files)
    assert figures(receipt) == (3, 3, 0, 0)
    assert (receipt.pairs, receipt.pairs_merged, receipt.pair_errors) == (3, 1, 1)
    assert feedback.receipts(workspace)[0].pairs_merged == 1 and receipt.as_json()["pairs_merged"] == 1
    assert receipt.unjudged == 1 and feedback.import_files(workspace, files).pairs_merged == 4


def test_a_json_list_has_items_and_not_lines(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([row(1), row(2), 3, row(4, chosen="bad 4")], indent=1))
    receipt = feedback.import_files(workspace, [path])
    assert [receipt.place_of(error) for error in receipt.errors] == [f"{path} item 3", f"{path} item 4"]
    (kept,) = feedback.receipts(workspace)
    assert [kept.place_of(error) for error in kept.errors] == [f"{path} item 3", f"{path} item 4"]
    assert [error["line"] for error in kept.as_json()["errors"]] == [3, 4]
    with pytest.raises(feedback.Refused, match=r"x\.json item 3: a number, not an object"):
        feedback.import_files(workspace, [path], strict=True)


def test_a_gzip_file_that_is_damaged_from_the_start_is_refused_as_such(workspace: Workspace, tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(row(n)) + "\n" for n in range(99)).encode(), mtime=0)
    path = tmp_path / "cut.jsonl.gz"
    for n_bytes in (2, 10, 12, 40):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(BadInput, match="the gzip file is damaged here"):
            feedback.import_files(workspace, [path], source="t")
    assert feedback.receipts(workspace) == []


def test_a_crash_between_batches_keeps_what_was_acknowledged(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "BATCH_ROWS", 10)
    path = write(tmp_path / "x.jsonl", [row(n) for n in range(35)])
    acknowledged: list[int] = []

    def crash(rows: int) -> None:
        acknowledged.append(rows)
        if rows >= 20:
            raise SystemError("power cut")

    with pytest.raises(SystemError):
        feedback.import_files(workspace, [path], on_progress=crash)
    assert acknowledged == [10, 20] and count(workspace, judgements) == 20
    assert feedback.receipts(workspace)[0].state == "open" and feedback.receipts(workspace)[0].accepted == 20
    (tmp_path / "moved.jsonl").write_bytes(path.read_bytes())
    assert figures(feedback.import_files(workspace, [tmp_path / "moved.jsonl"])) == (35, 15, 20, 0)


def test_a_process_killed_in_the_middle_loses_nothing_acknowledged(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(n) for n in range(12_000)])
    script = (
        "import sys; from rlhf import feedback; from rlhf.store import Workspace\n"
        "feedback.import_files(Workspace.open(sys.argv[1]), [sys.argv[2]], on_progress=lambda n: print(n, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, workspace.root, path], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = int(child.stdout.readline())
        child.kill()
    left = count(workspace, judgements)
    assert acknowledged == intake.BATCH_ROWS <= left < 12_000
    assert figures(feedback.import_files(workspace, [path])) == (12_000, 12_000 - left, left, 0)
    with workspace.read() as connection:
        audit.verify(connection)


def test_interrupting_says_what_is_in(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BATCH_ROWS", 10)

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="after 10 rows: 10 are in"):
        feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(n) for n in range(35)])], on_progress=stop)


def test_personal_data_is_counted_and_never_stored(workspace: Workspace, tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        [
            {"prompt": "write to a@b.co", "chosen": "call +1 415-555-2671", "rejected": "no"},
            {"prompt": "q", "chosen": "I am a@b.co", "rejected": "I am c@d.org"},
        ],
    )
    receipt = feedback.import_files(workspace, [path])
    assert figures(receipt) == (2, 1, 0, 1) and receipt.masked == {"email": 1, "phone": 1}
    assert "identical once personal data" in receipt.errors[0].reason
    raw = b"".join(file.read_bytes() for file in workspace.root.glob("rlhf.db*"))
    assert b"a@b.co" not in raw and b"555-2671" not in raw
    again = feedback.import_files(workspace, [path])
    assert figures(again) == (2, 0, 1, 1) and again.masked == {}


def test_every_text_of_a_row_goes_through_the_mask(workspace: Workspace, tmp_path: Path) -> None:
    """Prompts, replies, notes, comments, what a source says about a pair, and why a row wasn't taken."""
    pairs = [{"prompt": "I am in@prompt.org", "chosen": "a, by in@reply.org", "rejected": "b", "note": "in@note.org"}]
    topics = [{"prompt": "q", "a": "x", "b": "y", "labeler": "u", "vote": "a", "topic": "in@details.org"}]
    comments = [
        {"prompt": "in@thread.org", "reply": "r in@answer.org", "user": "u1", "thumb": "up", "comment": "in@text.org"}
    ]
    bad = [{"prompt": "q", "a": "x", "b": "y", "labeler": "u", "vote": "in@vote.org"}]
    masked: Counter[str] = Counter()
    for number, rows in enumerate((pairs, topics, comments, bad)):
        masked.update(feedback.import_files(workspace, [write(tmp_path / f"{number}.jsonl", rows)]).masked)
    assert masked == {"email": 7}
    raw = b"".join(file.read_bytes() for file in workspace.root.glob("rlhf.db*"))
    assert b"<EMAIL>" in raw and re.findall(rb"in@\w+", raw) == []
    assert feedback.receipts(workspace)[-1].masked == {"email": 3}


@pytest.mark.parametrize("turned", [False, True])
def test_votes_find_their_pairs_whatever_the_order_of_the_files(
    workspace: Workspace, tmp_path: Path, turned: bool
) -> None:
    described = write(
        tmp_path / "pairs.jsonl",
        [
            {"pair_id": "p1", "topic": "t_x", "title": "T", "a": "one", "b": "two", "gold": "a"},
            {"pair_id": "p2", "topic": "t_x", "title": "T", "a": "same", "b": "same", "gold": None},
            {"pair_id": "p3", "topic": "t_x", "title": "T", "a": "three", "b": "four", "gold": "tie"},
            "oops",
            {"pair_id": "p1", "topic": "t_x", "title": "T", "a": "other", "b": "two", "gold": "a"},
        ],
    )
    votes = write(
        tmp_path / "votes.csv",
        [
            "pair_id,labeler,vote,cohort,submitted_at,seconds",
            "p1,u1,a,none,2016,3",
            "p1,u2,tie,,2016,4",
            "p2,u1,a,,2016,5",
            "p9,u1,b,,2016,6",
            "p1,u1,left,,2016,7",
            "p1,u1,a,,2016,8",
        ],
    )
    receipt = feedback.import_files(workspace, [votes, described] if turned else [described, votes])
    assert (
        figures(receipt) == (6, 2, 1, 3)
        and receipt.source == "votes"
        and receipt.pairs == 2
        and receipt.pair_errors == 3
    )
    reasons = {(Path(e.file).name, e.line): e.reason for e in receipt.errors}
    assert (
        "its pair 'p2' was rejected at line 2" in reasons[("votes.csv", 4)]
        and "no pair with the pair_id 'p9'" in reasons[("votes.csv", 5)]
    )
    assert "stands at line 1 already" in reasons[("pairs.jsonl", 5)] and ("pairs.jsonl", 4) in reasons
    with workspace.read() as connection:
        found = {pair.reply_a: (pair, said) for pair, said, _ in feedback.read_pairs(connection)}
    voted = next((pair, said) for pair, said in found.values() if said)
    assert {j.labeler: j.choice for j in voted[1]} == {"u1": voted[0].side_of("one"), "u2": "tie"}
    assert next(json.loads(line) for line in details(workspace) if "p1" in line)["gold"] == "a"


def details(workspace: Workspace) -> list[str]:
    with workspace.read() as connection:
        return [str(text) for text in connection.scalars(select(pair_sources.c.details))]


def test_prompts_and_replies_without_votes_become_pairs_to_be_labeled(workspace: Workspace, tmp_path: Path) -> None:
    receipt = feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [{"prompt": "q", "a": "x", "b": "y"}])])
    assert figures(receipt) == (0, 0, 0, 0) and receipt.pairs == 1
    assert receipt.unjudged == receipt.as_json()["unjudged"] == feedback.receipts(workspace)[0].unjudged == 1
    for words in (["receipts"], ["receipts", receipt.id]):
        said = CliRunner().invoke(app, [*words, "--workspace", str(workspace.root)]).stdout
        assert "1 pair without votes waits to be labeled" in said


def test_an_erased_person_or_pair_is_not_taken_back(workspace: Workspace, tmp_path: Path) -> None:
    from rlhf.records import Message, Pair

    pair = Pair.of([Message("user", "question 1")], "good 1", "bad 1")
    keys = [("pair", pair.id, ""), ("labeler", "u2", "x"), ("subject", "s3", "")]
    with workspace.write() as pen:
        pen.connection.execute(
            buried.insert(),
            [
                {"key": tombstones.key(workspace.key, what, value, source), "what": what, "created_at": "t"}
                for what, value, source in keys
            ],
        )
    path = write(
        tmp_path / "x.jsonl", [row(1), row(2, labeler="u2"), row(3, subject="s3"), row(4, labeler="u4", subject="s4")]
    )
    receipt = feedback.import_files(workspace, [path])
    assert figures(receipt) == (4, 1, 0, 3) and all(error.reason.startswith("erased") for error in receipt.errors)
    shared = {"instruction": "i", "response1": "x", "response2": "y", "annotator1": 1, "annotator2": 2}
    with workspace.write() as pen:
        pen.connection.execute(
            buried.insert().values(
                key=tombstones.key(workspace.key, "labeler", "annotator2", "p"), what="labeler", created_at="t"
            )
        )
    receipt = feedback.import_files(workspace, [write(tmp_path / "p.jsonl", [shared])])
    assert figures(receipt) == (1, 1, 0, 0) and receipt.judgements == 1


def test_two_ratings_of_one_prompt_become_a_pair_across_imports(workspace: Workspace, tmp_path: Path) -> None:
    head = "prompt,reply,rating,labeler,scale"
    first = write(tmp_path / "a.csv", [head, "q,one,5,u1,1-5", "q,two,3,u2,1-5", "other,one,1,u1,1-5"])
    receipt = feedback.import_files(workspace, [first], source="survey")
    assert figures(receipt) == (3, 3, 0, 0) and (receipt.comments, receipt.pairs) == (3, 0)
    second = write(tmp_path / "b.csv", [head, "q,two,3,u1,1-5", "q,one,3,u2,1-5", "q,two,3,u1,1-5", "q,,3,u1,1-5"])
    receipt = feedback.import_files(workspace, [second], source="survey")
    assert figures(receipt) == (4, 2, 1, 1) and (receipt.pairs, receipt.judgements) == (1, 2)
    with workspace.read() as connection:
        ((pair, said, names),) = feedback.read_pairs(connection)
    assert {j.labeler: (j.choice, j.strength) for j in said} == {
        "u1": (pair.side_of("one"), 2),
        "u2": ("tie", None),
    } and names == ("survey",)


def test_a_thumb_up_and_a_thumb_down_become_a_pair_and_two_alike_dont(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "reply": reply, "user": user, "thumb": thumb}
        for user, reply, thumb in (("u1", "one", "up"), ("u1", "two", "down"), ("u2", "one", "up"), ("u2", "two", "up"))
    ]
    receipt = feedback.import_files(workspace, [write(tmp_path / "x.jsonl", rows)])
    assert figures(receipt) == (4, 4, 0, 0) and (receipt.format, receipt.comments, receipt.judgements) == (
        "events",
        4,
        1,
    )
    assert count(workspace, comments) == 4


def test_consent_and_kind_are_kept_and_rows_cant_widen_them(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1), row(2, consent="train,publish", kind="human")])
    feedback.import_files(workspace, [path], consent=("train", "evaluate"), kind="simulated")
    with workspace.read() as connection:
        said = {j.consent: j.kind for _, j in feedback.current_judgements(connection)}
    assert said == {("evaluate", "train"): "simulated", ("train",): "human"}
    feedback.import_files(workspace, [path], source="none", consent=("none",))
    assert count(workspace, judgements, judgements.c.consent == "") == 2


@pytest.mark.parametrize(
    "words",
    [{"consent": ("sell",)}, {"kind": "alien"}, {"format": "word"}, {"source": ""}, {"consent": ("none", "train")}],
)
def test_a_wrong_word_is_wrong_usage(workspace: Workspace, tmp_path: Path, words: dict[str, Any]) -> None:
    with pytest.raises(BadUsage):
        feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(1)])], **words)
    assert count(workspace, imports) == 0


def test_a_file_that_fits_no_format_names_the_formats(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="its fields are 'foo', 'bar'") as refusal:
        feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [{"foo": 1, "bar": 2}])])
    assert all(name in refusal.value.fix for name in ("hh", "trl", "votes", "pandalm", "ratings", "events"))
    mixed = [
        write(tmp_path / "y.jsonl", [row(1)]),
        write(tmp_path / "z.jsonl", [{"prompt": "q", "reply": "r", "rating": 1}]),
    ]
    with pytest.raises(BadInput, match="the files differ"):
        feedback.import_files(workspace, mixed)


def test_the_hub_that_cant_be_reached_is_a_clear_refusal(workspace: Workspace) -> None:
    with pytest.raises(BadInput, match="can't be read from the hub"):
        feedback.import_files(workspace, ["hub:owner/name@main:test"])
    with pytest.raises(BadUsage, match="no hub id"):
        feedback.import_files(workspace, ["hub:nonsense"])
    assert [r.record for r in numbered([{"chosen": "a", "prompt": None}])] == [{"chosen": "a"}]


def test_an_import_is_in_the_audit_log_from_its_start(workspace: Workspace, tmp_path: Path) -> None:
    receipt = feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(1)])])
    with workspace.read() as connection:
        assert [e["action"] for e in audit.entries(connection, subject=receipt.id)] == [
            "feedback.import.open",
            "feedback.import.done",
        ]
        assert audit.verify(connection) == 3


def test_stored_receipts_equal_the_one_that_was_returned(workspace: Workspace, tmp_path: Path) -> None:
    receipt = feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(1), "oops", row(2, chosen="a@b.co")])])
    assert feedback.receipts(workspace) == [receipt] == feedback.receipts(workspace, id=receipt.id[:10])


def test_a_receipt_lists_a_bounded_number_of_errors_and_stores_all(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ERRORS_IN_RECEIPT", 7)
    monkeypatch.setattr(intake, "BATCH_ROWS", 5)
    receipt = feedback.import_files(
        workspace, [write(tmp_path / "x.jsonl", [row(0), row(1), *["oops"] * 20])], format="trl"
    )
    assert figures(receipt) == (22, 2, 0, 20) and len(receipt.errors) == 7
    assert count(workspace, rejected_rows) == 20


@pytest.mark.shared
def test_real_files_are_accounted_for_to_the_row(workspace: Workspace, shared_data: Path) -> None:
    hh = feedback.import_files(workspace, [shared_data / "hh_harmless.jsonl.gz"])
    assert figures(hh) == (1769, 1760, 0, 9) and hh.format == "hh"
    pandalm = feedback.import_files(workspace, [shared_data / "pandalm.json"])
    assert figures(pandalm) == (704, 591, 69, 44) and pandalm.judgements == 3 * 591
    assert sum("true or false" in e.reason for e in pandalm.errors) == 6


@pytest.mark.shared
@pytest.mark.slow
def test_the_two_convarg_files_are_one_import(workspace: Workspace, shared_data: Path) -> None:
    receipt = feedback.import_files(
        workspace, [shared_data / "convarg_pairs.jsonl.gz", shared_data / "convarg_votes.csv.gz"]
    )
    assert (
        figures(receipt) == (63_617, 63_486, 76, 55) and receipt.pair_errors == 11 and receipt.source == "convarg_votes"
    )
    assert receipt.pairs + receipt.pairs_merged + receipt.pair_errors == 12_752 and receipt.pairs_merged == 317


ODD_LINES = [
    '{"prompt": "q", "chosen": "x", "rejected": "y", "margin": 1e400}',
    '{"prompt": "q", "chosen": "x", "rejected": "y", "split": "\\ud800"}',
    '{"prompt": "q", "chosen": "x", "rejected": "y", "id": "\\u0000"}',
    '{"prompt": "q", "chosen": "x2", "rejected": "y", "note": "\\udfff"}',
    '{"prompt": "q", "chosen": "x3", "rejected": "y", "labeler": "\\u0000"}',
    '{"prompt": "q", "chosen": "x4", "rejected": "y", "source": "' + "s" * 201 + '"}',
    '{"' + "k" * 100_000 + '": 1, "' + "k" * 100_000 + '": 2}',
    '{"prompt": "q", "chosen": "fine", "rejected": "y", "unknown": "\\ud800"}',
]


def test_odd_values_in_side_columns_cost_their_row_only(workspace: Workspace, tmp_path: Path) -> None:
    receipt = feedback.import_files(workspace, [write(tmp_path / "x.jsonl", [row(1), *ODD_LINES])], format="trl")
    assert receipt.accepted + receipt.rejected == receipt.rows == 9 and receipt.accepted >= 2
    assert all(len(error.reason) < 300 and error.reason.encode("utf-8") for error in receipt.errors)
