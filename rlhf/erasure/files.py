"""The words in files: pages, logs, reply logs, tables and exports that lie in the workspace.

A page loses the texts between its tags, JSON its strings, a table its cells, any other text its lines; what held nothing is left as
it is, byte for byte. A file that is none of these and holds the words (a checkpoint, say) is removed. Published weights hold no
text; snapshots are their own room's work.
"""

from __future__ import annotations

import csv
import gzip
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlhf.erasure.words import MARK, Words
from rlhf.ids import new_id
from rlhf.store import Workspace
from rlhf.store.cache import STATES

_DIFFERS = r"</?(?:ins|del)\b[^<>]*>"  # marks of words inside a text (`pages/marked.py`): they must not hide it
_BETWEEN_TAGS = re.compile(rf"(?<=>)(?:[^<>]++|{_DIFFERS})++(?=<)")
_IN_ATTRIBUTE = re.compile(r'(?<==")[^"<>]{12,}(?=")')
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
_WEIGHTS = (".safetensors",)
_PUBLISHED = "reports"


def scrub(workspace: Workspace, words: Words) -> list[str]:
    """Take the words out of every file of the workspace but the database, the bases and the snapshots. Gives the files that held
    some, relative to the workspace."""
    changed = []
    for file in _own_files(workspace):
        if _scrub_in_place(file, words):
            changed.append(file.relative_to(workspace.root).as_posix())
    with workspace.read() as connection:
        published = workspace.artifacts.recorded(connection, _PUBLISHED)
    for path in published:
        if path.endswith(".json"):
            continue  # figures: their digest is signed, and they quote nobody
        raw: bytes = workspace.artifacts.fs.cat_file(f"{workspace.artifacts.root}/{path}")
        made = without(path, raw, words)
        if made is not None:
            with workspace.artifacts.staging() as folder:
                (folder / "made").write_bytes(made)
                workspace.artifacts.rewrite(workspace.database, path, folder / "made")
            changed.append(path)
    return changed


def without(name: str, raw: bytes, words: Words) -> bytes | None:
    """The content without the words; None where it holds none. Raises UnicodeDecodeError for what is no text and no table."""
    if name.endswith(".gz"):
        made = without(name.removesuffix(".gz"), gzip.decompress(raw), words)
        return None if made is None else gzip.compress(made, mtime=0)
    if name.endswith(".parquet"):
        return _table(raw, words)
    text = raw.decode("utf-8")
    made_text = _rewriter(name)(text, words)
    return None if made_text == text else made_text.encode("utf-8")


def _rewriter(name: str) -> Callable[[str, Words], str]:
    if name.endswith((".html", ".svg", ".xml")):
        return _page
    if name.endswith((".json", ".jsonl")):
        return _json
    if name.endswith((".csv", ".tsv")):
        return _csv
    return _lines


def _page(text: str, words: Words) -> str:
    def kept(found: re.Match[str]) -> str:
        said = html.unescape(re.sub(_DIFFERS, "", found.group()))
        return MARK if words.are_in(said) else found.group()

    return _IN_ATTRIBUTE.sub(kept, _BETWEEN_TAGS.sub(kept, text))


def _json(text: str, words: Words) -> str:
    """One value, or one a line; what can't be read as JSON is lines of text."""
    try:
        value = json.loads(text)
    except ValueError:
        return "".join(_json_line(line, words) for line in text.splitlines(keepends=True))
    made = words.without(value)
    return text if made is value else json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def _json_line(line: str, words: Words) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return _lines(line, words)
    made = words.without(value)
    return line if made is value else json.dumps(made, ensure_ascii=False) + "\n"


def _csv(text: str, words: Words) -> str:
    rows = list(csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ","))
    made = [[MARK if words.are_in(cell) else cell for cell in row] for row in rows]
    if made == rows:
        return text
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(made)
    return out.getvalue()


def _lines(text: str, words: Words) -> str:
    return "".join(
        MARK + "\n" if words.are_in(line) or any(words.are_in(part) for part in _quoted(line)) else line
        for line in text.splitlines(keepends=True)
    )


def _quoted(line: str) -> Iterator[str]:
    """What stands in quotes or after a colon: a log's way to show a value."""
    for single, double in _QUOTED.findall(line):
        yield single or double
    if ": " in line:
        yield line.partition(": ")[2]


def _table(raw: bytes, words: Words) -> bytes | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(raw))
    rows: list[dict[str, Any]] = table.to_pylist()
    made = [words.without(row) for row in rows]
    if all(new is old for new, old in zip(made, rows, strict=True)):
        return None
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(made, table.schema), out, compression="zstd")
    return out.getvalue()


def _scrub_in_place(file: Path, words: Words) -> bool:
    try:
        raw = file.read_bytes()
        made = without(file.name, raw, words)
    except FileNotFoundError:
        return False
    except (UnicodeDecodeError, OSError, ValueError):
        if not words.are_in(raw.decode("utf-8", errors="replace")):
            return False
        file.unlink()
        return True
    if made is None:
        return False
    fresh = file.with_name(f"{file.name}.{new_id()}.new")
    fresh.write_bytes(made)
    fresh.replace(file)
    return True


def _own_files(workspace: Workspace) -> Iterator[Path]:
    """Runs, jobs, copies in the cache, and whatever people put into the folder. States of pairs are erased by their owner."""
    root, database = workspace.root, workspace.database
    others = [root / "bases", root / STATES, root / "workspace.yaml"]
    if workspace.artifacts.is_local:
        others.append(Path(workspace.artifacts.root))
    tables = str(database.engine.url.database) if database.is_sqlite else None
    for file in sorted(root.rglob("*")):
        if not file.is_file() or file.is_symlink() or file.suffix in _WEIGHTS:
            continue
        if any(file.is_relative_to(other) for other in others) or (tables and str(file).startswith(tables)):
            continue
        yield file
