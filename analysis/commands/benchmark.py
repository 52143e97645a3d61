"""`benchmark`: eager PyTorch against every export, on CPU and GPU."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.commands.common import Subcommands, add_model
from model.cli import positive
from model.errors import ConfigurationError
from model.files import atomic_write, atomic_write_json, finite, storage_errors
from model.validation import did_you_mean

_PICTURES = (".png", ".svg")


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    benchmark = commands.add_parser(
        "benchmark",
        help="latency of a model: eager PyTorch against every export",
        description="Measures greedy decoding on real sources: eager PyTorch, as published and as "
        "this project does it, against every export; making a fixed number of steps, and stopping "
        "by itself. All sides take turns in one process with the same threads.",
        epilog="example: python -m analysis benchmark everyday --picture benchmark.svg",
    )
    add_model(benchmark)
    benchmark.add_argument(
        "--data",
        help="prepared data set or corpus to take sources from; default what the model was trained "
        "on, or the embedded corpus where that is not at hand",
    )
    benchmark.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the CPU, and the GPU where there is one (%(default)s)",
    )
    benchmark.add_argument(
        "--exports",
        metavar="NAME,NAME",
        help="such as script-fp32,trace-int8,onnx-fp32, or none; default all",
    )
    benchmark.add_argument(
        "--batch-sizes", metavar="B,B", default="1,8,64,128", help="(%(default)s)"
    )
    benchmark.add_argument(
        "--iterations", type=positive, default=100, help="timed calls of each side (%(default)s)"
    )
    benchmark.add_argument(
        "--warm-up", type=positive, default=10, help="calls before, at least (%(default)s)"
    )
    benchmark.add_argument(
        "--steps", type=positive, default=10, help="decoding steps (%(default)s)"
    )
    benchmark.add_argument(
        "--threads", type=positive, help="CPU threads; default as many as there are cores"
    )
    benchmark.add_argument(
        "--compared",
        type=positive,
        default=1024,
        metavar="N",
        help="sources whose replies are compared (%(default)s)",
    )
    benchmark.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    benchmark.add_argument("--csv", type=Path, metavar="FILE", help="write them as CSV")
    benchmark.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")
    benchmark.add_argument("--picture", type=Path, metavar="FILE", help="PNG or SVG, by the suffix")
    benchmark.set_defaults(run=_benchmark)


def _benchmark(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from analysis.benchmark.measuring import run
    from analysis.benchmark.tables import as_text

    settings = _settings(arguments)
    # disable=None: shown in a terminal alone.
    with tqdm(total=0, desc="benchmark", unit=" turns", leave=False, disable=None) as bar:
        result = run(
            arguments.model,
            settings,
            registry=arguments.registry,
            data=arguments.data,
            progress=bar,
        )
    print(as_text(result))
    _write(arguments, result)
    return 0


def _settings(arguments: argparse.Namespace) -> Any:
    """What is measured; every problem of the command line at once."""
    import torch

    from analysis.benchmark.decoders import EXPORTS
    from analysis.benchmark.measuring import Settings
    from model.machine import usable_cores

    problems: list[str] = []
    exports = tuple(EXPORTS)
    if arguments.exports is not None:
        given = [] if arguments.exports == "none" else arguments.exports.split(",")
        exports = tuple(dict.fromkeys(name.strip() for name in given))
        problems += [
            f"--exports: unknown export {name!r}{did_you_mean(name, EXPORTS)}"
            for name in exports
            if name not in EXPORTS
        ]
    sizes = _sizes(arguments.batch_sizes, problems.append)
    picture = arguments.picture
    if picture is not None and picture.suffix.lower() not in _PICTURES:
        problems.append(f"--picture: must end in .png or .svg, but is {picture}.")
    if problems:
        raise ConfigurationError("command line", problems)
    devices = {
        "auto": ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",),
        "cpu": ("cpu",),
        "cuda": ("cuda",),
    }
    return Settings(
        devices=devices[arguments.device],
        exports=exports,
        batch_sizes=sizes,
        threads=arguments.threads or usable_cores(),
        **{name: getattr(arguments, name) for name in _NUMBERS},
    )


_NUMBERS = ("iterations", "warm_up", "steps", "compared")


def _sizes(text: str, problem: Callable[[str], object]) -> tuple[int, ...]:
    try:
        return tuple(sorted({positive(size.strip()) for size in text.split(",")}))
    except argparse.ArgumentTypeError as error:
        problem(f"--batch-sizes: {error}.")
        return ()


def _write(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    from analysis.benchmark.tables import as_csv, as_markdown, as_picture

    if arguments.json:
        with storage_errors(arguments.json):
            atomic_write_json(arguments.json, finite(result))
    contents: dict[Path | None, Callable[[], bytes]] = {
        arguments.csv: lambda: as_csv(result).encode(),
        arguments.markdown: lambda: as_markdown(result).encode(),
        arguments.picture: lambda: as_picture(result, arguments.picture.suffix.lower()[1:]),
    }
    for file, content in contents.items():
        if file is not None:
            with storage_errors(file):
                atomic_write(file, content())
    for file in filter(None, (arguments.json, *contents)):
        print(f"wrote {file}")
