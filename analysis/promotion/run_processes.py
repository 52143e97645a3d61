"""Many fresh runs, several at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

import torch

from analysis.promotion.fresh_runs import FreshRun, train_run
from model.errors import DialogueTuneError, ExperimentError
from tuning.experiment import Experiment


def train_runs(
    runs: Sequence[FreshRun], *, workers: int, threads: int, progress: bool = False
) -> None:
    """Trains runs, several at a time, each in a fresh process; those that have ended are kept.

    On Ctrl-C the processes are ended at once; their checkpoints stay.

    Args:
        runs: Which runs; those with a result are passed over.
        workers: How many at a time.
        threads: CPU threads of each, where its configuration does not say.
        progress: Show a bar on standard error.

    Raises:
        ExperimentError: naming every run that failed, when the others have ended.
    """
    waiting = deque(run for run in runs if run.result() is None)
    for run in runs:
        if run not in waiting:
            run.files.remove_checkpoints()  # it was killed before it could do so itself
    crew = _Crew(threads, _Bar(list(waiting), progress))
    try:
        while waiting or crew.members:
            while waiting and len(crew.members) < workers:
                crew.start(waiting.popleft())
            crew.listen()
    finally:
        crew.end()
    if crew.failures:
        told = "\n".join(f"{path}: {reason}" for path, reason in crew.failures.items())
        raise ExperimentError(
            f"{told}\n{runs[0].experiment}: {len(crew.failures)} of {len(runs)} runs failed; the "
            "others are kept: the same command makes these alone."
        )


class _Bar:
    """Iterations done of all that there are to do."""

    def __init__(self, runs: Sequence[FreshRun], shown: bool) -> None:
        from tqdm import tqdm

        self.done = [0] * len(runs)
        self.total = [run.config.training.iterations for run in runs]
        label = f"confirming, {len(runs)} runs"
        self.bar = tqdm(total=sum(self.total), desc=label, unit="it", disable=not (shown and runs))
        self.indices = {id(run): i for i, run in enumerate(runs)}

    def reached(self, run: FreshRun, iteration: int | None = None) -> None:
        """Takes the iteration that a run has reached; None for its end."""
        i = self.indices[id(run)]
        now = self.total[i] if iteration is None else iteration
        self.bar.update(now - self.done[i])
        self.done[i] = now


class _Crew:
    """The processes under way."""

    def __init__(self, threads: int, bar: _Bar) -> None:
        self.context: SpawnContext = multiprocessing.get_context("spawn")
        self.threads = threads
        self.bar = bar
        self.members: dict[Connection, tuple[SpawnProcess, FreshRun]] = {}
        self.failures: dict[Path, str] = {}

    def start(self, run: FreshRun) -> None:
        """Starts a process for a run."""
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=_work, args=(run, self.threads, theirs), daemon=True, name="confirmation"
        )
        with _interrupts_ignored():
            process.start()
        theirs.close()  # or we would never hear that the process has ended
        self.members[ours] = process, run

    def listen(self) -> None:
        """Waits until at least one process says something or ends."""
        for connection in wait(list(self.members)):
            assert isinstance(connection, Connection)
            _, run = self.members[connection]
            try:
                said = connection.recv()
            except (EOFError, OSError):
                self._ended(connection)
                continue
            if isinstance(said, int):
                self.bar.reached(run, said)
            else:
                self._failed(run, str(said))

    def _ended(self, connection: Connection) -> None:
        process, run = self.members.pop(connection)
        connection.close()
        process.join()
        if run.result() is not None:
            self.bar.reached(run)
        else:
            code = process.exitcode or 0
            by = f"by signal {-code}" if code < 0 else f"with status {code}"
            self._failed(run, f"its process ended {by}.")

    def _failed(self, run: FreshRun, reason: str) -> None:
        self.failures.setdefault(run.directory, reason)  # the first is the cause

    def end(self) -> None:
        """Ends every process that is left."""
        self.bar.bar.close()
        for process, _ in self.members.values():
            process.kill()  # there is nothing to clean up: files are written whole or not at all
        for connection, (process, _) in self.members.items():
            process.join()
            connection.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started here is deaf to Ctrl-C from its first instruction: its parent ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change handlers; `_work` does it too, a little later
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _work(run: FreshRun, threads: int, connection: Connection) -> None:
    """The main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(run.config.training.threads or threads)
    try:
        train_run(run, Experiment.open(run.experiment).data(), connection.send)
    except BrokenPipeError:
        return  # the command was killed; who repeats it goes on from our checkpoint
    except Exception as error:
        ours = isinstance(error, DialogueTuneError)
        with suppress(BrokenPipeError):
            connection.send(str(error) if ours else f"{type(error).__name__}: {error}")
