"""fANOVA: which share of a function's variance each of its arguments carries alone.

Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance".
A random forest learns the function; a regression tree is constant on boxes, so that its variance
over the whole space, and that of its mean over all arguments but one, are exact sums over boxes.

The forest and the figures are those of `optuna.importance.FanovaImportanceEvaluator` on arguments
in [0, 1]. It visits the tree anew for every interval of every argument, which takes minutes for
hundreds of trials; here one running sum over the boxes does, so that bootstrapping is affordable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Figures = npt.NDArray[np.float64]

#: As in Optuna's evaluator.
TREES, DEPTH = 64, 64


def variance_shares(arguments: Figures, values: Figures, seed: int) -> Figures:
    """The main effect of each argument, as a share of the variance; their sum is at most 1.

    What is missing from 1 are interactions. Noise in the values is variance too, which the forest
    puts down to whatever arguments it splits on.

    Args:
        arguments: In [0, 1], (n, p); the space is taken to be uniform there.
        values: Of the function, (n,).
        seed: Of the forest.

    Returns:
        The shares (p,), means over the trees; NaN where no tree finds any variance.
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=TREES, max_depth=DEPTH, random_state=seed)
    forest.fit(arguments, values)
    shares = [_tree_shares(tree.tree_, arguments.shape[1]) for tree in forest.estimators_]
    varied = [share for share in shares if share is not None]
    return np.mean(varied, axis=0) if varied else np.full(arguments.shape[1], np.nan)


def _tree_shares(tree: Any, p: int) -> Figures | None:
    """Shares of the variance of one tree, or None where it is constant."""
    low, high = _boxes(tree, p)  # (L, p), L leaves
    values = tree.value[tree.feature < 0, 0, 0]
    widths = high - low
    volumes = widths.prod(axis=1)
    mean = volumes @ values
    variance = volumes @ (values - mean) ** 2
    if variance <= 0:
        return None
    effects = [
        _main_effect(low[:, i], high[:, i], (values - mean) * volumes / widths[:, i])
        for i in range(p)
    ]
    return np.asarray(np.array(effects) / variance)


def _boxes(tree: Any, p: int) -> tuple[Figures, Figures]:
    """Lower and upper corners of a tree's leaves (L, p), in the order of its nodes."""
    low, high = np.zeros((tree.node_count, p)), np.ones((tree.node_count, p))
    for node in range(tree.node_count):  # parents come before their children
        feature = tree.feature[node]
        if feature < 0:
            continue
        left, right = tree.children_left[node], tree.children_right[node]
        low[[left, right]], high[[left, right]] = low[node], high[node]
        high[left, feature] = low[right, feature] = tree.threshold[node]
    leaves = tree.feature < 0
    return low[leaves], high[leaves]


def _main_effect(low: Figures, high: Figures, heights: Figures) -> float:
    """Variance of the sum of functions that are a height from low to high, and 0 elsewhere.

    The heights are those of a centred tree, averaged over all other arguments.
    """
    edges = np.unique(np.concatenate([low, high]))
    steps = np.zeros(len(edges))
    np.add.at(steps, np.searchsorted(edges, low), heights)
    np.subtract.at(steps, np.searchsorted(edges, high), heights)
    marginal = np.cumsum(steps)[:-1]
    return float(np.diff(edges) @ marginal**2)
