"""The report's figures of parameters, drawn by Optuna and recoloured by role."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np

from analysis.report.figures import Figure, View, broken, plain, spec_of, value_axis
from analysis.report.themes import DASHES, SHADES, STATE_WORDS, SYMBOLS
from analysis.report.wording import loss
from tuning.optuna_log import quiet_optuna

#: The most slices, and the most contours.
_SLICES, _CONTOURS = 8, 3
#: The most places of an axis of a contour; more would be slow in a browser and show no more.
_PLACES = 30
#: Fewer trials give no contour.
_FEW = 5
_TRIAL_AXIS = "trial"


def parallel_coordinates(view: View | None) -> Figure:
    """Every trial as a line through its parameters; ranges can be brushed on each axis."""
    title = "Parallel coordinates"
    if view is None or not view.parameters():
        return Figure(
            "parallel", title, "No trial has a value and a configuration that varies.", None
        )
    names = sorted([*view.trials[0].params, _TRIAL_AXIS])
    spec = spec_of(_with_trial_axis(view))
    lines = spec["data"][: len(view.numbers)]  # after them comes a colour bar: ranks have none
    trials = _trials_of_lines(lines, view, names)
    _paint_lines(lines, view, trials)
    trials = _best_on_top(lines, trials)
    spec["data"] = lines
    labels = [view.objective, *names]
    spec["layout"]["xaxis"] |= {
        "ticktext": [broken(escape(label)) for label in labels],
        "fixedrange": True,
    }
    _whole_ticks(spec["layout"]["annotations"], view, labels)
    spec["layout"] |= {
        "dragmode": False,
        "margin": {"l": 30, "r": 40, "t": 16, "b": 64},
        "meta": {"brush": {"axes": labels, "trials": trials}},
    }
    caption = (
        "Each line is a trial, the darker (on black: the brighter) the better its rank; dotted "
        "lines were stopped early. Drag along an axis to keep the trials of a range; they are "
        "counted below, and the table of trials shows just them. On the keyboard: Tab to an axis, "
        f"arrows move the range, with Shift widen or narrow it, Escape clears it. {view.note}"
    )
    return Figure("parallel", title, caption.strip(), spec, height=440, min_width=90 * len(labels))


def _with_trial_axis(view: View) -> Any:
    """Optuna's figure of the view, with the trial number as one more parameter."""
    import optuna

    study = view.study(
        [t.params | {_TRIAL_AXIS: n} for n, t in zip(view.numbers, view.trials, strict=True)],
        **{_TRIAL_AXIS: optuna.distributions.IntDistribution(min(view.numbers), max(view.numbers))},
    )
    with quiet_optuna():
        return optuna.visualization.plot_parallel_coordinate(study, target_name=view.objective)


def _trials_of_lines(
    lines: Sequence[dict[str, Any]], view: View, names: Sequence[str]
) -> list[int]:
    """The trial of each line; Optuna may have changed their order, but not their trial axis."""
    low, high = min(view.numbers), max(view.numbers)
    place = 1 + names.index(_TRIAL_AXIS)  # the objective's axis is the first
    return [low + round(line["y"][place] * (high - low)) for line in lines]


def _paint_lines(lines: Sequence[dict[str, Any]], view: View, trials: Sequence[int]) -> None:
    values = dict(zip(view.numbers, view.values, strict=True))
    states = dict(zip(view.numbers, view.states, strict=True))
    ranked = sorted(values, key=lambda n: values[n], reverse=view.ascending)  # the worst first
    ranks = {n: rank for rank, n in enumerate(ranked)}
    steps = max(1, len(ranked) - 1)
    for line, n in zip(lines, trials, strict=True):
        line.pop("customdata")
        line |= {
            "name": f"trial {n}",
            "hovertemplate": f"trial {n}, {view.objective} {loss(values[n])}<extra></extra>",
            "meta": {"role": f"shade{round(ranks[n] / steps * (SHADES - 1))}"},
            "line": {"width": 1.2, "dash": "solid" if states[n] == "finished" else "dot"},
            "opacity": 0.7 if len(trials) <= 100 else 0.25,
        }


def _whole_ticks(ticks: Sequence[dict[str, Any]], view: View, labels: Sequence[str]) -> None:
    """Writes the ticks of whole numbers whole; Optuna divides every axis into quarters."""
    distributions = view.trials[0].distributions
    whole = [n for n, d in distributions.items() if type(d).__name__ == "IntDistribution"]
    for tick in ticks:
        if labels[round(tick["x"])] in (_TRIAL_AXIS, *whole):
            tick["text"] = f"{float(tick['text']):.0f}"


def _best_on_top(lines: list[dict[str, Any]], trials: Sequence[int]) -> list[int]:
    """Sorts lines by shade, so that the best is drawn last; returns their trials."""
    shades = [int(line["meta"]["role"].removeprefix("shade")) for line in lines]
    order = sorted(range(len(lines)), key=lambda i: (shades[i], trials[i]))
    lines[:] = [lines[i] for i in order]
    return [trials[i] for i in order]


def slices(view: View | None, parameters: Sequence[str]) -> list[Figure]:
    """The objective against each parameter, in this order of parameters."""
    if view is None:
        return []
    there = view.parameters()
    study = view.study()
    return [_slice(view, study, name) for name in parameters if name in there][:_SLICES]


def _slice(view: View, study: Any, name: str) -> Figure:
    import optuna

    with quiet_optuna():
        figure = optuna.visualization.plot_slice(study, params=[name], target_name=view.objective)
    spec = spec_of(figure)
    points = spec["data"][0]
    axis = spec["layout"]["xaxis"]
    _name_categories(view, name, points, axis)
    axis.pop("title")  # the heading says it
    states = [state for state in reversed(DASHES) if state in view.states]  # the finished on top
    spec["data"] = [_points_of(state, view, points) for state in states]
    spec["layout"]["yaxis"] = value_axis(points["y"], view.ascending, view.objective)
    spec["layout"] |= {"showlegend": False, "margin": {"l": 50, "r": 16, "t": 8, "b": 30}}
    return Figure(f"slice-{name}", name, "", spec, height=270)


def _points_of(state: str, view: View, points: dict[str, Any]) -> dict[str, Any]:
    """The points of the trials in one state; Optuna colours them by their number in the view."""
    numbers = points["marker"]["color"]
    own = [place for place, i in enumerate(numbers) if view.states[i] == state]
    few = len(numbers) <= 100
    return {
        "type": "scatter",
        "mode": "markers",
        "name": STATE_WORDS[state],
        "x": [points["x"][place] for place in own],
        "y": [points["y"][place] for place in own],
        "customdata": [f"trial {view.numbers[numbers[place]]}" for place in own],
        "hovertemplate": "%{customdata}: %{x}, %{y:.4f}<extra>" + STATE_WORDS[state] + "</extra>",
        "marker": {"symbol": SYMBOLS[state], "size": 8 if few else 6, "line": {"width": 1}},
        "opacity": 0.85 if few else 0.6,
        "meta": {"role": state},
    }


def _name_categories(view: View, name: str, points: dict[str, Any], axis: dict[str, Any]) -> None:
    """Writes categories as the sweep file has them, in its order, not as Python's `repr`."""
    if axis.get("type") != "category":
        return _set_log_ticks(axis, points["x"])
    distribution = view.trials[0].distributions[name]
    texts = {repr(choice): escape(str(choice)) for choice in distribution.choices}
    points["x"] = [texts[x] for x in points["x"]]
    order = list(texts.values())
    axis |= {"categoryarray": order, "range": [-0.5, len(order) - 0.5]}
    return None


def _set_log_ticks(axis: dict[str, Any], places: Sequence[float] = ()) -> None:
    """Marks decades by their values, and 2 and 5 times them where there are few decades."""
    if axis.get("type") != "log" or len(places) == 0:
        return
    low, high = math.log10(min(places)), math.log10(max(places))
    steps = (1,) if high - low > 1.2 else (1, 2, 5)
    every = max(1, math.ceil((high - low) / 5))
    decades = range(math.floor(low), math.ceil(high) + 1, every)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low - 0.05 <= math.log10(tick) <= high + 0.05]
    if len(ticks) > 1:
        axis |= {"tickvals": plain(ticks), "ticktext": [f"{tick:.4g}" for tick in ticks]}


def contours(view: View | None, parameters: Sequence[str]) -> list[Figure]:
    """The objective over pairs of parameters, in the order of their importance.

    Args:
        view: The trials; those of one budget where there are enough.
        parameters: The most important first.
    """
    if view is None or len(view.numbers) < _FEW:
        return []
    there = view.parameters()
    pairs = combinations([name for name in parameters if name in there], 2)
    by_rank = sorted(pairs, key=lambda pair: sum(parameters.index(name) for name in pair))
    return [_contour(view, pair) for pair in by_rank[:_CONTOURS]]


def _contour(view: View, pair: tuple[str, str]) -> Figure:
    import optuna

    study = _on_a_grid(view, pair)
    with quiet_optuna():
        figure = optuna.visualization.plot_contour(
            study, params=list(pair), target_name=view.objective
        )
    spec = spec_of(figure)
    surface, points = spec["data"][:2]
    for name in ("colorscale", "reversescale", "colorbar"):
        surface.pop(name, None)
    surface |= {"coloraxis": "coloraxis", "line": {"smoothing": 1, "width": 0.5}}
    x, y = sorted(pair)
    points |= {
        "x": [_drawn(spec["layout"]["xaxis"], trial.params[x]) for trial in view.trials],
        "y": [_drawn(spec["layout"]["yaxis"], trial.params[y]) for trial in view.trials],
        "customdata": [
            f"trial {n} ({state}), {loss(value)}"
            for n, state, value in zip(view.numbers, view.states, view.values, strict=True)
        ],
        "hovertemplate": "%{customdata}<br>%{x}, %{y}<extra></extra>",
        "marker": {
            "size": 6 if len(view.trials) <= 100 else 4,
            "symbol": [SYMBOLS[state] for state in view.states],
            "line": {"width": 1},
        },
        "meta": {"role": "point", "halo": True},
    }
    spec["data"] = plain([surface, points])
    for axis in ("x", "y"):
        _set_log_ticks(spec["layout"][f"{axis}axis"], points[axis])
    spec["layout"] |= {
        "showlegend": False,
        "coloraxis": {"colorbar": {"title": {"text": view.objective}, "thickness": 12}},
        "meta": {"best": "low" if view.ascending else "high"},
    }
    return Figure(f"contour-{x}-{y}", f"{pair[0]} and {pair[1]}", "", spec, height=340)


def _drawn(axis: dict[str, Any], value: Any) -> Any:
    return str(value) if axis.get("type") == "category" else value


def _on_a_grid(view: View, pair: Sequence[str]) -> Any:
    """The view's study with the numbers of two parameters moved to at most `_PLACES` places."""
    moved = [{name: trial.params[name] for name in pair} for trial in view.trials]
    known = view.trials[0].distributions
    for name in pair:
        values = [trial.params[name] for trial in view.trials]
        if hasattr(known[name], "choices") or len(set(values)) <= _PLACES:
            continue
        for params, value in zip(moved, _snapped(values, known[name].log), strict=True):
            params[name] = value
    return view.study(moved, **{name: _wide(known[name]) for name in pair})


def _wide(distribution: Any) -> Any:
    """A distribution that has the places between whole numbers too."""
    import optuna

    if hasattr(distribution, "choices"):
        return distribution
    return optuna.distributions.FloatDistribution(
        distribution.low, distribution.high, log=distribution.log
    )


def _snapped(values: Sequence[float], log: bool) -> list[float]:
    """Each value at the nearest of `_PLACES` places, evenly from the least to the largest."""
    array = np.log(values) if log else np.asarray(values, dtype=float)
    low, high = float(array.min()), float(array.max())
    step = (high - low) / (_PLACES - 1)
    places = low + np.round((array - low) / step) * step
    places = np.exp(places) if log else places
    return [float(place) for place in np.clip(places, min(values), max(values))]
