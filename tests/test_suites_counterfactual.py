"""Templates become rows that are the same but for the swap; what is wrong with a file is said before anything is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from command_line import CommandLine
from suite_files import bench_row, write

from rlhf import suites
from rlhf.errors import BadInput, BadUsage
from rlhf.store import Workspace
from rlhf.suites import templates
from rlhf.suites.rows import read_rows, row_of

EXAMPLE = Path(__file__).parent.parent / "configs" / "counterfactual" / "gender.yaml"
GOOD: dict[str, Any] = {
    "attribute": "origin",
    "groups": {"here": {"name": ["Ann", "Bea"], "food": "bread"}, "there": {"name": ["Cid", "Dan"], "food": "rice"}},
    "templates": [
        {"id": "one", "prompt": "{name} asks for help", "chosen": "Help {name}, please", "rejected": "No {{never}}"},
        {"prompt": "What is for dinner?", "chosen": "Some {food}", "rejected": "No {food}", "tags": {"topic": "food"}},
        {
            "id": "own",
            "prompt": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Say {word}"}],
            "chosen": "{word}",
            "rejected": "Never",
            "values": {"here": {"word": "hello"}, "there": {"word": "hullo"}},
        },
    ],
}


def file_of(tmp_path: Path, **changed: Any) -> Path:
    file = tmp_path / "t.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changed}), "utf-8")
    return file


def template(**changed: Any) -> list[dict[str, Any]]:
    return [{**GOOD["templates"][0], **changed}, *GOOD["templates"][1:]]


def test_rows_of_one_name_are_the_same_but_for_the_groups_words(workspace: Workspace, tmp_path: Path) -> None:
    made = suites.generate(workspace, "swaps", [file_of(tmp_path)])
    rows = {(row.template, dict(row.tags)["origin"]): row for row in made.suite.pairs()}
    assert set(rows) == {
        (f"origin/{name}", group) for name in ("one/1", "one/2", "2/1", "own/1") for group in ("here", "there")
    }
    first, second = rows["origin/one/2", "here"], rows["origin/one/2", "there"]
    assert (first.pair.prompt[0].content, second.pair.prompt[0].content) == ("Bea asks for help", "Dan asks for help")
    assert {first.pair.reply_a, first.pair.reply_b} == {"Help Bea, please", "No {never}"}
    assert dict(rows["origin/2/1", "there"].tags) == {"origin": "there", "topic": "food"}
    assert rows["origin/own/1", "here"].pair.prompt[1].content == "Say hello"
    assert (made.templates, made.rows, made.groups) == (3, 8, {"origin": ["here", "there"]})
    assert made.suite.manifest["tags"]["origin"] == {"here": 4, "there": 4} and made.suite.entry.held_out
    for row in rows.values():
        (vote,) = row.judgements
        preferred = row.pair.reply_a if vote.choice == "a" else row.pair.reply_b
        assert not preferred.startswith(("No", "Never"))


def test_tags_and_template_are_in_the_digest_and_a_row_without_them_has_the_digest_that_it_had(
    workspace: Workspace, tmp_path: Path
) -> None:
    suite = suites.generate(workspace, "swaps", [file_of(tmp_path)]).suite
    row = next(suite.rows())
    plain = row_of(row.pair, row.judgements, sources=row.sources)
    assert (
        len({row.digest, plain.digest, row_of(row.pair, row.judgements, sources=row.sources, tags=row.tags).digest})
        == 3
    )
    again = suites.generate(workspace, "swaps", [file_of(tmp_path)]).suite
    assert (again.ref, again.digest) == ("swaps@2", suite.digest)


def test_shards_from_before_tags_read_as_rows_without_them(workspace: Workspace, tmp_path: Path) -> None:
    suite = suites.import_files(workspace, "b", [write(tmp_path / "b.jsonl", [bench_row(i) for i in range(3)])]).suite
    (shard,) = suite.shards
    old = tmp_path / "rows-00000.parquet"
    pq.write_table(pq.read_table(shard).drop_columns(["tags", "template"]), old)
    assert list(read_rows([old])) == list(suite.rows())


def test_tags_of_a_file_are_kept_and_what_is_no_tag_is_a_rejected_row(workspace: Workspace, tmp_path: Path) -> None:
    good = [bench_row(1, tags={"dialect": "north", "topic": ""}), bench_row(2, tags='{"dialect": "south"}')]
    bad = [["north"], {"cohort": "x"}, {"a/b": "x"}, {"d": ["x"]}, "{no json"]
    rows = [
        *good,
        *(bench_row(10 + i, tags=tags) for i, tags in enumerate(bad)),
        bench_row(1, tags={"dialect": "east"}),
    ]
    found = suites.import_files(workspace, "b", [write(tmp_path / "b.jsonl", rows)])
    assert found.suite.manifest["tags"] == {"dialect": {"north": 1, "south": 1}}
    assert (found.accepted, found.rejected) == (2, 6)
    for error, said in zip(found.errors, ("a list", "cohort", "a/b", "'d'", "no JSON", "'north'"), strict=True):
        assert said in error.reason, error.reason


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"groups": {"here": GOOD["groups"]["here"]}}, "'groups' has 1; wanted two or more"),
        ({"groups": {**GOOD["groups"], "there": {"food": "rice"}}}, "template one: group there has no word for {name}"),
        (
            {"groups": {**GOOD["groups"], "there": {"name": ["Cid"] * 3, "food": "x"}}},
            "{name} of here 2, {name} of there 3",
        ),
        ({"groups": {**GOOD["groups"], "there": {"name": [], "food": "x"}}}, "has no word for {name}"),
        ({"groups": {**GOOD["groups"], "there": {"name": False, "food": "x"}}}, "wants quotes"),
        ({"groups": {g: {**w, "never": "x"} for g, w in GOOD["groups"].items()}}, "no template has the slot {never}"),
        ({"attribute": "cohort"}, "'attribute' is 'cohort'"),
        ({"templates": []}, "no list of one or more"),
        ({"templates": template(chosen="Help {nmae}")}, "group here has no word for {nmae}"),
        ({"templates": template(prompt="p", chosen="c", rejected="r")}, "nothing to swap"),
        ({"templates": template(chosen=None)}, "wants a prompt, and the texts"),
        ({"templates": template(chosen="{name")}, "a brace that opens no slot"),
        ({"templates": template(chosen="{name.__class__}")}, "is no slot"),
        ({"templates": template(chosen="{name!r:>9}")}, "is no slot"),
        ({"templates": template(chosen="No {{never}}")}, "are the same"),
        ({"templates": template(id="own")}, "has the id 'own', which is taken"),
        ({"templates": template(chosn="x")}, "unknown key 'chosn'"),
        ({"templates": template(tags={"origin": "x"})}, "which is what is swapped"),
        ({"templates": template(values={"elsewhere": {"name": "x"}})}, "names the group elsewhere"),
        ({"groups": {g: {"name": "Ann", "food": "x"} for g in ("a", "b")}}, "reads the same for a and b"),
        (
            {"groups": {**GOOD["groups"], "there": {"name": "Cid", "food": "rice"}}},
            "template one: group there has one word for {name}, and here has 2: there would have the same text 2 times",
        ),
        (
            {"groups": {**GOOD["groups"], "there": {"name": ["Cid", "Cid"], "food": "rice"}}},
            "template one: group there has the same words at places 1 and 2 of its lists",
        ),
        ({"more": 1}, "the key 'more' is unknown"),
    ],
)
def test_what_is_wrong_with_templates_is_said_and_nothing_is_frozen(
    workspace: Workspace, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        suites.generate(workspace, "swaps", [file_of(tmp_path, **changed)])
    assert said in str(refused.value) and not suites.list_suites(workspace)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        attribute="a/b",
        templates=[{"prompt": "p"}, {"id": "x", "prompt": "{y}", "chosen": "", "rejected": ""}],
    )
    with pytest.raises(BadInput) as refused:
        templates.read(file)
    for said in ("'attribute' is 'a/b'", "template 1: it wants a prompt", "template x: group here has no word for {y}"):
        assert said in str(refused.value)


def test_what_the_mask_makes_alike_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    groups = {"here": {"name": "ann@example.org", "food": "x"}, "there": {"name": "cid@example.org", "food": "y"}}
    with pytest.raises(
        BadInput, match=r"origin/one/1 \(there\): it reads as origin/one/1 \(here\) does, once personal"
    ):
        suites.generate(workspace, "swaps", [file_of(tmp_path, groups=groups)])
    assert not suites.list_suites(workspace)


def test_rows_that_are_alike_as_written_are_not_laid_on_the_mask(workspace: Workspace, tmp_path: Path) -> None:
    groups = {"here": {"name": ["Ann", "Bea"], "food": "x"}, "there": {"name": ["Cid", "Ann"], "food": "y"}}
    with pytest.raises(BadInput, match=r"origin/one/2 \(there\): it reads as origin/one/1 \(here\) does$"):
        suites.generate(workspace, "swaps", [file_of(tmp_path, groups=groups)])


def test_files_that_cannot_be_used_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    file = file_of(tmp_path)
    with pytest.raises(BadInput, match="swaps origin, as a file before it does"):
        suites.generate(workspace, "swaps", [file, file])
    with pytest.raises(BadInput, match="no file at"):
        suites.generate(workspace, "swaps", [tmp_path / "none.yaml"])
    with pytest.raises(BadUsage, match="no file of templates"):
        suites.generate(workspace, "swaps", [])
    for text, said in (("[1]", "holds no templates"), ("a: [", "can't be read")):
        file.write_text(text, "utf-8")
        with pytest.raises(BadInput, match=said):
            suites.generate(workspace, "swaps", [file])


def test_the_example_gives_forty_rows_a_group_and_the_command_says_so(rlhf: CommandLine) -> None:
    answer = rlhf.json("suite", "counterfactual", "swaps", EXAMPLE)
    assert (answer["templates"], answer["rows"], answer["pairs"]) == (10, 120, 120)
    assert answer["groups"] == {"gender": ["women", "men", "unsaid"]}
    shown = rlhf("suite", "show", "swaps")
    assert "gender: men" in shown.out and "40" in shown.out
    head = EXAMPLE.read_text("utf-8").splitlines()[0]
    assert head == "# rlhf suite counterfactual swaps configs/counterfactual/gender.yaml"
