"""Searchers: plain objects that propose configurations and hear what became of them.

``base`` says what a searcher is and does what they have in common; each of the others is one or two
of them, and ``making`` finds one by what a sweep file or a command line says.
``docs/searchers.md`` has them in words.
"""

from tuning.outcome import STATES, Outcome, PastTrial
from tuning.searchers.base import Searcher, check_goal, check_state, derived_seed
from tuning.searchers.cma_es import CMAESSearcher
from tuning.searchers.making import METHODS, SEARCHERS, make_searcher
from tuning.searchers.optuna_search import GPSearcher, TPESearcher
from tuning.searchers.simple import GridSearcher, RandomSearcher
from tuning.searchers.sobol import SobolSearcher

__all__ = [
    "METHODS",
    "SEARCHERS",
    "STATES",
    "CMAESSearcher",
    "GPSearcher",
    "GridSearcher",
    "Outcome",
    "PastTrial",
    "RandomSearcher",
    "Searcher",
    "SobolSearcher",
    "TPESearcher",
    "check_goal",
    "check_state",
    "derived_seed",
    "make_searcher",
]
