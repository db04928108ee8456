"""A suite's row: a pair with its verdicts, or a prompt alone; its strata and tags; its digest; its line in a shard, and back.

The digest covers the pair's id (and so its text), the judgements, the strata, the style cells, and where there are any the tags
and the template: no time, place or number. A snapshot's columns of the same names hold the same, so that an erasure goes through
both alike. Shards from before tags lack two columns, and read as rows without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf.errors import Damaged
from rlhf.ids import digest_of
from rlhf.records import Judgement, Message, Pair
from rlhf.snapshots.rows import as_text, judgements_of, judgements_text, read_columns, write_records

_COLUMNS = (
    "pair_id", "group", "prompt", "reply_a", "reply_b", "judgements", "sources", "strata", "styles", "subject", "row_digest",
    "tags", "template",
)  # fmt: skip
_SINCE_TAGS = {"tags": "{}", "template": ""}
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in _COLUMNS])


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """strata: what it is counted under, sorted. styles: cells `chosen>rejected` of a style matrix, by number. subject: the person
    whose words the prompt holds, '' = unknown; not in the digest. tags: (attribute, value), sorted. template: of a counterfactual
    row `attribute/template/number`, where rows that differ in the swap alone have the same; else ''. A prompt alone has two empty
    replies."""

    pair: Pair
    judgements: tuple[Judgement, ...]
    sources: tuple[str, ...]
    strata: tuple[str, ...]
    styles: tuple[str, ...]
    subject: str
    digest: str
    tags: tuple[tuple[str, str], ...] = ()
    template: str = ""

    @property
    def is_prompt(self) -> bool:
        return is_prompt(self.pair)


def is_prompt(pair: Pair) -> bool:
    return not pair.reply_a and not pair.reply_b


def row_of(
    pair: Pair,
    judgements: Iterable[Judgement],
    *,
    sources: Iterable[str] = (),
    strata: Iterable[str] = (),
    styles: Iterable[str] = (),
    subject: str = "",
    tags: Iterable[tuple[str, str]] = (),
    template: str = "",
) -> SuiteRow:
    """The row with its digest; everything in it in order, each judgement once."""
    named = tuple(sorted(tags))
    own = {judgement.digest: judgement for judgement in judgements}
    digests = sorted(own)
    origins, counted, cells = (tuple(sorted(set(values))) for values in (sources, strata, styles))
    content = {
        "pair": pair.id,
        "judgements": digests,
        "sources": list(origins),
        "strata": list(counted),
        "styles": list(cells),
        **({"tags": dict(named)} if named else {}),
        **({"template": template} if template else {}),
    }
    said = tuple(own[d] for d in digests)
    return SuiteRow(pair, said, origins, counted, cells, subject, digest_of(content), named, template)


def write_shards(folder: Path, rows: Iterable[SuiteRow]) -> list[str]:
    """Write the rows; returns the files' names."""
    return write_records(folder, map(_record, rows), SCHEMA)


def read_rows(shards: Sequence[Path]) -> Iterator[SuiteRow]:
    """The rows in order of pair id, each rebuilt from its text and checked. Raises Damaged naming the shard."""
    for shard in shards:
        columns = [name for name in _COLUMNS if name in _names(shard) or name not in _SINCE_TAGS]
        for values in read_columns([shard], columns):
            yield _checked_row({**_SINCE_TAGS, **dict(zip(columns, values, strict=True))}, shard)


def _names(shard: Path) -> set[str]:
    try:
        return set(pq.read_schema(shard).names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(shard, f"can't be read: {error}") from None


def _record(row: SuiteRow) -> dict[str, str]:
    return {
        "pair_id": row.pair.id,
        "group": row.pair.group,
        "prompt": as_text([message.as_json() for message in row.pair.prompt]),
        "reply_a": row.pair.reply_a,
        "reply_b": row.pair.reply_b,
        "judgements": judgements_text(row.judgements),
        "sources": as_text(list(row.sources)),
        "strata": as_text(list(row.strata)),
        "styles": as_text(list(row.styles)),
        "subject": row.subject,
        "row_digest": row.digest,
        "tags": as_text(dict(row.tags)),
        "template": row.template,
    }


def _checked_row(record: Mapping[str, Any], shard: Path) -> SuiteRow:
    try:
        pair = Pair.of([Message(**m) for m in json.loads(record["prompt"])], record["reply_a"], record["reply_b"])
        lists = {name: json.loads(record[name]) for name in ("sources", "strata", "styles")}
        row = row_of(
            pair,
            judgements_of(record["judgements"], pair.id),
            subject=record["subject"],
            tags=json.loads(record["tags"]).items(),
            template=record["template"],
            **lists,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(shard, f"has an unreadable row {record['pair_id']}: {error}") from None
    if row.digest != record["row_digest"] or pair.id != record["pair_id"] or pair.group != record["group"]:
        raise _damaged(shard, f"has a row whose text doesn't give its digest: pair {record['pair_id']}")
    return row


def _damaged(shard: Path, what: str) -> Damaged:
    return Damaged(f"{shard.name} {what}", fix="restore the suite's folder from a backup, or import it again")
