"""What a figure of the report is, and the trials as Optuna draws them.

Optuna draws what is complete. Here a trial that was stopped is drawn too, with its best value so
far, in a study made for drawing (`View`); it looks different, and captions say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.importance.study import to_study
from analysis.report.wording import number
from analysis.results import Results
from model.wording import plural
from tuning.optuna_log import quiet_optuna

if TYPE_CHECKING:
    import optuna

#: The most trials that are drawn one by one.
MOST_TRIALS = 500


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        id: Of its element, fixed, so that a report made twice is the same.
        title: What it shows.
        caption: How to read it, and what was left out, in words.
        spec: ``data`` and ``layout`` for plotly; None where there is nothing to draw.
        height: Of the plot, in CSS pixels.
        min_width: Below this many CSS pixels it scrolls instead of shrinking.
    """

    id: str
    title: str
    caption: str
    spec: dict[str, Any] | None = field(repr=False)
    height: int = 360
    min_width: int = 0


@dataclass(frozen=True)
class View:
    """Trials that have a value, as complete trials of an Optuna study.

    Attributes:
        trials: As Optuna has them; values worse than `cut` are replaced by it.
        numbers: The experiment's number of each of them.
        states: The state of each of them.
        values: Their values as measured.
        cut: Where worse values are drawn, so that the others can be told apart.
        objective: The metric.
        ascending: Whether smaller is better.
        left_out: How many trials with a value are not in it, since they would be too many.
        lost: How many are not since their configuration is lost.
    """

    trials: list[optuna.trial.FrozenTrial]
    numbers: list[int]
    states: list[str]
    values: list[float]
    cut: float
    objective: str
    ascending: bool
    left_out: int
    lost: int = 0

    @property
    def note(self) -> str:
        """What the view leaves out or changes, in words; empty where nothing."""
        said = [left_out_note(len(self.numbers), self.left_out)] if self.left_out else []
        worse = sum(value != clip(value, self.cut, self.ascending) for value in self.values)
        if self.lost:
            said.append(f"{plural(self.lost, 'trial')} with a lost configuration left out.")
        if worse:
            side = "above" if self.ascending else "below"
            drawn = "is drawn there" if worse == 1 else "are drawn there"
            said.append(f"{plural(worse, 'trial')} {side} {number(self.cut)} {drawn}.")
        return " ".join(said)

    def parameters(self) -> list[str]:
        """The parameters that take at least two values here."""
        names = self.trials[0].params
        return [n for n in names if len({str(trial.params[n]) for trial in self.trials}) > 1]

    def study(self, configurations: Sequence[Mapping[str, Any]] | None = None, **more: Any) -> Any:
        """The trials as a study.

        Args:
            configurations: Of each trial, in place of its own.
            more: Distributions, by name, in place of the trials' own or beside them.
        """
        import optuna

        configurations = configurations or [trial.params for trial in self.trials]
        known = self.trials[0].distributions | more
        with quiet_optuna():
            study = optuna.create_study(direction="minimize" if self.ascending else "maximize")
        study.add_trials(
            optuna.trial.create_trial(
                params=dict(params),
                distributions={name: known[name] for name in params},
                value=trial.value,
            )
            for params, trial in zip(configurations, self.trials, strict=True)
        )
        return study


def view(results: Results, states: Sequence[str] | None = None) -> View | None:
    """The trials with a value and a known configuration, for drawing; None without any.

    Args:
        results: The experiment's results.
        states: Only trials in these states; None takes all.

    Raises:
        ExperimentError: where a trial's configuration is not in the sweep's space.
    """
    import optuna

    ranked = results.ranked()
    if states is not None:
        ranked = ranked[ranked["state"].isin(states)]
    if ranked.empty:
        return None
    valued = len(ranked)
    study = to_study(results).get_trials(deepcopy=False)
    names = {name for trial in study for name in trial.params}
    known = {t.user_attrs["trial"]: t for t in study if t.params.keys() == names}
    ranked = ranked[ranked["trial"].isin(known)]
    if ranked.empty:
        return None
    chosen = sorted(sample(ranked["trial"].tolist()))
    table = ranked.set_index("trial").loc[chosen]
    values = [float(value) for value in table[results.objective]]
    cut = cut_of(values, results.ascending)
    trials = [
        optuna.trial.create_trial(
            params=known[n].params,
            distributions=known[n].distributions,
            value=clip(value, cut, results.ascending),
        )
        for n, value in zip(chosen, values, strict=True)
    ]
    states = table["state"].tolist()
    left_out = len(ranked) - len(chosen)
    return View(
        trials,
        chosen,
        states,
        values,
        cut,
        results.objective,
        results.ascending,
        left_out,
        lost=valued - len(ranked),
    )


def sample(ranked: Sequence[int], most: int = MOST_TRIALS) -> list[int]:
    """At most so many of things in order of rank: the best half, and evenly from the rest."""
    if len(ranked) <= most:
        return list(ranked)
    best = most // 2
    places = np.linspace(best, len(ranked) - 1, most - best).round().astype(int)
    return [*ranked[:best], *(ranked[place] for place in places)]


def left_out_note(shown: int, left_out: int) -> str:
    """Says that not every trial is drawn, and which are."""
    return (
        f"Drawn are {shown} of {shown + left_out} trials: the best {shown // 2}, "
        "and others evenly from the rest by rank."
    )


def clip(value: float, cut: float, ascending: bool) -> float:
    """A value, or the cut where it is worse."""
    return min(value, cut) if ascending else max(value, cut)


def cut_of(values: Iterable[float], ascending: bool, reach: float = 3.0) -> float:
    """Where to cut off values that are so bad that they would hide the others.

    It lies `reach` times as far from the best as the value that three quarters of them reach.
    Where nothing lies beyond, it is the worst value, which cuts off nothing.
    """
    array = np.asarray(list(values), dtype=float)
    if not ascending:
        return -cut_of(-array, True, reach)
    best, common, worst = array.min(), np.quantile(array, 0.75), array.max()
    return float(min(worst, best + reach * (common - best)) if common > best else worst)


def value_axis(
    values: Iterable[float], ascending: bool, title: str, reach: float = 3.0
) -> dict[str, Any]:
    """An axis of the objective, from the best value to where `cut_of` cuts bad ones off."""
    known = [value for value in values if math.isfinite(value)]
    cut = cut_of(known, ascending, reach)
    drawn = [clip(value, cut, ascending) for value in known]
    margin = 0.05 * (max(drawn) - min(drawn)) or 0.05 * abs(drawn[0]) or 1.0
    return {
        "title": {"text": title},
        "range": plain([min(drawn) - margin, max(drawn) + margin]),
    }


def spec_of(figure: Any) -> dict[str, Any]:
    """A plotly figure as plain data: without template, title and size, figures in six digits."""
    layout = figure.layout.to_plotly_json()
    for name in ("template", "title", "width", "height", "plot_bgcolor", "autosize"):
        layout.pop(name, None)
    return {
        "data": [plain(trace.to_plotly_json()) for trace in figure.data],
        "layout": {"margin": {"l": 50, "r": 16, "t": 16, "b": 44}} | plain(layout),
    }


def plain(value: Any) -> Any:
    """Anything that plotly holds, as JSON has it; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def broken(name: str) -> str:
    """A parameter's name in short lines, for the labels of narrow axes."""
    return name.replace("_", "_<br>") if len(name) > 8 else name


def session_lines(results: Results, length: float) -> list[dict[str, Any]]:
    """A line where each driver after the first began."""
    starts = [row.time for row in results.steady_rows if row.kind == "session"][1:]
    line = {"width": 1, "dash": "dash", "color": "#888888"}
    x = [time / length for time in starts]
    return [
        plain({"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line})
        for at in x
    ]
