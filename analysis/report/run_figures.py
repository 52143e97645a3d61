"""The report's figures of runs: learning curves, and the best value so far over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.report.figures import (
    Figure,
    cut_of,
    left_out_note,
    sample,
    session_lines,
    spec_of,
    value_axis,
)
from analysis.report.themes import CURVES, DASHES, STATE_WORDS, SYMBOLS
from analysis.report.wording import loss, time_unit
from analysis.results import Results
from model.wording import plural
from tuning.optuna_log import quiet_optuna

#: The most points of all curves together, and the fewest of one.
_POINTS, _FEWEST = 30_000, 12
#: The most points of one of the best curves.
_BEST_POINTS = 400

#: Iterations, and the objective at each.
Curve = tuple[npt.NDArray[Any], npt.NDArray[Any]]

LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"}


def best_curves(results: Results) -> Figure:
    """The objective of the ten best runs over iterations, drawn by Optuna."""
    title = "The ten best runs"
    curves = _curves(results)
    best = [n for n in results.ranked()["trial"].tolist() if n in curves][:CURVES]
    if not best:
        return Figure("curves-best", title, "No trial has a value yet.", None)
    states = _states(results)
    figure = _intermediate_values([_thinned(*curves[n], _BEST_POINTS) for n in best], results)
    for rank, (line, n) in enumerate(zip(figure.data, best, strict=True)):
        state = states[n]
        line.update(
            name=f"{rank + 1}. trial {n}" + ("" if state == "finished" else f", {_word(state)}"),
            mode="lines",
            marker=None,
            line={"width": 3 if rank == 0 else 1.5, "dash": DASHES[state]},
            meta={"role": f"curve{rank}"},
            hovertemplate=f"trial {n}, iteration %{{x}}: %{{y:.4f}}<extra></extra>",
        )
    spec = spec_of(figure)
    values = [value for n in best for value in curves[n][1]]
    spec["layout"] |= {
        "xaxis": {"title": {"text": "iteration"}, "rangemode": "tozero"},
        "yaxis": value_axis(values, results.ascending, results.objective, reach=1),
        "showlegend": True,
        "legend": LEGEND,
    }
    caption = "The best is the thick line. " + _cut_note(values, results, reach=1)
    return Figure("curves-best", title, caption.strip(), spec, height=420)


def _intermediate_values(curves: Sequence[tuple[Any, Any]], results: Results) -> Any:
    import optuna

    with quiet_optuna():
        study = optuna.create_study(direction=results.experiment.objective.goal)
        study.add_trials(
            optuna.trial.create_trial(
                value=float(y[-1]),
                intermediate_values=dict(zip(x.tolist(), y.tolist(), strict=True)),
            )
            for x, y in curves
        )
        return optuna.visualization.plot_intermediate_values(study)


def all_curves(results: Results) -> Figure:
    """The objective of all runs over iterations, one trace for each state."""
    import plotly.graph_objects as go

    title = "All runs"
    curves = _curves(results)
    if not curves:
        return Figure("curves-all", title, "No trial has reported a value.", None)
    states = _states(results)
    ranked = [n for n in results.ranked()["trial"].tolist() if n in curves]
    shown = sample(ranked)
    most = max(_FEWEST, _POINTS // len(shown))
    figure = go.Figure()
    for state in DASHES:
        own = [n for n in shown if states[n] == state]
        if own:
            figure.add_traces(_traces_of_curves(own, state, curves, most))
    spec = spec_of(figure)
    values = [value for n in shown for value in curves[n][1]]
    spec["layout"] |= {
        "xaxis": {"title": {"text": "iteration"}, "rangemode": "tozero"},
        "yaxis": value_axis(values, results.ascending, results.objective),
        "showlegend": True,
        "legend": LEGEND,
    }
    return Figure(
        "curves-all", title, _curves_caption(results, curves, shown, most, values), spec, 420
    )


def _curves_caption(
    results: Results,
    curves: dict[int, Any],
    shown: Sequence[int],
    most: int,
    values: Sequence[float],
) -> str:
    """What the figure leaves out, in words."""
    said = ["Each line ends with a mark at its last report; click a state to hide it."]
    silent = len(results.trials) - len(curves)
    if silent:
        said.append(f"{plural(silent, 'trial')} never reported a value.")
    if len(shown) < len(curves):
        said.append(left_out_note(len(shown), len(curves) - len(shown)))
    if any(len(curves[n][0]) > most for n in shown):
        said.append(f"Of long curves {most} points are drawn, the best one among them.")
    said.append(_cut_note(values, results))
    return " ".join(said).strip()


def _traces_of_curves(
    trials: Sequence[int], state: str, curves: dict[int, Curve], most: int
) -> list[Any]:
    """The curves of some trials as one trace, with gaps between them, and one of their ends.

    Marks on the ends alone have a trace of their own, since a browser draws each point that may
    have a mark.
    """
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for n in trials:
        iterations, values = _thinned(*curves[n], most)
        x += [*iterations.tolist(), None]
        y += [*values.tolist(), None]
        text += [str(n)] * (len(values) + 1)
    same = {
        "legendgroup": state,
        "opacity": 0.75 if len(trials) <= 60 else 0.45,
        "meta": {"role": state},
        "hovertemplate": "trial %{text}, iteration %{x}: %{y:.4f}<extra></extra>",
    }
    lines = go.Scatter(
        x=x,
        y=y,
        text=text,
        mode="lines",
        name=f"{_word(state)} ({len(trials)})",
        line={"width": 1, "dash": DASHES[state]},
        **same,
    )
    ends = go.Scatter(
        x=[curves[n][0][-1] for n in trials],
        y=[curves[n][1][-1] for n in trials],
        text=[str(n) for n in trials],
        mode="markers",
        marker={"size": 7, "symbol": SYMBOLS[state], "line": {"width": 1}},
        showlegend=False,
        **same,
    )
    return [lines, ends]


def _curves(results: Results) -> dict[int, Curve]:
    """Iterations and values of each trial that has any, without what is no figure."""
    history = results.history
    if results.objective not in history:
        return {}
    history = history[np.isfinite(history[results.objective])]
    return {
        int(n): (own["iteration"].to_numpy(dtype=int), own[results.objective].to_numpy(dtype=float))
        for n, own in history.groupby("trial")
    }


def _thinned(
    x: npt.NDArray[Any], y: npt.NDArray[Any], most: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """At most so many points of a curve: the ends, the extremes, and evenly between."""
    if len(x) <= most:
        return x, y
    kept = np.linspace(0, len(x) - 1, most - 2).round().astype(int)
    places = np.unique([*kept, int(y.argmin()), int(y.argmax())])
    return x[places], y[places]


def _states(results: Results) -> dict[int, str]:
    trials = results.trials
    return dict(zip(trials["trial"].tolist(), trials["state"].tolist(), strict=True))


def _word(state: str) -> str:
    return STATE_WORDS.get(state, state)


def _cut_note(values: Iterable[float], results: Results, reach: float = 3.0) -> str:
    array = np.asarray(list(values))
    cut = cut_of(array, results.ascending, reach)
    worst = array.max() if results.ascending else array.min()
    return "" if cut == worst else f"Values run on to {loss(worst)}, outside the frame."


def incumbent(results: Results) -> Figure:
    """The best value so far over the time of the search, and when each trial reached its best."""
    import plotly.graph_objects as go

    title = "The best so far, over time"
    ranked = results.ranked()
    if ranked.empty:
        return Figure("incumbent", title, "No trial has a value yet.", None)
    history = results.history.assign(elapsed=results.history_seconds)
    history = history[np.isfinite(history[results.objective])]
    history = history.sort_values("elapsed", kind="stable")
    end = results.steady_rows[-1].time
    unit, length = time_unit(end)
    figure = go.Figure(_bests(history, ranked, results, length))
    figure.add_trace(_steps(history, results, end, length))
    spec = spec_of(figure)
    values = ranked[results.objective].tolist()
    spec["layout"] |= {
        "xaxis": {"title": {"text": f"{unit} since the start"}, "rangemode": "tozero"},
        "yaxis": value_axis(values, results.ascending, results.objective),
        "showlegend": True,
        "legend": LEGEND,
        "shapes": session_lines(results, length),
    }
    caption = "The line is the best of all reports so far; a mark is a trial at its best report. "
    return Figure("incumbent", title, (caption + _cut_note(values, results)).strip(), spec)


def _bests(
    history: pd.DataFrame, ranked: pd.DataFrame, results: Results, length: float
) -> list[Any]:
    """The best report of each trial, one trace for each state."""
    import plotly.graph_objects as go

    when = history.set_index(["trial", "iteration"])["elapsed"]
    shown = ranked[ranked["trial"].isin(sample(ranked["trial"].tolist()))]
    traces = []
    for state in DASHES:
        own = shown[shown["state"] == state]
        if own.empty:
            continue
        places = list(zip(own["trial"], own["best_iteration"], strict=True))
        traces.append(
            go.Scatter(
                x=[when[place] / length for place in places],
                y=own[results.objective].tolist(),
                mode="markers",
                name=f"{_word(state)} ({len(own)})",
                text=[f"trial {n}, iteration {i}" for n, i in places],
                marker={"symbol": SYMBOLS[state], "size": 7, "line": {"width": 1}},
                opacity=0.85 if len(shown) <= 100 else 0.6,
                meta={"role": state},
                hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            )
        )
    return traces


def _steps(history: pd.DataFrame, results: Results, end: float, length: float) -> Any:
    """The best value so far as a line of steps, drawn on to the last row."""
    import plotly.graph_objects as go

    values = history[results.objective]
    best = values.cummin() if results.ascending else values.cummax()
    better = history[best.ne(best.shift())]
    x = [*(better["elapsed"] / length), end / length]
    y = [*better[results.objective], best.iloc[-1]]
    text = [*(f"trial {n}" for n in better["trial"]), "the last row"]
    return go.Scatter(
        x=x,
        y=y,
        text=text,
        mode="lines",
        name="best so far",
        line={"shape": "hv", "width": 2.5},
        meta={"role": "point"},
        hovertemplate="%{text}: %{y:.4f}<extra></extra>",
    )
