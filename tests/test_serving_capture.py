"""What users say comes back to the reply that it is about, and trains nothing before it was sampled and confirmed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from command_line import CommandLine
from fastapi.testclient import TestClient
from serving_made import HELLO, chat, client_of, digest_named, error_of, service_of
from sqlalchemy import select

from rlhf import erasure, labeling, snapshots
from rlhf.errors import BadInput, NotFound
from rlhf.ids import clock_at
from rlhf.serving import confirming, rollouts, unjudged
from rlhf.serving.service import Service
from rlhf.serving.settings import RolloutSettings
from rlhf.store import Workspace
from rlhf.store.tables import comments, exposures, judgements, outcomes, pair_sources, pairs

MINE = [{"role": "user", "content": "My number is +44 20 7946 0958. Call me?"}]
CONSENT = ["train", "evaluate"]


@pytest.fixture
def service(to_serve: Workspace) -> Iterator[Service]:
    with service_of(to_serve) as made:
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(service) as made:
        yield made


def rows(workspace: Workspace, table: Any) -> list[Any]:
    with workspace.read() as connection:
        return list(connection.execute(select(table)))


def asked(client: TestClient, user: str = "ann", model: str = "a", **more: Any) -> str:
    """One served reply's id; its words are kept unless it says otherwise."""
    answer = chat(client, model, user=user, **{"consent": CONSENT, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def two_replies(client: TestClient, user: str = "ann", **more: Any) -> tuple[str, str]:
    """Two different replies of two versions to one prompt."""
    return asked(client, user, "a@1", **more), asked(client, user, "a@3", **more)


def say(client: TestClient, request_id: str, **said: Any) -> list[str]:
    answer = client.post("/v1/feedback", json={"request_id": request_id, **said})
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "quarantined"
    return list(answer.json()["outcomes"])


def test_a_thumb_a_comment_a_number_and_a_choice_are_linked_to_their_replies(
    client: TestClient, to_serve: Workspace
) -> None:
    one, other = two_replies(client)
    say(client, one, thumb="up", comment="write to bob@example.com")
    say(client, one, metric={"name": "seconds_read", "value": 12.5})
    say(client, other, comment="too short")
    say(client, one, over=other)
    found = {(row.request_id, row.kind, row.name): row for row in rows(to_serve, outcomes)}
    assert found[one, "thumb", "thumb"].value == 1.0
    assert found[one, "thumb", "thumb"].note == "write to <EMAIL>"
    assert found[one, "metric", "seconds_read"].value == 12.5
    assert found[other, "comment", "comment"].note == "too short"
    assert (found[one, "choice", other].value, found[other, "choice", one].value) == (1.0, 0.0)
    units = {row.unit for row in rows(to_serve, exposures)}
    assert {row.unit for row in found.values()} == units and len(units) == 1
    assert {row.state for row in found.values()} == {"quarantined"}


def test_words_are_kept_where_consent_says_so_and_masked(client: TestClient, to_serve: Workspace) -> None:
    kept, left = asked(client, messages=MINE), asked(client, messages=MINE, consent="none")
    found = {row.request_id: row for row in rows(to_serve, exposures)}
    assert json.loads(found[kept].prompt) == [{"role": "user", "content": "My number is <PHONE>. Call me?"}]
    assert found[kept].reply and found[kept].consent == "evaluate,train"
    assert (found[left].prompt, found[left].reply, found[left].consent) == (None, None, "")
    assert "7946" not in str(rows(to_serve, exposures))


def test_the_same_again_changes_nothing_and_another_word_takes_its_place(
    client: TestClient, to_serve: Workspace
) -> None:
    one = asked(client)
    first = say(client, one, thumb="up")
    assert say(client, one, thumb="up") == first
    second = say(client, one, thumb="down")
    states = {row.id: (row.value, row.state) for row in rows(to_serve, outcomes)}
    assert states == {first[0]: (1.0, "refused"), second[0]: (0.0, "quarantined")}


def test_a_user_is_heard_so_often_a_day_and_another_one_still(to_serve: Workspace) -> None:
    with service_of(to_serve, votes_per_unit=3) as service, client_of(service) as client:
        own = [asked(client, "loud") for _ in range(5)]
        for one in own[:3]:
            say(client, one, thumb="up")
        answer = client.post("/v1/feedback", json={"request_id": own[3], "thumb": "up"})
        error_of(answer, 429, "too_often")
        say(client, asked(client, "calm"), thumb="down")
        import time

        with clock_at(time.time() + 86_500):
            say(client, own[4], thumb="up")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"thumb": "sideways"},
        {"thumb": "up", "metric": {"name": "x", "value": 1}},
        {"metric": {"name": "X y", "value": 1}},
        {"metric": {"name": "x", "value": "many"}},
        {"metric": {"name": "reward", "value": -1e300}},
        {"metric": {"name": "latency", "value": 0.1}},
        {"comment": "  "},
        {"comment": "a\x00b"},
        {"reward": 5},
    ],
)
def test_feedback_that_says_nothing_or_two_things_is_refused(client: TestClient, said: dict[str, Any]) -> None:
    error_of(client.post("/v1/feedback", json={"request_id": asked(client), **said}), 400, "invalid_value")


def test_feedback_on_what_was_not_served_is_refused(client: TestClient, to_serve: Workspace) -> None:
    one = asked(client)
    error_of(client.post("/v1/feedback", json={"request_id": "0" * 26, "thumb": "up"}), 404, "not_found")
    error_of(client.post("/v1/feedback", json={"request_id": one, "over": one}), 400, "invalid_value")
    error_of(client.post("/v1/feedback", json={"request_id": one, "over": "0" * 26}), 404, "not_found")
    elsewhere = asked(client, messages=MINE)
    error_of(client.post("/v1/feedback", json={"request_id": one, "over": elsewhere}), 400, "bad_input")
    of_bob = asked(client, "bob")
    error_of(client.post("/v1/feedback", json={"request_id": one, "over": of_bob}), 400, "bad_input")
    assert rows(to_serve, outcomes) == []


def test_nothing_of_a_served_vote_trains_before_it_is_confirmed(client: TestClient, to_serve: Workspace) -> None:
    better, worse = two_replies(client)
    say(client, better, over=worse)
    say(client, worse, thumb="down")
    assert confirming.list_votes(to_serve, "sampled") == []
    drawn = confirming.sample(to_serve, 10)
    assert {vote.kind for vote in drawn} == {"thumb", "choice"}
    assert rows(to_serve, pairs) == rows(to_serve, judgements) == rows(to_serve, comments) == []
    with pytest.raises(BadInput):
        snapshots.cut(to_serve, "served")

    done = confirming.confirm(to_serve, [vote.id for vote in drawn])
    assert (done.accepted, done.rejected, done.pairs) == (2, {}, 1)
    (pair,) = rows(to_serve, pairs)
    (judgement,) = rows(to_serve, judgements)
    (comment,) = rows(to_serve, comments)
    found = {row.request_id: row for row in rows(to_serve, exposures)}
    liked = found[better].reply
    assert (judgement.kind, judgement.source, comment.kind) == ("served", "served", "served")
    assert judgement.labeler.startswith("user-") and judgement.consent == "evaluate,train"
    assert (pair.reply_a if judgement.choice == "a" else pair.reply_b) == liked
    assert found[better].served_pair_id == found[worse].served_pair_id == pair.id
    assert {row.state for row in rows(to_serve, outcomes)} == {"confirmed"}
    assert snapshots.cut(to_serve, "served").n_pairs == 1
    with pytest.raises(NotFound):
        confirming.confirm(to_serve, [drawn[0].id])


def test_refused_votes_stay_out(client: TestClient, to_serve: Workspace) -> None:
    better, worse = two_replies(client)
    say(client, better, over=worse)
    (vote,) = confirming.sample(to_serve, 10)
    with pytest.raises(BadInput):
        confirming.refuse(to_serve, [vote.id], why=" ")
    assert confirming.refuse(to_serve, [vote.id], why="a bot") == 1
    assert confirming.sample(to_serve, 10) == []
    assert {row.state for row in rows(to_serve, outcomes)} == {"refused"}
    assert rows(to_serve, pairs) == []


def test_who_votes_a_lot_weighs_no_more(client: TestClient, to_serve: Workspace) -> None:
    for i in range(6):
        say(client, asked(client, "loud", messages=[{"role": "user", "content": f"Say {i}"}]), thumb="up")
    say(client, asked(client, "calm"), thumb="down")
    drawn = confirming.sample(to_serve, 100, per_unit=2)
    assert len(drawn) == 3 and sum(not vote.liked for vote in drawn) == 1
    assert confirming.sample(to_serve, 100, per_unit=2) == [], "nor on another day"


def test_votes_without_consent_are_counted_and_never_sampled(client: TestClient, to_serve: Workspace) -> None:
    say(client, asked(client, consent="none"), thumb="up")
    say(client, asked(client, consent="publish"), thumb="up")
    assert [vote.consent for vote in confirming.sample(to_serve, 10)] == [("publish",)]


def test_what_one_reply_lacks_consent_for_the_pair_lacks(client: TestClient, to_serve: Workspace) -> None:
    one, other = (
        asked(client, model="a@1", consent=["train", "evaluate"]),
        asked(client, model="a@3", consent="evaluate"),
    )
    say(client, one, over=other)
    (vote,) = confirming.sample(to_serve, 10)
    assert vote.consent == ("evaluate",)
    confirming.confirm(to_serve, [vote.id])
    assert [row.consent for row in rows(to_serve, judgements)] == ["evaluate"]


def test_served_replies_become_pairs_for_the_labelers(client: TestClient, to_serve: Workspace) -> None:
    two_replies(client)
    asked(client, "bob", messages=MINE)
    assert unjudged.to_label(to_serve) == 1
    assert unjudged.to_label(to_serve) == 0, "each reply once"
    assert rows(to_serve, judgements) == []
    assert labeling.progress(to_serve, "ada", overlap=1).n_left == 1
    assert [row.source for row in rows(to_serve, pair_sources)] == ["served"]


def test_a_shadow_is_recorded_shown_to_nobody_and_makes_a_pair(
    client: TestClient, service: Service, to_serve: Workspace
) -> None:
    settings = RolloutSettings(kind="shadow", arms={"old": {"version": "a@1"}})
    rollouts.start(to_serve, "a@champion", settings, why="compare")
    answer = chat(client, user="ann", consent=CONSENT)
    assert answer.json()["model"] == "a@3"
    import time

    ends = time.monotonic() + 10
    while len(found := {row.request_id: row for row in rows(to_serve, exposures)}) < 2:
        assert time.monotonic() < ends
        time.sleep(0.01)
    shadow = next(row for row in found.values() if row.shadow_of)
    assert shadow.shadow_of == answer.json()["id"] and shadow.status == "ok"
    assert shadow.digest == digest_named(to_serve, "a@1")
    assert shadow.reply == chat(client, "a@1").json()["choices"][0]["message"]["content"]
    error_of(client.post("/v1/feedback", json={"request_id": shadow.request_id, "thumb": "up"}), 404, "not_found")
    assert unjudged.to_label(to_serve) == 1


def test_the_commands_take_votes_from_quarantine_to_judgement(
    client: TestClient, to_serve: Workspace, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlhf = CommandLine(to_serve.root, capsys, monkeypatch)
    for user in ("ann", "bob"):
        better, worse = two_replies(client, user, messages=[{"role": "user", "content": f"I am {user}"}])
        say(client, better, over=worse)
    assert rlhf.json("served", "list")["votes"] == []
    assert rlhf("served", "list").out.strip() == "none sampled; 2 wait: rlhf served sample"
    assert len(rlhf.json("served", "list", "--state", "quarantined")["votes"]) == 2
    drawn = rlhf.json("served", "sample", "--n", 5)["votes"]
    assert "better than another" in rlhf("served", "list").out
    assert rlhf.json("served", "confirm", drawn[0]["id"])["accepted"] == 1
    assert rlhf.json("served", "refuse", drawn[1]["id"], "--why", "a bot") == {"refused": 1}
    assert rlhf("served", "confirm", "nobody", "--json").error["code"] == "not_found"
    two_replies(client, "cy", messages=HELLO)
    assert rlhf.json("served", "label")["pairs"] >= 1


def test_a_user_who_is_forgotten_leaves_no_word(
    client: TestClient, to_serve: Workspace, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlhf = CommandLine(to_serve.root, capsys, monkeypatch)
    secret = "The lighthouse keeper of Skagen collects blue glass bottles"
    better, worse = two_replies(client, "ann", messages=[{"role": "user", "content": secret}])
    say(client, better, over=worse)
    say(client, worse, thumb="down", comment="nothing about the bottles of Skagen")
    kept = asked(client, "bob")
    confirming.confirm(to_serve, [vote.id for vote in confirming.sample(to_serve, 10)])
    snapshots.cut(to_serve, "served")
    asked(client, "ann", messages=[{"role": "user", "content": secret + ", and green ones"}])

    done = rlhf.json("served", "forget", "ann", "--why", "asked")
    assert done["labeler"]["served"] == 3 and done["subject"]["pairs"] == 1
    for table in (exposures, outcomes, pairs, judgements, comments, pair_sources):
        assert "Skagen" not in str(rows(to_serve, table)), table.name
    found = {row.request_id: row for row in rows(to_serve, exposures)}
    assert found[better].prompt is None and found[better].unit is None and found[better].erased_at
    assert found[kept].prompt and found[kept].unit, "others keep theirs"
    assert rlhf("served", "forget", "nobody", "--json").error["code"] == "not_found"


def test_an_erased_pair_takes_the_served_replies_that_it_came_of(client: TestClient, to_serve: Workspace) -> None:
    better, worse = two_replies(client)
    other = asked(client, "bob", "a@1")  # the same words, said to somebody else
    say(client, better, over=worse)
    confirming.confirm(to_serve, [vote.id for vote in confirming.sample(to_serve, 10)])
    (pair,) = rows(to_serve, pairs)
    done = erasure.erase(to_serve, "pair", pair.id)
    assert done.counts["served"] == 3
    assert {row.prompt for row in rows(to_serve, exposures) if row.request_id in (better, worse, other)} == {None}
