"""The same search on 1, 2 and 4 nodes: the same results, and what scheduling costs as nodes grow.

    python benchmarks/more_nodes.py --json more-nodes.json          # about six minutes
    python benchmarks/more_nodes.py --quick                         # one, to see that it works

Each cluster is one of ``ray start``: a head that runs no trials, and nodes of one CPU each, all on
this machine. The search draws at random, stops nothing early, and is the same each time, by its
seed. In the end every report that stands is compared between all runs, figure for figure but for
times and memory: one that differs ends the benchmark with status 2.

Several nodes of one machine share its processors, so that training itself cannot become faster by
them. Trials of a tiny model therefore wait before each step, as for a GPU: what more nodes do to a
search shows all the same, and so does what each trial costs the driver. Columns:

    wall             seconds from the beginning of the first step to the last report
    trials/min       in that time; and that as a multiple of the fewest nodes' (node for node the
                     best there could be is the number of nodes)
    between trials   ms from a trial's last report, written by the driver, to the first step of the
                     next on the same worker: median, and the value that one in ten exceeds
    between reports  ms from a report to the next step of the same trial, likewise
    driver           ms of processor time a trial, and a report, of all the driver's threads, what
                     it uses while nothing happens included, but not what it begins and ends with;
                     and how much of a core that is
    GCS              ms of processor time a trial of Ray's head process, likewise
    memory           MB, the driver's resident set at the last report
    cores            in use on the whole machine, of those there are: where they are all in use, the
                     nodes stand in each other's way, and times say little (processor times do)
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import (  # noqa: E402
    Side,
    Sides,
    Work,
    add_output_options,
    environment,
    make_parser,
    shown,
    write_json,
)
from model.cli import positive, run_main  # noqa: E402
from model.errors import BenchmarkError  # noqa: E402
from model.machine import usable_cores  # noqa: E402
from tests.tuning.preflight_support import Machines  # noqa: E402
from tests.tuning.ray_support import sweep_mapping, write_corpus  # noqa: E402

NODES = (1, 2, 4)
TRIALS, REPORTS, WAIT, TURNS = 60, 3, 300, 2
QUICK = {"trials": 8, "reports": 2, "wait": 100, "turns": 1}
SEED = 1
#: Endings of the names of figures that are no results: two runs of the same trial differ in them.
NO_RESULTS = ("_seconds", "_per_second", "_mb", "_ms")
_SAMPLE_SECONDS = 0.1
#: A worker starts within this time of the first.
_MEETING_SECONDS = 120.0
_TICK = os.sysconf("SC_CLK_TCK")


# The search: what runs in the driver's process


def waiting(seconds: float, meeting: Path, count: int) -> type:
    """The project's trainable, which waits before each step.

    The class is made here so that Ray sends it to the workers, which do not have this file.

    Args:
        seconds: How long.
        meeting: A directory where the first trials wait until one is there on each node: on a busy
            machine the first node is done before the last one has begun.
        count: Of nodes.
    """
    from tuning.trials.trainable import DialogueTrainable

    patience = _MEETING_SECONDS

    class WaitingTrainable(DialogueTrainable):
        met = False

        def step(self) -> dict[str, Any]:
            if not self.met:
                self.met = True
                (meeting / str(os.getpid())).touch()
                until = time.monotonic() + patience
                while len(list(meeting.iterdir())) < count and time.monotonic() < until:
                    time.sleep(0.02)
            time.sleep(seconds)
            return super().step()

    return WaitingTrainable


def search(
    directory: str,
    name: str,
    address: str,
    *,
    nodes: int,
    trials: int,
    reports: int,
    wait: float,
    gcs: int,
) -> Work:
    """Runs a search on a cluster.

    Args:
        directory: Has the corpus; experiments are made in ``runs``.
        name: Of the experiment.
        address: Of the cluster.
        nodes: How many have a CPU.
        trials: How many.
        reports: Of each trial.
        wait: Seconds before each.
        gcs: Process id of Ray's head process.
    """
    import tuning
    from tuning.sweeps.sweep_file import parse_sweep
    from tuning.trials import trainable

    meeting = Path(directory) / f"meeting-{name}"
    meeting.mkdir()
    trainable.DialogueTrainable = waiting(wait, meeting, nodes)  # type: ignore[assignment, misc]
    corpus = Path(directory) / "tiny.txt"
    sweep = parse_sweep(sweep_mapping(corpus, iterations=4 * reports, report_every=4))
    samples: list[tuple[float, ...]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append((time.time(), time.process_time(), _used(gcs), _busy(), _resident()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        experiment = tuning.run(
            sweep,
            name=name,
            trials=trials,
            seed=SEED,
            address=address,
            storage=Path(directory) / "runs",
            wandb="disabled",
        )
    ended.set()
    thread.join()
    return Work(
        iterate=lambda: None, facts=lambda: {"path": str(experiment.path), "samples": samples}
    )


def _used(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _busy() -> float:
    """Seconds of processor time that all processes of the machine have used since its start."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])  # the fifth is waiting for disks
    return (sum(map(int, fields[:8])) - idle) / _TICK


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# The clusters


def run_on(directory: Path, name: str, nodes: int, **asked: Any) -> dict[str, Any]:
    """Runs the search on a cluster of so many nodes, in a process of its own.

    Args:
        directory: As `search` takes it.
        name: Of the experiment.
        nodes: Of one CPU each, beside the head.
        asked: What else `search` takes.

    Returns:
        ``path``, ``samples`` and ``peak_memory_bytes``.
    """
    with tempfile.TemporaryDirectory() as place, Machines(Path(place)) as machines:
        machines.head(cpus=0)
        for number in range(1, nodes + 1):
            machines.start(f"{number}", cpus=1)
        machines.wait()
        (gcs,) = (
            pid
            for pid in machines.processes("PREFLIGHT_NODE=head")
            if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "gcs_server"
        )
        arguments = {
            "directory": str(directory),
            "name": name,
            "address": machines.address,
            "nodes": nodes,
            "gcs": gcs,
            **asked,
        }
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": machines.token, "OMP_NUM_THREADS": "1"}
        with Sides([Side(name, search, arguments, token)]) as sides:
            found: dict[str, Any] = sides.facts()[name]
    return found


# Results: what must be the same


Figures = dict[str, Any]


def results_of(path: Path) -> dict[int, Figures]:
    """Of each trial its configuration, how it ended, and its reports but for times and memory.

    Raises:
        BenchmarkError: where a trial has not finished, or was restarted.
    """
    from tuning.journal import current_reports, read_journal

    rows = read_journal(path / "journal").rows
    found: dict[int, Figures] = {
        row.trial: {"configuration": row.config, "reports": []}
        for row in rows
        if row.kind == "proposed" and row.trial is not None
    }
    for row in current_reports(rows):
        assert row.trial is not None
        figures = {k: v for k, v in row.metrics.items() if not k.endswith(NO_RESULTS)}
        told = {"iteration": row.iteration, "best": row.values, "decision": row.decision, **figures}
        found[row.trial]["reports"].append(told)
        found[row.trial] |= {"state": row.state, "attempts": row.attempt}
    for trial, figures in found.items():
        if (figures.get("state"), figures.get("attempts")) != ("finished", 1):
            raise BenchmarkError(f"{path}: trial {trial} has not finished at its first attempt.")
    return found


def check_equal(one: Path, other: Path) -> int:
    """Compares the results of two searches; returns how many reports are equal.

    Raises:
        BenchmarkError: naming the first that differs.
    """
    found, expected = results_of(one), results_of(other)
    if sorted(found) != sorted(expected):
        raise BenchmarkError(f"{one.name} has {len(found)} trials, {other.name} {len(expected)}.")
    for trial, figures in expected.items():
        for place, said, wanted in _told(found[trial], figures):
            if said != wanted:
                raise BenchmarkError(
                    f"trial {trial}, {place}: {said!r} in {one.name}, {wanted!r} in {other.name}."
                )
    return sum(len(figures["reports"]) for figures in expected.values())


def _told(found: Figures, expected: Figures) -> Iterator[tuple[str, Any, Any]]:
    yield "configuration", found["configuration"], expected["configuration"]
    yield "number of reports", len(found["reports"]), len(expected["reports"])
    for report, wanted in zip(found["reports"], expected["reports"], strict=True):
        for name in sorted(report.keys() | wanted.keys()):
            place = f"iteration {wanted['iteration']}, {name}"
            yield place, report.get(name), wanted.get(name)


# Figures: what it costs


def figures(rows: Sequence[Any], samples: Sequence[Sequence[float]], wait: float) -> Figures:
    """What a search has cost; see the module's description.

    Args:
        rows: Of its journal.
        samples: Of the driver: time, processor seconds of it, of Ray's head process and of the
            whole machine, and its resident bytes.
        wait: Seconds that a trial waits before each step.
    """
    reports = [row for row in rows if row.kind == "report"]
    trials = len({row.trial for row in reports})
    first, last = reports[0].time, reports[-1].time
    wall = last - min(_begin(row, wait) for row in reports)
    trial_gaps, report_gaps = gaps(reports, wait)
    moments, driver, gcs, machine, memory = np.array(samples, dtype=float).T
    used = {
        name: float(np.diff(np.interp([first, last], moments, column))[0])
        for name, column in (("driver", driver), ("gcs", gcs), ("machine", machine))
    }
    counted = len(reports) - 1  # the first report begins the time
    return {
        "trials": trials,
        "reports": len(reports),
        "workers": len({row.worker for row in reports}),
        "wall_seconds": wall,
        "trials_per_minute": 60 * trials / wall,
        "between_trials_milliseconds": _spread(trial_gaps),
        "between_reports_milliseconds": _spread(report_gaps),
        "driver_milliseconds_a_trial": 1e3 * used["driver"] / counted * len(reports) / trials,
        "driver_milliseconds_a_report": 1e3 * used["driver"] / counted,
        "gcs_milliseconds_a_trial": 1e3 * used["gcs"] / counted * len(reports) / trials,
        "driver_cores": used["driver"] / (last - first),
        "driver_megabytes": float(np.interp(last, moments, memory)) / 1e6,
        "cores_in_use": used["machine"] / (last - first),
    }


def _begin(row: Any, wait: float) -> float:
    """When the step of a report began, its waiting included."""
    return float(row.time) - float(row.metrics["step_seconds"]) - wait


def gaps(reports: Sequence[Any], wait: float) -> tuple[list[float], list[float]]:
    """Seconds from each report to the next step on the same worker.

    Returns:
        Between two trials, and within one.
    """
    workers: dict[str, list[Any]] = {}
    for row in reports:
        workers.setdefault(row.worker, []).append(row)
    trials: list[float] = []
    within: list[float] = []
    for rows in workers.values():
        for row, following in pairwise(rows):
            seconds = _begin(following, wait) - row.time
            (within if row.trial == following.trial else trials).append(seconds)
    return trials, within


def _spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median and ninth decile, in ms; None where there is no figure."""
    if not seconds:
        return {"median": None, "ninth_decile": None}
    decile = float(np.quantile(seconds, 0.9))
    return {"median": 1e3 * statistics.median(seconds), "ninth_decile": 1e3 * decile}


# The benchmark


def compare(
    directory: Path,
    nodes: Sequence[int],
    *,
    trials: int,
    reports: int,
    wait: float,
    turns: int,
) -> dict[str, Any]:
    """Runs the search on all clusters in turn, up and down, and compares the results.

    Args:
        directory: An empty one for corpus and experiments.
        nodes: Of each cluster.
        trials: Of each search.
        reports: Of each trial.
        wait: Seconds before each report.
        turns: How often on each cluster.

    Raises:
        BenchmarkError: where results differ, or a node had no trial.
    """
    from tuning.journal import read_journal

    write_corpus(directory)
    runs: dict[int, list[Figures]] = {count: [] for count in nodes}
    reference: Path | None = None
    equal = 0
    for turn in range(turns):
        for count in nodes if turn % 2 == 0 else reversed(nodes):
            print(f"turn {turn + 1}: {count} nodes", file=sys.stderr, flush=True)
            name = f"nodes-{count}-turn-{turn + 1}"
            asked = {"trials": trials, "reports": reports, "wait": wait}
            found = run_on(directory, name, count, **asked)
            path = Path(found["path"])
            reference = reference or path
            equal += check_equal(path, reference) if path != reference else 0
            rows = read_journal(path / "journal").rows
            runs[count].append(figures(rows, found["samples"], wait))
            if (workers := runs[count][-1]["workers"]) != count:
                raise BenchmarkError(f"{name}: trials ran in {workers} processes, not in {count}.")
    return {
        "benchmark": "more_nodes",
        "trials": trials,
        "reports": reports,
        "wait_seconds": wait,
        "environment": environment("cpu", 1),
        "equal_reports": equal,
        "nodes": {str(count): {"runs": found} | medians(found) for count, found in runs.items()},
    }


def medians(runs: Sequence[Figures]) -> Figures:
    """The median of each figure over the runs."""
    found: Figures = {}
    for name, value in runs[0].items():
        if isinstance(value, Mapping):
            found[name] = medians([run[name] for run in runs])
        else:
            values = [run[name] for run in runs if run[name] is not None]
            found[name] = statistics.median(values) if values else None
    return found


def report(results: Mapping[str, Any], markdown: bool = False) -> str:
    """The results as a table."""
    base = next(iter(results["nodes"].values()))["trials_per_minute"]
    rows = [
        (
            count,
            f"{found['wall_seconds']:.1f}",
            f"{found['trials_per_minute']:.1f}",
            f"{found['trials_per_minute'] / base:.2f}",
            _milliseconds(found["between_trials_milliseconds"]),
            _milliseconds(found["between_reports_milliseconds"]),
            f"{found['driver_milliseconds_a_trial']:.1f}",
            f"{found['driver_milliseconds_a_report']:.1f}",
            f"{found['driver_cores']:.2f}",
            f"{found['gcs_milliseconds_a_trial']:.1f}",
            f"{found['driver_megabytes']:.0f}",
            f"{found['cores_in_use']:.1f} of {usable_cores()}",
        )
        for count, found in results["nodes"].items()
    ]
    headers = ["nodes", "wall s", "trials/min", "times", "between trials", "between reports"]
    headers += ["driver a trial", "a report", "of a core", "GCS a trial", "driver MB", "cores"]
    return shown(rows, headers, markdown)


def _milliseconds(spread: Mapping[str, float | None]) -> str:
    if spread["median"] is None:
        return ""
    return f"{spread['median']:.0f} ({spread['ninth_decile']:.0f})"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, compares and prints."""
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--nodes", type=positive, nargs="+", default=NODES, help="of each cluster (1 2 4)"
    )
    parser.add_argument("--trials", type=positive, default=TRIALS, help="a search (%(default)s)")
    parser.add_argument("--reports", type=positive, default=REPORTS, help="a trial (%(default)s)")
    parser.add_argument(
        "--wait", type=positive, default=WAIT, help="ms before each report (%(default)s)"
    )
    parser.add_argument("--turns", type=positive, default=TURNS, help="a cluster (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="small and once, whatever is said")
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    asked = {name: getattr(arguments, name) for name in QUICK}
    asked |= QUICK if arguments.quick else {}
    wait = asked.pop("wait") / 1e3
    with tempfile.TemporaryDirectory() as directory:
        results = compare(Path(directory), arguments.nodes, wait=wait, **asked)
    write_json(arguments.json, results)
    print(report(results, arguments.markdown))
    print(f"\n{results['equal_reports']} reports are equal to those of the first run.")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
