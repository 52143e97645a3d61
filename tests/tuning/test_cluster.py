import os
import subprocess
import sys

from tuning.cluster import _importable


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
