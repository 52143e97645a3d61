"""Kills a search again and again, and checks what it is in the end.

    python benchmarks/interruptions.py --times 20

A search runs as its users run it, by ``python -m tuning run``: Bayesian, with early stopping, two
small trials at a time. At random moments its driver or one of its workers is killed with SIGKILL,
and a killed driver is followed by ``python -m tuning resume``. A search that ends before all kills
are done is checked and followed by another one. Checked are:

- after each death: every trial that had ended is as it was;
- in the end, of each search: rows, trials and attempts are numbered without gaps or repeats; every
  trial was proposed once and ended once, with nothing after its end; iterations rise and the best
  value never worsens within an attempt; each curve is, figure for figure, that of the same
  configuration trained without interruption; the best weights are on disk; and the Optuna study
  says the same as the journal, with nothing RUNNING.

What the workers and drivers printed is in ``--keep DIR``, with the experiments, when it is given.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import make_parser, write_json  # noqa: E402
from model.cli import positive, run_main  # noqa: E402
from model.errors import BenchmarkError  # noqa: E402
from tests.tuning.ray_support import (  # noqa: E402
    check_resumed,
    command,
    finish,
    sweep_mapping,
    write_corpus,
)

TRIALS = 30
#: A kill comes after so many more reports, drawn anew for each, and after some more time.
REPORTS = (1, 12)
PAUSE_SECONDS = 0.3
#: A search on a busy machine makes a report within this time, or something is wrong.
_PATIENCE_SECONDS = 180.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """One death.

    Attributes:
        search: Name of the experiment.
        victim: ``driver`` or ``worker``.
        reports: How many the journal had.
        ended: How many trials had ended.
    """

    search: str
    victim: str
    reports: int
    ended: int


class Search:
    """One search that is killed, resumed, and checked.

    Args:
        directory: Has ``sweep.yaml``; experiments are made in ``runs``.
        name: Of the experiment.
        trials: How many.
        rng: Says when and whom.
    """

    def __init__(self, directory: Path, name: str, trials: int, rng: random.Random) -> None:
        self.directory = directory
        self.name = name
        self.trials = trials
        self.rng = rng
        self.path = directory / "runs" / name
        self.output = ""
        self.process = self._start(
            *("run", directory / "sweep.yaml", "--name", name, "--trials", trials),
            *("--concurrency", 2, "--wandb", "disabled", "--max-failures", 1000),
        )

    def _start(self, *arguments: Any) -> subprocess.Popen[str]:
        return command(
            *arguments, "--storage", self.directory / "runs", env={"OMP_NUM_THREADS": "1"}
        )

    def kill(self) -> Kill | None:
        """Kills somebody at a random moment; None where the search ended first."""
        if not self._wait_for_reports(self.rng.randint(*REPORTS)):
            return None
        time.sleep(self.rng.uniform(0.0, PAUSE_SECONDS))
        victim = self.rng.choice(("driver", "worker"))
        reports, ended = self._reports(), self._ended()
        if victim == "worker":
            if not self._kill_worker():
                return None if self.process.poll() is not None else self.kill()
        elif self.process.poll() is None:
            self._kill_driver()
        else:
            return None
        self._check_kept(ended)
        return Kill(self.name, victim, reports, len(ended))

    def _kill_driver(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)  # it alone; Ray has to notice
        self.output += finish(self.process)
        self.process = self._start("resume", self.name)

    def _kill_worker(self) -> bool:
        """Kills the process in which a trial was running at the last report."""
        ended = self._ended()
        rows = [row for row in self._rows() if row.kind == "report" and row.trial not in ended]
        workers = [int(str(row.worker).rpartition(":")[2]) for row in rows if row.worker]
        for pid in reversed(workers):
            if _is_ray_worker(pid):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def finish(self) -> None:
        """Lets the search end, and checks everything.

        Raises:
            BenchmarkError: where it does not end well.
            AssertionError: where anything is not as it should be.
        """
        self.output += finish(self.process, timeout=600)
        if self.process.returncode != 0:
            raise BenchmarkError(f"{self.name}: ended with {self.process.returncode}.")
        check_search(self.path, self.trials)

    def stop(self) -> None:
        """Ends the processes, whatever they do; what they printed goes into a file."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.output += finish(self.process)
        (self.directory / f"{self.name}.log").write_text(self.output, encoding="utf-8")

    def _wait_for_reports(self, more: int) -> bool:
        """Waits for so many more reports; False where the search ended first."""
        wanted = self._reports() + more
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._reports() < wanted:
            if self.process.poll() is not None:
                return False
            if time.monotonic() > until:
                raise BenchmarkError(f"{self.name}: no report in {_PATIENCE_SECONDS:g} s.")
            time.sleep(0.05)
        return True

    def _rows(self) -> list[Any]:
        from tuning.journal import read_journal

        journal = self.path / "journal"
        return read_journal(journal).rows if journal.is_dir() else []

    def _reports(self) -> int:
        return sum(row.kind == "report" for row in self._rows())

    def _ended(self) -> dict[int, Any]:
        """The last row of each trial that has ended."""
        return {row.trial: row for row in self._rows() if row.state not in ("running", None)}

    def _check_kept(self, before: dict[int, Any]) -> None:
        after = self._ended()
        for trial, row in before.items():
            assert after.get(trial) == row, f"{self.name}: trial {trial} is not what it was"


def _is_ray_worker(pid: int) -> bool:
    """Whether a process is one of Ray's workers: a number may belong to another one by now."""
    try:
        return "ray::" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False


# What must hold in the end


def check_search(path: Path, trials: int) -> None:
    """Checks a search that has all its trials; see the module's description.

    Args:
        path: The experiment.
        trials: How many were asked for.

    Raises:
        AssertionError: naming what is not as it should be.
    """
    from analysis import Results

    results = Results.open(path)
    check_rows(results.rows, trials)
    check_resumed(results)
    _check_weights(results)
    _check_study(results)


def check_rows(rows: Sequence[Any], trials: int) -> None:
    """Unique numbers, one beginning and one end for each trial, progress within each attempt."""
    assert [row.seq for row in rows] == list(range(len(rows))), "rows are lost or repeated"
    proposed = [row.trial for row in rows if row.kind == "proposed"]
    assert proposed == list(range(trials)), "trials are lost or repeated"
    attempt, ended = dict.fromkeys(proposed, 1), set()
    last: dict[tuple[int, int], tuple[int, float]] = {}
    for row in rows:
        if row.trial is None:
            continue
        assert row.trial not in ended, f"row {row.seq}: trial {row.trial} had ended"
        if row.kind == "restarted":
            assert row.attempt == attempt[row.trial] + 1, f"row {row.seq}: attempt {row.attempt}"
            attempt[row.trial] = row.attempt
        if row.kind == "report":
            assert row.attempt == attempt[row.trial], f"row {row.seq}: of an earlier attempt"
            before, best = last.get((row.trial, row.attempt), (0, float("inf")))
            assert row.iteration > before, f"row {row.seq}: iteration {row.iteration} again"
            assert row.values[0] <= best, f"row {row.seq}: the best value worsened"
            last[row.trial, row.attempt] = row.iteration, row.values[0]
        if row.state != "running":
            ended.add(row.trial)
    assert len(ended) == trials, f"{trials - len(ended)} trials have not ended"


def _check_weights(results: Any) -> None:
    from tuning.trials.trial_files import TrialFiles

    for record in results.trials.to_dict("records"):
        metrics = TrialFiles(results.experiment.path, record["trial"]).best_metrics()
        assert metrics["val_loss"] == record["val_loss"], f"weights of trial {record['trial']}"


def _check_study(results: Any) -> None:
    """The study that the search wrote, against the one that is made of the journal."""
    import optuna

    from analysis.importance import to_study
    from tuning.study import STUDY

    backend = optuna.storages.journal.JournalFileBackend(str(results.experiment.path / STUDY))
    storage = optuna.storages.JournalStorage(backend)
    written = optuna.load_study(study_name=results.experiment.name, storage=storage)
    for one, other in zip(to_study(results).trials, written.trials, strict=True):
        for name in ("state", "values", "params", "intermediate_values"):
            assert getattr(one, name) == getattr(other, name), f"study: {name} of {one.number}"


# The command


def interrupt(
    directory: Path, times: int, *, seed: int, trials: int = TRIALS, say: Say = print
) -> list[Kill]:
    """Kills searches so many times in a row.

    Args:
        directory: An empty one for corpus, sweep and experiments.
        times: How many kills.
        seed: Of moments and victims.
        trials: Of each search.
        say: Hears of each kill.

    Raises:
        AssertionError: where anything is not as it should be.
        BenchmarkError: where a search does not go on.
    """
    import yaml

    mapping = sweep_mapping(write_corpus(directory), iterations=60, hidden_size=32)
    mapping |= {"method": "bayes"}
    mapping |= {"early_terminate": {"type": "hyperband", "min_iter": 5, "eta": 3}}
    (directory / "sweep.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    rng, kills, searches = random.Random(seed), [], 0
    while len(kills) < times:
        searches += 1
        search = Search(directory, f"search-{searches}", trials, rng)
        with ExitStack() as stack:
            stack.callback(search.stop)
            while len(kills) < times and (kill := search.kill()) is not None:
                kills.append(kill)
                say(
                    f"{len(kills)} of {times}: {kill.search}, {kill.victim} killed after "
                    f"{kill.reports} reports, {kill.ended} trials ended"
                )
            search.finish()
        say(f"{search.name}: nothing lost, nothing repeated")
    return kills


def main(argv: Sequence[str] | None = None) -> int:
    """Kills, checks and prints."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--times", type=positive, default=20, help="kills (%(default)s)")
    parser.add_argument("--seed", type=int, help="of moments and victims (drawn, and said)")
    parser.add_argument("--trials", type=positive, default=TRIALS, help="a search (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep everything there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the kills here")
    arguments = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)

    def say(text: str) -> None:
        print(text, flush=True)

    with ExitStack() as stack:
        if arguments.keep is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            directory = arguments.keep
            directory.mkdir(parents=True)
        try:
            kills = interrupt(
                directory, arguments.times, seed=seed, trials=arguments.trials, say=say
            )
        except AssertionError as error:
            raise BenchmarkError(f"seed {seed}: {error}") from error
    counts = {who: sum(kill.victim == who for kill in kills) for who in ("driver", "worker")}
    print(
        f"{counts['driver']} drivers and {counts['worker']} workers killed: all is as it should be"
    )
    write_json(arguments.json, {"seed": seed, "kills": [vars(kill) for kill in kills]})
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
