"""The report's figures of several objectives: the first against each of the others."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.report.figures import Figure, clip, cut_of, sample, spec_of, value_axis
from analysis.report.wording import loss, number
from analysis.results import Results
from model.wording import plural


def pareto_figures(results: Results) -> list[Figure]:
    """A figure for each objective but the first; none where there is only one."""
    return [_figure(results, other) for other in results.objectives[1:]]


def _figure(results: Results, other: str) -> Figure:
    import plotly.graph_objects as go

    title = f"{results.objective} against {other}"
    ranked = results.ranked()
    valued = ranked[ranked[other].notna()]
    if valued.empty:
        return Figure(f"pareto-{other}", title, "No trial has a value of both yet.", None)
    front = valued[valued["pareto"]].sort_values(other, kind="stable")
    rest = valued[~valued["pareto"]]
    shown = rest[rest["trial"].isin(sample(rest["trial"].tolist()))]
    traces = [_trace(shown, results, other, front=False), _trace(front, results, other, front=True)]
    spec = spec_of(go.Figure(traces))
    values = valued[results.objective].tolist()
    spec["layout"] |= {
        "xaxis": {"title": {"text": other}},
        "yaxis": value_axis(values, results.ascending, results.objective, reach=1),
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
    }
    return Figure(f"pareto-{other}", title, _caption(results, shown, rest, values), spec)


def _trace(frame: pd.DataFrame, results: Results, other: str, *, front: bool) -> Any:
    """The trials on the front, or the others; a line where the front is one."""
    import plotly.graph_objects as go

    first = results.objective
    places = zip(frame["trial"], frame[first], frame[other], strict=True)
    return go.Scatter(
        x=frame[other].tolist(),
        y=frame[first].tolist(),
        mode="lines+markers" if front and len(results.objectives) == 2 else "markers",
        name=f"{'Pareto front' if front else 'other trials'} ({len(frame)})",
        text=[f"trial {n}: {first} {loss(v)}, {other} {number(cost)}" for n, v, cost in places],
        marker={
            "symbol": "circle" if front else "circle-open",
            "size": 9 if front else 7,
            "line": {"width": 1},
        },
        line={"width": 1.5, "dash": "dot"},
        meta={"role": "accent" if front else "muted"},
        hovertemplate="%{text}<extra></extra>",
    )


def _caption(results: Results, shown: pd.DataFrame, rest: pd.DataFrame, values: list[float]) -> str:
    said = "Filled marks are on the Pareto front: no other trial is as good by every objective and "
    said += "better by one."
    if len(results.objectives) > 2:
        said += " The front is that of all objectives, so some of it may look beaten here."
    if len(shown) < len(rest):
        said += f" Of the other trials {len(shown)} of {len(rest)} are drawn."
    cut = cut_of(values, results.ascending, reach=1)
    beyond = sum(value != clip(value, cut, results.ascending) for value in values)
    if beyond:
        said += f" Beyond the axis: {plural(beyond, 'trial')} with a worse {results.objective}."
    return said
