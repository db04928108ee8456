"""What a training run shows and leaves while it runs: a progress bar, `metrics.jsonl`, and a way to stop without loss."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from tqdm import tqdm
from transformers import TrainerCallback

METRICS = "metrics.jsonl"


def _bar(total: int, title: str, unit: str, initial: int = 0) -> Any:
    return tqdm(
        total=total,
        initial=initial,
        desc=title,
        unit=unit,
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
    )


@contextmanager
def counting(title: str, total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of work that is no training step. Gives the function (done, all) that moves it."""
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or _bar(total, title, unit)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


class ProgressBar(TrainerCallback):
    """`step/steps` with the time left on standard error, also when that is no terminal (then a line every ten seconds)."""

    def __init__(self, title: str, shown: Mapping[str, str]) -> None:
        """shown: the Trainer's figure -> the word for it beside the bar."""
        self.title, self.shown = title, shown
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = _bar(state.max_steps, self.title, "step", state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        if self.bar is not None and logs:
            shown = {word: f"{logs[key]:.3f}" for key, word in self.shown.items() if logs.get(key) is not None}
            if shown:
                self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()


class MetricsFile(TrainerCallback):
    """One JSON object a logged step in `metrics.jsonl`; lines after the step resumed from are dropped first.

    named: the Trainer's figure -> its name in the file; the first of them says that a log is a step's. unit: what is counted
    ("pairs"). An epoch of `n_items` may end in a smaller step.
    """

    def __init__(self, path: Path, named: Mapping[str, str], unit: str, n_items: int, items_per_step: int) -> None:
        self.path, self.named, self.unit = path, named, unit
        self.steps_an_epoch = -(-n_items // items_per_step)
        self.n_items, self.items_per_step = n_items, items_per_step
        self.seconds = 0.0
        self.items_done = 0
        self.steps_done = 0
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.path.exists():
            kept = [line for line in lines_of(self.path) if step_of(line) <= state.global_step]
            rewrite(self.path, kept)
            timed = [row for row in map(json.loads, kept) if "seconds" in row]
            if timed:  # a resumed run's speed is over both of its parts
                self.seconds, self.items_done = timed[-1]["seconds"], timed[-1][self.unit]
        self.steps_done = state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds += time.perf_counter() - self.started
        self.steps_done = state.global_step
        is_last_of_epoch = state.global_step % self.steps_an_epoch == 0
        remainder = self.n_items % self.items_per_step
        self.items_done += remainder if is_last_of_epoch and remainder else self.items_per_step

    @property
    def items_per_s(self) -> float:
        return self.items_done / self.seconds if self.seconds else 0.0

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and logs and next(iter(self.named)) in logs:
            figures = {name: logs[key] for key, name in self.named.items() if logs.get(key) is not None}
            speed = {f"{self.unit}_per_s": self.items_per_s, "seconds": self.seconds, self.unit: self.items_done}
            self.append({"step": state.global_step, "epoch": state.epoch, **figures, **speed})

    def rows(self) -> list[dict[str, Any]]:
        """What is in the file so far."""
        return [json.loads(line) for line in lines_of(self.path)]

    def append(self, row: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class StopAtSignal(TrainerCallback):
    """Ctrl-C or SIGTERM: the step under way is finished, a checkpoint is left, the training stops. A second one stops at once."""

    def __init__(self, words: str = "stopping after this step; a checkpoint is kept") -> None:
        """words: what is said at the first signal."""
        self.asked, self.words = False, words

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the two signals while the block runs (in the main thread; elsewhere nothing is caught)."""
        try:
            before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print(f"\n{self.words} (again = at once)", file=sys.stderr, flush=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        processes = PartialState()
        if processes.num_processes > 1:  # the signal reaches them at different steps; they stop at the same one
            asked = torch.tensor([int(self.asked)], device=processes.device)
            self.asked = bool(reduce(asked, "sum").item())
        if self.asked and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True


def lines_of(path: Path) -> list[str]:
    """Lines of a JSONL file; none where it isn't there. Not `splitlines`, which also cuts at U+2028 and its like in a string."""
    return path.read_text("utf-8").split("\n")[:-1] if path.exists() else []


def rewrite(path: Path, lines: Iterable[str]) -> None:
    """Put these lines in the file's place at once: a kill leaves the old file or the new one."""
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(line + "\n" for line in lines), "utf-8")
    os.replace(fresh, path)


def step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the line that a kill cut short
        return sys.maxsize
