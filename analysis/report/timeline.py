"""The report's timeline: what each worker did, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from analysis.report.figures import Figure, session_lines, spec_of
from analysis.report.run_figures import LEGEND
from analysis.report.themes import DASHES, STATE_WORDS
from analysis.report.wording import duration, time_unit
from analysis.results import Results

#: The most workers, and attempts, that it shows.
_WORKERS, _ATTEMPTS = 48, 2000


@dataclass
class Attempt:
    """An attempt at a trial: from its proposal or restart to its last row.

    Attributes:
        trial, number: Which trial, and which attempt at it, from 1.
        begin, end: In seconds since the search began (`tuning.journal.clock`).
        state: What became of it.
        worker: ``host:pid``, or None where it never reported.
    """

    trial: int
    number: int
    begin: float
    end: float
    state: str
    worker: str | None


def attempts(results: Results) -> list[Attempt]:
    """Every attempt at every trial, in the order in which they began."""
    found: list[Attempt] = []
    live: dict[int, Attempt] = {}
    for row in results.steady_rows:
        if row.trial is None or row.kind in ("retried", "stopped"):  # no attempt's doing
            continue
        if row.kind in ("proposed", "restarted") or row.trial not in live:
            live[row.trial] = Attempt(row.trial, row.attempt or 1, row.time, row.time, "", None)
            found.append(live[row.trial])
        attempt = live[row.trial]
        attempt.end = row.time
        attempt.worker = row.worker or attempt.worker
        attempt.state = "failed" if row.kind == "failed" else row.state or "running"
    trials = results.trials
    still = set(trials.loc[trials["state"] == "running", "trial"])
    for attempt in found:
        if attempt.state == "running" and (
            attempt is not live[attempt.trial] or attempt.trial not in still
        ):
            attempt.state = "interrupted"
        if attempt.state == "running":
            attempt.end = results.steady_rows[-1].time
    return found


def timeline(results: Results) -> Figure:
    """What each worker did and when: one bar for each attempt at a trial."""
    import plotly.graph_objects as go

    title = "Timeline of the workers"
    every = attempts(results)
    if not every:
        return Figure("timeline", title, "No trial has begun.", None)
    workers = list(dict.fromkeys(a.worker or "no report" for a in every))
    lanes = workers[-_WORKERS:]
    shown = [a for a in every if (a.worker or "no report") in lanes][-_ATTEMPTS:]
    unit, length = time_unit(results.steady_rows[-1].time)
    figure = go.Figure()
    for state in DASHES:
        own = [attempt for attempt in shown if attempt.state == state]
        if own:
            figure.add_trace(_bars(own, state, length))
    spec = spec_of(figure)
    spec["layout"] |= {
        "barmode": "overlay",
        "bargap": 0.3,
        "xaxis": {"title": {"text": f"{unit} since the start"}, "rangemode": "tozero"},
        "yaxis": {
            "type": "category",
            "categoryarray": [escape(lane) for lane in reversed(lanes)],
            "fixedrange": True,
        },
        "showlegend": True,
        "legend": LEGEND,
        "shapes": session_lines(results, length),
    }
    caption = "Each bar is an attempt at a trial on a worker, named host:process."
    if len(shown) < len(every):
        caption += f" Drawn are the last {len(shown)} of {len(every)} attempts."
    return Figure("timeline", title, caption, spec, height=130 + 26 * len(lanes))


def _bars(own: Sequence[Attempt], state: str, length: float) -> Any:
    import plotly.graph_objects as go

    return go.Bar(
        base=[a.begin / length for a in own],
        x=[(a.end - a.begin) / length for a in own],
        y=[escape(a.worker or "no report") for a in own],
        orientation="h",
        name=f"{STATE_WORDS.get(state, state)} ({len(own)})",
        customdata=[
            f"trial {a.trial}"
            + (f", attempt {a.number}" if a.number > 1 else "")
            + f", {duration(a.end - a.begin)}"
            for a in own
        ],
        hovertemplate="%{customdata}<extra>" + STATE_WORDS.get(state, state) + "</extra>",
        marker={"line": {"width": 1}},
        meta={"role": state, "outline": True},
    )
