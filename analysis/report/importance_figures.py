"""The report's figures of importance: what mattered by each method, and linear correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from analysis.importance.estimates import Importance
from analysis.report.figures import Figure, broken, spec_of

#: The methods of importance, as headings.
TITLES = {
    "ped-anova": "PED-ANOVA",
    "fanova": "fANOVA",
    "random-forest": "Random forest (W&B)",
}


def importance_figures(found: Sequence[Importance]) -> list[Figure]:
    """A bar for each parameter, one figure a method, with the interval of the bootstrap."""
    return [_importance(importance) for importance in found if len(importance.frame)]


def _importance(importance: Importance) -> Figure:
    import plotly.graph_objects as go

    frame = importance.frame
    if "category" in frame:  # the rows of categories have part of what their parameter has
        frame = frame[frame["category"].isna()]
    frame = frame.iloc[::-1]  # the first bar is the lowest
    known = frame["importance"].to_numpy(dtype=float)
    error = {
        "type": "data",
        "symmetric": False,
        "array": np.maximum(0, frame["high"].to_numpy(dtype=float) - known),
        "arrayminus": np.maximum(0, known - frame["low"].to_numpy(dtype=float)),
        "thickness": 1.5,
        "width": 4,
    }
    bars = go.Bar(
        x=known,
        y=[broken(escape(str(name))) for name in frame["parameter"]],
        orientation="h",
        error_x=error,
        meta={"role": "accent"},
        hovertemplate="%{x:.3f}<extra></extra>",
    )
    spec = spec_of(go.Figure(bars))
    spec["layout"] |= {
        "xaxis": {"title": {"text": "importance"}, "rangemode": "tozero"},
        "yaxis": {"fixedrange": True, "ticks": "outside", "ticklen": 6},
        "bargap": 0.35,
    }
    caption = importance.question
    if math.isfinite(importance.first):
        first = frame["parameter"].iloc[-1]
        caption += f" {first} came first in {100 * importance.first:.0f} % of the samples."
    name = f"importance-{importance.method}"
    title = TITLES.get(importance.method, importance.method)
    return Figure(name, title, caption, spec, 90 + 44 * len(frame))


def correlation_figure(
    found: Sequence[Importance], objective: str, ascending: bool
) -> Figure | None:
    """Linear correlation of each parameter with the objective; None where none was measured."""
    import plotly.graph_objects as go

    frames = [importance.frame for importance in found if "correlation" in importance.frame]
    frame = frames[0][frames[0]["correlation"].notna()].iloc[::-1] if frames else None
    if frame is None or frame.empty:
        return None
    known = frame["correlation"].to_numpy(dtype=float)
    names = [broken(escape(str(name))) for name in frame["parameter"]]
    bars = [
        go.Bar(
            x=np.where(side, known, np.nan),
            y=names,
            orientation="h",
            meta={"role": role},
            hovertemplate="%{x:.2f}<extra></extra>",
        )
        for side, role in ((known >= 0, "accent"), (known < 0, "negative"))
    ]
    spec = spec_of(go.Figure(bars))
    spec["layout"] |= {
        "barmode": "overlay",
        "showlegend": False,
        "xaxis": {"title": {"text": "correlation"}, "range": [-1, 1]},
        "yaxis": {"fixedrange": True, "ticks": "outside", "ticklen": 6},
        "bargap": 0.35,
    }
    better, side = ("lower", "right") if ascending else ("higher", "left")
    caption = (
        f"How does {objective} move with each, in a straight line? Of {objective}, {better} is "
        f"better: bars to the {side} are of what made it worse by growing."
    )
    return Figure("correlation", "Correlation", caption, spec, 90 + 44 * len(frame))
