"""Secrets planted around a search, and a reader that finds them in everything it wrote."""

import base64
import bz2
import gzip
import io
import lzma
import os
import re
import secrets
import subprocess
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

#: Names of variables that hold secrets on real machines; the last is anybody's own.
VARIABLES = (
    "WANDB_API_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "DATABASE_PASSWORD",
)
#: Containers within containers that are looked into.
_DEPTH = 3
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{64,}={0,2}")
_MOST = 64 * 2**20  # bytes that one compressed part may unpack to


class Planted:
    """A home, a working directory and an environment, with a secret in each place.

    Attributes:
        values: The secrets, each a random text of its own, by where they are.
        files: The files that hold them, which no search is to copy.
        environment: Of a process that is to find them all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home, self.work = directory / "home", directory / "work"
        self.kept = directory / "kept"
        self.values: dict[str, str] = {}
        self.files: set[Path] = {Path(f"{self.kept}.tokens")}
        for path in (self.home, self.work, self.kept, directory / "tmp", directory / "ray"):
            path.mkdir(parents=True)
        self.environment = {name: self._new(name) for name in VARIABLES} | {
            "HOME": str(self.home),
            "TMPDIR": str(directory / "tmp"),
            "RAY_TMPDIR": str(directory / "ray"),
            "KEPT_IN": str(self.kept),
            "KEPT_OF": str(directory),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        self._plant_files()

    def _new(self, where: str) -> str:
        """A secret of 40 characters, as W&B's keys and AWS's are."""
        self.values[where] = secrets.token_hex(20)
        return self.values[where]

    def _plant_files(self) -> None:
        netrc = f"machine api.wandb.ai login user password {self._new('netrc')}\n"
        self._write(self.home / ".netrc", netrc)
        keys = f"[default]\naws_access_key_id = A\naws_secret_access_key = {self._new('aws')}\n"
        self._write(self.home / ".aws" / "credentials", keys)
        self._write(self.home / ".cache" / "huggingface" / "token", self._new("huggingface"))
        self._write(self.home / ".ray" / "auth_token", self._new("ray's token file"))
        self._write(self.work / ".env", f"API_KEY={self._new('.env')}\n")
        remote = f"https://user:{self._new('git remote')}@127.0.0.1/project.git"
        for arguments in (["init", "-q"], ["remote", "add", "origin", remote]):
            subprocess.run(["git", "-C", str(self.work), *arguments], check=True)
        self.files.add(self.work / ".git" / "config")

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.files.add(path)

    def ray_token(self) -> dict[str, str]:
        """The environment of a Ray with a planted token."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._new("RAY_AUTH_TOKEN")}

    def note_tokens(self) -> None:
        """Takes over the tokens that the processes have made for themselves."""
        made = Path(f"{self.kept}.tokens").read_text(encoding="utf-8").split()
        self.values |= {f"token {i}": token for i, token in enumerate(sorted(set(made)))}

    def found(self) -> list[str]:
        """Where the secrets are that should be nowhere."""
        paths = [p for p in self.directory.rglob("*") if p.is_file() and not p.is_symlink()]
        return sorted(
            line
            for path in paths
            if path not in self.files
            for line in found_in(path.read_bytes(), str(path), self.values)
        )


def forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """A secret as it may lie in a file, and what that form is called."""
    raw = secret.encode()
    yield "plain", raw
    yield "hexadecimal", raw.hex().encode()
    yield "UTF-16", secret.encode("utf-16-le")
    for shift in range(3):  # base64 depends on where in three bytes the secret begins
        coded = base64.b64encode(bytes(shift) + raw)
        whole = (shift + len(raw)) * 8 // 6  # characters that what follows does not change
        yield "base64", coded[-(-shift * 8 // 6) : whole]


def found_in(content: bytes, where: str, planted: Mapping[str, str]) -> list[str]:
    """Every planted secret in a file's content, packed or not: ``NAME in FILE, FORM``."""
    wanted = [(n, form, text) for n, secret in planted.items() for form, text in forms(secret)]
    return sorted(
        {
            f"{name} in {place}, {form}"
            for place, part in parts(content, where, _DEPTH)
            for name, form, text in wanted
            if text in part
        }
    )


def parts(content: bytes, where: str, depth: int) -> Iterator[tuple[str, bytes]]:
    """A content, and what is packed in it."""
    yield where, content
    if depth == 0:
        return
    for name, inner in _packed(content):
        yield from parts(inner, f"{where}!{name}", depth - 1)


def _packed(content: bytes) -> Iterator[tuple[str, bytes]]:
    for magic, name, unpack in (
        (b"\x1f\x8b", "gzip", gzip.decompress),
        (b"BZh", "bz2", bz2.decompress),
        (b"\xfd7zXZ", "xz", lzma.decompress),
    ):
        if content.startswith(magic):
            with suppress(OSError, EOFError, lzma.LZMAError, zlib.error):
                yield name, unpack(content)
    if content.startswith(b"PAR1"):
        yield "parquet", _parquet_text(content)
    if content.startswith(b":W&B"):
        yield "records", b"".join(_wandb_records(content))
    if content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as file:
            for member in filter(tarfile.TarInfo.isfile, file):
                yield member.name, file.extractfile(member).read()
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            for name in file.namelist():
                yield name, file.read(name)
        return  # its parts are those of a zip file
    for match in _ZLIB.finditer(content):
        with suppress(zlib.error):
            inner = zlib.decompressobj().decompress(content[match.start() :], _MOST)
            if len(inner) >= 16:
                yield f"zlib@{match.start()}", inner
    for match in _BASE64.finditer(content):
        text = match[0].rstrip(b"=")
        with suppress(ValueError):
            yield f"base64@{match.start()}", base64.b64decode(text + b"=" * (-len(text) % 4))


def _parquet_text(content: bytes) -> bytes:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))
    return repr((table.schema.metadata, table.to_pylist())).encode()


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of W&B's own files, which chunks of 32 KiB may cut in two."""
    from tuning.tracking.wandb_log import _whole

    yield from (record for record, _ in _whole(content))


class CommandLines:
    """Notes the arguments of all processes meanwhile, which every user of a machine may read."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CommandLines":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    self.lines.add((process / "cmdline").read_bytes())


def with_keeping(environment: Mapping[str, str], root: Path) -> dict[str, str]:
    """An environment in which Python imports our packages and keeps what it deletes."""
    keeping = Path(__file__).with_name("keeping")
    return {**environment, "PYTHONPATH": os.pathsep.join([str(keeping), str(root)])}
