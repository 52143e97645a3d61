"""Weights & Biases' own process where it must not be a child of ours: in a job of Ray's.

Ray stops a job by a signal to its driver and to every process below it, and wandb-core, which W&B
starts there, dies of each: what it had not sent or written by then is missing, the end of all runs
first. W&B can start it as a service for several programs. Here a process in between does so, and
ends at once: the service is then below nobody's, and ends by itself when nobody uses it any more.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tuning.cluster import JOB_VARIABLE

#: By this W&B knows a service to use.
_SERVICE = "WANDB_SERVICE"
#: How long it stays after the last who used it, in Go's words: we are its only user.
_IDLE = "5s"
_START_SECONDS = 60.0
#: What ``wandb beta core start`` does, but for the advice that it prints.
_START = """
import sys
from wandb.sdk.lib.service import service_process
from wandb.sdk.wandb_settings import Settings
print(service_process.start_detached(Settings(), idle_timeout=sys.argv[1]).token.env_value)
"""


def keep_apart() -> None:
    """Starts W&B's process apart from ours where we are the driver of a job of Ray's.

    Where that does not work, W&B starts its own as ever.
    """
    if JOB_VARIABLE not in os.environ or os.environ.get(_SERVICE):
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _START, _IDLE],
            capture_output=True,
            text=True,
            check=True,
            timeout=_START_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return
    if token := done.stdout.strip():
        os.environ[_SERVICE] = token
