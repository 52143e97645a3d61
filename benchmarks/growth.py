"""Cost as work grows: time, memory and preparation, in one picture each.

    python benchmarks/growth.py --data data/cornell.safetensors --corpus pairs.tsv.xz --out growth

    time-hidden       ms an iteration against the hidden size, and with it
    memory-trainer    peak memory of the training process
    time-vocabulary   ms an iteration against the vocabulary (synthetic data: random word ids)
    time-batch        ms an iteration against the batch
    memory-driver     peak memory of the search's driver against the number of one-step trials
    preparation       seconds and peak memory against the number of pairs of --corpus

Times are of the baseline, ours in fp32 and ours with the processor's best precision, in turns of a
few iterations (see benchmarks/training_step.py), teacher-forced. Without --data the hidden size and
the batch are measured on synthetic data too; without --corpus preparation is left out. Memory is
the largest resident set of the process, torch and all its libraries included.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.same_work import SYNTHETIC_WORDS  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    BenchmarkError,
    Progress,
    add_output_options,
    add_turn_options,
    environment,
    make_parser,
    run_alone,
    shown,
    write_json,
)
from benchmarks.training_step import Settings, compare  # noqa: E402
from model.cli import positive, run_main  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SECTIONS = ("hidden", "vocabulary", "batch", "driver", "preparation")
MEGABYTE = 1e6
_DOTS_PER_INCH = 130


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured at which sizes.

    Attributes:
        hidden: Hidden sizes.
        vocabulary: Words.
        batch: Examples of a batch.
        trials: Of a search.
        pairs: Of a corpus; those beyond its size become its size.
    """

    hidden: tuple[int, ...] = (64, 128, 250, 500, 1000)
    vocabulary: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000)
    batch: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    trials: tuple[int, ...] = (10, 50, 200)
    pairs: tuple[int, ...] = (10_000, 30_000, 100_000, 10**9)


# Measuring


def step_growth(
    base: Mapping[str, Any], name: str, sizes: Sequence[int]
) -> dict[str, dict[str, list[float]]]:
    """Time of an iteration and memory of its process, for each side and size.

    Args:
        base: Arguments of `benchmarks.training_step.Settings`.
        name: What grows: ``hidden_size``, ``batch_size``, or ``vocabulary`` of synthetic data.
        sizes: Its values.

    Returns:
        For each side ``sizes``, ``milliseconds`` and ``megabytes``.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for size in sizes:
        print(f"{name.replace('_', ' ')} {size}", file=sys.stderr, flush=True)
        changed = {"data": f"synthetic:{size}"} if name == "vocabulary" else {name: size}
        comparison = compare(Settings(**{**base, **changed}), 1.0)
        for side, figures in comparison["sides"].items():
            row = found.setdefault(side, {"sizes": [], "milliseconds": [], "megabytes": []})
            row["sizes"].append(size)
            row["milliseconds"].append(1000 * figures["seconds"]["median"])
            row["megabytes"].append(figures["peak_memory_bytes"] / MEGABYTE)
    return found


def search(*, trials: int) -> dict[str, Any]:
    """One search of one-step trials, in the process whose memory is measured."""
    import tuning
    from tuning.sweeps.sweep_file import parse_sweep

    fields = {
        **{"corpus": "everyday", "hidden_size": 16, "encoder_layers": 1, "decoder_layers": 1},
        **{"iterations": 1, "report_every": 1, "val_examples": 64, "threads": 1, "device": "cpu"},
    }
    parameters: dict[str, Any] = {name: {"value": value} for name, value in fields.items()}
    parameters["learning_rate"] = {"min": 0.0001, "max": 0.001}
    sweep = parse_sweep({"method": "random", "parameters": parameters})
    with tempfile.TemporaryDirectory() as storage:
        started = time.perf_counter()
        tuning.run(sweep, trials=trials, storage=storage, wandb="offline")
        return {"seconds": time.perf_counter() - started}


def driver_growth(trials: Sequence[int]) -> dict[str, list[float]]:
    """Memory of the driver for each number of trials."""
    found: dict[str, list[float]] = {"sizes": [], "seconds": [], "megabytes": []}
    for number in trials:
        print(f"search of {number} trials", file=sys.stderr, flush=True)
        _add(found, number, run_alone(f"search of {number} trials", search, trials=number))
    return found


def prepare_file(*, corpus: str) -> dict[str, Any]:
    """Prepares a corpus, in the process whose memory is measured."""
    from model.config import DataConfig
    from model.preparation import prepare

    started = time.perf_counter()
    data = prepare(DataConfig(corpus=corpus))
    return {"seconds": time.perf_counter() - started, "examples": len(data.examples["train"])}


def preparation_growth(corpus: Path, pairs: Sequence[int]) -> dict[str, list[float]]:
    """Time and memory of preparing the first so many pairs of a corpus."""
    lines = read_pairs(corpus)
    found: dict[str, list[float]] = {"sizes": [], "seconds": [], "megabytes": []}
    with tempfile.TemporaryDirectory() as directory:
        for number in sorted({min(number, len(lines)) for number in pairs}):
            print(f"preparing {number} pairs", file=sys.stderr, flush=True)
            file = Path(directory) / f"{number}.tsv"
            file.write_bytes(b"".join(lines[:number]))
            _add(found, number, run_alone(f"{number} pairs", prepare_file, corpus=str(file)))
    return found


def read_pairs(corpus: Path) -> list[bytes]:
    """The lines of a file of pairs, line feeds included.

    Raises:
        BenchmarkError: where it cannot be read, or has another format.
    """
    name = corpus.name.lower()
    if not name.endswith((".tsv", ".tsv.xz")):
        raise BenchmarkError(f"--corpus {corpus}: must be a file of pairs, .tsv or .tsv.xz.")
    try:
        content = corpus.read_bytes()
        content = lzma.decompress(content) if name.endswith(".xz") else content
    except (OSError, lzma.LZMAError) as error:
        raise BenchmarkError(f"--corpus {corpus}: cannot be read: {error}.") from None
    return [line + b"\n" for line in content.removesuffix(b"\n").split(b"\n")]


def _add(found: dict[str, list[float]], size: int, result: Mapping[str, Any]) -> None:
    found["sizes"].append(size)
    found["seconds"].append(result["seconds"])
    found["megabytes"].append(result["peak_memory_bytes"] / MEGABYTE)


# Drawing


def draw(results: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draws a picture of every section that was measured; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, panels in pictures(results):
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(6.4 * len(panels), 4.4), squeeze=False, layout="constrained"
        )
        for axis, panel in zip(axes[0], panels, strict=True):
            _draw_panel(axis, panel)
        files.append(directory / f"{name}.png")
        figure.savefig(files[-1], dpi=_DOTS_PER_INCH, facecolor="white")
        pyplot.close(figure)
    return files


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One diagram: lines of figures over sizes.

    Attributes:
        title: What it shows.
        x, y: What the axes show, with units.
        lines: For each label its sizes and figures.
        log_y: Whether the y axis is logarithmic; else it begins at 0.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log_y: bool


def pictures(results: Mapping[str, Any]) -> Iterator[tuple[str, list[Panel]]]:
    """Name and panels of each picture that there are figures for."""
    named = {
        "hidden": "hidden size (units)",
        "vocabulary": "vocabulary (words, synthetic data)",
        "batch": "batch (examples)",
    }
    for section, x in named.items():
        if section in results:
            yield f"time-{section}", [_step_panel(results[section], section, x, "milliseconds")]
    if "hidden" in results:
        yield (
            "memory-trainer",
            [_step_panel(results["hidden"], "hidden", named["hidden"], "megabytes")],
        )
    if "driver" in results:
        yield "memory-driver", [_plain_panel(results["driver"], "trials", "megabytes", "driver")]
    if "preparation" in results:
        yield (
            "preparation",
            [
                _plain_panel(results["preparation"], "pairs in the corpus", "seconds", "prepare"),
                _plain_panel(results["preparation"], "pairs in the corpus", "megabytes", "prepare"),
            ],
        )


_TITLES = {
    "milliseconds": ("Training iteration", "time of an iteration (ms)"),
    "megabytes": ("Peak memory of the process", "largest resident set (MB)"),
    "seconds": ("Preparing data", "time (s)"),
}


def _step_panel(found: Mapping[str, Any], section: str, x: str, figure: str) -> Panel:
    title, y = _TITLES[figure]
    return Panel(
        title=f"{title} by {'batch' if section == 'batch' else x.partition(' (')[0]}",
        x=x,
        y=y,
        lines={side: (row["sizes"], row[figure]) for side, row in found.items()},
        log_y=figure == "milliseconds",
    )


def _plain_panel(found: Mapping[str, Any], x: str, figure: str, label: str) -> Panel:
    title, y = _TITLES[figure]
    lines = {label: (found["sizes"], found[figure])}
    return Panel(title=f"{title} by {x}", x=x, y=y, lines=lines, log_y=False)


_STYLES = (("#777777", "s"), ("#1f77b4", "o"), ("#d95f02", "^"))


def _draw_panel(axis: Axes, panel: Panel) -> None:
    for (label, (sizes, figures)), (colour, mark) in zip(
        panel.lines.items(), _STYLES, strict=False
    ):
        axis.plot(sizes, figures, marker=mark, color=colour, label=label)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    axis.set_xscale("log")
    ticks = sorted({size for sizes, _ in panel.lines.values() for size in sizes})
    axis.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axis.minorticks_off()
    if panel.log_y:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    else:
        axis.set_ylim(0, 1.2 * max(max(figures) for _, figures in panel.lines.values()))
    axis.grid(True, color="#dddddd")
    axis.set_axisbelow(True)
    axis.legend(frameon=False)


# The command


def measure(
    sections: Sequence[str],
    sizes: Sizes,
    base: Mapping[str, Any],
    corpus: Path | None,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Measures one section after another.

    Args:
        sections: Of `SECTIONS`.
        sizes: What is measured at which sizes.
        base: Arguments of `benchmarks.training_step.Settings`.
        corpus: A file of pairs, or None to leave preparation out.
        save: Hears of the results after each section.
    """
    work: dict[str, Callable[[], Any]] = {
        "hidden": lambda: step_growth(base, "hidden_size", sizes.hidden),
        "vocabulary": lambda: step_growth(base, "vocabulary", sizes.vocabulary),
        "batch": lambda: step_growth(base, "batch_size", sizes.batch),
        "driver": lambda: driver_growth(sizes.trials),
    }
    if corpus is not None:
        work["preparation"] = lambda: preparation_growth(corpus, sizes.pairs)
    chosen = [section for section in SECTIONS if section in sections and section in work]
    results: dict[str, Any] = {
        "benchmark": "growth",
        "settings": {**base, "corpus": None if corpus is None else corpus.name},
        "environment": environment("cpu", base["threads"]),
    }
    progress = Progress("sections", len(chosen))
    for section in chosen:
        results[section] = work[section]()
        save(results)
        progress.step()
    progress.close()
    return results


def report(results: Mapping[str, Any], markdown: bool = False) -> str:
    """The results as text: a table for each section."""
    tables = []
    for section in SECTIONS:
        found = results.get(section)
        if found is None:
            continue
        if "sizes" in found:
            rows = list(zip(found["sizes"], found["seconds"], found["megabytes"], strict=True))
            headers = ["trials" if section == "driver" else "pairs", "seconds", "peak MB"]
        else:
            columns = [row[f] for row in found.values() for f in ("milliseconds", "megabytes")]
            sizes = next(iter(found.values()))["sizes"]
            rows = list(zip(sizes, *columns, strict=True))
            headers = [section, *(f"{side} {unit}" for side in found for unit in ("ms", "MB"))]
        tables.append(shown([_rounded(row) for row in rows], headers, markdown))
    return "\n\n".join(tables)


def _rounded(row: Sequence[float]) -> list[float]:
    return [value if isinstance(value, int) else round(value, 2) for value in row]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, draws and prints."""
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--data", default=f"synthetic:{SYNTHETIC_WORDS}", help="prepared data set (%(default)s)"
    )
    parser.add_argument("--corpus", type=Path, metavar="FILE", help="of pairs, .tsv or .tsv.xz")
    parser.add_argument("--out", type=Path, metavar="DIR", help="draw the pictures there")
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION"
    )
    parser.add_argument(
        "--hidden-size", type=positive, default=500, help="where another thing grows (%(default)s)"
    )
    defaults = Sizes()
    for name in Sizes.__dataclass_fields__:
        numbers = getattr(defaults, name)
        parser.add_argument(
            f"--{name}", type=positive, nargs="+", default=numbers, metavar="N", help=f"{numbers}"
        )
    add_turn_options(parser, turns=3, iterations=3)
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    names = ("data", "hidden_size", "threads", "turns", "iterations", "warm_up")
    results = measure(
        arguments.only,
        Sizes(**{name: tuple(getattr(arguments, name)) for name in Sizes.__dataclass_fields__}),
        {name: getattr(arguments, name) for name in names},
        arguments.corpus,
        save=lambda found: write_json(arguments.json, found),
    )
    print(report(results, arguments.markdown))
    if arguments.out is not None:
        print("\n" + "\n".join(map(str, draw(results, arguments.out))))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
