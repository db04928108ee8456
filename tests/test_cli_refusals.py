"""Bad input, by command: exit 1 or 2, one line and a fix or one JSON object, no traceback, and nothing has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, copy_of, state

HEX = "0" * 64
LONG = "n" * 300
FILES = {
    "bad.jsonl": '{"prompt": "a", "chosen": "x", "rejected": "y"}\nnot json\n',
    "empty.jsonl": "",
    "no_record.jsonl": "not json\n",
    "broken.yaml": "epochs: [1\n",
    "list.yaml": "- epochs\n",
    "no_reply.jsonl": '{"id": 1, "prompt": "hi"}\n',
    "half_json.jsonl": '{"id": 1, "prompt": "hi", "reply": "x"}\n{"id": 2\n',
    "surrogate.jsonl": '{"id": 1, "prompt": "hi \\ud800", "reply": "x"}\n',
    "nan.jsonl": '{"id": NaN, "prompt": "hi", "reply": "x"}\n',
    "deep.jsonl": "[" * 100_000,
}

# What is asked, the exit status, the error's code. FILE names stand for files of the folder `bad`.
REFUSED = [
    ("nope", 2, "bad_usage"),
    ("init --json=yes", 2, "bad_usage"),
    ("doctor extra", 2, "bad_usage"),
    ("base add b", 2, "bad_usage"),
    ("base add b --dir bad --hub x/y", 2, "bad_usage"),
    ("base add b --dir bad", 1, "bad_input"),
    ("base add b --dir absent", 1, "bad_input"),
    ("base add b --gguf bad/bad.jsonl", 1, "bad_input"),
    ("base add a/b --dir bad", 2, "bad_usage"),
    (f"base add {LONG} --dir bad", 2, "bad_usage"),
    ("base list extra", 2, "bad_usage"),
    ("feedback import", 2, "bad_usage"),
    ("feedback import absent.jsonl", 1, "bad_input"),
    ("feedback import bad", 1, "bad_input"),
    ("feedback import ''", 1, "bad_input"),
    ("feedback import bad/empty.jsonl", 1, "bad_input"),
    ("feedback import bad/no_record.jsonl", 1, "bad_input"),
    ("feedback import bad/bad.jsonl --format nope", 2, "bad_usage"),
    ("feedback import bad/bad.jsonl --consent everything", 2, "bad_usage"),
    ("feedback import bad/bad.jsonl --kind alien", 2, "bad_usage"),
    (f"feedback import bad/bad.jsonl --source {LONG}", 2, "bad_usage"),
    ("feedback import bad/bad.jsonl bad/bad.jsonl", 2, "bad_usage"),
    ("feedback list --limit 0", 2, "bad_usage"),
    ("feedback list --limit many", 2, "bad_usage"),
    (f"feedback list --limit {'9' * 23}", 2, "bad_usage"),
    (f"label status --overlap {'9' * 23}", 2, "bad_usage"),
    (f"label quality --limit {'9' * 23}", 2, "bad_usage"),
    (f"label gold add --source web --limit {'9' * 23}", 2, "bad_usage"),
    (f"label rules --overlap {'9' * 23}", 2, "bad_usage"),
    (f"board list --limit {'9' * 23}", 2, "bad_usage"),
    ("label guidelines absent", 1, "bad_input"),
    ("label cohorts --target absent", 1, "bad_input"),
    ("label gold add bad/no_record.jsonl", 1, "bad_input"),
    ("label consent bad/bad.jsonl --scope train,sell", 2, "bad_usage"),
    ("feedback export ''", 2, "bad_usage"),
    ("feedback export absent/out.parquet", 1, "bad_input"),
    ("feedback list --source nobody", 1, "not_found"),
    ("feedback show zz", 1, "not_found"),
    ("feedback show %", 1, "not_found"),
    ("feedback show", 2, "bad_usage"),
    ("feedback receipts zz", 1, "not_found"),
    ("feedback export out.txt", 2, "bad_usage"),
    ("feedback export absent/out.jsonl", 1, "bad_input"),
    ("feedback export out.jsonl --source nobody", 1, "not_found"),
    ("snapshot cut a/b", 2, "bad_usage"),
    ("snapshot cut 7", 2, "bad_usage"),
    ("snapshot cut x@1", 2, "bad_usage"),
    ("snapshot cut näme", 2, "bad_usage"),
    ("snapshot cut x --holdout 1.5", 2, "bad_usage"),
    ("snapshot cut x --holdout nan", 2, "bad_usage"),
    ("snapshot cut x --source nobody", 1, "not_found"),
    ("snapshot cut x --kind model", 1, "bad_input"),
    ("snapshot show absent", 1, "not_found"),
    ("snapshot show polite@9", 1, "not_found"),
    ("snapshot show polite@0", 2, "bad_usage"),
    ("snapshot show polite@-1", 2, "bad_usage"),
    ("snapshot check absent", 1, "not_found"),
    ("snapshot check polite --base absent", 1, "not_found"),
    ("snapshot check polite --max-tokens 0", 2, "bad_usage"),
    ("snapshot diff polite", 2, "bad_usage"),
    ("snapshot diff polite absent", 1, "not_found"),
    ("snapshot diff sha256:12 polite", 2, "bad_usage"),
    ("snapshot export polite out.txt", 2, "bad_usage"),
    ("snapshot export polite absent/out.csv", 1, "bad_input"),
    ("snapshot export absent out.csv", 1, "not_found"),
    ("reward train x", 2, "bad_usage"),
    ("reward train x --snapshot absent --base tiny", 1, "not_found"),
    ("reward train x --snapshot polite --base absent", 1, "not_found"),
    ("reward train x --snapshot polite --base tiny --from x@1", 1, "not_found"),
    ("reward train a/b --snapshot polite --base tiny", 1, "bad_input"),
    ("reward train x --snapshot polite --base tiny --resume dtype=float32", 1, "not_found"),
    ("reward train x --snapshot polite --base tiny epochs", 2, "bad_usage"),
    ("reward train x --snapshot polite --base tiny epochs=nan", 2, "bad_usage"),
    ("reward train x --config absent.yaml", 2, "bad_usage"),
    ("reward train x --config bad/broken.yaml", 2, "bad_usage"),
    ("reward train x --config bad/list.yaml", 2, "bad_usage"),
    ("reward score hh@9 bad/bad.jsonl", 1, "not_found"),
    ("reward score base:tiny bad/bad.jsonl", 1, "bad_input"),
    ("reward score hh@1 absent.jsonl", 1, "bad_input"),
    ("reward score hh@1 bad", 1, "bad_input"),
    ("reward score hh@1 bad/no_reply.jsonl", 1, "bad_input"),
    ("reward score hh@1 bad/half_json.jsonl", 1, "bad_input"),
    ("reward score hh@1 bad/surrogate.jsonl", 1, "bad_input"),
    ("reward score hh@1 bad/nan.jsonl", 1, "bad_input"),
    ("reward score hh@1 bad/deep.jsonl", 1, "bad_input"),
    ("reward score hh@1 -", 1, "bad_input"),
    ("reward score hh@1 bad/no_reply.jsonl --dtype int4", 1, "bad_input"),
    ("reward settings extra", 2, "bad_usage"),
    ("adapter list --role king", 2, "bad_usage"),
    ("adapter show hh", 2, "bad_usage"),
    ("adapter show hh@0", 1, "not_found"),
    ("adapter show hh@-1", 1, "not_found"),
    ("adapter show @champion", 2, "bad_usage"),
    ("adapter show HH@1", 1, "not_found"),
    (f"adapter show {LONG}@1", 1, "not_found"),
    ("adapter show hh@99999999999999999999", 1, "not_found"),
    ("adapter show sha256:01234567890", 2, "bad_usage"),
    (f"adapter show sha256:{HEX}", 1, "not_found"),
    ("adapter show réward@1", 1, "not_found"),
    ("adapter show ''", 2, "bad_usage"),
    ("adapter lineage", 2, "bad_usage"),
    ("adapter lineage hh@9", 1, "not_found"),
    ("adapter card hh@9", 1, "not_found"),
    ("adapter card hh@1 --out card.pdf", 2, "bad_usage"),
    ("adapter lineage --snapshot absent", 1, "not_found"),
    ("adapter diff hh@1", 2, "bad_usage"),
    ("adapter diff hh@1 hh@9", 1, "not_found"),
    ("adapter diff base:tiny hh@1", 1, "bad_input"),
    ("adapter verify hh@9", 1, "not_found"),
    ("adapter verify hh", 2, "bad_usage"),
    ("adapter verify hh@1 hh@2", 2, "bad_usage"),
    ("adapter export hh@9 out", 1, "not_found"),
    ("adapter export hh@1 bad", 1, "conflict"),
    ("adapter export base:tiny out", 1, "bad_input"),
    ("adapter import absent", 1, "bad_input"),
    ("adapter import bad", 1, "bad_input"),
    ("adapter import bad/bad.jsonl", 1, "bad_input"),
    ("adapter retire hh@9", 1, "not_found"),
    ("adapter retire hh@2", 1, "conflict"),  # the champion
    ("adapter retire", 2, "bad_usage"),
    ("adapter sign hh@1 --report zz --as evaluator", 2, "bad_usage"),
    (f"adapter sign hh@1 --report {HEX} --as evaluator", 1, "not_found"),
    ("adapter sign hh@1 --as evaluator", 2, "bad_usage"),
    ("alias set hh@champion hh@9 --why x", 1, "not_found"),
    ("alias set hh@champion hh@1", 2, "bad_usage"),
    ("alias set hh@champion hh@1 --why ''", 1, "bad_input"),
    ("alias set hh@champion hh@2 --why again", 1, "conflict"),
    ("alias set hh@champion hh@1 --why x --expect 1", 1, "conflict"),
    ("alias set hh@7 hh@1 --why x", 2, "bad_usage"),
    ("alias set hh@abcdefabcdef hh@1 --why x", 2, "bad_usage"),
    ("alias set hh@latest hh@1 --why x", 2, "bad_usage"),
    (f"adapter sign hh@1 --report {HEX} --as 7", 2, "bad_usage"),
    ("alias set other@champion hh@1 --why x", 1, "bad_input"),
    (f"alias set hh@{LONG} hh@1 --why x", 2, "bad_usage"),
    ("alias rollback hh@absent --why x", 1, "not_found"),
    ("alias rollback hh@champion --to hh@9 --why x", 1, "not_found"),
    ("alias rollback hh@champion", 2, "bad_usage"),
    ("alias history hh@absent", 1, "not_found"),
    ("alias history hh", 2, "bad_usage"),
    ("alias list extra", 2, "bad_usage"),
    ("evaluate hh@1", 2, "bad_usage"),
    ("evaluate --snapshot polite", 2, "bad_usage"),
    ("evaluate hh@9 --snapshot polite", 1, "not_found"),
    ("evaluate base:tiny --snapshot polite", 1, "bad_input"),
    ("evaluate hh@1 hh@1 --snapshot polite", 1, "bad_input"),
    ("evaluate hh@1 --snapshot absent", 1, "not_found"),
    ("evaluate hh@1 --snapshot polite --split dev", 2, "bad_usage"),
    ("evaluate hh@1 --snapshot polite --out bad/bad.jsonl", 1, "bad_input"),
    ("report show zz", 2, "bad_usage"),
    (f"report show {HEX}", 1, "not_found"),
    ("report show", 2, "bad_usage"),
    ("report diff zz zz", 2, "bad_usage"),
    ("run show zz", 1, "not_found"),
    ("run show ''", 1, "bad_input"),
    ("run list extra", 2, "bad_usage"),
    ("people token ''", 1, "bad_input"),
    (f"people token {LONG}", 1, "bad_input"),
    ("people token bob --scope king", 2, "bad_usage"),
    ("people token bob --days 0", 2, "bad_usage"),
    ("people revoke nobody", 1, "not_found"),
    ("people revoke ''", 1, "not_found"),
    ("people revoke", 2, "bad_usage"),
    ("label status --overlap 0", 2, "bad_usage"),
    ("label status extra", 2, "bad_usage"),
    ("web --port 99999", 2, "bad_usage"),
    ("web --port x", 2, "bad_usage"),
    ("web --host no.such.host.invalid", 1, "bad_input"),
]


@pytest.fixture(scope="module")
def untouched(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One copy for every refusal of this file: each must leave it as it was."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "bad").mkdir()
    for name, content in FILES.items():
        (folder / "bad" / name).write_text(content, "utf-8")
    yield copy_of(trained_root, folder / "ws")


@pytest.mark.parametrize(("asked", "status", "code"), REFUSED, ids=[asked[:60] for asked, _, _ in REFUSED])
def test_a_refusal_is_one_line_and_a_fix_and_changes_nothing(
    rlhf: CommandLine, untouched: Path, monkeypatch: pytest.MonkeyPatch, asked: str, status: int, code: str
) -> None:
    refuse, words = rlhf.at(untouched), ["" if word == "''" else word for word in asked.split()]
    monkeypatch.chdir(untouched.parent)
    before, beside = state(untouched), sorted(untouched.parent.glob("*"))
    answer = refuse(*words, "--json")
    assert answer.status == status
    assert answer.error["code"] == code and "Traceback" not in answer.err and "error:" not in answer.err
    for_people = refuse(*words)
    said = for_people.err.splitlines()[-2:]
    assert (for_people.status, for_people.out) == (status, "") and "Traceback" not in for_people.err
    assert said == [f"error: {answer.error['message']}", f"  fix: {answer.error['fix']}"]
    assert state(untouched) == before and sorted(untouched.parent.glob("*")) == beside


def test_every_bad_setting_is_named_at_once_with_the_nearest_key(rlhf: CommandLine) -> None:
    words = ("reward", "train", "x", "--snapshot", "s", "--base", "b", "epochs=abc", "lerning_rate=1")
    answer = rlhf(*words, "--json")
    assert answer.status == 2 and answer.error["code"] == "bad_usage"
    assert all(part in answer.error["message"] for part in ("'epochs' = 'abc'", "'lerning_rate'", "'learning_rate'"))


def test_a_strict_import_refuses_the_file_whole_and_keeps_the_receipt(rlhf: CommandLine, tmp_path: Path) -> None:
    assert rlhf.root is not None
    file = tmp_path / "bad.jsonl"
    file.write_text(FILES["bad.jsonl"], "utf-8")
    before = state(rlhf.root)[0]
    answer = rlhf("feedback", "import", file, "--strict", "--json")
    value = answer.value
    assert answer.status == 1 and set(value["error"]) == {"message", "fix", "code"}
    assert (value["rows"], value["accepted"], value["rejected"]) == (2, 0, 2)
    assert [error["line"] for error in value["errors"]] == [2] and value["errors"][0]["file"] == str(file)
    after = state(rlhf.root)[0]
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {"imports", "rejected_rows", "audit"}, "no pair and no judgement went in"
    for_people = rlhf("feedback", "import", file, "--strict")
    assert (for_people.status, for_people.out) == (1, "") and len(for_people.err.splitlines()) == 2


def test_debug_shows_the_traceback_and_the_answer_stays_the_same(rlhf: CommandLine) -> None:
    plain, debug = rlhf("adapter", "show", "hh@9", "--json"), rlhf("adapter", "show", "hh@9", "--json", "--debug")
    assert plain.out == debug.out and plain.err == "" and "Traceback" in debug.err
