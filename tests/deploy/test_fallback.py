"""The fallback with real processes: Ray's autoscaler in its own process, and a worker it starts."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.deploy.files import AWS, COMMANDS, DEPLOY, ROOT, START, load
from tests.processes import free_port, with_settings

RAY = str(Path(sys.executable).with_name("ray"))
WORKER = {"min_workers": 0, "max_workers": 2, "resources": {"CPU": 2, "GPU": 1}, "node_config": {}}
TRIALS = """
import ray
ray.init("{address}", log_to_driver=False)
trial = ray.remote(num_cpus=1, num_gpus=0.5)(lambda: ray.get_runtime_context().get_node_id())
print("workers:", len(set(ray.get([trial.remote() for _ in range(2)], timeout=90))))
"""


def config() -> dict:
    """Our types of workers, by their names, in a cloud of processes."""
    ours = {name: WORKER for name in load(AWS)["available_node_types"] if name.startswith("gpu-")}
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "fallback",
        "max_workers": 2,
        "provider": {
            "type": "external",
            "module": "tests.deploy.refusing.NoSpot",
            "disable_node_updaters": True,
        },
        "available_node_types": {"ray.head.default": head, **ours},  # the fake nodes' only head
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "file_mounts": {},
        "auth": {},
        **{key: [] for key in ("cluster_synced_files", *COMMANDS, *START)},
    }


def end_processes_with(setting: str) -> None:
    """Ends every process that inherited a setting which no other process has."""
    for pid in with_settings(setting):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def head(tmp_path_factory):
    """A head started with the settings of cluster.yaml; gives its address and its log."""
    directory = tmp_path_factory.mktemp("f")
    address = f"127.0.0.1:{free_port()}"
    mark = f"REFUSING_MARK={secrets.token_hex(8)}"
    file = directory / "cluster.yaml"
    file.write_text(yaml.safe_dump(config()))
    start = load(AWS)["head_start_ray_commands"][-1]
    settings = dict(re.findall(r"(RAY_\w+)=([\w.]+)", start.split("ray start")[0]))
    environment = {
        **os.environ,
        **settings,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": f"{ROOT}:{DEPLOY}",
        "REFUSING_HEAD": address,
        **dict([mark.split("=")]),
    }
    command = [RAY, "start", "--head", "--block", f"--port={address.split(':')[1]}", "--num-cpus=0"]
    command += [
        "--node-ip-address=127.0.0.1",
        "--include-dashboard=false",
        f"--temp-dir={directory}",
    ]
    command += [f"--autoscaling-config={file}", "--object-store-memory=80000000"]
    log = directory / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            until = time.monotonic() + 60
            while "block forever" not in log.read_text():
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield address, environment, directory
        finally:
            end_processes_with(mark)
            process.wait(30)


@pytest.mark.slow
@pytest.mark.ray
def test_trials_run_on_demand_where_there_are_no_spot_machines(head):
    address, environment, directory = head
    result = subprocess.run(
        [sys.executable, "-c", TRIALS.format(address=address)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "workers: 1" in result.stdout, result.stderr
    log = "".join(file.read_text() for file in directory.glob("session_2*/logs/monitor.log"))
    refused = log.index("Failed to launch 1 node(s) of type gpu-spot")
    assert refused < log.index("Adding 1 node(s) of type gpu-on-demand")
