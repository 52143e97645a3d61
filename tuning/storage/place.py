"""Where experiments are kept: a directory, or a place that is reached by its URI, such as S3.

`place` reads what a user says. For a directory it is a `pathlib.Path`, on NFS too; for a URI a
`RemotePath`, which knows the part of `Path` that we need. Credentials are never in it: they come
from the environment (``AWS_ACCESS_KEY_ID`` ...) or from the instance that a process runs on.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from model.errors import ConfigurationError
from tuning.storage.remote_path import Remote, RemotePath, make_file_system

AnyPath = Path | RemotePath

#: What may follow the question mark of ``s3://``; as in pyarrow's own URIs.
_OPTIONS = ("endpoint_override", "region", "scheme")
_ADVICE = (
    "credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE) or from the instance's role; what is in --storage is written down"
)


def is_uri(reference: str | os.PathLike[str]) -> bool:
    """Whether it names something other than a directory of the file system."""
    scheme, separator, _ = str(reference).partition("://")
    return bool(separator) and scheme.isidentifier() and scheme != "file"


def place(reference: str | os.PathLike[str]) -> AnyPath:
    """The directory, or the place that a URI names.

    Args:
        reference: A path; or ``s3://BUCKET/PREFIX``, for a server other than Amazon's with
            ``?endpoint_override=http://HOST:PORT`` (or ``AWS_ENDPOINT_URL``); or the URI of
            anything else that pyarrow or fsspec reaches (``gs://``, ``abfs://``, ``hdfs://`` ...).

    Raises:
        ConfigurationError: where it cannot be read, holds credentials, or there is no library that
            reaches it.
    """
    if not is_uri(reference):
        text = str(reference)
        return Path(text.removeprefix("file://") if text.startswith("file://") else text)
    parts = urlsplit(str(reference))
    _check(parts)
    options = dict(parse_qsl(parts.query))
    key = f"{parts.netloc}{parts.path}".strip("/")
    remote = Remote(parts.scheme, urlencode(sorted(options.items())))
    make_file_system(remote, key)  # is refused here rather than at the first use
    return RemotePath(remote, key)


def _check(parts: SplitResult) -> None:
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # what may be secret is left out
    problems = []
    if "@" in parts.netloc:
        problems.append(f"must not hold a user or a password: {_ADVICE}.")
    if not parts.netloc:
        problems.append(f"names no bucket; write {parts.scheme}://BUCKET/PREFIX.")
    allowed = _OPTIONS if parts.scheme == "s3" else ()
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name in allowed:
            continue
        if any(word in name.lower() for word in ("key", "token", "secret", "password", "sig")):
            problems.append(f"must not hold {name}: {_ADVICE}.")
            continue
        near = difflib.get_close_matches(name, allowed, 1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"there are {', '.join(allowed) or 'none'}."
        )
        problems.append(f"unknown option {name!r} after the question mark; {hint}")
    if parts.fragment:
        problems.append("must not hold a '#'.")
    if problems:
        raise ConfigurationError(f"--storage {shown}", problems)
