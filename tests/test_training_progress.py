"""What a run leaves while it runs survives a kill: whole lines, once each, and a checkpoint only when it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.training.checkpoints import last_whole_checkpoint, mark_whole
from rlhf.training.progress import MetricsFile, ProgressBar, StopAtSignal, lines_of, rewrite, step_of


def state(step: int, first: bool = True, **more: Any) -> Any:
    return SimpleNamespace(global_step=step, is_world_process_zero=first, epoch=0.5, max_steps=4, **more)


def meter(folder: Path, **more: Any) -> MetricsFile:
    return MetricsFile(folder / "metrics.jsonl", {"loss": "loss", "lr": "learning_rate"}, "pairs", 10, 4, **more)


def step(one: MetricsFile, number: int, **logs: float) -> None:
    one.on_step_begin(None, state(number - 1), None)
    one.on_step_end(None, state(number), None)
    one.on_log(None, state(number), None, logs={"loss": 1.0 / number, **logs})


def test_lines_end_at_newlines_alone_and_a_torn_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert lines_of(path) == []
    path.write_text('{"a": "one\u2028two\x85"}\n{"b": 1}\n{"c": ', "utf-8")
    assert lines_of(path) == ['{"a": "one\u2028two\x85"}', '{"b": 1}']


def test_rewrite_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old\n")
    rewrite(path, ["new", "newer"])
    assert path.read_text() == "new\nnewer\n" and list(tmp_path.iterdir()) == [path]

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        rewrite(path, ["half"])
    assert path.read_text() == "new\nnewer\n"


def test_the_metrics_file_holds_named_figures_of_logged_steps(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.on_train_begin(None, state(0), None)
    step(one, 1, lr=0.1, other=7.0)
    one.on_log(None, state(1), None, logs={"train_runtime": 3.0})
    one.on_log(None, state(1, first=False), None, logs={"loss": 9.0})
    (row,) = one.rows()
    assert (row["step"], row["loss"], row["learning_rate"], row["pairs"]) == (1, 1.0, 0.1, 4)
    assert "other" not in row and row["pairs_per_s"] > 0


def test_an_epoch_s_smaller_last_step_counts_its_pairs(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.on_train_begin(None, state(0), None)
    for number in range(1, 7):
        step(one, number)
    assert [row["pairs"] for row in one.rows()] == [4, 8, 10, 14, 18, 20]


def test_a_resumed_run_drops_later_and_torn_lines_and_counts_on(tmp_path: Path) -> None:
    one = meter(tmp_path)
    one.on_train_begin(None, state(0), None)
    for number in (1, 2, 3):
        step(one, number)
    with open(one.path, "a") as file:
        file.write('{"step": 1, "lo')
    again = meter(tmp_path)
    again.on_train_begin(None, state(2), None)
    assert [row["step"] for row in again.rows()] == [1, 2]
    assert again.items_done == 8 and again.seconds == again.rows()[-1]["seconds"]
    step(again, 3)
    assert [row["pairs"] for row in again.rows()] == [4, 8, 10]


def test_step_of_a_torn_line_is_after_every_step() -> None:
    assert step_of(json.dumps({"step": 3})) == 3
    assert min(step_of("{"), step_of("[]"), step_of("{}"), step_of('{"step": null}')) > 10**9


def test_progress_says_step_of_steps_though_no_terminal_looks(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("policy p", {"loss": "loss"})
    bar.on_train_begin(None, state(1), None)
    bar.on_step_end(None, state(4), None)
    bar.on_log(None, state(4), None, logs={"loss": 0.25})
    bar.on_train_end(None, state(4), None)
    err = capsys.readouterr().err
    assert "policy p" in err and "1/4" in err and "4/4" in err and "loss=0.250" in err


def test_a_signal_asks_for_a_checkpoint_and_a_stop_and_a_second_one_stops_at_once() -> None:
    import os
    import signal

    stop = StopAtSignal()
    before = signal.getsignal(signal.SIGTERM)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        stop.on_step_end(None, state(4), control)
        assert not control.should_save, "the last step ends the training anyhow"
        stop.on_step_end(None, state(2), control)
        assert control.should_save and control.should_training_stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_a_whole_checkpoint_counts_and_the_newest_by_number(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path) is None
    for number in (2, 10, 11):
        folder = tmp_path / f"checkpoint-{number}"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "weights").write_bytes(b"x")
    for number in (2, 10):
        mark_whole(tmp_path / f"checkpoint-{number}")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(bytes(1000) + str(step).encode())
        mark_whole(folder)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    file = tmp_path / "checkpoint-10" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    (tmp_path / "checkpoint-5" / "adapter_model.safetensors").unlink()
    assert last_whole_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-10" / "whole.new").write_text("a kill left this", "utf-8")
    mark_whole(tmp_path / "checkpoint-10")  # the step is written again
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "whole").write_bytes(b"\xff{")
    assert last_whole_checkpoint(tmp_path) is None
