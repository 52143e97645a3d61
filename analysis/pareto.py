"""The Pareto front of several objectives: the trials that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def on_front(values: NDArray[np.float64], goals: Sequence[str]) -> NDArray[np.bool_]:
    """Which points lie on the Pareto front.

    A point beats another if it is at least as good by every objective and better by one
    (Deb 2001, Multi-Objective Optimization using Evolutionary Algorithms, definition 2.5). Equal
    points do not beat each other.

    Args:
        values: (n, k), n points with k objectives; a point without a finite value of each of them
            is not on the front, and beats none.
        goals: ``minimize`` or ``maximize``, k of them.

    Returns:
        (n,), whether a point is on the front.
    """
    signs = np.array([1.0 if goal == "minimize" else -1.0 for goal in goals])
    costs = values * signs
    finite = np.isfinite(costs).all(axis=1)
    front: NDArray[np.bool_] = finite.copy()
    for i in np.flatnonzero(finite):
        if front[i]:  # what is beaten beats nothing that its better does not beat too
            worse = (costs >= costs[i]).all(axis=1) & (costs > costs[i]).any(axis=1)
            front[worse] = False
    return front
