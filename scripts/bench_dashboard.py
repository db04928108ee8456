"""Seconds until the dashboard has its figures, over a million replies; beside it the same figures by reading the replies.

    .venv/bin/python scripts/bench_dashboard.py [--replies 1000000]

Replies evenly over 30 days, four versions behind two aliases, three cohorts, a thumb for each tenth, written as a server writes
them. Asked: the page and its figures, through the application with its guard, for every window, by version and audience; the
slowest window counts, at the median of five. The peer is one query that groups the replies themselves by day, alias, version and
cohort, without latencies' quantiles. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

WINDOWS = ("hour", "day", "week", "month")
_AT_ONCE = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=1_000_000)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), words.replies)))


def measured(folder: Path, n_replies: int) -> dict[str, Any]:
    """The bench's JSON object."""
    from fastapi.testclient import TestClient

    from rlhf import people
    from rlhf.store import Workspace
    from rlhf.web import create_app

    workspace = Workspace.create(folder / "ws", actor="bench")
    began = time.perf_counter()
    filled(workspace, n_replies)
    write_s = time.perf_counter() - began
    say(f"{n_replies:,} replies written in {write_s:.0f} s")
    people.add(workspace, "op", ["operator"])
    token = people.issue_token(workspace, "op", people.ROLES["operator"])
    app = create_app(workspace)
    client = TestClient(app, base_url="http://127.0.0.1:8765", headers={"Authorization": f"Bearer {token}"})
    seconds = {}
    for window in WINDOWS:
        seconds[window] = median_s(lambda window=window: asked(client, window))
        say(f"{window}: {seconds[window]:.3f} s")
    scan_s = median_s(lambda: scanned(workspace), 3)
    workspace.close()
    dashboard_s = max(seconds.values())
    return {
        "name": "dashboard",
        "ours": round(1 / dashboard_s, 3),
        "peer": round(1 / scan_s, 3),
        "ratio": round(scan_s / dashboard_s, 2),
        "unit": f"loads/s over {n_replies:,} replies",
        "dashboard_s": round(dashboard_s, 4),
        "scan_s": round(scan_s, 3),
        "by_window_s": {window: round(value, 4) for window, value in seconds.items()},
        "replies_per_s_written": round(n_replies / write_s),
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def filled(workspace: Any, n_replies: int) -> None:
    """Replies and thumbs, with their sums, in the recorder's own way."""
    from rlhf.ids import now
    from rlhf.serving import Exposure, Outcome, sums
    from rlhf.serving.exposures import _exposure_row
    from rlhf.store.tables import exposures, outcomes

    chance, end = random.Random(0), now()
    digests = [f"{k:x}" * 64 for k in range(4)]
    for first in range(0, n_replies, _AT_ONCE):
        rows, thumbs = [], []
        for number in range(first, min(first + _AT_ONCE, n_replies)):
            k = chance.randrange(4)
            one = Exposure(
                f"r{number}",
                "m",
                "m",
                digests[k],
                alias=("m@champion", "m@beta")[k % 2],
                rule="alias",
                cohort=(None, "staff", "beta")[number % 3],
                unit=f"{number % 5000:064x}",
                status="error" if chance.random() < 0.01 else "ok",
                latency_s=0.3 * 2 ** chance.gauss(0, 1),
                tokens_out=100,
                refusal=chance.random() < 0.03,
                reward=chance.gauss(0, 1),
                at=(end - timedelta(days=30 * (1 - number / n_replies))).isoformat(timespec="microseconds"),
            )
            rows.append(_exposure_row(one))
            if number % 10 == 0:
                thumbs.append(Outcome(one.request_id, "thumb", "thumb", float(chance.random() < 0.6)))
        with workspace.write() as write:
            write.connection.execute(exposures.insert(), rows)
            sums.add(workspace.database, write.connection, rows)
            with sums.retold(workspace.database, write.connection, (one.request_id for one in thumbs)):
                write.connection.execute(outcomes.insert(), [_row(one) for one in thumbs])


def _row(outcome: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(outcome)


def asked(client: Any, window: str) -> None:
    """The page, and its figures at their finest."""
    for path in ("/dashboard", f"/api/dashboard?window={window}&by=audience"):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text


def scanned(workspace: Any) -> None:
    from sqlalchemy import case, func, select

    from rlhf.store.tables import exposures, outcomes

    e, o = exposures.c, outcomes.c
    thumb = select(func.avg(o.value)).where(o.request_id == e.request_id, o.kind == "thumb").scalar_subquery()
    keys = (func.substr(e.at, 1, 10), e.alias, e.digest, e.cohort)
    means = (func.avg(case((e.status == "error", 1.0), else_=0.0)), func.avg(e.latency_s), func.avg(e.reward))
    with workspace.read() as connection:
        connection.execute(select(*keys, func.count(), *means, func.avg(thumb)).group_by(*keys)).all()


def median_s(call: Any, n: int = 5) -> float:
    seconds = []
    for _ in range(n):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
