"""Kills a search again and again, and checks what it is in the end.

    python benchmarks/interruptions.py --times 20

A search runs as its users run it, by ``python -m tuning run``: Bayesian, with early stopping, two
small trials at a time. At random moments its driver or one of its workers is killed with SIGKILL,
and a killed driver is followed by ``python -m tuning resume``. Searches log to Weights & Biases,
offline and online in turn, to a local server that answers as W&B's does, and as late. A search that
has had its share of the kills, or ends before, is checked and followed by the next one. Checked:

- after each death: every trial that had ended is as it was;
- in the end, of each search: rows, trials and attempts are numbered without gaps or repeats; every
  trial was proposed once and ended once, with nothing after its end; iterations rise and the best
  value never worsens within an attempt; each curve is, figure for figure, that of the same
  configuration trained without interruption; the best weights are on disk; and the Optuna study
  says the same as the journal, with nothing RUNNING;
- and of each trial one W&B run, with every report that stands once and in order, with its figures,
  and with the trial's end: in the offline files; on the server; and there also after
  ``python -m tuning sync``, which sends what was offline, and of what was online nothing twice.

What the workers and drivers printed is in ``--keep DIR``, with the experiments, when it is given.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.interruption_checks import (  # noqa: E402
    check_runs,
    check_search,
    expected_runs,
    offline_runs,
    served_runs,
)
from benchmarks.random_faults import add_options, say, seed_and_directory  # noqa: E402
from benchmarks.side_by_side import make_parser, write_json  # noqa: E402
from model.cli import positive, run_main  # noqa: E402
from model.errors import BenchmarkError  # noqa: E402
from tests.tuning.ray_support import (  # noqa: E402
    command,
    finish,
    sweep_mapping,
    write_corpus,
)
from tests.tuning.wandb_server import WandbServer  # noqa: E402

TRIALS = 20
#: What searches do with Weights & Biases, in turn.
MODES = ("offline", "online")
#: Seconds until the server answers a search, by part: a kill may come before it has what was sent.
DELAYS = {"graphql": 0.05, "file_stream": 0.5}
#: A kill comes after so many more reports, drawn anew for each, and after up to so many seconds;
#: after none, when a search was resumed, at any moment of its start.
REPORTS = (0, 12)
PAUSE_SECONDS = 0.3
START_SECONDS = 8.0
#: A search on a busy machine makes a report within this time, or something is wrong.
_PATIENCE_SECONDS = 180.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """One death.

    Attributes:
        search: Name of the experiment.
        wandb: ``offline`` or ``online``.
        victim: ``driver`` or ``worker``.
        reports: How many the journal had.
        ended: How many trials had ended.
    """

    search: str
    wandb: str
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
        server: W&B's, of this search alone.
        mode: ``offline`` or ``online``.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        trials: int,
        rng: random.Random,
        server: WandbServer,
        mode: str,
    ) -> None:
        self.directory = directory
        self.name = name
        self.trials = trials
        self.rng = rng
        self.server = server
        self.mode = mode
        self.path = directory / "runs" / name
        self.output = ""
        self.process = self._start(
            *("run", directory / "sweep.yaml", "--name", name, "--trials", trials),
            *("--concurrency", 2, "--wandb", mode, "--max-failures", 1000),
        )

    def _start(self, *arguments: Any) -> subprocess.Popen[str]:
        environment = self.server.environment(self.directory) | {"OMP_NUM_THREADS": "1"}
        return command(*arguments, "--storage", self.directory / "runs", env=environment)

    def kill(self) -> Kill | None:
        """Kills somebody at a random moment; None where the search ended first."""
        fewest, most = REPORTS
        more = self.rng.randint(fewest if self._reports() else 1, most)
        if not self._wait_for_reports(more):
            return None
        time.sleep(self.rng.uniform(0.0, PAUSE_SECONDS if more else START_SECONDS))
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
        return Kill(self.name, self.mode, victim, reports, len(ended))

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
        self._let_end()
        assert "Weights & Biases" not in self.output, f"{self.name}: W&B failed:\n{self.output}"
        check_search(self.path, self.trials)
        self._check_wandb()

    def _let_end(self) -> None:
        self.output += finish(self.process, timeout=600)
        if self.process.returncode != 0:
            raise BenchmarkError(f"{self.name}: ended with {self.process.returncode}.")

    def _check_wandb(self) -> None:
        """Checks what W&B has, before and after it was sent what it lacks."""
        from analysis import Results

        expected = expected_runs(Results.open(self.path))
        if self.mode == "offline":
            assert self.server.asked == [], f"{self.name}: was not offline"
            check_runs(offline_runs(self.path), expected)
        else:
            check_runs(served_runs(self.server), expected)
        self.server.delays = {}
        self.process = self._start("sync", self.name)
        self._let_end()
        check_runs(served_runs(self.server), expected)

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


# The command


def interrupt(
    directory: Path,
    times: int,
    *,
    seed: int,
    trials: int = TRIALS,
    modes: Sequence[str] = MODES,
    say: Say = print,
) -> list[Kill]:
    """Kills searches so many times in a row, each its share of them.

    Args:
        directory: An empty one for corpus, sweep and experiments.
        times: How many kills.
        seed: Of moments and victims.
        trials: Of each search.
        modes: What the searches do with Weights & Biases, in turn; each has a share.
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
    rng, kills, share = random.Random(seed), [], -(-times // len(modes))
    for number, mode in enumerate(itertools.cycle(modes), start=1):
        wanted = min(times, len(kills) + share)
        with ExitStack() as stack:
            server = stack.enter_context(WandbServer())
            server.delays = DELAYS
            search = Search(
                directory, f"search-{number}", trials=trials, rng=rng, server=server, mode=mode
            )
            stack.callback(search.stop)
            while len(kills) < wanted and (kill := search.kill()) is not None:
                kills.append(kill)
                say(
                    f"{len(kills)} of {times}: {kill.search}, W&B {kill.wandb}: {kill.victim} "
                    f"killed after {kill.reports} reports, {kill.ended} trials ended"
                )
            search.finish()
        say(f"{search.name}: nothing lost, nothing repeated, {len(server.runs)} W&B runs are whole")
        if len(kills) == times:
            break
    return kills


def main(argv: Sequence[str] | None = None) -> int:
    """Kills, checks and prints."""
    import torch

    parser = make_parser(__doc__ or "")
    parser.add_argument("--times", type=positive, default=20, help="kills (%(default)s)")
    add_options(parser, trials=TRIALS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # as the trials that are trained again to compare
    with seed_and_directory(arguments) as (seed, directory):
        kills = interrupt(directory, arguments.times, seed=seed, trials=arguments.trials, say=say)
    counts = {who: sum(kill.victim == who for kill in kills) for who in ("driver", "worker")}
    print(
        f"{counts['driver']} drivers and {counts['worker']} workers killed: all is as it should be"
    )
    write_json(arguments.json, {"seed": seed, "kills": [vars(kill) for kill in kills]})
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
