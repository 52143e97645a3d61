"""The result of a benchmark as text, Markdown, CSV and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from model.cli import table

Result = dict[str, Any]
Cells = list[str]

_DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_COLOURS = {"fixed": "#0b6bb5", "natural": "#b45309"}


@dataclass(frozen=True)
class Table:
    """A table with its title."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Cells]


def as_text(result: Result) -> str:
    """For a terminal."""
    parts = [_heading(result)]
    parts += [f"{t.title}\n\n{table(t.rows, t.headers)}" for t in tables(result)]
    return "\n\n".join(parts)


def as_markdown(result: Result) -> str:
    """The same in Markdown."""
    parts = ["# Greedy decoding", _heading(result)]
    for found in tables(result):
        rows = [found.headers, ["---"] * len(found.headers), *found.rows]
        lines = [f"| {' | '.join(cells)} |" for cells in rows]
        parts.append(f"## {found.title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def tables(result: Result) -> Iterator[Table]:
    """Every table: latencies as they are published, details, natural stopping, and agreement."""
    steps = result["settings"]["steps"]
    for size in result["settings"]["batch_sizes"]:
        yield _published(result, size, f"Batch {size}, {steps} decoding steps, median")
    for device in result["settings"]["devices"]:
        yield _details(result, device, f"{steps} decoding steps on the {_DEVICES[device]}")
        yield _natural(result, device, f"Stopping by itself, on the {_DEVICES[device]}")
        yield _agreement(result, device)
    missing = _missing(result)
    if missing:
        yield Table("Not measured", ("Framework", "Device", "Batch", "Why"), missing)


def _heading(result: Result) -> str:
    model, settings, where = result["model"], result["settings"], result["environment"]
    loss = model["val_loss"]
    used = f"{where['processor']}, {where['threads']} threads"
    if "gpu" in where:
        used += f"; {where['gpu']}"
    lines = [
        f"{model['path']}: hidden {model['hidden_size']}, {model['encoder_layers']}+"
        f"{model['decoder_layers']} layers, {model['vocabulary_size']:,} words"
        + ("" if loss is None else f", val_loss {loss:.3f}"),
        f"sources: {result['sources']['description']}",
        f"{used}; torch {where['torch']}; {_calls(result)} calls of each side, in turns, "
        "after warm-up",
    ]
    if settings["iterations"] < 100:
        lines.append(f"note: {settings['iterations']} iterations are few; figures need 100 or more")
    if result["sources"]["note"]:
        lines.append(f"note: {result['sources']['note']}")
    return "\n".join(lines)


def _calls(result: Result) -> int:
    counts = [row["latency"]["calls"] for row in result["latencies"] if row["latency"]]
    return max(counts, default=0)


def _published(result: Result, size: int, title: str) -> Table:
    """As in the published comparisons."""
    found: dict[str, dict[str, str]] = {}
    for row in result["latencies"]:
        if row["batch_size"] == size and row["stopping"] == "fixed" and row["latency"]:
            found.setdefault(row["framework"], {})[row["device"]] = _ms(row, "median_ms")
    headers = ("Framework", "Latency on CPU (ms)", "Latency on GPU (ms)")
    rows = [[name, *(by.get(device, "-") for device in _DEVICES)] for name, by in found.items()]
    return Table(title, headers, rows)


def _rows(result: Result, device: str, stopping: str) -> Iterator[dict[str, Any]]:
    for row in result["latencies"]:
        if (row["device"], row["stopping"]) == (device, stopping) and row["latency"]:
            yield row


def _details(result: Result, device: str, title: str) -> Table:
    headers = (
        *("Batch", "Framework", "median ms", "mean ms", "p95 ms", "p99 ms", "replies/s"),
        "times as published (95 %)",
    )
    return Table(title, headers, [_detail(row) for row in _rows(result, device, "fixed")])


def _detail(row: dict[str, Any]) -> Cells:
    return [
        str(row["batch_size"]),
        row["framework"],
        *(_ms(row, name) for name in ("median_ms", "mean_ms", "p95_ms", "p99_ms")),
        f"{row['latency']['replies_per_second']:.0f}",
        _ratio(row["speedup"]),
    ]


def _natural(result: Result, device: str, title: str) -> Table:
    headers = (
        *("Batch", "Framework", "median ms", "mean ms", "p95 ms", "p99 ms", "replies/s"),
        *("times as published (95 %)", "times its own fixed steps (95 %)"),
    )
    rows = [[*_detail(row), _ratio(row["gain"])] for row in _rows(result, device, "natural")]
    return Table(title, headers, rows)


def _agreement(result: Result, device: str) -> Table:
    rows = [
        [
            side["framework"],
            *(_share(side["agreement"][key]) for key in _SHARES),
            "{tied_words} / {tied_replies}".format(**side["agreement"]),
        ]
        for side in result["sides"]
        if side["device"] == device and side["agreement"]
    ]
    compared = next((s["agreement"]["replies"] for s in result["sides"] if s["agreement"]), 0)
    return Table(
        f"Agreement with eager fp32 on the {_DEVICES[device]}, {compared:,} replies",
        (
            *("Framework", "next word, same prefix", "free-running", "equal replies"),
            "ties: words / replies",
        ),
        rows,
    )


_SHARES = ("next_word", "free_running", "equal_replies")
_TIES = ("tied_words", "tied_replies")


def _missing(result: Result) -> list[Cells]:
    rows = [
        [side["framework"], _DEVICES[side["device"]], "all", side["reason"]]
        for side in result["sides"]
        if side["reason"]
    ]
    rows += [
        [row["framework"], _DEVICES[row["device"]], str(row["batch_size"]), row["reason"]]
        for row in result["latencies"]
        if row["reason"]
    ]
    return [[cell.replace("|", "/") for cell in row] for row in rows]


def _ms(row: dict[str, Any], name: str) -> str:
    value = row["latency"][name]
    return f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _ratio(ratio: dict[str, float] | None) -> str:
    return "-" if ratio is None else "{value:.2f} ({low:.2f}-{high:.2f})".format(**ratio)


def _share(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.2f} %"  # noqa: PLR0124 - NaN


def as_csv(result: Result) -> str:
    """One line for each device, batch size, side and way of stopping; and each side without any."""
    agreement = {(side["device"], side["side"]): side for side in result["sides"]}
    rows = [_csv_row(row, agreement[row["device"], row["side"]]) for row in result["latencies"]]
    rows += [_csv_row(side, side) for side in result["sides"] if side["reason"]]
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


_LATENCY = ("calls", "median_ms", "mean_ms", "p95_ms", "p99_ms", "replies_per_second")
_RATIOS = [f"{name}{part}" for name in ("speedup", "gain") for part in ("", "_low", "_high")]
_COLUMNS = (
    *("device", "batch_size", "stopping", "side", "framework", *_LATENCY, *_RATIOS),
    *(*_SHARES, *_TIES, "reason"),
)


def _csv_row(row: dict[str, Any], side: dict[str, Any]) -> dict[str, Any]:
    found = {name: row[name] for name in _COLUMNS[:5] if name in row} | {"reason": row["reason"]}
    found |= row.get("latency") or {}
    for name in ("speedup", "gain"):
        ratio = row.get(name) or {}
        found |= {f"{name}_{part}".removesuffix("_value"): ratio[part] for part in ratio}
    agreement = side["agreement"] or {}
    return found | {name: agreement[name] for name in (*_SHARES, *_TIES) if name in agreement}


def as_picture(result: Result, suffix: str) -> bytes:
    """Bars of the medians, a panel for each device and batch size.

    Args:
        result: Of `analysis.benchmark.measuring.run`.
        suffix: ``png`` or ``svg``.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    devices, sizes = result["settings"]["devices"], result["settings"]["batch_sizes"]
    names = list(dict.fromkeys(side["framework"] for side in result["sides"]))
    # Element ids of an SVG come from the salt, and its date is left out: the same result gives the
    # same bytes.
    with rc_context({"svg.hashsalt": "benchmark", "font.size": 9}):
        figure = Figure(
            figsize=(2.4 + 3.2 * len(sizes), 1.2 + 0.42 * len(names) * len(devices)),
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(devices), len(sizes), squeeze=False, sharey=True)
        for device, across in zip(devices, panels, strict=True):
            for size, panel in zip(sizes, across, strict=True):
                _draw(panel, result, names, device, size)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        out = io.BytesIO()
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(out, format=suffix, dpi=120, metadata=metadata)
    return out.getvalue()


def _draw(panel: Any, result: Result, names: list[str], device: str, size: int) -> None:
    steps = result["settings"]["steps"]
    labels = {"fixed": f"{steps} steps", "natural": "stopping by itself"}
    for stopping, offset in (("fixed", -0.2), ("natural", 0.2)):
        found = {
            row["framework"]: row
            for row in _rows(result, device, stopping)
            if row["batch_size"] == size
        }
        shown = [name for name in names if name in found]
        places = [names.index(name) + offset for name in shown]
        medians = [found[name]["latency"]["median_ms"] for name in shown]
        panel.barh(places, medians, 0.38, color=_COLOURS[stopping], label=labels[stopping])
        for place, name, median in zip(places, shown, medians, strict=True):
            speedup = found[name]["speedup"]
            if speedup is not None:
                panel.text(median, place, f" {speedup['value']:.2f}x", va="center", fontsize=7)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.margins(x=0.18)
    panel.set_xlabel("ms a batch, median")
    panel.set_title(f"{_DEVICES[device]}, batch {size}")
    panel.spines[["top", "right"]].set_visible(False)
