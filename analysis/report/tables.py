"""What the report shows as tables and lines of text, from an experiment's results and manifest."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.importance.estimates import Importance
from analysis.overhead import PARTS, Session
from analysis.promotion.verdict import SoFar
from analysis.report.importance_figures import TITLES
from analysis.report.themes import STATE_WORDS
from analysis.report.wording import duration, loss, number, without_directories
from analysis.results import Results
from model.wording import listing, plural
from tuning.journal import Row, trials_asked_for

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep


def problems_of(results: Results) -> list[str]:
    """What is damaged or missing, in words."""
    return list(results.problems)


def date_of(results: Results) -> str:
    """When the last row was written, in UTC; the experiment's beginning where there is none."""
    if not results.rows:
        return str(results.experiment.manifest["created"])[:16].replace("T", " ")
    return datetime.fromtimestamp(results.rows[-1].time, UTC).strftime("%Y-%m-%d %H:%M")


def configuration_of(results: Results, best: pd.Series[Any]) -> dict[str, Any]:
    """The best trial: what was searched, and what it measured."""
    metrics = ("val_loss", "val_perplexity", "val_token_accuracy", "loss")
    others = [name for name in metrics if name != results.objective and not pd.isna(best[name])]
    return {
        "trial": best["trial"],
        "state": STATE_WORDS.get(best["state"], best["state"]),
        "searched": [(name, number(best[name])) for name in results.searched],
        "metrics": [(name, number(best[name])) for name in others],
        "seconds": best["seconds"],
        "weights": isinstance(best["weights"], str),
    }


def confirmed_rows(confirmed: SoFar) -> list[tuple[str, ...]]:
    """Configurations with fresh runs: trials, mean, interval, runs, how many have no value."""
    rows: list[tuple[str, ...]] = []
    for each in [*confirmed.configurations, *confirmed.unfinished]:
        mean, interval = "none", "-"
        if each in confirmed.unfinished:
            mean = "unfinished"
        elif each.mean is not None and each.low is not None and each.high is not None:
            mean, interval = loss(each.mean), f"{loss(each.low)} to {loss(each.high)}"
        diverged = sum(outcome.value is None for outcome in each.outcomes)
        trials = ", ".join(map(str, each.trials))
        rows.append((trials, mean, interval, str(len(each.outcomes)), str(diverged)))
    return rows


def importance_table(importance: Importance) -> dict[str, Any]:
    """What a method of importance says, as texts."""
    rows = [
        (
            row["parameter"],
            *(number(round(row[name], 3)) for name in ("importance", "low", "high")),
            number(round(row["correlation"], 3)) if "correlation" in row else "",
        )
        for row in importance.frame.to_dict("records")
    ]
    correlated = "correlation" in importance.frame
    method = TITLES.get(importance.method, importance.method)
    return {"method": method, "rows": rows, "correlated": correlated}


def leaders(found: Iterable[Importance]) -> str:
    """Which hyper-parameter each method puts first, in a sentence."""
    first: dict[str, list[str]] = {}
    for each in found:
        if len(each.frame):
            first.setdefault(str(each.frame.iloc[0]["parameter"]), []).append(
                TITLES.get(each.method, each.method)
            )
    if not first:
        return ""
    if len(first) == 1:
        return f"Every method puts {next(iter(first))} first."
    return (
        "They differ: "
        + "; ".join(
            f"{name} comes first by {' and '.join(methods)}" for name, methods in first.items()
        )
        + "."
    )


def columns_of(results: Results) -> list[str]:
    """Columns of the table: those that say something, the searched ones in the sweep's order."""
    trials = results.trials
    columns = ["trial", "state", results.objective, "best_iteration", "iteration", "seconds"]
    columns += results.searched
    columns += [
        name
        for name in ("val_loss", "val_perplexity", "val_token_accuracy", "loss", "reason")
        if name != results.objective and trials[name].notna().any()
    ]
    if (trials["attempts"] > 1).any():
        columns.insert(6, "attempts")
    return list(dict.fromkeys(columns))


def cells(row: Mapping[Any, Any], objective: str) -> list[dict[str, Any]]:
    """A row of the table: each cell's text, and what it is sorted by where that is a number."""
    cells = []
    for name, value in row.items():
        missing = value is None or pd.isna(value)
        numeric = not missing and isinstance(value, int | float) and not isinstance(value, bool)
        if missing:
            text = "-"
        elif name == objective:
            text = loss(value)
        elif name == "state":
            text = STATE_WORDS.get(value, value)
        else:
            text = number(value) if numeric else without_directories(str(value))
        cells.append({"text": text, "by": float(value) if numeric else None, "missing": missing})
    return cells


def command_of(arguments: list[str]) -> str:
    """The command line; of absolute paths only the last part, since they are another machine's."""
    return shlex.join(
        "".join(shortened(piece) for piece in part.partition("=")) for part in arguments
    )


def space_of(sweep: Sweep) -> list[str]:
    """One line for each field: its name and what it can be, absolute paths cut."""
    lines = []
    for line in sweep.space.describe():
        what = line.split(maxsplit=1)[-1]
        lines.append(line.removesuffix(what) + shortened(what))
    return lines


def shortened(value: Any) -> Any:
    """A value as JSON has it, with absolute paths cut to their last part, spaces or not."""
    if isinstance(value, Mapping):
        return {name: shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return PurePosixPath(value).name if value.startswith("/") else without_directories(value)


def _settings(settings: dict[str, Any]) -> Iterator[str]:
    """What was set, as words; what was left to itself is not said."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif value is not None:
            yield f"{name} {number(value)}"


def environment_of(manifest: dict[str, Any], rows: Iterable[Row]) -> list[tuple[str, str]]:
    """What a repetition needs to be the same, by name; what is not known is left out.

    Args:
        manifest: The experiment's.
        rows: Its journal, where trials may have been added.
    """
    data = manifest["data"]
    counts = ", ".join(f"{name} {n}" for name, n in data["counts"].items() if n)
    known = {
        "sweep file": without_directories(str(manifest["sweep_file"])),
        "seed": manifest["seed"],
        "trials asked for": trials_asked_for(manifest["trials"], rows),
        "begun": str(manifest["created"]).replace("T", " "),
        "commit": manifest["commit"],
        "versions": ", ".join(
            f"{name} {version}" for name, version in manifest["versions"].items()
        ),
        "data": counts,
        "data fingerprint": data["fingerprint"],
        "settings": ", ".join(_settings(manifest["settings"])),
    }
    return [(name, without_directories(str(v))) for name, v in known.items() if v is not None]


def spent(sessions: list[Session]) -> str:
    """Where the workers' time went, in a sentence."""
    seconds = sum(session.worker_seconds for session in sessions)
    if not seconds:
        return ""
    parts = {part: sum(session.parts[part] for session in sessions) for part in PARTS}
    largest = sorted(parts, key=lambda part: parts[part], reverse=True)[:3]
    shares = [f"{part} {100 * parts[part] / seconds:.0f} %" for part in largest if parts[part]]
    workers = max(session.workers for session in sessions)
    wall = sum(session.wall_seconds for session in sessions)
    return (
        f"{duration(wall)} on {plural(workers, 'worker')}"
        + (f" in {len(sessions)} sessions" if len(sessions) > 1 else "")
        + f". Of the workers' time, most went to: {listing(shares)}."
    )
