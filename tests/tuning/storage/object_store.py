"""A real server that speaks S3, on this machine: moto's, in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import boto3
from botocore.config import Config

#: What every client of it needs in its environment, beside the address.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEY000001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/of/the/object/store/00001",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ObjectStore:
    """The server; what it holds is gone with it."""

    def __init__(self, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=out,
                stderr=out,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, log.read_text()
                time.sleep(0.05)
        raise AssertionError("the server did not come up")

    @property
    def environment(self):
        """Of whoever is to use it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.url}

    def client(self):
        """Amazon's own client."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 5}),
        )

    def make(self, bucket):
        """Makes a bucket."""
        self.client().create_bucket(Bucket=bucket)

    def names(self, bucket, prefix=""):
        """The names of all objects in a bucket."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return sorted(o["Key"] for page in pages for o in page.get("Contents", []))

    def requests(self):
        """The requests that it has answered: method and path."""
        log = _COLOUR.sub("", self.log.read_text(errors="replace"))
        return re.findall(r'"([A-Z]+ \S+) HTTP', log)

    @contextmanager
    def hanging(self):
        """For the time of a block it accepts, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self):
        """Ends it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
