"""The learning curve of a training run as a picture: losses in nats a token over iterations.

matplotlib is needed to draw, and for nothing else in this package: it is imported when a curve is
drawn, and training goes on without it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width and height in inches, and dots an inch.
_SIZE = (7.2, 4.2)
_DOTS_PER_INCH = 120
_TRAINING, _HELD_OUT, _MARK = "#8a8f98", "#1f5fa8", "#b3261e"

Row = Mapping[str, Any]


def read_history(file: Path) -> list[dict[str, Any]]:
    """The reports of a ``history.jsonl``; lines that are torn or no reports are passed over."""
    reports = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            reports.append(row)
    return reports


def write_curve(history: Iterable[Row], file: Path) -> bool:
    """Draws training and held-out loss over iterations into a PNG file.

    Args:
        history: Reports in any order, with ``iteration``, ``loss``, ``val_loss`` and, of a report
            at which the run diverged, ``diverged_loss``; what is missing or null is left out.
        file: Replaced, whole or not at all.

    Returns:
        Whether there was anything to draw; if not, nothing is written.

    Raises:
        ModuleNotFoundError: where matplotlib is not installed.
        StorageError: where the file cannot be written.
    """
    rows = sorted(history, key=lambda row: int(row["iteration"]))
    if not (_points(rows, "loss") or _points(rows, "val_loss")):
        return False
    figure = curve_figure(rows)
    atomic_write(
        file,
        # No date and no version within: the same history gives the same bytes.
        lambda out: figure.savefig(
            out, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None}
        ),
    )
    return True


def curve_figure(history: Iterable[Row]) -> Figure:
    """The picture of `write_curve` as a matplotlib figure, which a notebook shows by itself.

    Raises:
        ModuleNotFoundError: where matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows = sorted(history, key=lambda row: int(row["iteration"]))
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    _draw_losses(axes, rows)
    _mark_best(axes, rows)
    _mark_divergence(axes, rows)
    axes.set_title("Learning curve", loc="left")
    axes.set_xlabel("iterations (batches)")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(axis="y", color="#e3e5e8")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def _points(rows: Iterable[Row], metric: str) -> list[tuple[int, float]]:
    """Iteration and figure of every report that has one and is of a run still whole."""
    return [
        (int(row["iteration"]), float(row[metric]))
        for row in rows
        if "diverged_loss" not in row
        and isinstance(row.get(metric), int | float)
        and math.isfinite(row[metric])
    ]


def _draw_losses(axes: Axes, rows: list[Row]) -> None:
    lines = (("loss", "training", _TRAINING), ("val_loss", "held out", _HELD_OUT))
    for metric, label, colour in lines:
        points = _points(rows, metric)
        if points:
            # A dot each while they can be told apart: one report alone makes no line.
            marker = "o" if len(points) <= 40 else ""
            iterations, losses = zip(*points, strict=True)
            axes.plot(iterations, losses, color=colour, label=label, marker=marker, markersize=3)


def _mark_best(axes: Axes, rows: list[Row]) -> None:
    points = _points(rows, "val_loss")
    if points:
        iteration, loss = min(points, key=lambda point: (point[1], point[0]))
        label = f"best held out: {loss:.4f} at {iteration}"
        axes.plot(
            [iteration], [loss], "o", color=_MARK, markersize=7, fillstyle="none", label=label
        )


def _mark_divergence(axes: Axes, rows: list[Row]) -> None:
    for row in rows:
        if "diverged_loss" in row:
            label = f"diverged at {row['iteration']}"
            axes.axvline(row["iteration"], color=_MARK, linestyle="--", label=label)
