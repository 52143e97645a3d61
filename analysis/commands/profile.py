"""`profile`: where a model's time and memory go."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.commands.common import Subcommands, add_model
from model.cli import positive, table
from model.config import RULES
from model.files import atomic_write_json
from model.machine import peak_memory

if TYPE_CHECKING:
    from analysis.profiling.figures import Kernel, Operator, Share
    from analysis.profiling.profiles import Profile
    from model.model_directory import DialogueModel

MODES = ("inference", "training", "both")
_MEGABYTE = 2**20
#: Characters of a kernel's name or of shapes that a table shows.
_WIDEST = 76


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    profile = commands.add_parser(
        "profile",
        help="where a model's time and memory go",
        description="Profiles replies and training steps of a model: shares by component, tables "
        "by operator, peak memory, a trace, and a short reading of them.",
        epilog="example: python -m analysis profile everyday --mode training --trace trace.json.gz",
    )
    add_model(profile)
    profile.add_argument("--mode", choices=MODES, default="both", help="what (%(default)s)")
    profile.add_argument(
        "--data",
        help="prepared data set or corpus; default the model's own or, where that is not at hand, "
        "the embedded one",
    )
    profile.add_argument("--device", choices=RULES["device"].choices, default="auto", help="where")
    profile.add_argument(
        "--batch-size", type=positive, metavar="N", help="examples in a step; default the model's"
    )
    profile.add_argument(
        "--steps",
        type=positive,
        default=10,
        metavar="N",
        help="steps to measure, and as many more to record (%(default)s)",
    )
    profile.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
    profile.add_argument(
        "--precision",
        choices=RULES["precision"].choices,
        help="of the training step; default the model's (replies are computed in fp32)",
    )
    profile.add_argument(
        "--top", type=positive, default=12, metavar="N", help="rows of each table (%(default)s)"
    )
    profile.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    profile.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a Chrome trace, .json or .json.gz, for ui.perfetto.dev; with --mode both one "
        "of each, -inference and -training put after the name",
    )
    profile.set_defaults(run=_profile)


def _profile(arguments: argparse.Namespace) -> int:
    from analysis.profiling.profiles import model_data
    from analysis.profiling.trace import check_suffix
    from model.model_directory import load

    if arguments.trace:
        check_suffix(arguments.trace)
    bot = load(arguments.model, arguments.registry, arguments.device)
    data, notes = model_data(bot, arguments.data)
    for note in notes:
        print(f"note: {note}")
    modes = MODES[:2] if arguments.mode == "both" else (arguments.mode,)
    with _threads(arguments.threads):
        profiles = [_run(mode, bot, data, arguments) for mode in modes]
    for profile in profiles:
        print(_text(profile, arguments.top))
    print(f"peak memory of this process: {peak_memory() / _MEGABYTE:.0f} MB")
    if arguments.json:
        content = {"model": str(bot.path), "profiles": [p.to_mapping() for p in profiles]}
        atomic_write_json(arguments.json, content)
        print(f"wrote {arguments.json}")
    if arguments.trace:
        for profile in profiles:
            file = _trace_file(arguments.trace, profile.mode if len(profiles) > 1 else None)
            print(f"wrote {profile.trace.write(file)} (open it at https://ui.perfetto.dev)")
    return 0


def _run(mode: str, bot: DialogueModel, data: Any, arguments: argparse.Namespace) -> Profile:
    from analysis.profiling.profiles import TRAINING, profile_inference, profile_training

    common: dict[str, Any] = {
        "batch_size": arguments.batch_size,
        "steps": arguments.steps,
        "progress": True,
    }
    if mode == TRAINING:
        return profile_training(bot, data, precision=arguments.precision, **common)
    return profile_inference(bot, data, **common)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many CPU threads within the block; None leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trace_file(file: Path, mode: str | None) -> Path:
    if mode is None:
        return file
    stem, dot, suffix = file.name.partition(".json")
    return file.with_name(f"{stem}-{mode}{dot}{suffix}")


def _text(profile: Profile, top: int) -> str:
    what = {"inference": "Inference", "training": "Training step"}[profile.mode]
    lines = [
        f"{what}: {profile.step_ms:.1f} ms a step (median of {profile.steps} without the "
        f"profiler; {profile.profiled_ms:.1f} ms under it), batch {profile.batch_size}, "
        f"{profile.precision}, {profile.device}, CPU threads {profile.threads}, "
        f"data {profile.data}",
        *(f"note: {note}" for note in profile.notes),
        "",
        profile.reading,
        f"At their peak tensors hold {profile.peak_bytes / _MEGABYTE:.1f} MB, of which "
        f"{profile.resident_bytes / _MEGABYTE:.1f} MB are there all the time.",
        "",
        _components_table(profile.components, profile.mode == "training"),
        "",
        _operators_table(profile.operators[:top], len(profile.operators)),
        "",
        _operators_table(profile.by_shape[:top], len(profile.by_shape)),
        "",
    ]
    if profile.kernels:
        lines += [_kernels_table(profile.kernels[:top]), ""]
    return "\n".join(lines)


def _components_table(components: Sequence[Share], training: bool) -> str:
    from analysis.profiling.components import COMPONENTS

    headers = ["component", "%", "ms a step", "forward", "backward", "what"]
    rows: list[list[Any]] = []
    for c in components:
        passes = [_short(c.forward), _short(c.backward)]
        row = [c.component, _short(100 * c.share), _short(c.milliseconds), *passes]
        rows.append([*row, COMPONENTS[c.component]])
    total = [sum(getattr(c, field) for c in components) for field in ("forward", "backward")]
    everything = [_short(100 * sum(c.share for c in components)), _short(sum(total))]
    rows.append(["all", *everything, *map(_short, total), ""])
    kept = [0, 1, 2, 3, 4, 5] if training else [0, 1, 2, 5]
    return table([[row[i] for i in kept] for row in rows], [headers[i] for i in kept])


def _operators_table(rows: Sequence[Operator], of: int) -> str:
    by_shape = any(row.shapes for row in rows)
    on_gpu = any(row.device_ms is not None for row in rows)
    headers = ["operator", "%", "calls", "self ms", "total ms", "MB"]
    texts: list[list[Any]] = [
        [
            row.name,
            _short(100 * row.share),
            _short(row.calls),
            _short(row.self_ms),
            _short(row.total_ms),
            _short(row.memory_bytes / _MEGABYTE),
        ]
        for row in rows
    ]
    if on_gpu:
        headers.insert(3, "GPU ms")
        for text, row in zip(texts, rows, strict=True):
            text.insert(3, _short(row.device_ms or 0.0))
    if by_shape:
        headers.append("shapes")
        for text, row in zip(texts, rows, strict=True):
            text.append(_cut(row.shapes or ""))
    title = f"operators{' by input shape' if by_shape else ''} (the first {len(rows)} of {of})"
    return f"{title}\n{table(texts, headers)}"


def _kernels_table(rows: Sequence[Kernel]) -> str:
    texts = [[_cut(r.name), _short(100 * r.share), _short(r.calls), r.milliseconds] for r in rows]
    return f"kernels\n{table(texts, ['kernel', '%', 'calls', 'ms'])}"


def _cut(text: str) -> str:
    """As much of a text as a terminal has room for."""
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."


def _short(value: float) -> float:
    """Rounded for a table: two places, and no minus before a nought."""
    return round(value, 2) + 0.0
