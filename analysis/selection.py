"""Choosing rows and columns of a dataframe: filters, order, columns, and how many."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.conditions import ConditionError, matches
from model.validation import Problems, did_you_mean
from tuning.searchers import STATES

#: What a trial can be: ended in one of four ways, or not ended.
TRIAL_STATES = (*STATES, "running", "interrupted")


def choose(
    frame: pd.DataFrame,
    *,
    states: pd.Series[str] | None = None,
    state: str | Sequence[str] | None = None,
    where: str | None = None,
    sort: str | None = None,
    descending: bool = False,
    columns: Sequence[str] | None = None,
    top: int | None = None,
) -> pd.DataFrame:
    """Some rows and columns of a frame.

    Args:
        frame: What to choose from.
        states: State of the trial of each row, for `state`.
        state: Keep trials in this state, or in one of these.
        where: Keep rows that fulfil a condition, see `analysis.conditions`.
        sort: Column to sort by, the smallest first, missing values last, equal ones as they were.
        descending: Sort the largest first.
        columns: Keep these, in this order.
        top: Keep so many rows, after sorting.

    Raises:
        ConfigurationError: naming everything that is wrong, with the nearest name.
    """
    problems = Problems("selection")
    wanted = [state] if isinstance(state, str) else list(state or [])
    for name in wanted:
        if name not in TRIAL_STATES:
            problems.add("state", f"unknown state {name!r}{did_you_mean(name, TRIAL_STATES)}")
    for option, names in (("sort", [sort] if sort is not None else []), ("columns", columns or [])):
        for name in names:
            if name not in frame.columns:
                hint = did_you_mean(name, map(str, frame.columns))
                problems.add(option, f"unknown column {name!r}{hint}")
    if descending and sort is None:
        problems.add("descending", "needs a column to sort by.")
    taken = pd.Series(True, index=frame.index)
    if where is not None:
        try:
            taken &= matches(frame, where)
        except ConditionError as error:
            problems.add("where", str(error))
    problems.raise_if_any()
    if wanted and states is not None:
        taken &= states.isin(wanted).astype(bool)
    frame = frame[taken]
    if sort is not None:
        frame = frame.sort_values(sort, ascending=not descending, kind="stable")
    if columns:
        frame = frame[list(columns)]
    return frame if top is None else frame.head(top)
