"""Erasure over a whole workspace: real imports, a cut, a training, reports; then every byte of every file is looked through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from rlhf import erasure, evaluation, feedback, labeling, people, registry, reward, snapshots
from rlhf.erasure.files import without
from rlhf.erasure.words import Words
from rlhf.errors import BadInput, Conflict, Forbidden, NotFound
from rlhf.pages.marked import differences
from rlhf.records import Judgement, Message, Pair
from rlhf.registry import aliases
from rlhf.snapshots.opening import Erased
from rlhf.store import Workspace, audit, runs
from rlhf.store.tables import judgements, pairs, tombstones

SECRET = "My aunt Zorblaxia keeps seventeen green parrots in her cellar, is that allowed?"
REPLIES = ("Yes, Quibblefen says that is allowed", "No, ask Dramwhistle at the town hall first")
NAMES = ("Zorblaxia", "zorblaxia", "Quibblefen", "Dramwhistle", "Hargelthump")


def rows(n: int = 24) -> list[dict[str, object]]:
    return [
        {
            "prompt": f"Question number {i} about the {i * 7919} hills?",
            "chosen": f"Yes {i} thanks",
            "rejected": f"No {i}",
        }
        for i in range(n)
    ]


@pytest.fixture
def told(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Ordinary rows, and one with a subject, judged by two labelers, one of whom wrote a note."""
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    feedback.import_files(workspace, [tmp_path / "plain.jsonl"], source="plain")
    pair = secret_pair()
    for labeler, choice in (("ann", "a"), ("ben", "b")):
        note = "Hargelthump told me the same thing about his parrots" if labeler == "ann" else None
        said = Judgement(pair.id, choice, "talks", labeler=labeler, note=note)  # type: ignore[arg-type]
        feedback.judge(workspace, said, pair=pair)
    with workspace.write() as write:
        from rlhf.store.tables import pair_sources

        write.connection.execute(
            pair_sources.update().values(subject="person-7").where(pair_sources.c.pair_id == pair.id)
        )
    return workspace


def secret_pair() -> Pair:
    return Pair.of((Message("user", SECRET),), *REPLIES)


def holding(root: Path, *words: str) -> list[str]:
    """Files whose bytes hold one of the words; Parquet is compressed, so its cells are looked at."""
    import pyarrow.parquet as pq

    found = []
    for file in root.rglob("*"):
        if not file.is_file():
            continue
        raw = file.read_bytes()
        if file.suffix == ".parquet":
            raw += json.dumps(pq.read_table(file).to_pylist()).encode()
        if any(word.encode() in raw for word in words):
            found.append(str(file.relative_to(root)))
    return found


@pytest.mark.parametrize("what", ["subject", "pair"])
def test_an_erased_person_is_in_no_file_of_the_workspace(
    told: Workspace, tiny_base: object, tmp_path: Path, what: str
) -> None:
    """Promise 9, whole: tables with their free pages, shards, kept states, checkpoints, reports, exports, logs; what learnt is
    listed; a re-import is refused."""
    snapshots.cut(told, "talk", holdout=0.0)
    settings = {
        "name": "talk",
        "snapshot": "talk",
        "base": "tiny",
        "dtype": "float32",
        "lora_r": 4,
        "pairs_per_step": 8,
    }
    more = {"set_aside": 0.0, "test_pairs": 0, "top_layers": 1}
    trained = reward.train(told, reward.RewardSettings(**settings, **more, max_steps=4))  # type: ignore[arg-type]
    aliases.move(told, "talk@champion", trained.version, why="first")
    evaluation.evaluate(told, ["talk@1"], "talk", split="train")
    feedback.export(told, told.root / "exported.jsonl")
    feedback.export(told, told.root / "exported.csv")
    snapshots.export(told, "talk", told.root / "talk.parquet")
    (told.root / "runs" / "note.log").write_text(f"reading\nsaw prompt: {SECRET[:40]}\n")
    (told.root / "runs" / "replies.jsonl").write_text(
        json.dumps({"reply": f"I think {REPLIES[0].lower()}", "n": 1}) + "\n"
    )
    assert len(holding(told.root, *NAMES)) >= 6
    digest = snapshots.open_snapshot(told, "talk").digest

    value = "person-7" if what == "subject" else secret_pair().id[:16]
    done = erasure.erase(told, what, value, why="they asked")  # type: ignore[arg-type]

    assert done.is_out_of_free_pages
    assert holding(told.root, *NAMES) == []
    assert holding(told.root, "person-7") == []
    assert done.touched.snapshots == ("talk@1",)
    assert done.touched.versions == ("talk@1",)
    assert done.touched.aliases == {"talk@champion": "talk@1"}
    assert done.rows == {"talk@1": 1}
    assert done.counts["pairs"] == 1 and done.counts["kept_states"] == 1
    opened = snapshots.open_snapshot(told, "talk")  # the root still verifies
    assert opened.digest == digest
    with pytest.raises(Erased, match="1 of the 25 rows"):
        list(opened.rows())
    with pytest.raises(Erased):
        reward.train(told, reward.RewardSettings(**{**settings, "name": "again"}, **more, max_steps=1))  # type: ignore[arg-type]
    assert registry.verify(told).problems == ()
    again = snapshots.cut(told, "talk", holdout=0.0)
    assert again.n_pairs == 24 and SECRET not in {row.pair.prompt[-1].content for row in again.rows()}
    with pytest.raises(Forbidden):
        feedback.judge(told, Judgement(secret_pair().id, "a", "elsewhere"), pair=secret_pair())
    (tmp_path / "back.jsonl").write_text(
        json.dumps({"prompt": SECRET, "chosen": REPLIES[0], "rejected": REPLIES[1]}) + "\n"
    )
    receipt = feedback.import_files(told, [tmp_path / "back.jsonl"], source="back")
    assert (receipt.accepted, receipt.rejected) == (0, 1)
    assert holding(told.root, *NAMES) == []


def test_an_erased_labeler_is_in_no_file_and_others_answers_stay(told: Workspace) -> None:
    snapshots.cut(told, "talk", holdout=0.0)
    feedback.export(told, told.root / "exported.csv")
    done = erasure.erase(told, "labeler", "ann")
    assert holding(told.root, "Hargelthump", '"ann"', ",ann,") == []
    assert done.counts["judgements"] == 1 and done.rows == {"talk@1": 1}
    opened = snapshots.open_snapshot(told, "talk")
    assert opened.n_erased == 1
    again = snapshots.cut(told, "talk", holdout=0.0)
    said = {j.labeler for row in again.rows() for j in row.judgements if row.pair.id == secret_pair().id}
    assert said == {"ben"}
    with pytest.raises(Forbidden):
        feedback.judge(told, Judgement(secret_pair().id, "a", "talks", labeler="ann"))
    counts = feedback.export(told, told.root / "later.jsonl")
    assert counts["skip"] == 0 and counts["pairs"] == 25


def test_an_erased_row_is_checked_against_its_digest_like_any_other(told: Workspace) -> None:
    from rlhf.snapshots.erasing import erase_in
    from rlhf.snapshots.rows import erased_judgements, read_columns

    cut = snapshots.cut(told, "talk", holdout=0.0)
    before = {row.pair.id: [j.digest for j in row.judgements] for row in cut.rows()}
    entry = snapshots.list_snapshots(told)[0]
    assert erase_in(told, entry, (), ("talks", "ann")) == 1
    assert erase_in(told, entry, (), ("talks", "ann")) == 0
    assert erase_in(told, entry, (), ("talks", "ben")) == 1
    shards = snapshots.open_snapshot(told, "talk").shards
    said = next(text for pair, text in read_columns(shards, ("pair_id", "judgements")) if pair == secret_pair().id)
    assert sorted(erased_judgements(said)) == sorted(before[secret_pair().id])


def test_a_labeler_of_the_page_is_shut_out(workspace: Workspace) -> None:
    pair = secret_pair()
    feedback.judge(workspace, Judgement(pair.id, "a", "elsewhere"), pair=pair)
    token = people.issue_token(workspace, "lea", scopes=["label"])
    assert people.actor_of(workspace, token).name == "lea"
    task = labeling.next_task(workspace, "lea")
    assert task is not None
    labeling.answer(workspace, "lea", task.lease, "left", note="Hargelthump says hello to everybody")
    erasure.erase(workspace, "labeler", "lea")
    with pytest.raises(Forbidden):
        people.actor_of(workspace, token)
    with workspace.read() as connection:
        row = connection.execute(select(judgements).where(judgements.c.source == labeling.counts.SOURCE)).one()
    assert (row.labeler, row.note, row.choice, row.actor) == (None, None, "skip", "erased")
    assert labeling.next_task(workspace, "max") is not None  # the pair wants an answer again


def test_a_name_in_another_source_is_another_person(workspace: Workspace) -> None:
    pair = secret_pair()
    feedback.judge(workspace, Judgement(pair.id, "a", "crowd", labeler="lea"), pair=pair)
    task = labeling.next_task(workspace, "lea")
    assert task is not None
    assert erasure.erase(workspace, "labeler", "lea", source="crowd").counts["judgements"] == 1
    labeling.answer(workspace, "lea", task.lease, "left")
    assert [count.labeler for count in labeling.by_labeler(workspace)] == ["lea"]


def test_what_is_not_known_and_what_is_not_unique_is_refused_and_nothing_is_buried(told: Workspace) -> None:
    feedback.judge(told, Judgement(secret_pair().id, "a", "other", labeler="ann"))
    for words, error in (
        (("labeler", "nobody"), NotFound),
        (("labeler", "ann"), BadInput),
        (("subject", "nobody"), NotFound),
        (("pair", "abc"), BadInput),
        (("pair", "0" * 20), NotFound),
    ):
        with pytest.raises(error):
            erasure.erase(told, *words)  # type: ignore[arg-type]
    with told.read() as connection:
        assert connection.execute(select(tombstones)).all() == []
    assert erasure.erase(told, "labeler", "ann", source="other").counts["judgements"] == 1


def test_a_training_under_way_refuses_it(told: Workspace) -> None:
    from rlhf.store.holding import holding as hold

    cut = snapshots.cut(told, "talk", holdout=0.0)
    run = runs.start(told, "reward", "r", None, {"snapshot": "talk", "snapshot_digest": cut.digest})
    folder = told.root / runs.show(told, run).folder
    with hold(folder / runs.LOCK_FILE, "a training", run=run), pytest.raises(Conflict, match="is training on"):
        erasure.erase(told, "subject", "person-7")
    assert feedback.show_pair(told, secret_pair().id).pair is not None
    runs.finish(told, run, "interrupted")
    (folder / "checkpoints" / "4").mkdir(parents=True)
    (folder / "checkpoints" / "4" / "state.pt").write_bytes(b"\x80\x00weights")
    assert erasure.erase(told, "subject", "person-7").counts["checkpoints"] == 1
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    "step", ["rlhf.erasure.steps.erase_in", "rlhf.erasure.steps.scrub", "rlhf.feedback.erasing.null"]
)
def test_a_crash_at_any_step_is_made_good_by_the_same_command(
    told: Workspace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    snapshots.cut(told, "talk", holdout=0.0)
    (told.root / "runs" / "note.log").write_text(f"saw prompt: {SECRET}\n")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(step, killed)
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(told, "subject", "person-7")
    assert snapshots.cut(told, "meanwhile", holdout=0.0).n_pairs == 24  # it is of no use to anybody already
    erasure.erase(told, "subject", "person-7")
    assert holding(told.root, *NAMES) == []
    assert snapshots.open_snapshot(told, "talk").n_erased == 1
    assert erasure.erase(told, "subject", "person-7").counts["pairs"] == 0  # once more does no harm


def test_a_crash_between_a_shard_and_its_checksum_is_settled(told: Workspace) -> None:
    snapshots.cut(told, "talk", holdout=0.0)
    entry = snapshots.list_snapshots(told)[0]
    shard = next(Path(told.artifacts.root, entry.path).glob("rows-*.parquet"))
    before = shard.read_bytes()
    erasure.erase(told, "subject", "person-7")
    assert shard.read_bytes() != before
    from rlhf.ids import digest_file
    from rlhf.store.tables import files

    path = f"{entry.path}/{shard.name}"
    with told.write() as write:  # as if the record had not been written
        write.connection.execute(files.update().values(sha256="0" * 64).where(files.c.path == path))
    note = told.root / "cache" / "rewriting" / f"{digest_file(shard)}.json"
    note.write_text(json.dumps({"path": path, "sha256": digest_file(shard), "n_bytes": shard.stat().st_size}))
    told.artifacts.settle_rewrites(told.database)
    assert registry.verify(told).problems == ()
    assert not note.exists()


def test_a_cut_that_read_before_an_erasure_is_not_published_after_it(
    told: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf.snapshots import cutting

    real = cutting.masked_counts

    def erased_meanwhile(*words: object) -> object:
        monkeypatch.setattr(cutting, "masked_counts", real)
        erasure.erase(told.as_actor("somebody"), "subject", "person-7")
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(cutting, "masked_counts", erased_meanwhile)
    with pytest.raises(Conflict, match="erased while"):
        snapshots.cut(told, "late", holdout=0.0)
    assert holding(told.root, *NAMES) == ["rlhf.db-wal"]  # the cut was reading
    assert erasure.erase(told, "subject", "person-7").is_out_of_free_pages
    assert holding(told.root, *NAMES) == []
    assert snapshots.cut(told, "late", holdout=0.0).n_pairs == 24


def test_the_audit_log_names_nobody_and_its_chain_holds(told: Workspace) -> None:
    erasure.erase(told, "labeler", "ann", why="article 17")
    with told.read() as connection:
        entries = [e for e in connection.execute(select(audit.audit)) if e.action == "feedback.erase"]
    assert len(entries) == 1
    assert "ann" not in entries[0].subject and '"ann"' not in entries[0].details
    assert registry.verify(told).problems == ()


def test_what_other_pairs_say_too_stays_in_reports(told: Workspace) -> None:
    shared = "This very sentence is the reply of two pairs at once."
    for prompt in ("First question of the two?", "Second question of the two?"):
        pair = Pair.of((Message("user", prompt),), shared, f"Other reply to {prompt}")
        feedback.judge(told, Judgement(pair.id, "a", "s"), pair=pair)
    (told.root / "runs" / "log.txt").write_text(f"{shared}\nFirst question of the two?\n")
    first = Pair.of(
        (Message("user", "First question of the two?"),), shared, "Other reply to First question of the two?"
    )
    erasure.erase(told, "pair", first.id)
    assert (told.root / "runs" / "log.txt").read_text() == f"{shared}\n[erased]\n"
    with told.read() as connection:
        assert connection.execute(select(pairs.c.prompt).where(pairs.c.id == first.id)).scalar() is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.html", "<p>{begin} …</p><b>kept</b>"),
        ("p.html", '<i title="{escaped}">kept</i>'),
        ("p.json", '{{"a": ["{whole}", "kept"], "b": 1}}'),
        ("p.jsonl", '{{"a": "x {whole}"}}\n{{"b": "kept"}}\n'),
        ("p.csv", 'a,b\n"{whole}",kept\n'),
        ("p.log", "12:00 {begin}\nkept\n"),
        ("p.txt.gz", "kept\n{whole}\n"),
    ],
)
def test_a_passage_goes_and_the_rest_is_kept(name: str, text: str) -> None:
    import gzip
    import html

    text = text.format(whole=SECRET, begin=SECRET[:30], escaped=html.escape(SECRET))
    raw = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    made = without(name, raw, Words([SECRET]))
    assert made is not None
    said = (gzip.decompress(made) if name.endswith(".gz") else made).decode()
    assert "Zorblaxia" not in said and "kept" in said
    assert without(name, made, Words([SECRET])) is None
    assert without(name, raw, Words(["Nobody has ever said this sentence here."])) is None


def test_short_words_are_no_reason_to_change_a_file() -> None:
    assert without("c.json", b'{"combine": "mean"}', Words(["mean"])) is None
    assert without("c.json", b'{"labeler": "ann"}', Words([], names=["ann"])) is not None


def test_marks_of_what_differs_do_not_hide_a_reply_on_a_page() -> None:
    """A comparison's page marks words inside a reply (`pages/marked.py`); all of the reply goes, the other reply stays."""
    mine, other = "Call Ann at home & ask her about it", "Call Bob at work & tell him about it"
    shown = differences(mine, other)
    assert shown is not None and shown[0].count("<del") > 1
    page = (
        f"<blockquote><span>a</span>{shown[0]}</blockquote><blockquote><span>b</span>{shown[1]}</blockquote>\n"
        + "x" * 60
    )
    made = without("page.html", page.encode(), Words([mine]))
    assert made is not None
    assert made.decode() == page.replace(str(shown[0]), "[erased]")
    assert without("page.html", page.encode(), Words(["nothing that is on this page"])) is None
