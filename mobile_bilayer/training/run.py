"""What every training run has: an end, data by step, averaged weights, a checkpoint, a log."""

from __future__ import annotations

import csv
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.utils.data import DataLoader

from mobile_bilayer.dataset.pairs import PairBatches, Pairs, PreparedClip, to_tensors
from mobile_bilayer.errors import MobileBilayerError


@dataclass
class Budget:
    """How long a run lasts in all its calls together: until `steps` or `minutes` of training are reached."""

    steps: int | None
    minutes: float | None
    step: int = 0
    elapsed_s: float = 0.0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise MobileBilayerError("Training needs an end: give --steps, --minutes or both.")
        if any(end is not None and not end > 0 for end in (self.steps, self.minutes)):
            raise MobileBilayerError(
                f"Training was to end after {self.steps} steps or {self.minutes} minutes; give more than 0."
            )
        self._last = time.monotonic()

    def restart_clock(self) -> None:
        """What passed since the last step was no training: a checkpoint, a sheet."""
        self._last = time.monotonic()

    def count_step(self) -> None:
        now = time.monotonic()
        self.step, self.elapsed_s, self._last = self.step + 1, self.elapsed_s + now - self._last, now

    @property
    def done(self) -> float:
        """0..1, of whichever limit is nearer; a Python float, for the optimizer's state is kept."""
        share = max(
            self.step / self.steps if self.steps else 0.0, self.elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        )
        return min(1.0, share)


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C: the step that is running ends, and can be saved. A second one ends all."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():  # elsewhere Python has no signals
        yield asked
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _ignore_interrupts(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever reads the data ends with the one who trains


def cosine_rate(done: float, step: int, warm_up_steps: int) -> float:
    """Factor of the learning rate: a linear start, then half a cosine down to 1 %."""
    return min(1.0, (step + 1) / warm_up_steps) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def split(clips: list[PreparedClip], held_out: int) -> tuple[list[PreparedClip], list[PreparedClip]]:
    """Training and validation clips, of different people; with few people, validation shows the training clips."""
    people = sorted({clip.identity for clip in clips})
    if not held_out or len(people) < 4 * held_out:
        return clips, clips
    kept = set(people[:: len(people) // held_out][:held_out])
    return [c for c in clips if c.identity not in kept], [c for c in clips if c.identity in kept]


def moving_average(decay: float):
    """For `AveragedModel`: exponential, over a window that grows with the number of steps at first."""

    def update(averaged: list[Tensor], current: list[Tensor], number: Tensor | int) -> None:
        keep = min(decay, (1 + int(number)) / (10 + int(number)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    return update


def batches(data: Pairs, first_step: int, sources: int, workers: int, fabric: Fabric) -> Iterator[dict[str, Tensor]]:
    """This process's part of each step's batch, from `first_step` on, as `to_tensors` gives it."""
    # Spawned, not forked: a fork of a process whose OpenCV or torch threads run can hang.
    loader = DataLoader(
        data,
        batch_sampler=PairBatches(first_step, sources, fabric.global_rank, fabric.world_size),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_interrupts if workers else None,
    )
    try:
        for batch in loader:
            yield to_tensors(fabric.to_device(batch))
    except MobileBilayerError as error:  # out of a worker it comes with the worker's traceback before it
        raise MobileBilayerError(str(error).rsplit("MobileBilayerError: ", 1)[-1].strip()) from error


def read_checkpoint(path: Path, settings: str, device: torch.device) -> dict | None:
    """What `write_checkpoint` wrote; None if there is no file. Its `settings` must be these."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        same = state["settings"] == settings
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, LookupError, TypeError) as error:
        raise MobileBilayerError(
            f"{path} can't be read ({error}). Delete it to begin anew, or choose another --output."
        ) from error
    if not same:
        raise MobileBilayerError(
            f"{path} belongs to a network of another shape, or to other settings. Choose another --output, or the same "
            "settings; begin with its weights by --from."
        )
    return state


def write_checkpoint(path: Path, state: dict) -> None:
    """Aside first: a run that is killed here keeps its last one."""
    aside = path.with_suffix(".part")
    try:
        torch.save(state, aside)
        aside.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own words for a full disk are the second
        aside.unlink(missing_ok=True)
        raise MobileBilayerError(
            f"{path} could not be written ({str(error).splitlines()[0]}). Free some space; the last checkpoint is kept."
        ) from error


class Log:
    """log.csv, a row at each call of `write`; rows from `step` on, of a run that was killed after it, are dropped.

    Holds the folder against other processes for as long as it lives: two of them would write over each other's checkpoints.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        self._lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise MobileBilayerError(f"Another run writes to {folder}. Wait until it ends, or choose another --output.") from None
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(float(row["step"])) <= step]
            self._write(rows)

    def _write(self, rows: list[dict]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        aside = self.path.with_suffix(".part")
        with aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        aside.replace(self.path)

    def write(self, row: dict[str, float | int]) -> None:
        """`row` has `step`; new columns are added, what a row lacks stays empty."""
        rows: list[dict] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                if set(row) <= set(columns):
                    with self.path.open("a", newline="") as end:
                        csv.DictWriter(end, columns).writerow(row)
                    return
                rows = list(reader)
        self._write([*rows, row])


def run_steps(
    budget: Budget,
    log: Log,
    losses: Sequence[str],
    take_step: Callable[[float], dict[str, Tensor]],
    save: Callable[[], dict[str, float]],
    save_every_s: float,
) -> None:
    """Take steps until the budget is spent or Ctrl-C was pressed, with a bar, and save now and then and at the end.

    losses     names of the terms, whose means over the last 100 steps go to the log
    take_step  is given what share of the run is done; returns the step's terms
    save       writes all there is; returns what was measured. Before the first step, too: what training begins with

    Raises KeyboardInterrupt after saving if it was asked for.
    """
    means, first_step = {f"loss_{name}": 0.0 for name in losses}, budget.step  # of this call's steps
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeElapsedColumn())
    with Progress(*columns) as bar, interrupts() as asked:

        def save_and_say() -> None:
            metrics = save()
            row = {k: round(v, 5) for k, v in (means | metrics).items()}
            log.write({"step": budget.step, "minutes": round(budget.elapsed_s / 60, 2)} | row)
            bar.console.print(f"step {budget.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))

        task = bar.add_task("Training", total=1.0, completed=budget.done)
        if budget.step == 0:
            save_and_say()
        saved_s = budget.elapsed_s
        budget.restart_clock()
        while (done := budget.done) < 1 and not asked:
            terms = take_step(done)
            budget.count_step()
            for name, value in terms.items():
                count = min(budget.step - first_step, 100)
                means[f"loss_{name}"] += (float(value.detach()) - means[f"loss_{name}"]) / count
            bar.update(task, completed=budget.done, description=f"Step {budget.step}, loss {sum(means.values()):.3f}")
            if budget.elapsed_s - saved_s > save_every_s:
                save_and_say()
                saved_s = budget.elapsed_s
                budget.restart_clock()
        save_and_say()
    if asked:
        raise KeyboardInterrupt
