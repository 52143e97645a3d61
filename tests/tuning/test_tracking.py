import sys
from types import SimpleNamespace

import pytest

from model.errors import ConfigurationError
from tuning.journal import Row
from tuning.tracking import WandbTracker, choose_mode, has_key


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_without_a_key_it_is_offline_and_never_asks(no_key):
    assert not has_key()
    assert choose_mode(None) == "offline"
    assert choose_mode("disabled") == "disabled"
    with pytest.raises(ConfigurationError, match="--wandb: online: needs a key; set WANDB_API_KEY"):
        choose_mode("online")


def test_a_key_in_the_environment_means_online(no_key, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert choose_mode(None) == "online"
    assert choose_mode("offline") == "offline"


def test_a_key_in_netrc_means_online_for_its_host_alone(no_key, monkeypatch):
    no_key.write_text("machine wandb.example.org login user password secret\n")
    assert choose_mode(None) == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert choose_mode(None) == "online"


def row(kind, trial=0, **values):
    return Row(kind=kind, trial=trial, attempt=1, **values)


def test_when_wandb_fails_the_search_hears_it_once(tmp_path, monkeypatch):
    def fail(**arguments):
        raise RuntimeError("no network")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=fail, Settings=dict))
    problems = []
    tracker = WandbTracker(tmp_path, "g", mode="offline", run_id="i", on_problem=problems.append)
    for trial in range(3):
        tracker.heard(row("proposed", trial, state="running"))
    tracker.close()
    assert problems == ["Weights & Biases stopped logging: no network"]


def test_runs_are_opened_fed_and_closed(tmp_path, monkeypatch):
    events = []

    class Run:
        def __init__(self, name):
            self.name, self.summary = name, {}

        def log(self, metrics, step):
            events.append((self.name, "log", step, metrics))

        def finish(self, exit_code):
            events.append((self.name, "finish", exit_code, dict(self.summary)))

    def init(**arguments):
        events.append((arguments["id"], "init", arguments["group"], arguments["tags"]))
        return Run(arguments["id"])

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    tracker = WandbTracker(tmp_path, "g", mode="offline", run_id="i", tags=("a",))
    for event in [
        row("session", None, state=None),
        row("proposed", state="running"),
        row("report", iteration=10, metrics={"val_loss": 3.0}, values=[3.0], state="running"),
        row("restarted", state="running"),
        row("report", iteration=10, metrics={"val_loss": 3.0}, values=[3.0], state="running"),
        row("report", iteration=20, metrics={"val_loss": 2.0}, values=[2.0], state="finished"),
        row("proposed", 1, state="running"),
    ]:
        tracker.heard(event)
    tracker.close()
    assert events == [
        ("i-0000", "init", "g", ["a"]),
        ("i-0000", "log", 10, {"val_loss": 3.0}),
        ("i-0000", "log", 20, {"val_loss": 2.0}),
        ("i-0000", "finish", 0, {"state": "finished", "value": 2.0}),
        ("i-0001", "init", "g", ["a"]),
        ("i-0001", "finish", 1, {}),
    ]
