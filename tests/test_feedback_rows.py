"""Records of a file one at a time, each with its number, whatever is wrong with some of them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from rlhf.errors import BadInput
from rlhf.feedback.rows import MAX_RECORD_BYTES, Row, open_input


def rows_of(path: Path, content: bytes) -> list[Row]:
    path.write_bytes(content)
    return list(open_input(str(path)).rows())


def test_json_lines_keep_their_numbers_past_blank_and_bad_lines(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path / "x.jsonl", b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"a":\n[1]\n{"a":1,"a":2}\n\xff{}\n{"a":NaN}\n7\n{"a":2}'
    )
    assert [row.line for row in rows] == [1, 4, 5, 6, 7, 8, 9, 10]
    assert rows[0].record == {"a": 1} and rows[-1].record == {"a": 2}
    reasons = [row.problem for row in rows[1:-1]]
    assert reasons[0].startswith("not JSON") and reasons[1] == "a list, not an object"
    assert reasons[2] == "the key 'a' stands twice in one object" and reasons[3].startswith("not UTF-8")
    kinds = [row.problem for row in rows_of(tmp_path / "kinds.jsonl", b'null\ntrue\n1.5\n"x"\n')]
    assert kinds == [f"{kind}, not an object" for kind in ("null", "true or false", "a number", "text")]
    assert "NaN" in reasons[4] and reasons[5] == "a number, not an object"


def test_deep_nesting_and_huge_numbers_are_bad_rows(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.jsonl", b'{"a":' + b"[" * 100_000 + b"\n" + b'{"a":' + b"9" * 5_000 + b"}\n{}\n")
    assert [bool(row.problem) for row in rows] == [True, True, False]


def test_a_line_over_the_limit_is_one_bad_row_and_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":"' + b"x" * (6 * MAX_RECORD_BYTES) + b'"}\n{"a":2}\n')
    opened = open_input(str(path))
    tracemalloc.start()
    rows = list(opened.rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.line for row in rows] == [1, 2, 3] and "over the limit" in rows[1].problem
    assert peak < 3 * MAX_RECORD_BYTES


def test_a_json_list_gives_items_by_number(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.json", b' [ {"a": "]},{\\""},\n {"a": }, 5, {"b": [1, {"c": 2}]} ]\n')
    assert [(row.line, row.record) for row in rows] == [
        (1, {"a": ']},{"'}),
        (2, None),
        (3, None),
        (4, {"b": [1, {"c": 2}]}),
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_items_are_the_same_however_the_bytes_are_cut(step: int) -> None:
    from rlhf.feedback.json_items import items_of

    items = [{"a": 'x\\"[{,'}, {"b": [[], {}], "c": "é"}, 1, "]", {}]
    raw = json.dumps(items).encode()
    found = list(items_of([raw[i : i + step] for i in range(0, len(raw), step)], 1000))
    assert [json.loads(item) for _, item, problem in found] == items
    assert [number for number, *_ in found] == [1, 2, 3, 4, 5]


def test_an_item_over_the_limit_is_passed_over() -> None:
    from rlhf.feedback.json_items import items_of

    found = list(items_of([b'[{"a":"', b"x" * 50, b'"},', b'{"b":1}]'], 20))
    assert "over the limit" in found[0][2] and found[1][:2] == (2, b'{"b":1}')


def test_a_list_that_is_cut_off_says_what_is_lost(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.json", b'[{"a": 1}, {"a": 2')
    assert rows[0].record == {"a": 1} and (rows[1].line, "isn't closed" in rows[1].problem) == (2, True)


def test_csv_records_keep_the_line_that_they_begin_at(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.csv", b'a,b\n1,"two\nlines"\n\n3,4,5\n6\n\xff,7\n8,9\n')
    assert [(row.line, row.record) for row in rows] == [
        (2, {"a": "1", "b": "two\nlines"}),
        (5, None),
        (6, None),
        (7, None),
        (8, {"a": "8", "b": "9"}),
    ]
    assert rows[1].problem == "3 columns where the header has 2" and rows[3].problem == "not UTF-8"


def test_a_stray_quote_costs_one_row_and_not_the_file(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.csv", b'a,b\n1,"2\n3,4\n5,6\n')
    assert [(row.line, row.record is None) for row in rows] == [(2, True), (3, False), (4, False)]


def test_a_cell_of_ten_megabytes_is_one_bad_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.csv", b"a,b\n1,2\n" + b"x" * 10_000_000 + b",4\n5,6\n")
    assert [(row.line, row.record is None) for row in rows] == [(2, False), (3, True), (4, False)]


def test_semicolons_and_tabs_separate_too(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "x.csv", b"a;b\n1,5;2\n")[0].record == {"a": "1,5", "b": "2"}
    assert rows_of(tmp_path / "y.tsv", b"a\tb\n1\t2\n")[0].record == {"a": "1", "b": "2"}


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two columns named 'a'"):
        rows_of(tmp_path / "x.csv", b"a,a\n1,2\n")


def test_packing_is_told_by_the_first_bytes_and_not_by_the_name(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "packed.jsonl", gzip.compress(b'{"a":1}\n'))[0].record == {"a": 1}
    assert rows_of(tmp_path / "plain.jsonl.gz", b'{"a":1}\n')[0].record == {"a": 1}


def test_packing_is_no_other_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'{"a":1}\n')
    (tmp_path / "b").write_bytes(gzip.compress(b'{"a":1}\n'))
    assert open_input(str(tmp_path / "a")).sha256 == open_input(str(tmp_path / "b")).sha256


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv.gz"])
def test_a_damaged_gzip_gives_what_is_whole_and_one_row_that_says_so(tmp_path: Path, name: str) -> None:
    import random

    draw = random.Random(0)
    lines = (
        [b'{"a":"%d"}' % draw.getrandbits(900) for _ in range(2000)]
        if "jsonl" in name
        else [b"a,b"] + [b"%d,1" % draw.getrandbits(900) for _ in range(2000)]
    )
    packed = gzip.compress(b"\n".join(lines))
    rows = rows_of(tmp_path / name, packed[: len(packed) // 2])
    assert len(rows) > 500 and all(row.record for row in rows[:-1])
    assert "damaged" in rows[-1].problem and rows[-1].line == rows[-2].line + 1


def test_what_is_no_usable_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_text(" \n\n")
    for name, said in (("missing", "no file"), (".", "folder"), ("empty", "is empty"), ("blank", "nothing but space")):
        with pytest.raises(BadInput, match=said):
            open_input(str(tmp_path / name))


def test_a_list_line_among_json_lines_is_a_bad_row_and_no_list(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "x.jsonl", b'[1, 2]\n{"a":1}\n')
    assert [row.record for row in rows] == [None, {"a": 1}]
