"""Which trials of an experiment may be compared with each other, and by what value.

Early stopping gives trials unequal budgets: the best value of 500 iterations says little beside the
best of 4,000. `comparable_trials` picks trials and values by one of `RULES`, and says what it left
out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.results import Results
from model.errors import ConfigurationError
from model.validation import did_you_mean

#: Which trials are compared, and by what value.
RULES = {
    "equal-budget": "trials that reached one iteration, each by its best value up to there",
    "finished": "finished trials, each by its best value",
    "all": "trials with a value, each by its best value, whatever its budget",
}
#: The budget of ``equal-budget`` is the largest that this share of the ended trials reached.
REACHED = 0.9
#: Trials in these states broke. They are never compared: neither their best value nor their last
#: says how bad they were.
_BROKEN = ("diverged", "failed")


@dataclass(frozen=True)
class Comparison:
    """Trials that may be compared with each other.

    Attributes:
        frame: A row for each, in the order of proposal: trial, state, the objective at its best,
            best_iteration, the objective at the last report (its name with ``last_`` before it),
            iteration (of that report), loss (training loss there) and loss_at_best.
        rule: A key of `RULES`.
        sentence: The rule in words, with its figures.
        budget: The iteration at which ``equal-budget`` compares; None for the other rules.
        warnings: What was left out and what to beware of, one sentence each.
    """

    frame: pd.DataFrame
    rule: str
    sentence: str
    budget: int | None
    warnings: list[str]


def comparable_trials(results: Results, rule: str = "equal-budget") -> Comparison:
    """Picks the trials to compare, and their values.

    ``equal-budget`` compares at the largest iteration that nine tenths of the trials which
    finished or were stopped have reached; where nothing was stopped early, that is the whole
    budget. Diverged and failed trials are left out by every rule.

    Raises:
        ConfigurationError: where the rule is unknown.
    """
    if rule not in RULES:
        raise ConfigurationError("trials", [f"unknown rule {rule!r}{did_you_mean(rule, RULES)}"])
    whole = _up_to(results, None)
    whole = whole[~whole["state"].isin(_BROKEN)]
    budget = None
    frame = whole
    if rule == "finished":
        frame = whole[whole["state"] == "finished"]
    elif rule == "equal-budget" and len(whole):
        budget = _common_budget(whole)
        frame = _up_to(results, budget)
        frame = frame[frame["trial"].isin(whole.loc[whole["iteration"] >= budget, "trial"])]
    return Comparison(
        frame=frame.reset_index(drop=True),
        rule=rule,
        sentence=_sentence(results.objective, rule, budget),
        budget=budget,
        warnings=[
            *_broken(results),
            *_left_out(whole, frame, budget),
            *_without_value(results, whole),
            *_unequal(whole, frame, budget),
        ],
    )


def _up_to(results: Results, budget: int | None) -> pd.DataFrame:
    """All trials with a value, from their reports up to a budget: the frame of a `Comparison`."""
    objective = results.objective
    history = results.history
    missing = {name: math.nan for name in (objective, "loss") if name not in history}
    history = history.assign(**missing).astype({"trial": "int64", "iteration": "int64"})
    if budget is not None:
        history = history[history["iteration"] <= budget]
    measured = history[np.isfinite(history[objective])]
    values = measured.groupby("trial")[objective]
    best = measured.loc[values.idxmin() if results.ascending else values.idxmax()]
    best = best.set_index("trial")
    # Of the last report itself: `last()` would pass over a missing loss.
    last = history.groupby("trial")[["trial", "iteration", "loss"]].tail(1)
    last = last.set_index("trial").reindex(best.index)
    states = results.trials.astype({"trial": "int64"}).set_index("trial")["state"]
    columns = {
        "state": states.reindex(best.index),
        objective: best[objective],
        "best_iteration": best["iteration"],
        f"last_{objective}": values.last(),
        "iteration": last["iteration"].astype("int64"),
        "loss": last["loss"],
        "loss_at_best": best["loss"],
    }
    return pd.DataFrame(columns, index=best.index).reset_index()


def _common_budget(frame: pd.DataFrame) -> int:
    ended = frame.loc[frame["state"].isin(("finished", "stopped")), "iteration"]
    reached = sorted(ended if len(ended) else frame["iteration"], reverse=True)
    return int(reached[math.ceil(REACHED * len(reached)) - 1])


def _sentence(objective: str, rule: str, budget: int | None) -> str:
    if budget is None:
        return RULES[rule].replace("best value", f"best {objective}")
    return (
        f"trials that reached iteration {budget}, the most that {100 * REACHED:.0f} % of the ended "
        f"ones did, each by its best {objective} up to there"
    )


def _broken(results: Results) -> Iterator[str]:
    counts = Counter(results.trials["state"])
    broken = [f"{counts[state]} {state}" for state in _BROKEN if counts[state]]
    if broken:
        yield f"left out: {', '.join(broken)}; what makes training break is not seen here."


def _left_out(whole: pd.DataFrame, frame: pd.DataFrame, budget: int | None) -> Iterator[str]:
    states = Counter(whole.loc[~whole["trial"].isin(frame["trial"]), "state"])
    if not states:
        return
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    if budget is not None:
        yield f"left out: {counts}, which did not reach iteration {budget}."
    elif "stopped" in states:
        yield (
            f"left out: {counts}; early stopping chose the finished trials by their early values, "
            "which hides what decides early."
        )
    else:
        yield f"left out: {counts}."


def _without_value(results: Results, whole: pd.DataFrame) -> Iterator[str]:
    number = int((~results.trials["state"].isin(_BROKEN)).sum()) - len(whole)
    if number:
        yield f"left out: {number} without a figure of {results.objective} yet."


def _unequal(whole: pd.DataFrame, frame: pd.DataFrame, budget: int | None) -> Iterator[str]:
    if frame.empty:
        return
    longest = int(whole["iteration"].max())
    least, most = int(frame["iteration"].min()), int(frame["iteration"].max())
    if budget is not None and budget < longest:
        finished = int((whole["state"] == "finished").sum())
        yield (
            f"compared at iteration {budget}, though trials trained up to {longest}: what matters "
            f"early need not matter at the end (--trials finished compares {finished} finished "
            "trials)."
        )
    elif budget is None and least < most:
        yield (
            f"unequal budgets: these trials trained {least} to {most} iterations, which is part of "
            "their difference (--trials equal-budget compares at one iteration)."
        )
