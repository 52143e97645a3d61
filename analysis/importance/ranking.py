"""Choosing honestly: the trials ranked by training loss beside their rank by the objective.

The published sweeps chose by the training loss at the end. It is confounded by the teacher-forcing
ratio and blind to overfitting; this says how differently it ranks the trials, and what choosing by
it would have cost. Agreement is Kendall's tau-b: 1 for the same order, 0 for unrelated ones, -1 for
the opposite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.importance.budgets import comparable_trials
from analysis.importance.fanova import Figures
from analysis.results import Results

_PERCENTILES = (5.0, 95.0)
#: The normal distribution's 95th percentile: nine in ten lie within it on both sides.
_NINE_IN_TEN = 1.6449


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree.

    Attributes:
        tau: Kendall's tau-b, -1 to 1; NaN where there are fewer than two trials, or where one of
            the rankings has all of them level.
        low, high: Its 90 % percentile interval over bootstrap samples of the trials; NaN without.
    """

    tau: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """The trials ranked by training loss and by the objective.

    Attributes:
        objective: Its name.
        trials: How many trials are ranked.
        at_end: Agreement of the rank by training loss at each trial's last report with the rank by
            the objective.
        at_best: The same with training loss at the report of each trial's best objective.
        frame: A row for each trial, the best first: trial, the objective, best_iteration, iteration
            (of the last report), loss and loss_at_best (training loss at the last and at the best
            report), rank (by the objective, from 1; equal values share a rank), rank_by_loss,
            rank_by_loss_at_best, and moved: rank_by_loss less rank, so that training loss puts a
            trial with a positive one too far back, and one with a negative one too far ahead.
        best: The trial that the objective chooses; None without trials.
        chosen: The trial that training loss at the end would have chosen.
        cost: How much worse the chosen trial's objective is than the best one's, 0 or more; NaN
            without trials.
        cost_at_end: The same with the chosen trial's objective at its last report, whose weights
            one keeps who trusts the training loss.
        rule: Which trials are ranked, and by what value.
        words: What the figures say, one sentence each.
        warnings: What to beware of, one sentence each.
    """

    objective: str
    trials: int
    at_end: Agreement
    at_best: Agreement
    frame: pd.DataFrame
    best: int | None
    chosen: int | None
    cost: float
    cost_at_end: float
    rule: str
    words: list[str]
    warnings: list[str]

    def moved_most(self, number: int = 5) -> pd.DataFrame:
        """The rows of the trials that change places most; none that stay where they are."""
        moved = self.frame[self.frame["moved"] != 0]
        return moved.sort_values("moved", key=abs, ascending=False, kind="stable").head(number)


def ranking(
    results: Results, *, rule: str = "finished", bootstraps: int = 200, seed: int = 0
) -> Ranking:
    """Ranks the trials by training loss and by the objective.

    Args:
        results: The experiment.
        rule: Which trials are ranked, a key of `budgets.RULES`. Early stopping's trials
            are left out by default: both losses fall with the iterations, so that trials of unequal
            budgets agree whatever the training loss is worth.
        bootstraps: How many bootstrap samples give the intervals; 0 for no intervals.
        seed: Of the samples.

    Raises:
        ConfigurationError: where the rule is unknown.
    """
    comparison = comparable_trials(results, rule)
    compared = comparison.frame[np.isfinite(comparison.frame["loss"])]
    frame = _ranked(compared, results.objective, results.ascending)
    draws = np.random.default_rng(seed).integers(
        max(len(frame), 1), size=(bootstraps if len(frame) else 0, len(frame))
    )
    best, chosen, cost, cost_at_end = _costs(frame, results.objective)
    ranked = Ranking(
        objective=results.objective,
        trials=len(frame),
        at_end=_agreement(frame["rank"], frame["rank_by_loss"], draws),
        at_best=_agreement(frame["rank"], frame["rank_by_loss_at_best"], draws),
        frame=frame.drop(columns=f"last_{results.objective}"),
        best=best,
        chosen=chosen,
        cost=cost,
        cost_at_end=cost_at_end,
        rule=comparison.sentence,
        words=[],
        warnings=[
            *comparison.warnings,
            *_without_loss(len(comparison.frame) - len(frame)),
            *_confounded(results),
        ],
    )
    ranked.words.extend(_words(ranked))
    return ranked


def _ranked(compared: pd.DataFrame, objective: str, ascending: bool) -> pd.DataFrame:
    """Adds the ranks; of equal trials the earlier one comes first."""
    ranks = {
        "rank": compared[objective].rank(method="min", ascending=ascending),
        "rank_by_loss": compared["loss"].rank(method="min"),
        "rank_by_loss_at_best": compared["loss_at_best"].rank(method="min"),
    }
    frame = compared.assign(**ranks)
    columns = ["trial", objective, "best_iteration", "iteration", "loss", "loss_at_best"]
    frame = frame[[*columns, *ranks, f"last_{objective}"]]
    frame = frame.astype({"rank": "int64", "rank_by_loss": "int64"})
    frame = frame.assign(moved=frame["rank_by_loss"] - frame["rank"])
    return frame.sort_values("rank", kind="stable").reset_index(drop=True)


def _agreement(
    one: pd.Series[int], other: pd.Series[float], draws: npt.NDArray[np.int64]
) -> Agreement:
    pair = np.stack([one.to_numpy(np.float64), other.to_numpy(np.float64)])
    tau = _tau(pair)
    samples = [sample for draw in draws if math.isfinite(sample := _tau(pair[:, draw]))]
    if not (samples and math.isfinite(tau)):
        return Agreement(tau, math.nan, math.nan)
    low, high = np.percentile(samples, _PERCENTILES)
    return Agreement(tau, float(low), float(high))


def _tau(pair: Figures) -> float:
    """Kendall's tau-b of two rankings (2, n), of the trials that have both ranks."""
    from scipy.stats import kendalltau

    known = pair[:, np.isfinite(pair.sum(axis=0))]
    return float(kendalltau(*known).statistic) if known.shape[1] > 1 else math.nan


def _costs(frame: pd.DataFrame, objective: str) -> tuple[int | None, int | None, float, float]:
    """The trial that is best, the one that training loss chooses, and the two costs."""
    if frame.empty:
        return None, None, math.nan, math.nan
    best = frame.iloc[0]
    chosen = frame.sort_values(["rank_by_loss", "trial"]).iloc[0]
    worse = abs(chosen[objective] - best[objective])
    at_end = abs(chosen[f"last_{objective}"] - best[objective])
    return int(best["trial"]), int(chosen["trial"]), float(worse), float(at_end)


def _without_loss(number: int) -> Iterator[str]:
    if number:
        yield f"left out: {number} without a finite training loss."


def _confounded(results: Results) -> Iterator[str]:
    if "teacher_forcing_ratio" in results.searched:
        yield (
            "teacher_forcing_ratio is searched: training losses of different ratios are not "
            "measured on the same work."
        )


def _words(ranked: Ranking) -> Iterator[str]:
    n = ranked.trials
    if n < 2:
        yield (
            f"{n} trial{'' if n == 1 else 's'} can be ranked: at least two are needed to compare "
            "rankings, and 20 would do, since unrelated rankings of 20 differ from tau 0 by less "
            f"than {_chance(20):.2f} nine times in ten."
        )
        return
    yield _tau_in_words("at the last report", ranked.at_end, ranked)
    yield _tau_in_words(f"at the report of the best {ranked.objective}", ranked.at_best, ranked)
    yield (
        f"Chance: unrelated rankings of {n} trials have a tau between {-_chance(n):.2f} and "
        f"{_chance(n):.2f} nine times in ten."
    )
    yield _choice_in_words(ranked)


def _chance(n: int) -> float:
    """How far tau is from 0 nine times in ten for unrelated rankings (Kendall 1938)."""
    return min(1.0, _NINE_IN_TEN * math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))))


def _tau_in_words(where: str, agreement: Agreement, ranked: Ranking) -> str:
    begin = f"Rank by training loss {where} against rank by {ranked.objective}: "
    if not math.isfinite(agreement.tau):
        return begin + "Kendall's tau is undefined, since all trials are level in one of them."
    interval = ""
    if agreement.high - agreement.low > 1e-9:  # a perfect order has no spread, which is no proof
        interval = f" (90 % interval {agreement.low:.2f} to {agreement.high:.2f})"
    return (
        f"{begin}Kendall's tau {agreement.tau:.2f}{interval}, about "
        f"{50 * (1 + agreement.tau):.0f} of 100 pairs of trials in the same order."
    )


def _choice_in_words(ranked: Ranking) -> str:
    rows = ranked.frame.set_index("trial").to_dict("index")
    best, chosen = rows[ranked.best], rows[ranked.chosen]
    name = ranked.objective
    kept = (
        f"Keeping its last weights as well costs {ranked.cost_at_end:.4f}{_unit(name)}"
        f"{_perplexity(name, ranked.cost_at_end)}."
        if ranked.cost_at_end > ranked.cost
        else "Its last weights are its best."
    )
    if ranked.cost == 0:
        return (
            f"Training loss at the end chooses trial {ranked.chosen}, {name} {chosen[name]:.4f}, "
            f"which no other trial beats. {kept}"
        )
    return (
        f"Training loss at the end chooses trial {ranked.chosen}, {name} {chosen[name]:.4f} (rank "
        f"{chosen['rank']}), where trial {ranked.best} has {best[name]:.4f}: a cost of "
        f"{ranked.cost:.4f}{_unit(name)}{_perplexity(name, ranked.cost)}. {kept}"
    )


def _unit(objective: str) -> str:
    return " nats a token" if objective == "val_loss" else ""


def _perplexity(objective: str, cost: float) -> str:
    if objective != "val_loss" or cost > 10:
        return ""
    return f", a perplexity {math.exp(cost):.2f} times as high"
