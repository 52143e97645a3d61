"""The searchers there are, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import ConfigurationError
from model.validation import did_you_mean
from tuning.searchers.base import Searcher
from tuning.searchers.cma_es import CMAESSearcher
from tuning.searchers.optuna_search import GPSearcher, TPESearcher
from tuning.searchers.simple import GridSearcher, RandomSearcher
from tuning.searchers.sobol import SobolSearcher

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep

_KINDS = (RandomSearcher, GridSearcher, TPESearcher, GPSearcher, CMAESSearcher, SobolSearcher)
#: Every searcher, by its name in a sweep file's ``dialogue_tune.searcher``.
SEARCHERS: dict[str, type[Searcher]] = {kind.name: kind for kind in _KINDS}
#: W&B's names for ``method`` that are not the searcher's own.
METHODS = {"bayes": "tpe"}


def make_searcher(sweep: Sweep, seed: int, name: str | None = None) -> Searcher:
    """The searcher for a sweep.

    Args:
        sweep: What to search.
        seed: Of all proposals.
        name: Which searcher; if None, the sweep's ``searcher``, and if it names none, ``method``.

    Raises:
        ConfigurationError: where there is no such searcher, or it cannot search this space.
    """
    chosen = name or sweep.searcher or sweep.method
    kind = SEARCHERS.get(METHODS.get(chosen, chosen))
    if kind is None:
        problem = f"searcher: unknown searcher {chosen!r}{did_you_mean(chosen, SEARCHERS)}"
        raise ConfigurationError(sweep.source, [problem])
    try:
        goal, *others = (objective.goal for objective in sweep.objectives)
        return kind(sweep.space, seed, goal, others)
    except ConfigurationError as error:
        raise ConfigurationError(sweep.source, error.problems) from None
