"""A promoted model as a Weights & Biases artifact; what fails there never fails a promotion."""

import base64
import hashlib
import json
import shutil
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from analysis import promote
from analysis.__main__ import main
from analysis.promotion.artifact import Logged, artifact_mode, log_artifact
from analysis.promotion.versions import describe
from model.errors import ConfigurationError
from model.model_directory import load
from tests.tuning.ray_support import wandb_records

FILES = ["config.json", "manifest.json", "metrics.json", "vocabulary.json", "weights.pt"]


@pytest.fixture(scope="module")
def promoted(finished, tmp_path_factory):
    torch.set_num_threads(1)
    return describe(promote(finished.path, "small", registry=tmp_path_factory.mktemp("registry")))


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def with_mode(experiment):
    """The experiment as if it had been logged in a mode."""

    def build(mode):
        experiment.manifest["settings"]["wandb"] = mode
        return experiment

    return build


class TestMode:
    @pytest.mark.parametrize("mode", ["offline", "disabled"])
    def test_as_the_search_was_logged(self, with_mode, no_key, mode):
        assert artifact_mode(with_mode(mode), None) == mode

    def test_as_asked(self, with_mode, no_key, monkeypatch):
        assert artifact_mode(with_mode("offline"), "disabled") == "disabled"
        assert artifact_mode(with_mode("disabled"), "offline") == "offline"
        with pytest.raises(ConfigurationError, match="--wandb: online: needs a key"):
            artifact_mode(with_mode("offline"), "online")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert artifact_mode(with_mode("disabled"), "online") == "online"

    def test_an_online_search_without_a_key_here_is_logged_offline(
        self, with_mode, no_key, monkeypatch
    ):
        assert artifact_mode(with_mode("online"), None) == "offline"
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert artifact_mode(with_mode("online"), None) == "online"


class TestFailures:
    def test_they_are_told_and_nothing_is_raised(self, promoted, finished, monkeypatch):
        def fail(**arguments):
            raise RuntimeError("no network")

        monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fail, Settings=dict))
        problem = log_artifact(promoted, "production", finished, "online").problem
        assert problem == "Weights & Biases has no artifact of it: no network"

    def test_it_is_not_waited_for_without_end(self, promoted, finished, monkeypatch):
        def hang(**arguments):
            time.sleep(2)
            raise RuntimeError("too late")

        monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=hang, Settings=dict))
        started = time.monotonic()
        logged = log_artifact(promoted, "production", finished, "online", patience=0.1)
        problem = logged.problem
        assert problem == "Weights & Biases did not finish in time; the artifact may be partial."
        assert time.monotonic() - started < 1.5

    def test_disabled_does_not_even_import_it(self, promoted, finished, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        assert log_artifact(promoted, "production", finished, "disabled") == Logged()
        problem = log_artifact(promoted, "production", finished, "offline").problem
        assert problem.startswith("Weights & Biases has no artifact of it: import of wandb")

    def test_a_run_whose_artifact_fails_is_closed_as_failed(self, promoted, finished, monkeypatch):
        codes = []

        def log(artifact, aliases):
            raise ValueError("too large")

        def finish(exit_code):
            codes.append(exit_code)

        run = SimpleNamespace(summary={}, log_artifact=log, finish=finish)
        artifact = SimpleNamespace(add_file=lambda *a, **k: None)
        wandb = SimpleNamespace(
            init=lambda **a: run, Settings=dict, Artifact=lambda *a, **k: artifact
        )
        monkeypatch.setitem(sys.modules, "wandb", wandb)
        assert "too large" in log_artifact(promoted, "production", finished, "offline").problem
        assert codes == [1]

    def test_the_command_says_so_and_ends_well(self, experiment, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "wandb", None)
        arguments = [str(experiment.path), "--registry", str(tmp_path / "r"), "--wandb", "offline"]
        assert main(["promote", *arguments]) == 0
        out = capsys.readouterr().out
        assert "note: Weights & Biases has no artifact of it: " in out
        assert "wandb sync" not in out
        assert load("small", tmp_path / "r").path.name == "1"


def test_the_offline_files_hold_the_whole_artifact(experiment, tmp_path, capsys, no_key):
    """By the command; read back from W&B's own file."""
    registry = tmp_path / "registry"
    arguments = [str(experiment.path), "--registry", str(registry), "--wandb", "offline"]
    assert main(["promote", *arguments, "--name", "bot", "--alias", "candidate"]) == 0
    (file,) = experiment.path.glob("wandb/offline-run-*/*.wandb")
    said = f"W&B, offline; to send the model: wandb sync {file.parent}\n"
    assert said in capsys.readouterr().out
    records = wandb_records(file)

    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert run.run_group == "small"
    assert run.job_type == "promotion"
    assert run.project == "dialogue-tune"
    assert run.display_name == "small-bot-1"

    (artifact,) = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    assert (artifact.name, artifact.type) == ("bot", "model")
    assert (
        {"candidate", "version-1"}
        <= set(artifact.aliases)
        <= {
            "candidate",
            "version-1",
            "latest",
        }
    )
    bot = load("bot@candidate", registry)
    assert json.loads(artifact.metadata) == {
        "metrics": bot.metrics,
        "lineage": bot.manifest["lineage"],
    }
    assert [entry.path for entry in artifact.manifest.contents] == FILES
    for entry in artifact.manifest.contents:
        sealed = bot.path / entry.path
        assert entry.local_path == str(sealed.resolve()), "not copied"
        digest = hashlib.md5(sealed.read_bytes(), usedforsecurity=False).digest()
        assert entry.digest == base64.b64encode(digest).decode()
        assert entry.size == sealed.stat().st_size
    shutil.rmtree(experiment.path / "wandb")
