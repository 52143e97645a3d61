"""What Optuna says beside our own output."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_optuna(*, but_for_errors: bool = False) -> Iterator[None]:
    """Holds back what Optuna logs about new studies, and its notes on experimental features.

    Args:
        but_for_errors: Also hold back its warnings, such as that a study has converged.
    """
    import optuna

    before = optuna.logging.get_verbosity()
    level = optuna.logging.ERROR if but_for_errors else optuna.logging.WARNING
    optuna.logging.set_verbosity(max(before, level))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
