"""How many reports a second one driver takes, with 10, 100 and 1,000 trials at once.

    python benchmarks/many_reports.py --json many-reports.json            # about seven minutes
    python benchmarks/many_reports.py --only journal fifo --storage /mnt/runs

Sides, each in a process of its own:

    journal            rows appended to a journal, each flushed to the disk, and nothing else
    fifo, asha, median the coordinator with that scheduler (fifo: none), its journal and the plain
                       view, without Ray: so many trials are live, and report in turn
    ray                a whole search through Ray Tune, with journal, Optuna study and metrics, as
                       on a cluster, but for its workers: 1,000 processes do not fit on this
                       machine, so one process of Ray plays them all, and answers at once what a
                       trial's process would after training. Each trial has a place (a placement
                       group) and a future of its own, and results of the usual size.
    ray-quiet          the same, but each trial reports every 20 s

Columns:

    begun              seconds until all trials have begun, of the sides with Ray: places for all,
                       and the first step asked of each
    reports/s          in the time measured, after that; the driver is the limit, but for ray-quiet
    CPU ms             of all the driver's threads, a report
    wait ms            for the disk, a report: the driver's time in fsync
    cores              that the driver uses: about one is the most, its main thread's
    journal B, study B that the two files grow by with a report
    MB                 the driver's resident set at the end

The disk is that of --storage. What is not in it: a thousand connections to as many processes, and
the network's time, which costs the driver nothing as long as reports of others are there.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.many_trials import resident  # noqa: E402
from benchmarks.played_trials import metrics, played  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    add_output_options,
    environment,
    make_parser,
    run_alone,
    shown,
    write_json,
)
from model.cli import positive, run_main  # noqa: E402
from model.errors import BenchmarkError  # noqa: E402
from tuning.study import STUDY  # noqa: E402

#: Side and scheduler.
SCHEDULERS = {"fifo": "none", "asha": "asha", "median": "median"}
#: Seconds between two reports of a trial.
RAY = {"ray": 0.0, "ray-quiet": 20.0}
SIDES = ("journal", *SCHEDULERS, *RAY)
AT_ONCE = (10, 100, 1000)
SECONDS = 12
#: Reports of a trial; it is to be there until the end.
_REPORTS = 10_000
#: CPUs that a trial holds where Ray has few: it is only to be one of a thousand.
_CPUS = 0.001
_SAMPLE_SECONDS = 0.2
#: A search that takes longer until all trials have begun is given up.
_PATIENCE_SECONDS = 400.0

_SEARCHED = {
    "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2},
    "clip": {"min": 1.0, "max": 100.0},
    "decoder_learning_ratio": {"min": 1.0, "max": 10.0},
    "teacher_forcing_ratio": {"min": 0.0, "max": 1.0},
    "optimizer": {"values": ["adam", "sgd"]},
}
_FIXED = {"corpus": "everyday", "hidden_size": 16, "iterations": _REPORTS, "report_every": 1}


# Measuring: what runs in a side's process


Moment = tuple[float, float, float, int, int]


class Meter:
    """What this process uses, how long its main thread waits for the disk, and what is written.

    Args:
        journal: The directory that grows.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.flushing = 0.0
        self._fsync = os.fsync
        os.fsync = self._timed  # type: ignore[assignment]

    def _timed(self, file: Any) -> None:
        started = time.perf_counter()
        self._fsync(file)
        if threading.current_thread() is threading.main_thread():
            self.flushing += time.perf_counter() - started

    def now(self) -> Moment:
        """Seconds, processor seconds, seconds in fsync, and bytes of the journal and the study."""
        written = sum(file.stat().st_size for file in self.journal.glob("*.jsonl"))
        study = sum(file.stat().st_size for file in self.journal.parent.glob(STUDY))
        return time.perf_counter(), time.process_time(), self.flushing, written, study


def _figures(
    begin: Sequence[float], end: Sequence[float], reports: int, at_once: int
) -> dict[str, Any]:
    wall, used, flushing, written, study = (b - a for a, b in zip(begin, end, strict=True))
    each = max(reports, 1)
    return {
        "at_once": at_once,
        "reports": reports,
        "seconds": wall,
        "reports_a_second": reports / wall,
        "cpu_milliseconds": 1e3 * used / each,
        "flush_milliseconds": 1e3 * flushing / each,
        "cores": used / wall,
        "journal_bytes": written / each,
        "study_bytes": study / each,
        "megabytes": resident() / 1e6,
    }


def append_rows(storage: str, seconds: float) -> dict[str, Any]:
    """Rows appended to a journal, one after another."""
    from tuning.journal import Journal, Row

    with tempfile.TemporaryDirectory(dir=storage) as directory:
        journal = Journal(Path(directory) / "journal")
        meter, number = Meter(journal.directory), 0
        begin = meter.now()
        while time.perf_counter() < begin[0] + seconds:
            number += 1
            figures = metrics(number % 100, number)
            told: dict[str, Any] = {"metrics": figures, "values": [figures["val_loss"]]}
            told |= {"worker": "10.0.0.1:12345", "decision": "continue", "state": "running"}
            journal.append(
                Row(kind="report", trial=number % 100, attempt=1, iteration=number, **told)
            )
        end = meter.now()
        journal.close()
    return _figures(begin, end, number, 1)


def without_ray(scheduler: str, at_once: int, storage: str, seconds: float) -> dict[str, Any]:
    """The coordinator alone; trials that the scheduler stops are followed by others."""
    from rich.console import Console

    from tuning.choices import with_choices
    from tuning.coordinator import Coordinator
    from tuning.journal import Journal
    from tuning.objective import Objective
    from tuning.scheduling import make_scheduler
    from tuning.searchers import make_searcher
    from tuning.view import LiveView

    sweep = with_choices(_sweep(), "random", scheduler)
    with tempfile.TemporaryDirectory(dir=storage) as directory, Path(os.devnull).open("w") as no:
        coordinator = Coordinator(
            make_searcher(sweep, 0),
            make_scheduler(sweep, 0),
            Journal(Path(directory) / "journal"),
            [Objective("val_loss", "minimize")],
            trials=10**9,
        )
        console = Console(file=no)
        view = LiveView(coordinator, "search", concurrency=at_once, searched=[], console=console)
        coordinator.listeners = [view]
        meter = Meter(coordinator.journal.directory)
        reporting = _reports(coordinator, at_once)
        for _ in range(at_once):  # every trial has begun
            next(reporting)
        begin, reports = meter.now(), 0
        while time.perf_counter() < begin[0] + seconds:
            next(reporting)
            reports += 1
        end = meter.now()
        coordinator.journal.close()
    return _figures(begin, end, reports, at_once)


def _reports(coordinator: Any, at_once: int) -> Iterator[None]:
    """Makes one report after another, of live trials in turn."""
    from tuning.scheduling import Decision

    live: dict[int, tuple[int, int]] = {}
    while True:
        for place in range(at_once):
            if place not in live:
                live[place] = coordinator.next_assignment().trial, 0
            trial, number = live[place][0], live[place][1] + 1
            live[place] = trial, number
            worker = f"10.0.0.1:{place}"
            decision = coordinator.report(trial, number, metrics(trial, number), worker=worker)
            if decision is Decision.STOP:
                del live[place]
            yield


def _sweep() -> Any:
    from tuning.sweeps.sweep_file import parse_sweep

    fixed = {name: {"value": value} for name, value in _FIXED.items()}
    return parse_sweep({"method": "random", "parameters": {**fixed, **_SEARCHED}})


# Through Ray Tune


def with_ray(at_once: int, storage: str, seconds: float, every: float) -> dict[str, Any]:
    """A whole search, see the module's description; it is ended when all is measured."""
    import tuning
    from tuning.cluster import connected

    with ExitStack() as stack:
        nothing = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(redirect_stdout(nothing))
        stack.enter_context(redirect_stderr(nothing))
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=storage))
        stack.enter_context(connected(None))
        watch = _Watch(Path(directory) / "search" / "journal", at_once, seconds, every)
        stack.enter_context(played(every, watch.begun.add, watch.count, watch.over.is_set))
        watch.start()
        tuning.run(
            _sweep(),
            name="search",
            trials=at_once,
            concurrency=at_once,
            cpus_per_trial=_CPUS,
            storage=directory,
            wandb="disabled",
            time_budget=10 * _PATIENCE_SECONDS,  # it is over when the watch says so
        )
    return watch.found()


class _Watch(threading.Thread):
    """Measures when all trials have begun, and ends the search then.

    Args:
        journal: The search's.
        at_once: How many there are to be.
        seconds: To be measured, or half as long again as a trial takes for a report.
        every: Seconds between the reports of a trial.
    """

    def __init__(self, journal: Path, at_once: int, seconds: float, every: float) -> None:
        super().__init__(daemon=True)
        self.begun: set[int] = set()
        self.at_once = at_once
        self.settling, self.seconds = max(every, 1.0), max(seconds, 1.5 * every)
        self.meter = Meter(journal)
        self.reports = 0
        self.started = time.monotonic()
        self.over = threading.Event()
        self.taken: list[tuple[Moment, int]] = []

    def count(self) -> None:
        """One more report."""
        self.reports += 1

    def run(self) -> None:
        """Waits, measures, and says that it is over."""
        self._wait(lambda: len(self.begun) >= self.at_once)
        self.begun_seconds = time.monotonic() - self.started
        self._wait(lambda: self.reports >= self.at_once)
        time.sleep(self.settling)
        for wait in (self.seconds, 0.0):
            self.taken.append((self.meter.now(), self.reports))
            time.sleep(wait)
        self.over.set()

    def _wait(self, there: Callable[[], bool]) -> None:
        while not there() and time.monotonic() < self.started + _PATIENCE_SECONDS:
            time.sleep(_SAMPLE_SECONDS)

    def found(self) -> dict[str, Any]:
        """The figures.

        Raises:
            BenchmarkError: where trials have not begun.
        """
        if len(self.begun) < self.at_once or len(self.taken) < 2:
            raise BenchmarkError(f"only {len(self.begun)} of {self.at_once} trials have begun.")
        (begin, before), (end, after) = self.taken
        figures = _figures(begin, end, after - before, self.at_once)
        return figures | {"begun_seconds": self.begun_seconds}


# The benchmark


def measure(
    sides: Sequence[str], at_once: Sequence[int], seconds: float, storage: str
) -> Iterator[dict[str, Any]]:
    """Measures one side after another; gives what each has found."""
    for side in sides:
        for count in (1,) if side == "journal" else at_once:
            print(f"{side}: {count} at once", file=sys.stderr, flush=True)
            where = {"storage": storage, "seconds": seconds}
            if side == "journal":
                found = run_alone(side, append_rows, **where)
            elif side in RAY:
                found = run_alone(side, with_ray, at_once=count, every=RAY[side], **where)
            else:
                found = run_alone(
                    side, without_ray, scheduler=SCHEDULERS[side], at_once=count, **where
                )
            yield {"side": side, **found}


def report(results: Mapping[str, Any], markdown: bool = False) -> str:
    """The results as a table."""
    rows = [
        (
            found["side"],
            found["at_once"],
            f"{found['begun_seconds']:.1f}" if "begun_seconds" in found else "",
            f"{found['reports_a_second']:.0f}",
            f"{found['cpu_milliseconds']:.2f}",
            f"{found['flush_milliseconds']:.2f}",
            f"{found['cores']:.2f}",
            f"{found['journal_bytes']:.0f}",
            f"{found['study_bytes']:.0f}",
            f"{found['megabytes']:.0f}",
        )
        for found in results["sides"]
    ]
    headers = ["side", "at once", "begun", "reports/s", "CPU ms", "wait ms", "cores"]
    headers += ["journal B", "study B", "MB"]
    return shown(rows, headers, markdown)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--at-once", type=positive, nargs="+", default=AT_ONCE, metavar="TRIALS")
    parser.add_argument(
        "--seconds", type=positive, default=SECONDS, help="of each side (%(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help="which sides"
    )
    parser.add_argument("--storage", metavar="DIR", help="whose disk is measured (a temporary one)")
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.storage) as storage:
        found = list(measure(arguments.only, arguments.at_once, arguments.seconds, storage))
    results = {"benchmark": "many_reports", "environment": environment("cpu", 1), "sides": found}
    write_json(arguments.json, results)
    print(report(results, arguments.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
