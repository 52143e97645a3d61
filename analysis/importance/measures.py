"""The three measures of importance, each a function of a sample of trials.

A sample holds the trials in the three forms that the measures want: as values for PED-ANOVA, as
places in [0, 1] for fANOVA, and as columns of numbers for the random forest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.importance.fanova import Figures, variance_shares
from analysis.importance.study import configurations, varies
from analysis.results import Results
from tuning.distributions import Distribution, Scalar
from tuning.optuna_log import quiet_optuna
from tuning.spaces.search_space import SearchSpace
from tuning.study.space import study_distributions

#: Hyper-parameter and category of a column; no category where the column is a number.
Label = tuple[str, str | None]


@dataclass(frozen=True)
class Sample:
    """Trials as arrays: n trials, p hyper-parameters, c columns.

    Attributes:
        names: Of the hyper-parameters that took more than one value, in the sweep's order.
        params: Their values, (n, p).
        places: The same as places in their distributions, in [0, 1]; (n, p).
        labels: Of the columns.
        columns: Numbers as they are, other values one-hot; (n, c).
        values: Of the objective, (n,).
        space: What was searched.
        goal: ``minimize`` or ``maximize``.
    """

    names: list[str]
    params: npt.NDArray[np.object_]
    places: Figures
    labels: list[Label]
    columns: Figures
    values: Figures
    space: SearchSpace
    goal: str

    @classmethod
    def of(cls, results: Results, compared: pd.DataFrame) -> Sample:
        """The trials of `budgets.Comparison.frame`, but those of lost configurations.

        Raises:
            ExperimentError: where a trial's configuration is not in the sweep's space.
        """
        space = results.experiment.sweep().space
        taken = configurations(results).loc[compared["trial"]]
        lost = taken.map(lambda value: value is pd.NA).any(axis=1).to_numpy(dtype=bool)
        taken, compared = taken[~lost], compared[~lost]
        names = [str(name) for name in taken if varies(taken[name])]
        n = len(taken)
        places = [[place(value, space.searched[name]) for value in taken[name]] for name in names]
        encoded = [column for name in names for column in _columns(name, taken[name].to_list())]
        columns = [column for _, column in encoded]
        return cls(
            names=names,
            params=taken[names].to_numpy(dtype=object),
            places=np.array(places, dtype=np.float64).reshape(len(names), n).T,
            labels=[label for label, _ in encoded],
            columns=np.array(columns, dtype=np.float64).reshape(len(columns), n).T,
            values=compared[results.objective].to_numpy(dtype=np.float64),
            space=space,
            goal=results.experiment.objective.goal,
        )

    def draw(self, trials: npt.NDArray[np.int64]) -> Sample:
        """A sample of these trials, in which one may occur several times."""
        arrays = ("params", "places", "columns", "values")
        return replace(self, **{name: getattr(self, name)[trials] for name in arrays})


def place(value: Scalar, distribution: Distribution) -> float:
    """Where a value lies in its distribution, in [0, 1]: values drawn from it are even there.

    Separate values lie in the middle of their shares. What cannot be drawn, the default of a field
    that was not active, lies at an end.
    """
    if not distribution.ordered and not distribution.contains(value):
        return 0.0
    return distribution.cdf(value)


def _columns(name: str, values: Sequence[Scalar]) -> Iterator[tuple[Label, list[float]]]:
    """The columns of one hyper-parameter as Weights & Biases has them, with their labels."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        yield (name, None), numbers
        return
    texts = [str(value) for value in values]
    for category in sorted(set(texts)):
        yield (name, category), [float(text == category) for text in texts]


def ped_anova(sample: Sample, seed: int) -> Figures:
    """Shares of the divergence between the best tenth and all trials, by Optuna; (p,).

    All are 0 where the best tenth is like the rest.
    """
    import optuna

    columns = dict(zip(sample.names, sample.params.T, strict=True))
    distributions = study_distributions(sample.space, columns)
    distributions = {name: distributions[name] for name in sample.names}
    with quiet_optuna():
        study = optuna.create_study(direction=sample.goal)
        for values, value in zip(sample.params, sample.values, strict=True):
            params = dict(zip(sample.names, values, strict=True))
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=distributions, value=float(value)
                )
            )
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), normalize=False
        )
    divergences = np.array([found[name] for name in sample.names])
    total = divergences.sum()
    return divergences / total if total > 0 else divergences


def fanova(sample: Sample, seed: int) -> Figures:
    """Shares of the variance that are carried alone, (p,)."""
    return variance_shares(sample.places, sample.values, seed)


def random_forest(sample: Sample, seed: int) -> Figures:
    """Impurity importance of each column in scikit-learn's forest, (c,)."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(random_state=seed).fit(sample.columns, sample.values)
    return np.asarray(forest.feature_importances_)


def correlations(sample: Sample) -> Figures:
    """Pearson's correlation of each column with the objective, in [-1, 1]; (c,)."""
    x = sample.columns - sample.columns.mean(axis=0)
    y = sample.values - sample.values.mean()
    products = (x * y[:, None]).sum(axis=0)
    return np.asarray(products / np.sqrt((x**2).sum(axis=0) * (y**2).sum()))


MEASURES: dict[str, Callable[[Sample, int], Figures]] = {
    "ped-anova": ped_anova,
    "fanova": fanova,
    "random-forest": random_forest,
}
