"""Whether what a node is told opens a bucket, in a process that has nothing else of AWS."""

import os
import subprocess
import sys

from tests.deploy.files import ROOT

#: As a trial or a driver does it: nothing but the environment says who it is.
_WRITE = """
import sys
from tuning.storage.place import place
file = place(sys.argv[1]) / "a"
file.write(b"content")
print(file.read_bytes().decode())
"""


def check_opens(storage: str, environment: dict[str, str]) -> None:
    """Writes and reads in a storage, as on a node.

    Args:
        storage: Its URI.
        environment: What the node is told, beside what is no matter of AWS.

    Raises:
        AssertionError: with what was said, where it cannot be opened.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    none = {"HOME": "/nowhere", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", _WRITE, storage],
        env=own | none | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "content\n", done.stderr
