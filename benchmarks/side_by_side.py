"""The harness of the benchmarks: sides that take turns, each in a process of its own.

A side is a piece of work that can be repeated, such as one training iteration. Every side lives in
its own process for the whole benchmark, so that threads, caches and the allocator's settings of
one do not touch another, and works only when the parent says so: a few iterations each in turn, so
that what else the machine does falls on all of them. Compared are the turns: the ratio of two sides
is taken within each turn, and its median is given with its quartiles.

Nothing but torch is needed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from model.cli import positive, table
from model.errors import BenchmarkError, DialogueTuneError
from model.files import atomic_write_json, finite
from model.machine import peak_memory, usable_cores

#: Flags of an x86-64 processor that decide how fast matrices are multiplied.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")
#: Seconds between two lines of progress where there is no terminal.
_LINE_SECONDS = 30.0
#: Seconds that a side may take to end after it was asked to.
_END_SECONDS = 10.0


# A side and its process


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Work:
    """What a side does in its process.

    Attributes:
        iterate: One iteration.
        synchronise: Waits until the device has done everything asked of it.
        facts: Called once after the last turn; what to say about the side, ready for JSON.
    """

    iterate: Callable[[], object]
    synchronise: Callable[[], object] = _nothing
    facts: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: In tables and JSON.
        build: Makes the work, in the side's own process; a function of a module.
        arguments: Keyword arguments of `build`.
        environment: Variables set in the side's process from its very start.
    """

    name: str
    build: Callable[..., Work]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


class SideProcess:
    """The process of a side; idle but for its turns.

    Raises:
        BenchmarkError: by every method, where the side raised or its process died.
    """

    def __init__(self, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = side.name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side), daemon=True)
        with _variables(side.environment):
            self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Waits until the side has built its work."""
        self._answer()

    def turn(self, iterations: int) -> float:
        """Lets the side work; returns the mean seconds of an iteration."""
        return float(self._ask(iterations))

    def finish(self) -> dict[str, Any]:
        """Ends the side; returns its facts, with ``peak_memory_bytes`` of its process."""
        facts: dict[str, Any] = self._ask(None)
        self._process.join(_END_SECONDS)
        return facts

    def stop(self) -> None:
        """Ends the process whatever it does."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(_END_SECONDS)

    def _ask(self, request: int | None) -> Any:
        try:
            self._pipe.send(request)
        except OSError:
            raise self._death() from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            fine, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if not fine:
            raise BenchmarkError(f"{self.name}: {answer}")
        return answer

    def _death(self) -> BenchmarkError:
        self._process.join(_END_SECONDS)
        return BenchmarkError(
            f"{self.name}: its process ended with exit code {self._process.exitcode}; "
            "where that is -9, memory may be short."
        )


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the time of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, side: Side) -> None:
    """Runs in the side's process until the parent asks for the facts, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us after Ctrl-C
    try:
        work = side.build(**side.arguments)
        pipe.send((True, None))
        while (iterations := pipe.recv()) is not None:
            pipe.send((True, _timed(work, iterations)))
        pipe.send((True, work.facts() | {"peak_memory_bytes": peak_memory()}))
    except (EOFError, BrokenPipeError):
        pass
    except DialogueTuneError as error:
        pipe.send((False, str(error)))
    except Exception:
        pipe.send((False, traceback.format_exc()))


def _timed(work: Work, iterations: int) -> float:
    work.synchronise()
    started = time.perf_counter()
    for _ in range(iterations):
        work.iterate()
    work.synchronise()
    return (time.perf_counter() - started) / iterations


def run_alone(name: str, function: Callable[..., dict[str, Any]], **arguments: Any) -> Any:
    """What a function of a module returns, run in a fresh process.

    Returns:
        Its result, a mapping, with ``peak_memory_bytes`` of the process.

    Raises:
        BenchmarkError: where it raised, or the process died.
    """
    with Sides([Side(name, _once, {"function": function, "arguments": arguments})]) as sides:
        return sides.facts()[name]


def _once(function: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> Work:
    result = function(**arguments)
    return Work(iterate=_nothing, facts=lambda: result)


class Sides:
    """The processes of several sides, for the time of a ``with`` block.

    Args:
        sides: Their names differ.
    """

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides
        self._processes: list[SideProcess] = []

    def __enter__(self) -> Sides:
        try:
            for side in self._sides:
                self._processes.append(SideProcess(side))
            for process in self._processes:
                process.wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.stop()

    def take_turns(
        self, turns: int, iterations: int, *, warm_up: int, progress: Progress
    ) -> dict[str, list[float]]:
        """Lets the sides work in turn; another one begins each time.

        Args:
            turns: Turns of each side.
            iterations: Of each turn.
            warm_up: Iterations of each side before the first turn; not counted.
            progress: Hears of every turn.

        Returns:
            Mean seconds of an iteration, for each side and turn.
        """
        seconds: dict[str, list[float]] = {process.name: [] for process in self._processes}
        for process in self._processes:
            if warm_up:
                process.turn(warm_up)
        for turn in range(turns):
            first = turn % len(self._processes)
            for process in [*self._processes[first:], *self._processes[:first]]:
                seconds[process.name].append(process.turn(iterations))
                progress.step()
        return seconds

    def facts(self) -> dict[str, dict[str, Any]]:
        """Ends all sides; returns what each says about itself."""
        return {process.name: process.finish() for process in self._processes}


def measured(
    sides: Sequence[Side], title: str, *, turns: int, iterations: int, warm_up: int
) -> dict[str, Any]:
    """Lets sides take turns; the first is what the others are compared with.

    Args:
        sides: Each gets a process of its own.
        title: Of the progress shown.
        turns: As of `Sides.take_turns`, like the next two.
        iterations: Of each turn.
        warm_up: Iterations before the first turn.

    Returns:
        For each side the figures of `compared`, and its facts.
    """
    progress = Progress(title, turns * len(sides))
    with Sides(sides) as running:
        seconds = running.take_turns(turns, iterations, warm_up=warm_up, progress=progress)
        facts = running.facts()
    progress.close()
    figures = compared(seconds, sides[0].name)
    return {side: found | facts[side] for side, found in figures.items()}


# Figures


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """As ``median (low to high)``."""
        middle, low, high = (f"{scale * v:.{digits}f}" for v in (self.median, self.low, self.high))
        return f"{middle} ({low} to {high})"


def compared(seconds: Mapping[str, Sequence[float]], reference: str) -> dict[str, Any]:
    """Every side's time, and how many times as fast as the reference it is, turn by turn.

    Args:
        seconds: Of an iteration, for each side and turn.
        reference: The side that the others are compared with.

    Returns:
        For each side ``seconds`` and ``ratio`` as mappings of `Spread`, and ``turns`` with the
        seconds and ``ratios`` with the ratio of each turn; ready for JSON.
    """
    found = {}
    for side, times in seconds.items():
        ratios = [theirs / own for theirs, own in zip(seconds[reference], times, strict=True)]
        found[side] = {
            "seconds": asdict(Spread.of(times)),
            "ratio": asdict(Spread.of(ratios)),
            "turns": list(times),
            "ratios": ratios,
        }
    return found


def environment(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """What the figures depend on: versions, processor, threads, and GPU where one is used."""
    import torch

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": _processor(),
        "flags": [flag for flag in _FLAGS if flag in _processor_flags()],
        "cores": usable_cores(),
        "threads": threads,
        "device": device,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if device == "cuda" and torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def _cpuinfo(key: str) -> str:
    """The first value of a key of /proc/cpuinfo, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    named = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in named if name.strip() == key), "")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _processor_flags() -> frozenset[str]:
    return frozenset(_cpuinfo("flags").split())


# The command line


class Progress:
    """Says on standard error how far a benchmark is and about how long it still takes.

    Args:
        what: What is going on.
        steps: How many steps there are.
    """

    def __init__(self, what: str, steps: int) -> None:
        self.what, self.steps, self.done = what, steps, 0
        self._started = self._said = time.monotonic()
        self._say()

    def step(self) -> None:
        """One more step is done."""
        self.done += 1
        if sys.stderr.isatty() or time.monotonic() - self._said >= _LINE_SECONDS:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        left = ""
        if self.done:
            seconds = (self._said - self._started) / self.done * (self.steps - self.done)
            left = f", about {duration(seconds)} left"
        begin, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
        text = f"{self.what}: {self.done} of {self.steps}{left}"
        print(f"{begin}{text}", end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Wipes the line."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A duration for people: ``40 s`` or ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def shown(rows: Sequence[Sequence[Any]], headers: Sequence[str], markdown: bool = False) -> str:
    """A table for a terminal, or in Markdown."""
    if not markdown:
        return table(rows, headers)
    lines = [headers, ["---"] * len(headers), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser whose ``--help`` shows a module's description as it was written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds where the results go."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")


def add_turn_options(
    parser: argparse.ArgumentParser,
    turns: int,
    iterations: int | None,
    warm_up: int | None = 8,
) -> None:
    """Adds how the sides take turns; a default of None is left to the benchmark."""
    parser.add_argument(
        "--turns", type=positive, default=turns, help="turns of each side (%(default)s)"
    )
    parser.add_argument(
        "--iterations",
        type=positive,
        default=iterations,
        help=f"of each turn ({iterations or 'see above'})",
    )
    parser.add_argument(
        "--warm-up",
        type=positive,
        default=warm_up,
        help=f"iterations before the first turn, not counted ({warm_up or 'see above'})",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=usable_cores(),
        help="CPU threads of each side (as many as there are cores: %(default)s)",
    )


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Writes results, whole or not at all, where a file was named; no figure becomes null.

    Raises:
        StorageError: where the file cannot be written.
    """
    if path is not None:
        atomic_write_json(path, finite(dict(content)))
