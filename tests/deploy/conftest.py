"""The cluster file for AWS, as it is written and as Ray uses it."""

import pytest

from tests.deploy.files import AWS, load
from tests.deploy.files import prepared as prepared_file


@pytest.fixture
def raw():
    return load(AWS)


@pytest.fixture
def prepared():
    return prepared_file(AWS)
