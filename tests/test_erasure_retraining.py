"""By command: what had learnt from an erased pair is queued anew, and the queued words are commands that run."""

from __future__ import annotations

from command_line import CommandLine


def test_erasing_a_pair_by_command_lists_what_learnt_and_queues_its_retraining(rlhf: CommandLine) -> None:
    before = rlhf.json("snapshot", "show", "polite@1")["pairs"]
    pair = rlhf.json("feedback", "list")["pairs"][0]["id"]
    done = rlhf.json("feedback", "erase", "--pair", pair, "--why", "asked", "--retrain")
    assert done["pairs"] == 1 and done["free_pages_erased"] is True
    assert done["snapshots"] == ["polite@1", "polite@2"] and done["versions"] == ["hh@1", "hh@2"]
    assert done["aliases"] == {"hh@champion": "hh@2"}
    jobs = [rlhf.json("run", "show", job)["words"] for job in done["jobs"]]
    assert [words[:2] for words in jobs] == [["snapshot", "cut"], ["reward", "train"]]
    rlhf.json(*jobs[0])
    assert rlhf.json("snapshot", "show", "polite@3")["pairs"] == before - 1
    assert rlhf.json(*jobs[1], "max_steps=1")["version"] == "hh@3"


def test_what_is_asked_wrongly_is_wrong_usage(rlhf: CommandLine) -> None:
    for words in ((), ("--pair", "a" * 12, "--subject", "s"), ("--pair", "a" * 12, "--source", "s")):
        assert rlhf("feedback", "erase", *words, "--json").status == 2
    assert rlhf("feedback", "erase", "--labeler", "nobody-here", "--json").status == 1
