"""What the cluster files copy to the head and from it, by the launcher's own rsync; the commit."""

import re
import shlex
import shutil
import subprocess

import pytest
from ray.autoscaler._private.command_runner import SSHCommandRunner

from tests.deploy.files import AWS, LOCAL, ROOT, load
from tuning import environment

FILES = pytest.mark.parametrize("file", [AWS, LOCAL], ids=lambda file: file.stem)
pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")


def copy(file, source, target, *, down=False):
    """Copies as ``ray rsync-up`` and ``ray rsync-down`` do, but without SSH: the head is here."""
    runner = SSHCommandRunner.__new__(SSHCommandRunner)
    runner.ssh_user, runner._get_ssh_target = "me", lambda: "head"
    runner.ssh_options = type("NoSsh", (), {"to_ssh_options_list": lambda self, timeout: []})()

    def run(words, **options):
        assert words[:3] == ["rsync", "--rsh", "ssh"]
        there = [word.removeprefix("me@head:") for word in words[3:]]
        subprocess.run(["rsync", "-q", *there], check=True)

    runner._run_helper = run
    rules = {name: load(file).get(name) for name in ("rsync_exclude", "rsync_filter")}
    (runner.run_rsync_down if down else runner.run_rsync_up)(str(source), str(target), rules)


def fill(directory, names):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")


def files_in(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@FILES
def test_the_project_is_copied_without_data_and_secrets(file, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    copied = {"model/loss.py", "configs/demo.yaml", "analysis/data/x.py", "requirements.txt"}
    left = {"data/c.txt", "runs/a/trial.json", "wandb/run/x", "registry/a", "build/x", "dist/x"}
    left |= {".git/config", ".venv/bin/python", ".aws/credentials", "model/__pycache__/x.pyc"}
    left |= {".env", "configs/.env.local", ".netrc", ".ruff_cache/x", ".hypothesis/x"}
    fill(here, copied | left)
    shutil.copy(ROOT / ".gitignore", here)
    key = tmp_path / "ray-autoscaler_us-west-2.pem"  # the launcher copies it by the same rules
    key.write_text("x")
    for source in (f"{here}/", key):
        copy(file, source, f"{there}/")
    assert files_in(there) == copied | {key.name, ".gitignore"}


@FILES
def test_the_data_are_copied_by_themselves(file, tmp_path):
    fill(tmp_path / "data", {"cornell/lines.txt"})
    copy(file, f"{tmp_path}/data/", f"{tmp_path}/there/")
    assert files_in(tmp_path / "there") == {"cornell/lines.txt"}


@FILES
def test_an_experiment_is_fetched_with_all_that_it_has(file, tmp_path, monkeypatch):
    """By the lines at the top of the file, on a laptop that has no runs/ yet."""
    lines = re.findall(
        r"^#   (mkdir [-\w/ ]+)(?: {2,}.*)?\n#   (ray rsync-down .*)$", text(file), re.M
    )
    ((make, fetch),) = lines
    *_, source, target = shlex.split(fetch)
    experiment = tmp_path / source.strip("/")
    names = {
        "experiment.json",
        "journal/1.jsonl",
        "trials/1/best.pt",
        "wandb/offline-run-1/run.wandb",
    }
    fill(experiment, names)
    monkeypatch.chdir(tmp_path)
    subprocess.run(shlex.split(make), check=True)
    copy(file, f"{experiment}/", target, down=True)
    assert files_in(tmp_path / "runs" / "cornell") == names


def text(file):
    return re.sub(r" *\\\n# +", " ", file.read_text(encoding="utf-8"))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
@FILES
def test_manifests_on_the_cluster_have_the_commit(file, tmp_path, monkeypatch):
    """By the line at the top of the file, with a launcher that runs it in a home of the head's."""
    (line,) = re.findall(r"^#   (ray exec .*COMMIT\")", text(file), re.M)
    project = tmp_path / "dialogue-tune"
    (project / "tuning").mkdir(parents=True)
    launcher = f'ray() {{ HOME={tmp_path} bash -c "$3"; }}'
    subprocess.run(["bash", "-ec", f"{launcher}\n{line}"], cwd=ROOT, check=True)
    here = environment.git_commit()
    monkeypatch.setattr(environment, "__file__", str(project / "tuning" / "environment.py"))
    assert here is not None
    assert environment.git_commit() == here
