"""The log of a trial on a cluster: a small task reads it on the node where its worker ran.

A node that is gone has taken Ray's files with it; what its workers reported is in the journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning.nodes import ask, last_line, on_node
from tuning.worker_logs import ray_log_directories, written

#: How long a node may take to answer: it may have to unpack our packages first.
ANSWER_SECONDS = 30.0


@dataclass
class NodeLogs:
    """What the nodes of a cluster have of a log.

    Attributes:
        files: The text of each file that has the heading, by the node's name and the path there.
        problems: Why a node was not asked or did not answer, one line each.
    """

    files: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def written_on_nodes(heading: str, host: str | None, *, wait: float = ANSWER_SECONDS) -> NodeLogs:
    """What a worker wrote under a heading, on the cluster that we are connected to.

    Args:
        heading: See `tuning.worker_logs.heading`.
        host: Address of the worker's node; None asks every node, where it never reported.
        wait: Seconds that all nodes together may take to answer.
    """
    import ray

    known = [node for node in ray.nodes() if host in (None, node["NodeManagerAddress"])]
    alive = [node for node in known if node["Alive"]]
    logs = NodeLogs()
    if not alive and host is not None:
        logs.problems.append(_gone(host, known))
    asked = {
        node["NodeID"]: on_node(node["NodeID"], _read_here, max_retries=0).remote(heading)
        for node in alive
    }
    names = {node["NodeID"]: _name(node) for node in alive}
    for node, found in ask(asked, wait).items():
        name = names[node]
        if found is None:
            logs.problems.append(f"{name}: does not answer within {wait:g} s.")
        elif isinstance(found, Exception):
            logs.problems.append(f"{name}: its log cannot be read there: {last_line(found)}")
        else:
            logs.files |= {(name, file): text for file, text in found.items()}
    return logs


def _read_here(heading: str) -> dict[str, str]:
    """Runs as a task of Ray: reads this node's files, of ended sessions of Ray too."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    return written(heading, ray_log_directories(session.parent))


def _gone(host: str, known: list[dict[str, Any]]) -> str:
    """Words for a node that is not there; the cluster remembers those that it has lost."""
    reasons = [str(node.get("DeathReasonMessage") or "").strip() for node in known]
    why = f" ({reasons[-1].rstrip('.')})" if reasons and reasons[-1] else ""
    left = f"has left the cluster{why}" if known else "is not a node of this cluster"
    return (
        f"node {host}: {left}; what its workers wrote lies in Ray's temporary directory there, "
        "if the machine still is. What is known of the attempt is said above."
    )


def _name(node: dict[str, Any]) -> str:
    name, address = node["NodeName"], node["NodeManagerAddress"]
    return f"node {address}" if name in ("", address) else f"node {name} ({address})"
