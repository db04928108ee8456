"""Labeling speed: real crowd votes replayed over HTTP by many labelers at once; each acknowledged vote must be there, once.

    .venv/bin/python scripts/bench_label.py                convarg's pairs and votes from ../shared/data, 50 labelers, 3,000 votes
    .venv/bin/python scripts/bench_label.py --sync normal  acknowledged = survives a crash of the process, not of the power

`rlhf web` is started as people start it, on a workspace of its own, and every labeler is a client with one connection: fetch a
pair, answer it as one of convarg's people did (by the two texts), get the next pair with the acknowledgement, and so on. First
without a pause for thought: `ours` is votes a second that were acknowledged. Then at a pace, a vote a second from each:
`p95_s` is the time from sending a vote to having the next pair then, `saturated_p95_s` without a pause, where everybody waits for
everybody. `lost`: acknowledged votes that the database doesn't hold; `doubled`: votes that it holds twice, or pairs over their
overlap. The clients run on the same cores as the server. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
DATA = PROJECT.parent / "shared" / "data"
Texts = frozenset[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelers", type=int, default=50)
    parser.add_argument("--votes", type=int, default=3000, help="votes after which everybody stops")
    parser.add_argument(
        "--paced-votes", type=int, default=1500, help="votes after that, a second apart for each labeler"
    )
    parser.add_argument("--overlap", type=int, default=3, help="people wanted a pair")
    parser.add_argument("--sync", choices=("full", "normal"), default="full", help="what an acknowledgement survives")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(words, Path(folder))))


def measured(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rlhf import feedback, people
    from rlhf.store import Workspace

    workspace = Workspace.create(folder / "workspace", actor="bench")
    pairs, votes = convarg()
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs), "utf-8")
    feedback.import_files(workspace, [file], source="convarg")
    names = [f"labeler-{i}" for i in range(words.labelers)]
    tokens = [people.issue_token(workspace, name) for name in names]
    guideline, consent = people.current_texts(workspace)
    for name in names:
        people.agree(workspace, name, guideline.digest, consent.digest)
    saturated, paced = Tally(words.votes), Tally(words.paced_votes, pause_s=1.0)
    with served(workspace.root, words.overlap, words.sync) as port:
        for tally in (saturated, paced):
            begin = time.perf_counter()
            asyncio.run(all_of(port, tokens, votes, tally))
            tally.seconds = time.perf_counter() - begin
    lost, doubled = checked(workspace, saturated.acknowledged | paced.acknowledged, words.overlap)
    return {
        "name": "labeling",
        "ours": round(len(saturated.acknowledged) / saturated.seconds, 1),
        "peer": None,
        "ratio": None,
        "unit": "votes/s acknowledged and durable",
        "survives": "power loss" if words.sync == "full" else "process loss",
        "p95_s": paced.wait_s(0.95),
        "median_s": paced.wait_s(0.5),
        "at_votes_per_s": round(len(paced.acknowledged) / paced.seconds, 1),
        "saturated_p95_s": saturated.wait_s(0.95),
        "lost": lost,
        "doubled": doubled,
        "votes": len(saturated.acknowledged) + len(paced.acknowledged),
        "labelers": words.labelers,
        "pairs": len(pairs),
        "overlap": words.overlap,
        "refused": saturated.refused + paced.refused,
    }


def convarg() -> tuple[list[dict[str, Any]], dict[Texts, list[str]]]:
    """Rows to import, and by a pair's two texts the text that each of its people chose, "" for a tie."""
    with gzip.open(DATA / "convarg_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        known = {row["pair_id"]: row for row in map(json.loads, lines)}
    said: dict[Texts, list[str]] = defaultdict(list)
    with gzip.open(DATA / "convarg_votes.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        for vote in csv.DictReader(lines):
            row = known.get(vote["pair_id"])
            if row is not None:
                said[frozenset((row["a"], row["b"]))].append(row.get(vote["vote"], ""))
    rows = [
        {"prompt": f"{row['title']} ({pair_id})", "reply_a": row["a"], "reply_b": row["b"]}
        for pair_id, row in known.items()
    ]
    return [row for row in rows if frozenset((row["reply_a"], row["reply_b"])) in said], said


@dataclass
class Tally:
    """What the labelers saw. acknowledged: judgement ids, by lease; waits: seconds from a vote to the next pair."""

    wanted: int
    pause_s: float = 0.0
    begun: int = 0
    seconds: float = 0.0
    acknowledged: dict[str, str] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    refused: int = 0

    def wait_s(self, share: float) -> float:
        """This quantile of the waits."""
        return round(sorted(self.waits)[int(share * (len(self.waits) - 1))], 4)


@contextmanager
def served(root: Path, overlap: int, sync: str) -> Iterator[int]:
    command = [sys.executable, "-m", "rlhf.cli", "web", "--port", "0", "--json", "--workspace", str(root)]
    process = subprocess.Popen(
        [*command, "--overlap", str(overlap)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RLHF_SQLITE_SYNC": sync},
    )
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


async def all_of(port: int, tokens: list[str], votes: dict[Texts, list[str]], tally: Tally) -> None:
    await asyncio.gather(*(labeler(port, token, votes, tally) for token in tokens))


async def labeler(port: int, token: str, votes: dict[Texts, list[str]], tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def call(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """One HTTP/1.1 request on the labeler's connection."""
        sent = json.dumps(body).encode() if body is not None else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        head += f"Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        writer.write(head.encode() + sent)
        status = int((await reader.readline()).split()[1])
        length = 0
        while (line := await reader.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, json.loads(await reader.readexactly(length))

    dice = random.Random(token)
    await asyncio.sleep(tally.pause_s * dice.random())
    task = (await call("GET", "/api/tasks/next"))[1]["task"]
    n_done = 0
    while task is not None and tally.begun < tally.wanted:
        tally.begun += 1
        said = votes.get(
            frozenset((task["left"], task["right"])), [""]
        )  # not there: a text that was masked on its way in
        chosen = said[n_done % len(said)]
        answer = "left" if chosen == task["left"] else "right" if chosen == task["right"] else "tie"
        n_done += 1
        start = time.perf_counter()
        body = {"lease": task["lease"], "answer": answer, "seconds": 9.0, "next": True}
        status, kept = await call("POST", "/api/judgements", body)
        took = time.perf_counter() - start
        if status != 200:
            tally.refused += 1
            break
        tally.waits.append(took)
        tally.acknowledged[task["lease"]] = kept["judgement"]
        task = kept["task"]
        await asyncio.sleep(max(0.0, tally.pause_s * (0.5 + dice.random()) - took))
    writer.close()


def checked(workspace: Any, acknowledged: dict[str, str], overlap: int) -> tuple[int, int]:
    """Acknowledged votes that aren't there, and votes that are there too often."""
    from sqlalchemy import select

    from rlhf.store.tables import judgements

    with workspace.read() as connection:
        rows = connection.execute(select(judgements.c.id, judgements.c.pair_id, judgements.c.labeler)).all()
    kept = {row.id for row in rows}
    lost = sum(judgement not in kept for judgement in acknowledged.values())
    by_hand = Counter((row.pair_id, row.labeler) for row in rows)
    by_pair = Counter(row.pair_id for row in rows)
    doubled = sum(n - 1 for n in by_hand.values()) + sum(max(0, n - overlap) for n in by_pair.values())
    return lost, doubled + len(acknowledged) - len(set(acknowledged.values()))


if __name__ == "__main__":
    main()
