import errno
import hashlib
import json
import os
import pickle
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from model.errors import StorageError
from model.files import atomic_write, atomic_write_json, sha256_of


def fail_with(code: int):  # type: ignore[no-untyped-def]
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_writes_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.bin", b"one")
    atomic_write(tmp_path / "a.bin", memoryview(b"two"))
    assert (tmp_path / "a.bin").read_bytes() == b"two"
    assert names(tmp_path) == ["a.bin"]


def test_makes_missing_directories_and_takes_a_string(tmp_path: Path) -> None:
    atomic_write(str(tmp_path / "x" / "y" / "a.bin"), b"one")
    assert (tmp_path / "x" / "y" / "a.bin").read_bytes() == b"one"


def test_calls_a_function_with_the_open_file(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"one")
        file.write(b" two")

    atomic_write(tmp_path / "a.bin", write)
    assert (tmp_path / "a.bin").read_bytes() == b"one two"


def test_respects_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a.bin", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_a_function_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "no space is left on the device"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.ESTALE, "the network file system is away"),
        (errno.ETIMEDOUT, "connection timed out"),
    ],
)
def test_a_refusal_names_path_and_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, reason: str
) -> None:
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")
    monkeypatch.setattr(os, call, fail_with(code))
    with pytest.raises(StorageError, match=f"{path}: cannot be written: {reason}"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_full_device(tmp_path: Path) -> None:
    def write(_file: BinaryIO) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(StorageError, match=r"a\.bin: cannot be written: no space is left"):
        atomic_write(tmp_path / "a.bin", write)
    assert names(tmp_path) == []


def test_a_file_system_that_cannot_flush_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL))
    atomic_write(tmp_path / "a.bin", b"one")
    assert (tmp_path / "a.bin").read_bytes() == b"one"


def test_a_place_that_cannot_hold_files() -> None:
    with pytest.raises(StorageError, match=r"/proc/1/a\.bin: cannot be written"):
        atomic_write("/proc/1/a.bin", b"one")


def test_a_device_or_a_directory_is_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="/dev/full: cannot be written: it is not a file"):
        atomic_write("/dev/full", b"one")
    with pytest.raises(StorageError, match="it is not a file; name a file"):
        atomic_write(tmp_path, b"one")
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_file_in_place_of_a_directory(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", b"")
    with pytest.raises(StorageError, match="cannot be written"):
        atomic_write(tmp_path / "file" / "a.bin", b"one")


def test_a_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the name is too long"):
        atomic_write(tmp_path / ("x" * 300), b"one")
    assert names(tmp_path) == []


def test_the_longest_name_is_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("x" * 255), b"one")
    assert names(tmp_path) == ["x" * 255]


def test_json_is_read_back(tmp_path: Path) -> None:
    value = {"é": [1, 2.5, None, True], "lone surrogate": "\udc80"}
    atomic_write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")


def test_json_of_a_foreign_object_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        atomic_write_json(tmp_path / "a.json", {"x": object()})
    assert names(tmp_path) == []


def test_sha256(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.bin", b"one")
    assert sha256_of(tmp_path / "a.bin") == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(StorageError, match=r"b\.bin: cannot be read: no such file or directory"):
        sha256_of(tmp_path / "b.bin")


def test_the_error_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        sha256_of(tmp_path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
