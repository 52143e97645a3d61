import os

import pytest

from tuning.journal import Journal
from tuning.storage.patience import PATIENCE_VARIABLE


@pytest.fixture(autouse=True)
def patience_as_before(monkeypatch):
    """A worker takes its driver's patience into the environment: here, into that of other tests."""
    monkeypatch.setenv(PATIENCE_VARIABLE, "")  # so that it is put back afterwards
    monkeypatch.delenv(PATIENCE_VARIABLE)


@pytest.fixture(autouse=True)
def journals_closed(monkeypatch):
    """Closes the journals a test leaves open, as the death of their process would."""
    journals, initialise = [], Journal.__init__

    def remembered(self, *arguments, **keywords):
        initialise(self, *arguments, **keywords)
        journals.append(self)

    monkeypatch.setattr(Journal, "__init__", remembered)
    yield
    for journal in journals:
        journal.close()


@pytest.fixture(scope="module")
def ray():
    """One Ray of two CPUs for all tests here; `connected` uses it as it is.

    It asks for no token, and listens on the loopback address alone.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    import ray

    from tuning.local_ray import on_loopback

    with on_loopback():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from tests.tuning.ray_support import write_corpus

    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def search(ray, corpus, tmp_path):
    """Runs a search of small models on one Ray; what a sweep file has may be given too."""
    from tests.tuning.ray_support import sweep_mapping
    from tuning.launch import run
    from tuning.sweeps.sweep_file import parse_sweep

    def start(name="search", wandb="disabled", parameters=None, **options):
        keys = ("method", "metric", "metrics", "early_terminate", "dialogue_tune")
        method = {k: options.pop(k) for k in keys if k in options}
        sweep = parse_sweep(sweep_mapping(corpus, **(parameters or {})) | method)
        return run(sweep, name=name, storage=tmp_path / "runs", wandb=wandb, **options)

    return start
