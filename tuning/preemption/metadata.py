"""What the cloud says: Amazon's instance metadata service, which knows two minutes ahead.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html. Its
recommendations to rebalance are not acted upon: most of those instances stay.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

#: Where the service is, unless the environment variable, Amazon's own, says otherwise.
ENDPOINT = "http://169.254.169.254"
ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
#: Seconds from the notice to the end.
NOTICE_SECONDS = 120.0
_ANSWER_SECONDS = 2.0
_TOKEN_SECONDS = 21600
_LONGEST_ANSWER = 4096
_ACTIONS = ("terminate", "stop", "hibernate")


class AwayError(Exception):
    """The metadata service does not answer."""


class AnswerError(Exception):
    """The metadata service answers something else than its documentation promises."""


@dataclass(frozen=True)
class Notice:
    """A node is about to be taken back.

    Attributes:
        what: In words, for Ray's record and the log.
        until: When, by `time.monotonic`: nobody sets that clock while the time runs out.
    """

    what: str
    until: float

    @property
    def seconds(self) -> float:
        """How long there is left, at least 0."""
        return max(0.0, self.until - time.monotonic())


class MetadataService:
    """The instance metadata service of an EC2 instance, version 2 (with a session token).

    Args:
        endpoint: Its address; that of the environment, or Amazon's, if None.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = (endpoint or os.environ.get(ENDPOINT_VARIABLE) or ENDPOINT).rstrip("/")
        # Never through a proxy, which would answer for its own machine.
        self._opener = build_opener(ProxyHandler({}))
        self._token: str | None = None

    def life_cycle(self) -> str:
        """``spot``, ``on-demand`` or ``scheduled``; empty where the service does not say.

        Raises:
            AwayError: where it does not answer.
            AnswerError: where it refuses to.
        """
        return (self._get("instance-life-cycle") or "").strip()

    def notice(self) -> Notice | None:
        """The notice, where there is one.

        Raises:
            AwayError: where the service does not answer.
            AnswerError: where nobody could tell what its answer means.
        """
        said = self._get("spot/instance-action")
        return None if said is None else _notice_in(said)

    def _get(self, name: str) -> str | None:
        """A piece of metadata; None where there is none of that name."""
        for _ in range(2):
            if self._token is None:
                self._token = self._new_token()
            path = f"/latest/meta-data/{name}"
            status, said = self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status != 401:  # else the token is too old, or the instance was stopped meanwhile
                break
            self._token = None
        if status == 404:
            return None
        if status != 200:
            raise AnswerError(f"{self.endpoint}: {path} is answered with status {status}")
        return said

    def _new_token(self) -> str:
        seconds = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
        status, said = self._ask("PUT", "/latest/api/token", seconds)
        if status != 200 or not said.isascii() or not said.isprintable() or not said:
            raise AnswerError(f"{self.endpoint}: gives no session token (status {status})")
        return said

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        try:
            request = Request(self.endpoint + path, method=method, headers=headers)
            with self._opener.open(request, timeout=_ANSWER_SECONDS) as answer:
                said = answer.read(_LONGEST_ANSWER).decode("utf-8", "replace")
                return int(answer.status), said
        except HTTPError as error:
            with error:
                return error.code, ""
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AwayError(f"{self.endpoint}: does not answer ({reason})") from None


def _notice_in(text: str) -> Notice:
    """Reads ``{"action": "terminate", "time": "2026-09-18T08:22:00Z"}``.

    A notice whose time cannot be read counts from now: that there is one is what matters.
    """
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    action = said.get("action") if isinstance(said, dict) else None
    if action not in _ACTIONS:
        raise AnswerError(f"the notice {text[:100]!r} is none that Amazon's documentation knows")
    try:
        left = datetime.fromisoformat(str(said.get("time"))).timestamp() - time.time()
    except ValueError:
        left = NOTICE_SECONDS
    return Notice(f"the cloud is about to {action} the machine", time.monotonic() + left)
