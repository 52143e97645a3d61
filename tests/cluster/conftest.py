import pytest

from tests.cluster.hosts import why_not


@pytest.fixture(scope="session", autouse=True)
def namespaces():
    """Skips, by name, where this machine cannot have several hosts."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
