"""Loses hosts of a cluster in the middle of a search, and checks what becomes of the search.

    python benchmarks/lost_hosts.py --times 10

Needs root and Linux: the hosts are network namespaces of this machine, each with its own Ray, with
the settings of ``tests/cluster/hosts.py``. A random search without early stopping runs over three
hosts of one CPU each, with the driver on a fourth, as its users run it: by ``python -m tuning run
--address``. At random moments, each time other ones:

- a host is killed: its processes die, or it loses its power and nothing of it is heard again;
- a host is cut off for 15 s: packets vanish, nothing is closed; it must not be given up;
- a host is cut off for 180 s: it is given up, and comes back when its trials run elsewhere; in
  half of the cases its trial hangs meanwhile, as on storage that is away too, and then goes on;
- the driver is killed, and followed by ``python -m tuning resume``; where that is refused, because
  a host does not answer, it is tried again.

When the search has ended and all that is left of the lost hosts has come back, it is compared with
the same search run in peace, on this machine alone. Checked are:

- every trial asked for has finished; rows, trials and attempts are numbered without gaps or
  repeats; nothing follows the end of a trial, so that none that had finished ran again;
- every report that stands is that of the quiet search, figure for figure;
- of each trial the best weights are on disk, whole, and those of its best report; nothing else is.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.interruption_checks import check_rows  # noqa: E402
from benchmarks.random_faults import add_options, say, seed_and_directory  # noqa: E402
from benchmarks.side_by_side import make_parser, write_json  # noqa: E402
from model.cli import EXIT_BAD_INPUT, positive, run_main  # noqa: E402
from model.errors import BenchmarkError  # noqa: E402
from tests.cluster.hosts import Hosts, why_not  # noqa: E402
from tests.tuning.ray_support import (  # noqa: E402
    command,
    finish,
    write_sweep,
)

WORKERS = 3
TRIALS = 18
#: The short cut and the long one, in seconds.
CUTS = (15.0, 180.0)
#: Everything happens within so many seconds of the first reports.
WINDOW_SECONDS = 60.0
#: A search on a busy machine has its first reports, or is at its end, within this time.
_PATIENCE_SECONDS = 900.0
#: What is left on a host that was given up ends within this time of its return.
_SETTLE_SECONDS = 90.0
#: While hosts are lost a resume may be refused, and is tried again so often, as its user would.
_REFUSALS = 20
_REFUSED_SECONDS = 3.0
_SEARCH_SEED = 1

#: What loses a host for good.
_LOST = ("killed", "without power", "given up", "hangs")
_SAID = {"given up": "cut off for long", "hangs": "cut off for long, and its trial hangs"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Blow:
    """Something that happens to the cluster.

    Attributes:
        seconds: When, after the first reports.
        what: ``killed``, ``without power``, ``cut off``, ``given up`` (cut off for long),
            ``hangs`` (that, and its trial hangs until the host is back), ``back`` or ``driver``.
        host: Number of the host.
    """

    seconds: float
    what: str
    host: int = 0


def draw_blows(rng: random.Random, window: float, cuts: tuple[float, float]) -> list[Blow]:
    """Each kind of blow once, at random moments, to random hosts.

    Args:
        rng: Says when and whom.
        window: Within how many seconds.
        cuts: How many seconds the short cut and the long one last.
    """
    killed, short, long = rng.sample(range(1, WORKERS + 1), WORKERS)
    first, second = rng.uniform(0, window), rng.uniform(0, window)
    blows = [
        Blow(rng.uniform(0, window), rng.choice(("killed", "without power")), killed),
        Blow(first, "cut off", short),
        Blow(first + cuts[0], "back", short),
        Blow(second, rng.choice(("given up", "hangs")), long),
        Blow(second + cuts[1], "back", long),
        Blow(rng.uniform(0, window), "driver"),
    ]
    return sorted(blows, key=lambda blow: blow.seconds)


class Search:
    """A search on hosts, with its driver on the head.

    Args:
        hosts: With Ray running.
        directory: Has ``sweep.yaml``; experiments are made in ``runs``.
        name: Of the experiment.
        trials: How many.
        say: Hears of every blow.
    """

    def __init__(self, hosts: Hosts, directory: Path, name: str, trials: int, *, say: Say) -> None:
        self.hosts = hosts
        self.hanging: list[int] = []
        self.resumed, self.refusals = False, 0
        self.storage = directory / "runs"
        self.path = self.storage / name
        self.log = directory / f"{name}.log"
        self.say = say
        asked = ("--trials", trials, "--seed", _SEARCH_SEED, "--wandb", "disabled")
        self.process = self._start("run", directory / "sweep.yaml", "--name", name, *asked)

    def _start(self, *arguments: Any) -> subprocess.Popen[str]:
        where = ("--storage", self.storage, "--address", self.hosts.address)
        with self.log.open("a", encoding="utf-8") as log:  # a pipe would fill up
            return self.hosts.run(
                0,
                [sys.executable, "-m", "tuning", *arguments, *where],
                stdout=log,
                cwd=ROOT,
            )

    def endure(self, blows: Sequence[Blow]) -> None:
        """Lets everything happen, and the search end.

        Raises:
            BenchmarkError: where it does not go on or ends badly.
        """
        self._wait("the first reports", lambda: len(self.workers()) == WORKERS)
        began = time.monotonic()
        for blow in blows:
            while time.monotonic() < began + blow.seconds:
                self._going()
                time.sleep(0.1)
            self.say(f"{blow.seconds:5.1f} s: {self._strike(blow)}")
        self._wait("the end", lambda: self._going() is False)

    def _strike(self, blow: Blow) -> str:
        hosts, host = self.hosts, blow.host
        match blow.what:
            case "driver":
                return self._kill_driver()
            case "killed":
                hosts.kill(host)
            case "without power":
                hosts.cut(host)
                hosts.kill(host)
            case "back":
                hosts.restore(host)
                self._let_go(host)
            case "cut off":
                hosts.cut(host)
            case "given up":
                hosts.cut(host)
            case "hangs":
                hosts.cut(host)
                self._hold(host)
        return f"host {host} {_SAID.get(blow.what, blow.what)}"

    def _hold(self, host: int) -> None:
        """Stops the trials on a host where they are."""
        self.hanging = trials_on(self.hosts, host, self.workers())
        for pid in self.hanging:
            os.kill(pid, signal.SIGSTOP)

    def _let_go(self, host: int) -> None:
        for pid in set(self.hanging) & set(self.hosts.processes(host)):
            os.kill(pid, signal.SIGCONT)

    def _kill_driver(self) -> str:
        if self._going() is False:
            return "the driver had ended"
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._resume()
        return "driver killed and resumed"

    def _resume(self) -> None:
        self.resumed = True
        self.process = self._start("resume", self.path.name)

    def _going(self) -> bool:
        """Whether the search has not ended; a resume that is refused is tried again."""
        status = self.process.poll()
        if status is None:
            return True
        if status == 0:
            return False
        said = self.log.read_text(encoding="utf-8").rstrip()
        self.refusals += 1
        if status != EXIT_BAD_INPUT or not self.resumed or self.refusals > _REFUSALS:
            raise BenchmarkError(f"{self.path.name}: ended with {status}:\n{said[-4000:]}")
        self.say(f"         refused: {said.splitlines()[-1]}")
        time.sleep(_REFUSED_SECONDS)
        self._resume()
        return True

    def _wait(self, what: str, there: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not there():
            if time.monotonic() > until:
                raise BenchmarkError(f"{self.path.name}: {what} did not come:\n{self.log}")
            time.sleep(0.2)

    def workers(self) -> set[str]:
        """Where trials ran so far: ``ADDRESS:PROCESS``."""
        from tuning.journal import read_journal

        journal = self.path / "journal"
        rows = read_journal(journal).rows if journal.is_dir() else []
        return {str(row.worker) for row in rows if row.worker}


def settle(hosts: Hosts, blows: Sequence[Blow], workers: Collection[str]) -> None:
    """Checks who is alive, and waits until no trial runs any more on a host that was given up.

    Args:
        hosts: After everything has happened.
        blows: What has happened.
        workers: Where trials ran, as the journal has it: ``ADDRESS:PROCESS``.

    Raises:
        BenchmarkError: where a trial stays.
        AssertionError: where a host was given up that was cut off shortly, or one was not that
            was cut off for long or killed.
    """
    lost = [blow.host for blow in blows if blow.what in _LOST]
    kept = [host for host in range(WORKERS + 1) if host not in lost]
    assert (alive := hosts.alive()) == kept, f"alive are hosts {alive}, not {kept}"
    until = time.monotonic() + _SETTLE_SECONDS
    while staying := {host: pids for host in lost if (pids := trials_on(hosts, host, workers))}:
        if time.monotonic() > until:
            raise BenchmarkError(f"trials stay where they were given up, by host: {staying}.")
        time.sleep(0.5)


def trials_on(hosts: Hosts, host: int, workers: Collection[str]) -> list[int]:
    """The processes on a host in which trials ran; see `settle`."""
    return [pid for pid in hosts.processes(host) if f"{hosts.ip(host)}:{pid}" in workers]


# What must hold in the end


def check_search(path: Path, quiet: Path, trials: int) -> None:
    """Compares a search with the quiet one; see the module's description.

    Args:
        path: The experiment.
        quiet: That of the quiet search.
        trials: How many were asked for.

    Raises:
        AssertionError: naming what is not as it should be.
    """
    from analysis import Results

    results, undisturbed = Results.open(path), Results.open(quiet)
    check_rows(results.rows, trials)
    states = results.trials.set_index("trial")["state"]
    others = states[states != "finished"].to_dict()
    assert not others, f"not every trial finished: {others}"
    one, other = curves(results), curves(undisturbed)
    for trial in range(trials):
        assert one[trial] == other[trial], f"trial {trial} is not that of the quiet search"
    _check_weights(results)


def _check_weights(results: Any) -> None:
    from model.checkpoint import read_checkpoint

    columns = ["trial", "weights", "best_iteration", "val_loss"]
    for trial, weights, *best in results.trials[columns].itertuples(index=False, name=None):
        checkpoint = read_checkpoint(Path(weights))
        found = [checkpoint["iteration"], checkpoint["metrics"]["val_loss"]]
        assert found == best, (
            f"the weights of trial {trial} are of iteration {found[0]} (val_loss {found[1]:.4f}), "
            f"but its best report is of {best[0]} ({best[1]:.4f})"
        )
        there = sorted(path.name for path in Path(weights).parent.iterdir())
        assert set(there) - {"attempt"} == {"best.pt"}, f"left of trial {trial}: {', '.join(there)}"


def curves(results: Any) -> dict[int, list[tuple[Any, ...]]]:
    """Of each trial its configuration, and the figures of its reports but for times."""
    figures = ["iteration", "val_loss", "val_token_accuracy", "loss"]
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in results.rows:
        if row.kind == "proposed":
            found[row.trial] = [tuple(sorted(row.config.items()))]
    history = results.history.sort_values(["trial", "iteration"])
    for record in history[["trial", *figures]].itertuples(index=False, name=None):
        found[record[0]].append(record[1:])
    return found


def restarts(path: Path) -> int:
    """How many attempts were further ones."""
    from analysis import Results

    return sum(row.kind == "restarted" for row in Results.open(path).rows)


# The command


def lose_hosts(
    directory: Path,
    times: int,
    *,
    seed: int,
    trials: int = TRIALS,
    cuts: tuple[float, float] = CUTS,
    window: float = WINDOW_SECONDS,
    say: Say = print,
) -> list[list[Blow]]:
    """Runs the search in peace once, and then so many times while hosts are lost.

    Args:
        directory: An empty one for corpus, sweep and experiments.
        times: How often.
        seed: Of moments and victims.
        trials: Of each search.
        cuts: How many seconds the short cut and the long one last.
        window: Within how many seconds of the first reports everything happens.
        say: Hears of everything.

    Raises:
        AssertionError: where anything is not as it should be.
        BenchmarkError: where a search does not go on.
    """
    sweep = write_search(directory, iterations=450, report_every=30)
    _run_in_peace(directory, sweep, trials)
    say(f"{trials} trials in peace")
    rng, all_blows = random.Random(seed), []
    for number in range(1, times + 1):
        name, blows = f"search-{number}", draw_blows(rng, window, cuts)
        with Hosts(WORKERS) as hosts:
            hosts.start_head()
            hosts.start_workers()
            began = time.monotonic()
            search = Search(hosts, directory, name, trials, say=say)
            search.endure(blows)
            settle(hosts, blows, search.workers())
            seconds = time.monotonic() - began
        check_search(search.path, directory / "runs" / "quiet", trials)
        say(
            f"{number} of {times}: nothing lost, nothing repeated, the same results; "
            f"{restarts(search.path)} further attempts, {seconds:.0f} s"
        )
        all_blows.append(blows)
    return all_blows


def write_search(directory: Path, *, iterations: int, report_every: int) -> Path:
    """The sweep file of a search that takes a while, and its corpus."""
    return write_sweep(
        directory,
        iterations=iterations,
        report_every=report_every,
        hidden_size=32,
        learning_rate={"min": 0.0003, "max": 0.003},
    )


def _run_in_peace(directory: Path, sweep: Path, trials: int) -> None:
    process = command(
        *("run", sweep, "--name", "quiet", "--storage", directory / "runs"),
        *("--trials", trials, "--seed", _SEARCH_SEED, "--wandb", "disabled"),
        env={"OMP_NUM_THREADS": "1"},
    )
    said = finish(process, timeout=_PATIENCE_SECONDS)
    if process.returncode != 0:
        raise BenchmarkError(f"the quiet search ended with {process.returncode}:\n{said}")


def main(argv: Sequence[str] | None = None) -> int:
    """Loses hosts, checks and prints."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--times", type=positive, default=10, help="searches (%(default)s)")
    add_options(parser, trials=TRIALS)
    parser.add_argument(
        "--long-cut",
        type=positive,
        default=int(CUTS[1]),
        metavar="SECONDS",
        help="how long the host is cut off that is given up (%(default)s)",
    )
    arguments = parser.parse_args(argv)
    if (reason := why_not()) is not None:
        raise BenchmarkError(f"there can be no hosts here: {reason}.")
    with seed_and_directory(arguments) as (seed, directory):
        blows = lose_hosts(
            directory,
            arguments.times,
            seed=seed,
            trials=arguments.trials,
            cuts=(CUTS[0], float(arguments.long_cut)),
            say=say,
        )
    write_json(arguments.json, {"seed": seed, "blows": [[vars(b) for b in bs] for bs in blows]})
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
