"""The regression guard: are we still so many times as fast as the baseline as we were?

    python benchmarks/guard.py              # a minute; exit status 1 where a ratio fell
    python benchmarks/guard.py --record     # these are the ratios from now on

Runs a short benchmarks/training_step.py and benchmarks/greedy_decoding.py at a reduced size, and
compares the ratios to the baseline, never times, with those in benchmarks/expected_ratios.json: a
ratio fails below its tolerance (80 % where nothing else is said) times the recorded one. Ratios are
kept by size, threads and precision; what was never recorded is shown and fails nothing. There are
rows in bf16 where the processor knows it. Decoded is with untrained weights: nothing ends early.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import greedy_decoding, training_step  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    BenchmarkError,
    add_output_options,
    add_turn_options,
    environment,
    make_parser,
    shown,
    write_json,
)
from model.cli import positive, run_main  # noqa: E402
from model.precision import compute_dtype  # noqa: E402

#: The recorded ratios.
EXPECTED = ROOT / "benchmarks" / "expected_ratios.json"
#: A ratio fails below this share of the recorded one, where nothing else is said.
TOLERANCE = 0.8
#: Exit status where a ratio fell.
EXIT_FELL = 1
_ABOUT = (
    "Ratios to the baseline that benchmarks/guard.py compares with; written by its --record. "
    "An entry whose source is 'required' was not measured: it is the least that is asked for at "
    "the published size."
)


@dataclass(frozen=True)
class Verdict:
    """What the guard says of one ratio.

    Attributes:
        key: Which ratio.
        measured: Now.
        expected: As recorded, or None where it never was.
        least: What would still pass, or None.
        source: Where the expected one comes from.
    """

    key: str
    measured: float
    expected: float | None = None
    least: float | None = None
    source: str = "-"

    @property
    def fell(self) -> bool:
        """Whether the ratio is too small; one that is no number is."""
        return self.least is not None and not self.measured >= self.least

    @property
    def text(self) -> str:
        """In a word."""
        return "FELL" if self.fell else "fine" if self.expected is not None else "not recorded"


def verdicts(measured: Mapping[str, float], expected: Mapping[str, Any]) -> list[Verdict]:
    """Compares ratios with the recorded ones.

    Args:
        measured: Ratios by their keys.
        expected: The content of `EXPECTED`.
    """
    found = []
    for key, ratio in measured.items():
        entry = expected["ratios"].get(key)
        if entry is None:
            found.append(Verdict(key, ratio))
            continue
        least = entry["ratio"] * entry.get("tolerance", expected["tolerance"])
        found.append(Verdict(key, ratio, entry["ratio"], least, entry["source"]))
    return found


def recorded(
    measured: Mapping[str, float], expected: Mapping[str, Any], where: Mapping[str, Any]
) -> dict[str, Any]:
    """The recorded ratios with the measured ones in their places; tolerances of theirs are kept.

    Args:
        measured: Ratios by their keys.
        expected: The content of `EXPECTED`.
        where: As of `benchmarks.side_by_side.environment`.
    """
    ratios = dict(expected["ratios"])
    source = f"measured on {where['processor']}, torch {where['torch']}"
    for key, ratio in measured.items():
        ratios[key] = ratios.get(key, {}) | {"ratio": round(ratio, 2), "source": source}
    return {"about": _ABOUT, "tolerance": expected["tolerance"], "ratios": ratios}


def read_expected(path: Path) -> dict[str, Any]:
    """The recorded ratios.

    Raises:
        BenchmarkError: where the file is not there or makes no sense.
    """
    if not path.exists():
        raise BenchmarkError(f"{path}: is not there; write it with --record.")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        float(content["tolerance"])
        for entry in content["ratios"].values():
            float(entry["ratio"]), float(entry.get("tolerance", 1)), str(entry["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(f"{path}: cannot be read: {error!r}.") from None
    return content


# Measuring


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how; see `benchmarks.training_step.Settings`."""

    data: str = "synthetic"
    hidden_size: int = 128
    batch_size: int = 64
    threads: int = 1
    turns: int = 5
    iterations: int = 3
    warm_up: int = 8

    def common(self) -> dict[str, Any]:
        """What the settings of both benchmarks have."""
        names = ("data", "hidden_size", "threads", "turns", "iterations", "warm_up")
        return {name: getattr(self, name) for name in names}


def measure(settings: Settings, ratios: Sequence[float]) -> dict[str, float]:
    """The median ratio of every side of both benchmarks, by its key.

    Args:
        settings: What is measured.
        ratios: Teacher-forcing ratios.
    """
    has_bf16 = compute_dtype("auto", torch.device("cpu")) == torch.bfloat16
    precisions = ("fp32", "bf16") if has_bf16 else ("fp32",)
    steps = training_step.Settings(
        **settings.common(), batch_size=settings.batch_size, precisions=precisions
    )
    found: dict[str, float] = {}
    for ratio in ratios:
        comparison = training_step.compare(steps, ratio)
        what = f"training step, teacher forcing {ratio:g}"
        found |= dict(_ratios(comparison, what, settings))
    decoding = greedy_decoding.Settings(
        **settings.common(), precisions=precisions, train_iterations=0
    )
    with tempfile.TemporaryDirectory() as directory:
        file = str(Path(directory) / "weights.pt")
        greedy_decoding.make_weights(decoding, file)
        comparison = greedy_decoding.compare(decoding, settings.batch_size, file)
    return found | dict(_ratios(comparison, "greedy decoding", settings))


def _ratios(
    comparison: Mapping[str, Any], what: str, settings: Settings
) -> Iterator[tuple[str, float]]:
    """Key and median ratio of every side of ours."""
    for side, found in comparison["sides"].items():
        if side != "baseline":
            key = key_of(what, side.removeprefix("ours "), settings)
            yield key, found["ratio"]["median"]


def key_of(what: str, precision: str, settings: Settings) -> str:
    """The key of a ratio: what was measured, in which precision, at which size."""
    return (
        f"{what}, {precision}, cpu x{settings.threads}, {_data_name(settings.data)}, "
        f"hidden {settings.hidden_size}, batch {settings.batch_size}"
    )


def _data_name(data: str) -> str:
    return data if data.startswith("synthetic") else Path(data).stem


def report(found: Sequence[Verdict], markdown: bool = False) -> str:
    """The verdicts as text."""
    rows = [(v.text, v.key, v.measured, v.expected, v.least, v.source) for v in found]
    return shown(rows, ("", "ratio", "now", "recorded", "least", "recorded from"), markdown)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, compares or records, and says so with the exit status."""
    parser = make_parser(__doc__ or "")
    defaults = Settings()
    parser.add_argument("--data", default=defaults.data, help="as elsewhere (%(default)s)")
    parser.add_argument("--hidden-size", type=positive, default=defaults.hidden_size)
    parser.add_argument("--batch-size", type=positive, default=defaults.batch_size)
    parser.add_argument(
        "--teacher-forcing-ratio", type=float, nargs="+", default=[1.0, 0.0], metavar="RATIO"
    )
    parser.add_argument("--expected", type=Path, default=EXPECTED, help="the recorded ratios")
    parser.add_argument("--record", action="store_true", help="record what is measured")
    add_turn_options(parser, turns=defaults.turns, iterations=defaults.iterations)
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.record and not arguments.expected.exists():
        expected: dict[str, Any] = {"tolerance": TOLERANCE, "ratios": {}}
    else:
        expected = read_expected(arguments.expected)
    settings = Settings(
        **{name: getattr(arguments, name) for name in Settings.__dataclass_fields__}
    )
    started = time.monotonic()
    measured = measure(settings, arguments.teacher_forcing_ratio)
    where = environment("cpu", settings.threads)
    if arguments.record:
        write_json(arguments.expected, recorded(measured, expected, where))
    found = verdicts(measured, expected)
    write_json(arguments.json, {"benchmark": "guard", "environment": where, "measured": measured})
    print(report(found, arguments.markdown))
    fallen = [verdict for verdict in found if verdict.fell]
    print(_closing(found, fallen, arguments.record, time.monotonic() - started))
    return EXIT_FELL if fallen and not arguments.record else 0


def _closing(
    found: Sequence[Verdict], fallen: Sequence[Verdict], record: bool, seconds: float
) -> str:
    """The last line: what it comes to."""
    if record:
        return f"\nrecorded {len(found)} ratios."
    known = [verdict for verdict in found if verdict.expected is not None]
    if not known:
        return "\nnone of these was ever recorded: nothing was compared; use --record."
    if fallen:
        return f"\n{len(fallen)} of {len(known)} ratios fell below the least ({seconds:.0f} s)."
    return f"\n{len(known)} of {len(known)} ratios are fine ({seconds:.0f} s)."


if __name__ == "__main__":
    sys.exit(run_main(main))
