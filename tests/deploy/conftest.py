"""The cluster file for AWS, as it is written and as Ray uses it; and a server that speaks S3."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.files import AWS, ROOT, load
from tests.deploy.files import prepared as prepared_file
from tests.tuning.storage.conftest import bucket, store

__all__ = ["bucket", "store"]  # fixtures


@pytest.fixture
def raw():
    return load(AWS)


@pytest.fixture
def prepared():
    return prepared_file(AWS)


@pytest.fixture
def worker_home(raw, tmp_path):
    """A worker's home as the cluster file fills it for the agent; gives the environment there."""
    for remote, here in raw["file_mounts"].items():
        if "preemption" in remote:
            there = tmp_path / remote.removeprefix("~/")
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / here, there)
    settings = f"export PATH={Path(sys.executable).parent}:$PATH\n"
    (tmp_path / ".dialogue-tune.sh").write_text(settings)
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.1"}
