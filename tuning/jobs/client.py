"""Ray's job interface (its dashboard's HTTP), with our errors and without its traps.

Ray's own client would be sent elsewhere by RAY_ADDRESS, waits for ever where packets vanish, and
lets a machine-wide proxy or a ~/.netrc have a word in requests to this very machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model.errors import ExperimentError, ResourceError
from tuning.authentication import has_token

#: Seconds that Ray waits after its stop signal, before it kills a driver.
GRACE_SECONDS = 120
#: Seconds without an answer after which a request has failed, and without a line after which
#: we look whether the connection still is one: a running search prints one every half minute.
REQUEST_SECONDS = 60.0
SILENCE_SECONDS = 75.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_REDIRECTING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
#: Names in a job's metadata, by which we know our jobs again.
VERB, EXPERIMENT, STORAGE = "dialogue_tune", "experiment", "storage"
#: Ray reads them where it stops a driver: it sends Ctrl-C's signal, which our drivers know from
#: their first line on, and waits. It sends it to every process below the driver, too, for which
#: there is `tuning.tracking.wandb_service`.
_DRIVER_ENVIRONMENT = {
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_SECONDS),
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Job:
    """A job of ours, as the cluster tells of it.

    Attributes:
        id: Of the submission.
        verb: ``run``, ``resume`` or ``fetch``.
        experiment: Name of the experiment.
        storage: Where that lies, on the cluster.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        exit_code: Of its driver, where that ended by itself.
        message: What Ray says of it.
        started: Unix time in seconds.
        ended: Likewise; None while it runs.
    """

    id: str
    verb: str
    experiment: str
    storage: str
    state: str
    exit_code: int | None = None
    message: str = ""
    started: float = 0.0
    ended: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self.state in ("SUCCEEDED", "FAILED", "STOPPED")


class Client:
    """Speaks with the jobs of one cluster.

    Args:
        address: Of the dashboard, ``http://HOST:8265``.

    Raises:
        ResourceError: here and in every method, in words, where nobody answers or the token is
            missing or wrong.
    """

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        self._client = _connect(self.address)

    def submit(
        self, job: str, entrypoint: str, content: bytes, metadata: Mapping[str, str]
    ) -> None:
        """Starts a job on the head, which needs none of its CPUs.

        Args:
            job: Its id, never used before.
            entrypoint: A shell command.
            content: A zip file, its working directory.
            metadata: For everybody to read who can list jobs.
        """
        with _words(self.address), tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "package.zip"
            file.write_bytes(content)
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env={"working_dir": str(file), "env_vars": dict(_DRIVER_ENVIRONMENT)},
                metadata=dict(metadata),
                entrypoint_num_cpus=0,
            )

    def jobs(self) -> list[Job]:
        """Our jobs, the newest last."""
        with _words(self.address):
            found = [_job(details) for details in self._client.list_jobs()]
        return sorted((job for job in found if job is not None), key=lambda job: job.started)

    def find(self, name: str) -> Job:
        """The newest search of an experiment, or the job of that id.

        Raises:
            ExperimentError: where the cluster knows of none.
        """
        jobs = [job for job in self.jobs() if job.verb != "fetch"]
        for job in reversed(jobs):
            if name in (job.experiment, job.id):
                return job
        names = ", ".join(dict.fromkeys(job.experiment for job in jobs)) or "none"
        raise ExperimentError(
            f"{name}: the cluster at {self.address} knows no job of that experiment (it knows: "
            f"{names}). A head that was started anew has forgotten its jobs, not the experiments."
        )

    def job(self, job: str) -> Job:
        """One job.

        Raises:
            ExperimentError: where the cluster knows it no more.
        """
        with _words(self.address):
            try:
                found = _job(self._client.get_job_info(job))
            except RuntimeError as error:
                if "status code 404" not in str(error):
                    raise
                found = None
        if found is None:
            raise ExperimentError(
                f"the cluster at {self.address} knows no job {job}. A head that was started anew "
                "has forgotten its jobs, not the experiments: python -m tuning submit --resume NAME"
            )
        return found

    def stop(self, job: str) -> None:
        """Sends a job Ctrl-C; see `wait`."""
        with _words(self.address):
            self._client.stop_job(job)

    def delete(self, job: str) -> None:
        """Lets the cluster forget a job that is over."""
        with _words(self.address):
            self._client.delete_job(job)

    def wait(self, job: str, seconds: float) -> Job:
        """Waits until a job is over, but no longer than that."""
        until = time.monotonic() + seconds
        while not (found := self.job(job)).is_over and time.monotonic() < until:
            time.sleep(0.5)
        return found

    def last_lines(self, job: str, count: int) -> list[str]:
        """The last lines that a job printed."""
        with _words(self.address):
            return [*str(self._client.get_job_logs(job)).splitlines()[-count:]]

    def log(self, job: str) -> Iterator[str]:
        """What a job prints, from its beginning to its end, as it comes.

        Raises:
            ResourceError: where the connection breaks, or nothing has come for `SILENCE_SECONDS`.
        """
        with _words(self.address), asyncio.Runner() as runner:
            pieces = self._client.tail_job_logs(job)

            async def following() -> str | None:
                return await asyncio.wait_for(anext(pieces, None), SILENCE_SECONDS)

            try:
                while (piece := runner.run(following())) is not None:
                    yield piece
            finally:
                with suppress(Exception):  # it may be broken: that is why we are here
                    runner.run(pieces.aclose())


def _checked(address: str) -> str:
    """The address, with words for what is none."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ResourceError(
            f"--address {address}: is not the address of a Ray dashboard, such as "
            "http://127.0.0.1:8265; that of the cluster itself is for 'python -m tuning run'."
        )
    return address.rstrip("/")


def sends_token_openly(address: str) -> bool:
    """Whether whoever listens on the way to an address hears the token."""
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def _connect(address: str) -> Any:
    """Ray's client, with the token where there is one, and with a limit to its patience."""
    _prepare(address)
    try:
        import aiohttp  # noqa: F401 - Ray's client cannot do without
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ResourceError(
            f"jobs need {error.name}, which comes with Ray's dashboard: "
            "pip install 'ray[default]==2.60.0'"
        ) from None

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)

    class Impatient(JobSubmissionClient):  # type: ignore[misc, unused-ignore]
        """Fails where nobody answers."""

        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(
                *arguments, **{"timeout": REQUEST_SECONDS, "allow_redirects": False} | options
            )

    with _words(address):
        return Impatient(address)


def _prepare(address: str) -> None:
    """Sets what Ray reads from the environment when it is imported."""
    for name in _REDIRECTING:
        os.environ.pop(name, None)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    host = urlsplit(address).hostname
    if host in _LOOPBACK:
        for name in ("NO_PROXY", "no_proxy"):
            known = os.environ.get(name)
            os.environ[name] = f"{known},{host}" if known else host


@contextmanager
def _words(address: str) -> Iterator[None]:
    """Turns what Ray's client and its libraries raise into a `ResourceError` that says what to do.

    Nothing else of the block may raise these: they are as broad as that.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(f"--address {address}: {_about_token(str(error))}") from None
    except aiohttp.WSServerHandshakeError as error:
        said = _about_token(str(error)) if error.status in (401, 403) else str(error)
        raise ResourceError(f"--address {address}: {said}") from None
    except (OSError, TimeoutError, requests.RequestException, aiohttp.ClientError) as error:
        raise ResourceError(
            f"--address {address}: no Ray dashboard answers there: {error or type(error).__name__}."
            " It is port 8265 of the head, which you reach through SSH: "
            "ray dashboard cluster.yaml, or ssh -L 8265:127.0.0.1:8265 HEAD"
        ) from None
    except (RuntimeError, ValueError) as error:
        text = str(error).strip().splitlines()
        raise ResourceError(f"--address {address}: {text[-1] if text else error!r}") from None


def _about_token(said: str) -> str:
    where = (
        "It lies on the head in ~/.ray/auth_token ('ray get-auth-token' prints it): put it into "
        "the same file here, or into RAY_AUTH_TOKEN"
    )
    if "403" in said or "failed" in said:
        return f"the cluster has another token than this machine. {where}."
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if has_token() and mode.lower() != "token":
        return f"the cluster asks for its token, but RAY_AUTH_MODE is {mode!r}; set it to token."
    return f"the cluster asks for its token, and there is none here. {where}."


def _job(details: Any) -> Job | None:
    """A job from Ray's details of it; None where it is none of ours."""
    metadata = details.metadata or {}
    if VERB not in metadata or details.submission_id is None:
        return None
    return Job(
        id=str(details.submission_id),
        verb=metadata[VERB],
        experiment=metadata.get(EXPERIMENT, ""),
        storage=metadata.get(STORAGE, ""),
        state=str(getattr(details.status, "value", details.status)),
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip(),
        started=(details.start_time or 0) / 1000,
        ended=details.end_time / 1000 if details.end_time else None,
    )
