"""The router: one version a request, never the base, and a move is in force when the call that made it returns."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import adapter_folders as made
import pytest
import served
from served import ALIAS, started
from sqlalchemy import event, select

from rlhf import people
from rlhf.errors import BadUsage, NotFound, RlhfError
from rlhf.registry import aliases, resolve, retire
from rlhf.serving import Retired, Route, Router, Unavailable, following, pseudonym, rollouts, tend
from rlhf.serving.table import Table, read_table
from rlhf.store import Workspace
from rlhf.store.tables import effects


@pytest.fixture
def four(workspace: Workspace, tmp_path: Path) -> Workspace:
    return served.with_versions(workspace, tmp_path)


@pytest.fixture
def router(four: Workspace) -> Iterator[Router]:
    made = Router(four, follow=False)
    yield made
    made.close()


@pytest.fixture
def shared(either: Workspace, tmp_path: Path) -> Workspace:
    """A store that two processes share."""
    return served.with_versions(either, tmp_path)


def _answers(router: Router, model: str = "hh") -> str:
    return router.resolve(model).version


def _until(seen: object, wanted: object, within_s: float) -> None:
    end = time.monotonic() + within_s
    while seen() != wanted:  # type: ignore[operator]
        assert time.monotonic() < end, f"still {seen()}"  # type: ignore[operator]
        time.sleep(0.01)


def test_every_spelling_is_one_version(four: Workspace, router: Router) -> None:
    aliases.move(four, "hh@beta", "hh@3", why="x")
    digest = resolve(four, "hh@2").digest
    asked = {"hh": "hh@1", "hh@champion": "hh@1", "hh@beta": "hh@3", "hh@4": "hh@4"}
    asked |= {f"sha256:{digest[:12]}": "hh@2", f"sha256:{digest.upper()}": "hh@2"}
    for model, version in asked.items():
        route = router.resolve(model)
        assert (route.version, route.digest) == (version, resolve(four, version).digest)
        assert route.model_asked == model and route.propensity == 1.0 and route.reason["because"]
    assert router.models() == ["hh@beta", "hh@champion", "hh@1", "hh@2", "hh@3", "hh@4"]


@pytest.mark.parametrize(
    "model", ["hx", "hh@9", "hh@nobody", "sha256:" + "0" * 12, "", "@", "hh@", "hh@1@2", "base:tiny"]
)
def test_what_is_unknown_is_an_error_and_never_the_base(router: Router, model: str) -> None:
    with pytest.raises((NotFound, Unavailable)) as refused:
        router.resolve(model)
    assert refused.value.fix and (refused.value.http_status == 404 or model.startswith("base:"))


def test_a_token_in_the_models_place_is_not_repeated(router: Router, four: Workspace) -> None:
    token = people.issue_token(four, "ada")
    with pytest.raises(NotFound) as refused:
        router.resolve(token)
    assert token not in str(refused.value.as_json()) and "token" in refused.value.message


def test_a_short_digest_is_refused(router: Router) -> None:
    with pytest.raises(BadUsage, match="hex digits"):
        router.resolve("sha256:abc")


def test_the_bare_base_is_answered_only_where_that_is_allowed(workspace: Workspace, tiny_base: object) -> None:
    router = Router(workspace, allow_base=True, follow=False)
    route = router.resolve("base:tiny")
    assert (route.digest, route.version) == (None, "base:tiny") and router.models() == ["base:tiny"]
    with pytest.raises(NotFound):
        router.resolve("base:huge")
    with pytest.raises(NotFound):
        router.resolve("tiny")
    router.close()


def test_retired_and_failed_versions_are_refused(four: Workspace, router: Router) -> None:
    retire(four, "hh@3")
    router.refresh()
    with pytest.raises(Retired, match="hh@3 was retired"):
        router.resolve("hh@3")
    digest = resolve(four, "hh@1").digest
    router.mark_failed(digest, "its probes give other scores")
    for model in ("hh", "hh@1", f"sha256:{digest}"):
        with pytest.raises(Unavailable, match="other scores"):
            router.resolve(model)
    assert refused_route(router, "hh").arm is None
    router.mark_whole(digest)
    assert _answers(router) == "hh@1"


def refused_route(router: Router, model: str, unit: str | None = None) -> Route:
    with pytest.raises(Unavailable) as refused:
        router.resolve(model, unit)
    assert refused.value.route is not None
    return refused.value.route


def test_an_arm_that_cannot_answer_fails_as_that_arm_so_that_its_guard_sees_it(four: Workspace, router: Router) -> None:
    started(four, ramp=[{"share": 100}])
    router.mark_failed(resolve(four, "hh@2").digest, "its files changed")
    route = refused_route(router, "hh", "u")
    row = route.exposure("r1", status="error")
    assert (row.arm, row.status, row.digest) == ("b", "error", resolve(four, "hh@2").digest)


def test_a_rollout_of_which_an_arm_is_retired_serves_nobody_and_is_rolled_back(four: Workspace, router: Router) -> None:
    one = started(four, ramp=[{"share": 100}])
    retire(four, "hh@2")
    router.refresh()
    assert _answers(router) == "hh@1"
    assert [deed.why for deed in tend(four)] == ["its arm b was retired"]
    assert rollouts.status(four, one.id).status == "rolled_back"


def test_a_rollback_costs_the_same_behind_sixty_versions_as_behind_two(
    four: Workspace, router: Router, tmp_path: Path
) -> None:
    said: list[str] = []
    event.listen(four.database.engine, "before_cursor_execute", lambda c, cur, statement, *rest: said.append(statement))

    def statements() -> int:
        said.clear()
        aliases.roll_back(four, ALIAS, why="down")
        return len(said)

    aliases.move(four, ALIAS, "hh@2", why="up")
    few = statements()
    for seed in range(40, 96):
        made.published(four, tmp_path, seed, head=False)
        aliases.move(four, ALIAS, f"hh@{seed - 35}", why="up")
    assert statements() == few and _answers(router) == "hh@59"


def test_a_move_is_in_force_when_its_call_returns(four: Workspace, router: Router) -> None:
    for number in (2, 3, 4):
        aliases.move(four, ALIAS, f"hh@{number}", why="up")
        assert _answers(router) == f"hh@{number}"
    for number in (3, 2, 1):
        aliases.roll_back(four, ALIAS, why="down")
        assert _answers(router) == f"hh@{number}"
    told = [effect for effect in router.effects if effect.how == "told"]
    assert [effect.action for effect in told] == ["set"] * 3 + ["rollback"] * 3
    assert max(effect.seconds for effect in told) < 0.05


def test_no_request_admitted_after_a_rollback_returned_goes_to_the_old_version(four: Workspace, router: Router) -> None:
    """Threads ask without a pause; each notes what had returned before it asked."""
    aliases.move(four, ALIAS, "hh@2", why="up")
    returned, wrong, asked, end = [0], [], [0], threading.Event()
    wanted = {0: "hh@2", 1: "hh@1"}

    def ask() -> None:
        while not end.is_set():
            before = returned[0]
            version = _answers(router)
            if returned[0] == before and version != wanted[before % 2]:
                wrong.append((before, version))
            asked[0] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, 21):
        # A request that sees the new version before the call returned is early, not wrong: between, nothing is noted.
        returned[0] = -1
        if turn % 2:
            aliases.roll_back(four, ALIAS, why="down")
        else:
            aliases.move(four, ALIAS, "hh@2", why="up")
        assert _answers(router) == wanted[turn % 2]
        returned[0] = turn
        time.sleep(0.005)
    end.set()
    for thread in threads:
        thread.join()
    assert [one for one in wrong if one[0] >= 0] == [] and asked[0] > 100


def test_a_slow_read_never_undoes_a_move(four: Workspace, router: Router) -> None:
    with four.read() as connection:
        slow = read_table(connection)
    aliases.move(four, ALIAS, "hh@2", why="up")
    one = started(four, "ab", "hh@3")
    later: Table = router._table.merged(slow)
    assert later.pointers[ALIAS].seq == 2 and later.rollouts[ALIAS].id == one.id
    with four.read() as connection:
        slow = read_table(connection)
    rollouts.roll_back(four, ALIAS, why="bad")
    assert router._table.merged(slow).rollouts == {}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_read_late_the_router_stands_where_the_store_does(
    four: Workspace, router: Router, seed: int
) -> None:
    """Deeds by chance; reads from before them arrive after them, in any order, some twice."""
    draw, slow = random.Random(seed), list[Table]()
    deeds = (
        lambda: aliases.move(four, ALIAS, f"hh@{draw.randint(1, 4)}", why="x"),
        lambda: aliases.roll_back(four, ALIAS, why="x"),
        lambda: started(four, draw.choice(["ab", "shadow"]), f"hh@{draw.randint(1, 4)}"),
        lambda: started(four, ramp=[{"share": 50}, {"share": 100}]),
        lambda: rollouts.advance(four, ALIAS, why="x"),
        lambda: rollouts.pause(four, ALIAS, why="x"),
        lambda: rollouts.complete(four, ALIAS, arm="b", why="x"),
        lambda: rollouts.roll_back(four, ALIAS, why="x"),
    )
    done = 0
    for _ in range(40):
        if draw.random() < 0.5:
            with four.read() as connection:
                slow.append(read_table(connection))
        with suppress(RlhfError):
            draw.choice(deeds)()
            done += 1
        for late in draw.sample(slow, min(len(slow), 2)):
            router._table = router._table.merged(late)
        with four.read() as connection:
            there = read_table(connection)
        assert router._table.pointers == there.pointers
        assert router._table.rollouts == there.rollouts
        assert set(router._table.plans) == {alias for alias, one in there.rollouts.items() if one.serves}
    assert done > 8


def test_a_running_rollout_splits_by_unit_and_says_why(four: Workspace, router: Router) -> None:
    one = started(four, "ab", "hh@2", arms={"b": {"version": "hh@2", "share": 30}}, toggles={"staff": "b"})
    units = [pseudonym(four, f"user-{n}") for n in range(2000)]
    routes = {unit: router.resolve("hh", unit) for unit in units}
    found = Counter(route.version for route in routes.values())
    assert 480 < found["hh@2"] < 720
    assert all(router.resolve("hh", unit) == routes[unit] for unit in units[:100])
    route = routes[units[0]]
    assert (route.rollout_id, route.rollout_seq, route.alias) == (one.id, 1, ALIAS)
    assert route.propensity in (0.3, 0.7) and route.reason["arm"] == route.arm and "bucket" in route.reason["because"]
    assert router.resolve("hh", units[0], {"cohort": "staff"}).rule == "toggle"
    assert router.resolve("hh@1").rollout_id is None, "who names a version is in no rollout"
    assert {router.resolve("hh").arm for _ in range(200)} == {"control", "b"}, "no unit: each request for itself"


def test_the_audience_leaves_others_on_the_alias(four: Workspace, router: Router) -> None:
    started(four, ramp=[{"share": 100}], audience={"field": "country", "equals": "AT"})
    inside = router.resolve("hh", "u", {"country": "AT"})
    outside = router.resolve("hh", "u", {"country": "DE"})
    assert (inside.version, inside.arm) == ("hh@2", "b")
    assert (outside.version, outside.arm, outside.rollout_id, outside.rule) == ("hh@1", None, None, "audience")


def test_a_shadow_is_computed_beside_and_never_shown(four: Workspace, router: Router) -> None:
    started(four, "shadow", arms={"s": {"version": "hh@2"}, "t": {"version": "hh@3", "share": 10}})
    routes = [router.resolve("hh", f"u{n}") for n in range(1000)]
    assert {route.version for route in routes} == {"hh@1"} and {route.arm for route in routes} == {"control"}
    counts = Counter(shadow.version for route in routes for shadow in route.shadows)
    assert counts["hh@2"] == 1000 and 60 < counts["hh@3"] < 140
    row = routes[0].shadow_exposure(routes[0].shadows[0], "s1", "r1")
    assert (row.arm, row.rule, row.shadow_of, row.digest) == ("s", "shadow", "r1", resolve(four, "hh@2").digest)
    assert resolve(four, "hh@2").digest in router.wanted()


def test_a_rollouts_end_reaches_the_next_request(four: Workspace, router: Router) -> None:
    started(four, ramp=[{"share": 100}])
    assert _answers(router) == "hh@2"
    rollouts.roll_back(four, ALIAS, why="bad")
    assert _answers(router) == "hh@1"
    started(four, ramp=[{"share": 100}])
    rollouts.complete(four, ALIAS, why="good")
    assert _answers(router) == "hh@2" and router.rollouts() == []
    started(four, "ab", "hh@3")
    aliases.roll_back(four, ALIAS, why="all bad")
    assert _answers(router) == "hh@1" and router.rollouts() == []


def test_a_version_that_another_process_just_made_is_found(four: Workspace, router: Router, tmp_path: Path) -> None:
    other = Workspace.open(four.root, actor="other")
    made.published(other, tmp_path, 30, head=False)
    other.close()
    assert _answers(router, "hh@5") == "hh@5"


def test_another_process_s_rollback_is_seen_within_a_second(shared: Workspace) -> None:
    aliases.move(shared, ALIAS, "hh@2", why="up")
    router = Router(shared)
    assert _answers(router) == "hh@2"
    code = (
        "import sys; from rlhf.store import Workspace; from rlhf.registry import aliases;"
        "w = Workspace.open(sys.argv[1], actor='other'); aliases.roll_back(w, 'hh@champion', why='bad')"
    )
    done = subprocess.Popen([sys.executable, "-c", code, str(shared.root)])
    end = time.monotonic() + 30
    while _answers(router) == "hh@2":
        assert time.monotonic() < end
        time.sleep(0.005)
    assert done.wait(30) == 0
    (effect,) = [one for one in router.effects if one.action == "rollback"]
    assert effect.seconds < 1.0
    assert effect.how == "polled" or not shared.database.is_sqlite
    router.close()
    with shared.read() as connection:
        kept = connection.execute(select(effects).where(effects.c.action == "rollback")).one()
    assert (kept.subject, kept.router, kept.seconds) == (ALIAS, router.id, effect.seconds)


def test_postgres_tells_before_anybody_looks(shared: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    if shared.database.is_sqlite:
        pytest.skip("SQLite tells nobody")
    monkeypatch.setattr(following, "_UNTOLD_S", 5.0)
    other, router = Workspace.open(shared.root, actor="other"), Router(shared)
    aliases.move(other, ALIAS, "hh@2", why="up")
    _until(lambda: _answers(router), "hh@2", 10)  # it listens by now, or soon
    _until(lambda: len(router.effects), 1, 10)
    aliases.roll_back(other, ALIAS, why="bad")
    _until(lambda: [one.how for one in router.effects if one.action == "rollback"], ["notified"], 4)
    router.close()
    other.close()


def test_another_process_s_rollout_is_followed_from_start_to_end(shared: Workspace) -> None:
    other = Workspace.open(shared.root, actor="other")
    router = Router(shared)
    started(other, ramp=[{"share": 100}])
    _until(lambda: _answers(router), "hh@2", 2)
    rollouts.roll_back(other, ALIAS, why="bad")
    _until(lambda: _answers(router), "hh@1", 2)
    router.close()
    other.close()
    assert {one.action for one in router.effects} >= {"start", "roll_back"}


def test_rows_that_are_recorded_wake_no_router(four: Workspace) -> None:
    router = Router(four)
    time.sleep(0.2)
    reads: list[str] = []
    assert router._follower is not None
    router._follower._refresh = reads.append
    served.serve(four, router, 20, lambda arm, chance: {})
    time.sleep(0.2)
    assert reads == []
    router.close()
