"""The project as a cluster's processes get it: our packages' code, and what a job's command names.

    model/, tuning/     Python files, and the corpus that is part of the package
    COMMIT              the checkout's commit, where it has one
    ...                 of a job, what its command line names, see `tuning.jobs`

A list of what goes in, not of what stays out: a file that nobody thought of stays here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from model.errors import ConfigurationError
from model.files import storage_errors
from tuning.environment import COMMIT, git_commit
from tuning.local_ray import ROOT

#: The dashboard takes no more than 100 MiB at once.
LIMIT_BYTES = 99 * 2**20
_PACKAGES = ("model", "tuning")
#: Files of a package that are no code: they are part of it, as pyproject.toml says.
_PACKAGE_DATA = ("model/everyday.txt",)
#: One time for every file, so that the same content is the same package, which is sent once.
_TIME = (1980, 1, 1, 0, 0, 0)


def package(extra: Mapping[str, Path]) -> bytes:
    """A zip file for a working directory, the same bytes for the same content.

    Args:
        extra: Files beside our packages, by their paths within the package.

    Raises:
        ConfigurationError: where it is larger than a package may be.
        StorageError: where a file cannot be read.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in [*_code(), *sorted(extra.items())]:
            with storage_errors(path, "read"):
                _add(archive, name, path.read_bytes())
        commit = git_commit()
        if commit is not None:
            _add(archive, COMMIT, f"{commit}\n".encode())
    content = buffer.getvalue()
    if len(content) > LIMIT_BYTES:
        raise ConfigurationError(
            "--data",
            [
                f"the package has {len(content) / 2**20:.0f} MB, but {LIMIT_BYTES / 2**20:.0f} MB "
                "is the most; copy the data to the cluster's storage, and name them there: "
                "--set corpus=/PATH"
            ],
        )
    return content


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _code() -> Iterator[tuple[str, Path]]:
    """Our packages' files, in one order; links are not followed, hidden files not looked at."""
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT)
            if not path.is_symlink() and not any(part.startswith(".") for part in name.parts):
                yield name.as_posix(), path
    for known in _PACKAGE_DATA:
        yield known, ROOT / known
