import os
import subprocess
import sys

import pytest

from model.errors import ResourceError
from tests.tuning.ray_support import ROOT
from tuning import cluster
from tuning.cluster import _check_answers
from tuning.local_ray import _importable, private_options, sessions


def can_import(cwd):
    code = "import tuning.trials.trial_files, model.config"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, check=False)
    return done.returncode == 0


def test_processes_of_a_local_ray_find_our_packages(tmp_path, monkeypatch):
    """And the environment is as it was afterwards."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with _importable():
        assert can_import(tmp_path)
    assert "PYTHONPATH" not in os.environ
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    with _importable():
        assert os.environ["PYTHONPATH"].endswith(f"{os.pathsep}/elsewhere")
    assert os.environ["PYTHONPATH"] == "/elsewhere"


def test_a_process_that_had_a_ray_of_its_own_keeps_its_token(monkeypatch):
    monkeypatch.setattr(cluster, "_own_tokens", {"ours"})
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ours")
    refused = pytest.raises(
        ResourceError, match=r"used a Ray of its own before.*restart the kernel"
    )
    with refused, cluster.connected("10.0.0.1:6379"):
        pass


class TestPrivateFiles:
    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        return tmp_path / f"ray-{os.getuid()}"

    def test_nobody_else_comes_in(self, place):
        assert private_options() == {"_temp_dir": f"{place}/s"} == {"_temp_dir": str(sessions())}
        assert place.stat().st_mode & 0o777 == 0o700
        assert private_options() == {"_temp_dir": f"{place}/s"}, "for every further search"

    def test_who_says_where_decides(self, place, monkeypatch):
        monkeypatch.setenv("RAY_TMPDIR", "/elsewhere")
        assert private_options() == {}
        assert not place.exists()

    @pytest.mark.parametrize("what", ["open", "link", "file"])
    def test_a_place_that_others_have_is_refused(self, place, tmp_path, what):
        if what == "open":
            place.mkdir()
            place.chmod(0o755)
        elif what == "link":
            (tmp_path / "theirs").mkdir(mode=0o700)
            place.symlink_to(tmp_path / "theirs")
        else:
            place.touch()
        message = f"^{place}: .*; remove it, or set RAY_TMPDIR to a directory that is yours alone"
        with pytest.raises(ResourceError, match=message):
            private_options()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "is a dashboard's, for 'python -m tuning submit' and the like"),
        ("ray://127.0.0.1:10001", "the Ray client cannot run a search"),
        ("127.0.0.1:1", "no Ray cluster answers there: .*refused"),
    ],
)
def test_an_address_of_no_cluster(address, message):
    with pytest.raises(ResourceError, match=f"^--address {address}: {message}"):
        _check_answers(address)


#: Lets a worker die in the middle of a task, and waits until Ray would have said so.
KILL_A_WORKER = """
import os, time
def kill_a_worker(ray):
    try:
        ray.get(ray.remote(max_retries=0)(lambda: os.kill(os.getpid(), 9)).remote())
    except ray.exceptions.WorkerCrashedError:
        print("it died")
    time.sleep(3)
"""
AS_RAY_DOES = """
import ray
ray.init(address="local", include_dashboard=False, log_to_driver=False)
kill_a_worker(ray)
"""
AS_WE_DO = """
from tuning.cluster import connected
with connected(None):
    import ray
    kill_a_worker(ray)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(("code", "says"), [(AS_RAY_DOES, True), (AS_WE_DO, False)])
def test_what_ray_says_of_its_processes_stays_off_the_terminal(code, says):
    done = subprocess.run(
        [sys.executable, "-c", KILL_A_WORKER + code],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "it died" in done.stdout
    assert ("(raylet" in done.stdout + done.stderr) == says
