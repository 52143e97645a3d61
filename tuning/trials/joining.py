"""What a worker looks at before its first trial: its node may have joined after preflight.

Such a node takes trials at once, whatever it is. What is wrong with it ends the search with a clear
error: a trial that is merely started again may well be placed there again, and `resume` refuses
the node in words until it is mended or gone.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

from model.errors import ResourceError, StorageError
from tuning.environment import versions
from tuning.experiment import MANIFEST
from tuning.nodes import name_of
from tuning.preflight.checks import disagreements
from tuning.storage.patience import PATIENCE_VARIABLE, patiently
from tuning.storage.place import AnyPath


def take_patience(seconds: float | None) -> None:
    """Waits for storage as long as the driver does, unless our own environment says otherwise."""
    if seconds is not None:
        os.environ.setdefault(PATIENCE_VARIABLE, f"{seconds:g}")


def check_versions(drivers: Mapping[str, str] | None) -> None:
    """Refuses a node with other versions than the driver's.

    Args:
        drivers: The driver's versions; None where nobody says.

    Raises:
        ResourceError: with every disagreement, in one line.
    """
    said = [] if drivers is None else list(disagreements(versions(), drivers))
    if said:
        raise ResourceError(
            f"node {_own_name()}, which joined the cluster later: {'; '.join(said)}; "
            "install the same everywhere, or end Ray there."
        )


def _own_name() -> str:
    """What preflight calls our node, too."""
    import ray

    if not ray.is_initialized():
        return platform.node()
    own = ray.get_runtime_context().get_node_id()
    return next((name_of(n) for n in ray.nodes() if n["NodeID"] == own), platform.node())


def wait_for(experiment: AnyPath) -> None:
    """Waits until the experiment is seen from here.

    Raises:
        StorageError: where it is not, though it was waited for.
    """
    try:
        patiently(lambda: None, anchor=experiment / MANIFEST, on_wait=_say)
    except StorageError as error:
        raise StorageError(
            f"{experiment}: this worker does not see the experiment; --storage must be a directory "
            f"that every node reaches, under the same path. ({error})"
        ) from error


def _say(text: str) -> None:
    """Into the worker's log."""
    print(text, file=sys.stderr, flush=True)
