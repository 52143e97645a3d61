"""Files on an object store such as S3, through pyarrow: the part of `pathlib.Path` that we need.

An object has no name before all of it is there, and there are no directories: making one is
nothing, and one is there where a name begins with it. pyarrow's documentation of file systems:
https://arrow.apache.org/docs/python/filesystems.html
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from model.errors import ConfigurationError
from model.files import Content

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

#: Seconds until a server that does not answer is taken for away; `patiently` tries again.
_CONNECT_SECONDS, _REQUEST_SECONDS = 5.0, 10.0
_ATTEMPTS = 2
#: What pyarrow sends in one request for sure.
_SMALL_BYTES = 4 * 2**20
#: How errors of object stores say that another attempt may succeed.
_TRANSIENT = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT",
    "REQUEST_EXPIRED",
    "THROTTLING",
    "HTTP status 5",
    "curlCode",
)


@dataclass(frozen=True)
class Remote:
    """An object store.

    Attributes:
        scheme: ``s3`` ...
        options: As after the question mark of a URI.
    """

    scheme: str
    options: str = ""


@cache
def _connect(remote: Remote, bucket: str, process: int) -> tuple[FileSystem, str]:
    """The file system, and what of a key's beginning it leaves out; once for each process."""
    del process  # a forked child must not share its parent's connections
    from pyarrow import fs

    if remote.scheme == "s3":
        return _s3(dict(parse_qsl(remote.options)), bucket), ""
    uri = f"{remote.scheme}://{bucket}"
    try:
        found, path = fs.FileSystem.from_uri(uri)
        return found, path.removesuffix(bucket)
    except ValueError:  # a scheme that pyarrow has nothing for
        import fsspec  # type: ignore[import-untyped]

        made, path = fsspec.core.url_to_fs(uri)
        return fs.PyFileSystem(fs.FSSpecHandler(made)), path.removesuffix(bucket)


def _s3(options: dict[str, str], bucket: str) -> FileSystem:
    from pyarrow import fs

    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # as Amazon's own tools read them
    endpoint = options.get("endpoint_override") or _first_set(variables)
    region = options.get("region") or _first_set(("AWS_REGION", "AWS_DEFAULT_REGION"))
    if region is None and endpoint is None:
        with suppress(OSError):  # said when it is used
            region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        scheme=options.get("scheme"),
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        allow_delayed_open=True,  # small objects in one request
    )


def _first_set(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def make_file_system(remote: Remote, key: str) -> tuple[FileSystem, str]:
    """The file system of an object store, and the beginning that paths there have.

    Raises:
        ConfigurationError: where no library reaches it.
    """
    bucket = key.partition("/")[0]
    try:
        return _connect(remote, bucket, os.getpid())
    except (ImportError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"--storage {remote.scheme}://{bucket}", [f"cannot be reached: {error}"]
        ) from None


def is_transient(error: BaseException) -> bool:
    """Whether an object store's error may be gone at another attempt."""
    return isinstance(error, OSError) and any(word in str(error) for word in _TRANSIENT)


@dataclass(frozen=True)
class RemotePath:
    """A file or directory of an object store; errors are `OSError`, as those of `Path`.

    Attributes:
        remote: The store.
        key: Bucket and name, without a slash at either end.
    """

    remote: Remote
    key: str

    def __str__(self) -> str:
        options = f"?{self.remote.options}" if self.remote.options else ""
        return f"{self.remote.scheme}://{self.key}{options}"

    def __truediv__(self, name: str | os.PathLike[str]) -> RemotePath:
        return RemotePath(self.remote, str(PurePosixPath(self.key) / name))

    def __lt__(self, other: RemotePath) -> bool:
        return self.key < other.key

    @property
    def name(self) -> str:
        """Its last part."""
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> RemotePath:
        """What it lies in."""
        return RemotePath(self.remote, str(PurePosixPath(self.key).parent))

    def with_name(self, name: str) -> RemotePath:
        """Another one beside it."""
        return self.parent / name

    def resolve(self) -> RemotePath:
        """Itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file or directory."""
        return bool(self._info().type.name != "NotFound")

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return bool(self._info().type.name == "File")

    def is_dir(self) -> bool:
        """Whether any name begins with it."""
        return bool(self._info().type.name == "Directory")

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Nothing: there are no directories."""

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies in it; nothing where it is not there."""
        return (path for path, _ in self.walk(recursive=False))

    def walk(self, *, recursive: bool = True) -> Iterator[tuple[RemotePath, FileInfo]]:
        """What lies in it, or below it, with pyarrow's facts; one request for a thousand names."""
        from pyarrow import fs

        system, begin = make_file_system(self.remote, self.key)
        selector = fs.FileSelector(begin + self.key, recursive=recursive, allow_not_found=True)
        for info in system.get_file_info(selector):
            yield RemotePath(self.remote, info.path.removeprefix(begin).strip("/")), info

    def read_bytes(self) -> bytes:
        """Its contents."""
        with self._call("open_input_stream", self.key) as stream:
            return bytes(stream.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The same as text."""
        return self.read_bytes().decode(encoding)

    def write(self, content: Content, allow: Callable[[], None] | None = None) -> None:
        """Writes it whole or not at all.

        Args:
            content: As in `atomic_write`.
            allow: Called when everything has been sent, just before it takes its name; it may
                raise.
        """
        # With a check, and where several requests send it, it is sent under another name first:
        # pyarrow completes what was sent in part when it forgets a stream.
        if callable(content):
            buffer = io.BytesIO()
            content(buffer)
            content = buffer.getbuffer()
        if allow is None and len(content) <= _SMALL_BYTES:
            self._put(content)
            return
        sent = self.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            sent._put(content)
            if allow is not None:
                allow()
            sent.copy_to(self)
        finally:
            with suppress(OSError):
                sent.unlink()

    def _put(self, content: bytes | bytearray | memoryview) -> None:
        stream = self._call("open_output_stream", self.key)
        stream.write(content)
        stream.close()  # what was not closed has no name

    def copy_to(self, other: RemotePath) -> None:
        """Copies a file, at the server."""
        self._call("copy_file", self.key, other.key)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Removes a file."""
        try:
            self._call("delete_file", self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _info(self) -> FileInfo:
        return self._call("get_file_info", self.key)

    def _call(self, name: str, *keys: str) -> Any:
        system, begin = make_file_system(self.remote, self.key)
        return getattr(system, name)(*(begin + key for key in keys))


def modified(files: Sequence[RemotePath]) -> dict[RemotePath, float]:
    """When files were written last, in seconds since 1970; those that are not there are left out.

    Args:
        files: Of one store.
    """
    if not files:
        return {}
    system, begin = make_file_system(files[0].remote, files[0].key)
    found = system.get_file_info([begin + file.key for file in files])
    return {
        file: info.mtime_ns / 1e9
        for file, info in zip(files, found, strict=True)
        if info.type.name == "File"
    }
