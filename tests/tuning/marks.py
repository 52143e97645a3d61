"""Marks that several modules of tests share."""

import pytest

#: Ray leaves sockets and file descriptors to the garbage collector when it shuts down.
RAY_LEFTOVERS = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
