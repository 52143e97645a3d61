"""What a worker looks at before its first trial, on a node that joined after preflight."""

import os
import platform

import pytest

from model.errors import ResourceError, StorageError
from tuning.environment import versions
from tuning.experiment import MANIFEST
from tuning.storage.patience import PATIENCE_VARIABLE
from tuning.trials.joining import check_versions, take_patience, wait_for


def test_a_node_with_the_drivers_versions_is_taken():
    check_versions(versions())
    check_versions(None)
    others = versions()
    check_versions(others | {"torch": f"{others['torch'].partition('+')[0]}+cu130"})


def test_other_versions_are_refused_in_one_line():
    here = versions()
    with pytest.raises(ResourceError) as raised:
        check_versions(here | {"torch": "9.9.9", "ray": "2.59.0"})
    assert str(raised.value) == (
        f"node {platform.node()}, which joined the cluster later: has Ray {here['ray']}, but the "
        f"driver has 2.59.0; has torch {here['torch']}, but the driver has 9.9.9; install the "
        "same everywhere, or end Ray there."
    )


def test_an_experiment_that_is_there_is_not_waited_for(tmp_path):
    (tmp_path / MANIFEST).touch()
    wait_for(tmp_path)


def test_an_experiment_that_is_not_seen_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PATIENCE_VARIABLE, "4")
    with pytest.raises(StorageError) as raised:
        wait_for(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: this worker does not see the experiment; --storage must be a directory that "
        f"every node reaches, under the same path. ({tmp_path / MANIFEST}: is not there: the "
        "storage is away, or not mounted here; it was tried again for 4 s.)"
    )
    assert "storage is away for " in capsys.readouterr().err


def test_a_worker_waits_as_long_as_the_driver_does(monkeypatch):
    monkeypatch.delenv(PATIENCE_VARIABLE, raising=False)
    take_patience(None)
    take_patience(12.5)
    assert os.environ[PATIENCE_VARIABLE] == "12.5"
    take_patience(99)
    assert os.environ[PATIENCE_VARIABLE] == "12.5", "what its own environment says comes first"
