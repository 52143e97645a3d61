"""Whether a Ray cluster asks for a token, and whether it takes ours; asked before we connect.

Whoever may connect to a Ray cluster may run any code on its nodes, and on the machine of the driver
that uses it. Ray's token keeps others out (https://docs.ray.io/en/latest/ray-security/token-auth.html),
where the cluster was started with it. Ray's own client tells neither: it uses an open cluster
silently, and tries a closed one for twenty seconds.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import ResourceError

_MODE, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_PATIENCE = 60.0  # seconds; an answer takes one, and Ray alone gives up later
#: In a process of its own: one process has one token, from its start on.
_QUESTION = """
import sys, time
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
address = sys.argv[1]
if address == "auto":  # else it would replace 127.0.0.1, where alone the cluster may be listening
    address = canonicalize_bootstrap_address(address)
try:
    client = GcsClient(address=address)
    for _ in range(60):  # a cluster that has just been started has no node yet
        nodes = client.get_all_node_info()
        if nodes:
            break
        time.sleep(0.5)
except AuthenticationError:
    print("refused")
else:
    print("accepted", *sorted({node.node_manager_address for node in nodes.values()}))
"""


@dataclass(frozen=True)
class Answer:
    """What a cluster says to one client.

    Attributes:
        accepted: Whether it let the client in; None where it gave no answer.
        nodes: Addresses of its nodes, where it did.
    """

    accepted: bool | None
    nodes: tuple[str, ...] = ()

    @property
    def reachable(self) -> list[str]:
        """The nodes that other machines can reach."""
        return [node for node in self.nodes if not _is_loopback(node)]


def has_token() -> bool:
    """Whether a token is configured, where Ray looks for one."""
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_FILE):
        return True
    return (Path.home() / ".ray" / "auth_token").is_file()


def check_authentication(address: str) -> str | None:
    """Checks that a cluster keeps strangers out and lets us in.

    Nothing is said of a cluster that does not answer: connecting to it says why.

    Args:
        address: ``HOST:PORT``, or ``auto`` for one on this machine.

    Returns:
        A warning where the cluster keeps nobody out and that is accepted by
        ``RAY_AUTH_MODE=disabled``; None where all is well.

    Raises:
        ResourceError: where it keeps nobody out though other machines can reach it, or where it
            asks for a token and ours is missing or wrong.
    """
    stranger = ask(address, without_token(os.environ))
    if stranger.accepted and stranger.reachable:
        problem = (
            f"--address {address}: this cluster takes anybody's code: it asks for no token, and "
            f"other machines can reach it ({', '.join(stranger.reachable)})"
        )
        if os.environ.get(_MODE, "").lower() == "disabled":
            return f"{problem}."
        raise ResourceError(
            f"{problem}; start it with {_MODE}=token on every node, "
            f"or set {_MODE}=disabled here to use it as it is."
        )
    if stranger.accepted is False and ask(address, os.environ).accepted is False:
        raise ResourceError(f"--address {address}: {_why_refused()}")
    return None


def _why_refused() -> str:
    if not has_token():
        return (
            f"the cluster asks for a token, and there is none here; set {_MODE}=token, and put the "
            f"cluster's token into ~/.ray/auth_token or a file that {_TOKEN_FILE} names."
        )
    if os.environ.get(_MODE, "").lower() != "token":
        return f"the cluster asks for a token; set {_MODE}=token, which sends the one that is here."
    return "the cluster asks for a token, and ours is not the cluster's."


def without_token(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a client that has no token."""
    others = {n: v for n, v in environment.items() if n not in (_MODE, _TOKEN, _TOKEN_FILE)}
    return others | {_MODE: "disabled"}


def ask(address: str, environment: Mapping[str, str]) -> Answer:
    """Asks a cluster who it is, as a client in an environment would; about a second."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _QUESTION, address],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return Answer(None)
    said = done.stdout.split()
    if done.returncode != 0 or not said:
        return Answer(None)
    return Answer(said[0] == "accepted", tuple(said[1:]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
