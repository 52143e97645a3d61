"""Which type of worker Ray's autoscaler starts next: spot machines, unless AWS has none.

``cluster.yaml`` copies this file to the head and names :func:`score` in the environment variable
``RAY_AUTOSCALER_UTILIZATION_SCORER``. The autoscaler asks it about every type of worker that could
take waiting trials, starts one of the type with the highest score, and asks again.

Ray's own score counts resources alone, so it would ask for the same spot machines again and again
while AWS refuses them. Ray does remember refusals, though, for
``AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S`` seconds (half an hour), and hands them to a scorer.
"""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

#: Types of workers whose names end so are on the spot market.
SPOT = "-spot"


def score(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[bool, Any, bool] | None:
    """Scores one type of worker for the resources that are waited for.

    Types that were refused lately come last. Among the others, Ray's own score decides, and
    between equal machines the spot market.

    Args:
        node_resources: What a worker of this type has, such as ``{"CPU": 4, "GPU": 1}``.
        resources: What is waited for, one mapping for each trial.
        node_type: The name of the type in ``available_node_types``.
        node_availability_summary: Ray's ``NodeAvailabilitySummary``: for each type tried lately,
            whether it could be had.

    Returns:
        What Ray compares, greater being better; None where no waiting trial fits on the type.
    """
    fit = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if fit is None:
        return None
    tried = node_availability_summary.node_availabilities.get(node_type)
    refused = tried is not None and not tried.is_available
    return (not refused, fit, node_type.endswith(SPOT))
