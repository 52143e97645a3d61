"""Hyper-parameter search on Ray Tune.

import tuning
experiment = tuning.run("configs/demo.yaml", trials=12)
experiment = tuning.resume("demo-20260101-120000")   # after an interruption
experiment = tuning.extend("demo-20260101-120000", trials=12)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuning.launch import extend, repeat, resume, retry, run

__all__ = ["extend", "repeat", "resume", "retry", "run"]


def __getattr__(name: str) -> Any:
    """Imports the public names on first use, so that reading results does not load the rest."""
    if name in __all__:
        from tuning import launch

        return getattr(launch, name)
    raise AttributeError(f"module 'tuning' has no attribute {name!r}")
