"""Keeps what Python processes delete or replace, so that a test can read all that was ever written.

Python imports a module of this name at its start, from PYTHONPATH. A second link to a file in
KEPT_IN is made before the file goes. What other programs delete (Ray's and W&B's own) and what is
cut off in place is not kept.
"""

import atexit
import itertools
import os
from contextlib import suppress
from pathlib import Path

_IN, _OF = os.environ.get("KEPT_IN"), os.environ.get("KEPT_OF", "")
_numbers = itertools.count()


def _keep(path, directory=None):
    with suppress(OSError, TypeError, ValueError):
        given = Path(os.fsdecode(path))
        if directory is not None:
            given = Path(f"/proc/self/fd/{directory}") / given
        whole = given.parent.resolve() / given.name
        if str(whole).startswith(_OF) and not str(whole).startswith(_IN):
            kept = f"{_IN}/{os.getpid()}-{next(_numbers)}-{whole.name}"
            os.link(whole, kept, follow_symlinks=False)


def _keeping(function, name):
    """The function, which first keeps the file that its first argument names."""

    def wrapped(path, *arguments, **keywords):
        _keep(path, keywords.get(name))
        return function(path, *arguments, **keywords)

    return wrapped


def _note_token():
    """The token that this process has made for its own Ray, which nobody else knows."""
    with suppress(OSError), Path(f"{_IN}.tokens").open("a", encoding="utf-8") as file:
        file.write(os.environ.get("RAY_AUTH_TOKEN", "") + "\n")


if _IN:
    os.unlink = os.remove = _keeping(os.unlink, "dir_fd")
    os.replace = _keeping(os.replace, "src_dir_fd")
    os.rename = _keeping(os.rename, "src_dir_fd")
    atexit.register(_note_token)
