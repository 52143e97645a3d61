import itertools

import pytest

from tests.tuning.storage.object_store import ObjectStore

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """One server for all tests of a process."""
    pytest.importorskip("moto", reason="moto is not installed")
    store = ObjectStore(tmp_path_factory.mktemp("store") / "log")
    yield store
    store.close()


@pytest.fixture
def bucket(store, monkeypatch, tmp_path):
    """A new bucket; the environment leads to it, and copies lie in the test's directory."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DIALOGUE_TUNE_CACHE", str(tmp_path / "cache"))
    name = f"bucket-{next(_NUMBERS)}"
    store.make(name)
    return name


@pytest.fixture
def remote(bucket):
    """A place in it."""
    from tuning.storage.place import place

    return place(f"s3://{bucket}/runs")
