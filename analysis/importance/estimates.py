"""Which hyper-parameters mattered: three methods, each with the question that it answers.

They need not agree, since they ask different things:

- PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv:2304.10255), by Optuna: how differently a
  hyper-parameter is spread among the best tenth of the trials and among all of them.
- fANOVA: which share of the objective's variance over the search space it carries alone; see
  `fanova`. Each hyper-parameter is laid out evenly, as the sweep draws it. Optuna's own
  evaluator takes a log range as linear, and so asks about its last decade almost alone.
- Weights & Biases' panel: impurity importance in scikit-learn's random forest, and the linear
  correlation of each column with the objective.

Which trials are compared, and by what value, is a rule of `budgets`. Intervals are 90 %
percentile intervals over bootstrap samples of the trials, widened where needed to hold the estimate
itself, since a sample in which trials occur twice is biased a little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.importance.budgets import comparable_trials
from analysis.importance.fanova import Figures
from analysis.importance.measures import MEASURES, Label, Sample, correlations
from analysis.results import Results
from model.errors import ConfigurationError
from model.validation import did_you_mean

METHODS = tuple(MEASURES)
QUESTIONS = {
    "ped-anova": "Which hyper-parameters tell the best tenth of the trials from all of them?",
    "fanova": "Which share of the objective's variance over the search space does each "
    "hyper-parameter carry alone?",
    "random-forest": "Which hyper-parameters does a random forest split on to predict the "
    "objective (the panel of Weights & Biases)?",
}
#: With fewer trials there are no figures at all.
MINIMUM = 4
#: Of more trials, so many are measured, drawn at random: forests on 10,000 trials take an hour to
#: bootstrap, and at 1,000 the intervals are narrow.
MOST = 1000
#: How many trials would do, and why; docs/importance.md has what was measured.
ENOUGH = {
    "ped-anova": (100, "the best tenth is then ten trials; Optuna advises at least five"),
    "fanova": (50, "with fewer, the forest follows the noise of single trials"),
    "random-forest": (50, "with fewer, the forest follows the noise of single trials"),
}
_PERCENTILES = (5.0, 95.0)


@dataclass(frozen=True)
class Importance:
    """What one method says.

    Attributes:
        method: One of `METHODS`.
        question: The question that it answers, in one sentence.
        frame: A row for each hyper-parameter, the most important first: parameter, importance, low
            and high (its 90 % bootstrap interval). ``ped-anova`` and ``random-forest`` share out 1;
            ``fanova`` gives shares of the variance, and what they leave are interactions.
            ``random-forest`` has also ``correlation`` (-1 to 1) and ``category``: a hyper-parameter
            whose values are not all numbers has a row with the sum of its categories, without a
            correlation, and below it a row for each, ``optimizer=adam`` with category ``adam``.
            Where there can be no figures, it has no rows.
        trials: How many trials were measured.
        warnings: What to beware of, one sentence each.
        rule: Which trials were compared, and by what value.
        first: Share of the bootstrap samples in which the most important hyper-parameter came out
            first too; NaN where there are none.
    """

    method: str
    question: str
    frame: pd.DataFrame
    trials: int
    warnings: list[str]
    rule: str
    first: float = math.nan


def importances(
    results: Results,
    methods: Sequence[str] = METHODS,
    *,
    bootstraps: int = 100,
    seed: int = 0,
    rule: str = "equal-budget",
    progress: bool = False,
) -> list[Importance]:
    """Measures how important each searched hyper-parameter was.

    Args:
        results: The experiment.
        methods: Of `METHODS`.
        bootstraps: How many bootstrap samples give the intervals; 0 for no intervals.
        seed: Of samples and forests; equal seeds give equal figures.
        rule: Which trials are compared, a key of `analysis.importance.budgets.RULES`.
        progress: Whether to show a progress bar on stderr.

    Raises:
        ConfigurationError: where a method or the rule is unknown.
        ExperimentError: where a trial's configuration is not in the sweep's space.
    """
    from tqdm import tqdm

    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        problems = [f"unknown method {name!r}{did_you_mean(name, METHODS)}" for name in unknown]
        raise ConfigurationError("importance", problems)
    comparison = comparable_trials(results, rule)
    whole = Sample.of(results, comparison.frame)
    sample = _at_most(whole, MOST, seed)
    notes = [*comparison.warnings, *_notes(results, comparison.frame, whole, sample)]
    drawing = (bootstraps, seed)
    total = len(methods) * (1 + bootstraps)
    with tqdm(total=total, desc="importance", leave=False, disable=not progress) as bar:
        return [
            _importance(
                method, sample, drawing, rule=comparison.sentence, notes=notes, tick=bar.update
            )
            for method in methods
        ]


def _at_most(sample: Sample, most: int, seed: int) -> Sample:
    trials = len(sample.values)
    if trials <= most:
        return sample
    return sample.draw(np.sort(np.random.default_rng(seed).choice(trials, most, replace=False)))


def _notes(
    results: Results, compared: pd.DataFrame, whole: Sample, sample: Sample
) -> Iterator[str]:
    """What there is to say whatever the method."""
    if lost := len(compared) - len(whole.values):
        yield f"left out: {lost} whose configuration is lost."
    if sample is not whole:
        yield (
            f"measured on {len(sample.values)} of {len(whole.values)} trials, drawn at random: "
            "more take long and show no more."
        )
    single = [name for name in results.searched if name not in sample.names]
    if single and len(sample.values):
        yield f"took one value only, so nothing is known of its importance: {', '.join(single)}."
    if results.experiment.sweep().method == "bayes":
        yield (
            "the search was bayes: it tried some regions more than others, by what it had found, "
            "and the figures are about what it tried."
        )


def _importance(
    method: str,
    sample: Sample,
    drawing: tuple[int, int],
    *,
    rule: str,
    notes: Sequence[str],
    tick: Callable[[], Any],
) -> Importance:
    obstacle = _obstacle(method, sample)
    figures = np.empty((0, 0)) if obstacle else _figures(method, sample, drawing, tick)
    frame, first = _frame(method, sample, figures)
    return Importance(
        method=method,
        question=QUESTIONS[method],
        frame=frame,
        trials=len(sample.values),
        warnings=[*notes, *([obstacle] if obstacle else _few(method, sample))],
        rule=rule,
        first=first,
    )


def _obstacle(method: str, sample: Sample) -> str | None:
    """Why there can be no figures, if so."""
    trials = len(sample.values)
    enough, reason = ENOUGH[method]
    if trials < MINIMUM:
        return (
            f"too few trials: {trials} can be compared; figures take at least {MINIMUM}, and "
            f"{enough} would do, since {reason}."
        )
    if not sample.names:
        return "all trials have the same configuration: there is nothing to compare."
    if np.ptp(sample.values) == 0:
        return "all trials have the same value of the objective: there is nothing to explain."
    return None


def _few(method: str, sample: Sample) -> Iterator[str]:
    trials = len(sample.values)
    enough, reason = ENOUGH[method]
    if trials < enough:
        yield f"few trials: {trials} were compared, and {enough} would do, since {reason}."


def _figures(
    method: str, sample: Sample, drawing: tuple[int, int], tick: Callable[[], Any]
) -> Figures:
    """The figures of all trials, then of each bootstrap sample of them: (1 + bootstraps, -).

    Samples in which the objective has one value only are left out.
    """
    n = len(sample.values)
    bootstraps, seed = drawing
    draws = np.random.default_rng(seed).integers(n, size=(bootstraps, n))
    figures = []
    for trials in (np.arange(n), *draws):
        drawn = sample.draw(trials)
        if np.ptp(drawn.values) > 0:
            figures.append(MEASURES[method](drawn, seed))
        tick()
    return np.array(figures)


def _frame(method: str, sample: Sample, figures: Figures) -> tuple[pd.DataFrame, float]:
    """The frame of an `Importance`, and how often its first hyper-parameter came out first."""
    by_column = method == "random-forest"
    labels: list[Label] = sample.labels if by_column else [(name, None) for name in sample.names]
    names = ["parameter", "importance", "low", "high"]
    names += ["correlation", "category"] if by_column else []
    if not len(figures):
        return pd.DataFrame(columns=names), math.nan
    own = [[i for i, label in enumerate(labels) if label[0] == name] for name in sample.names]
    sums = np.stack([figures[:, columns].sum(axis=1) for columns in own], axis=1)  # (1 + B, p)
    order = np.argsort(-sums[0], kind="stable")
    linear = correlations(sample).tolist() if by_column else [math.nan] * len(labels)
    rows: list[dict[str, Any]] = []
    for i in order:
        number = labels[own[i][0]][1] is None
        correlation = linear[own[i][0]] if number else math.nan
        rows.append(_row((sample.names[i], None), sums[:, i], correlation))
        rows += [_row(labels[c], figures[:, c], linear[c]) for c in own[i] if not number]
    again = sums[1:].argmax(axis=1) == order[0]
    return pd.DataFrame(rows)[names], float(again.mean()) if len(again) else math.nan


def _row(label: Label, figures: Figures, correlation: float) -> dict[str, Any]:
    """A row of the frame, from the figure of all trials and those of the samples."""
    name, category = label
    estimate, samples = float(figures[0]), figures[1:]
    low, high = np.percentile(samples, _PERCENTILES) if len(samples) else (math.nan, math.nan)
    return {
        "parameter": name if category is None else f"{name}={category}",
        "category": category,
        "importance": estimate,
        "low": float(np.fmin(low, estimate)) if len(samples) else math.nan,
        "high": float(np.fmax(high, estimate)) if len(samples) else math.nan,
        "correlation": correlation,
    }
