"""What looks for planted secrets finds them, however they are packed."""

import base64
import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import zipfile
import zlib

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.security.planted import Planted, found_in, with_keeping
from tests.tuning.ray_support import ROOT

SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f001234567"


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", content)
    return file.getvalue()


def tarred(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("inner")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def as_parquet(content):
    file = io.BytesIO()
    table = pa.table({"texts": [content.decode()] * 3})
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def chunked(content):
    """A file of W&B's with one record, which the end of a block of 32 KiB cuts in two."""
    header = b":W&B\xe1\xbe\x00"
    room = 32768 - len(header) - 7
    record = bytes(room - 20) + content  # 20 bytes of the content are in the first block

    def chunk(data, kind):
        return bytes(4) + len(data).to_bytes(2, "little") + bytes([kind]) + data

    return header + chunk(record[:room], 2) + chunk(record[room:], 4)


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zipped,
        tarred,
        as_parquet,
        zlib.compress,
        chunked,
        lambda content: b"an image, say: " + zlib.compress(content) + b" and more",
        lambda content: base64.b64encode(b"x" * 60 + content),
        lambda content: b"'" + base64.b64encode(zlib.compress(content * 3)) + b"'",
        lambda content: zipped(gzip.compress(content)),
        lambda content: content.hex().encode(),
        lambda content: content.decode().encode("utf-16-le"),
        lambda content: b"user:" + base64.b64encode(content),
        lambda content: base64.b64encode(b"a:" + content),
        lambda content: base64.b64encode(b"api:" + content + b"more"),
    ],
)
def test_a_secret_is_found(pack):
    content = f"a line with {SECRET} in it\n".encode()
    found = found_in(pack(content), "file", {"KEY": SECRET})
    assert found
    assert all(line.startswith("KEY in file") for line in found)
    other = f"a line with {SECRET[::-1]} in it\n".encode()
    assert found_in(pack(other), "file", {"KEY": SECRET}) == []


def test_a_record_of_wandbs_that_was_cut_in_two_is_put_together():
    """Or the test above would show nothing of it."""
    assert SECRET.encode() not in chunked(SECRET.encode())


def test_everything_planted_would_be_found(tmp_path):
    planted = Planted(tmp_path / "planted")
    assert planted.found() == []
    planted.files.clear()
    in_files = set(planted.values) - set(planted.environment)
    assert {line.split(" in /")[0] for line in planted.found()} == in_files
    assert len(set(planted.values.values())) == len(planted.values)


def test_what_is_deleted_or_replaced_is_read_too(tmp_path):
    planted = Planted(tmp_path / "planted")
    code = (
        "import os, pathlib, shutil, tempfile\n"
        "def write(path): pathlib.Path(path).write_text(os.environ['HF_TOKEN'])\n"
        "write('unlinked'); os.unlink('unlinked')\n"
        "write('replaced'); write('other'); pathlib.Path('empty').touch()\n"
        "os.replace('replaced', 'target'); os.rename('other', 'target')\n"
        "os.replace('empty', 'target')\n"
        "with tempfile.TemporaryDirectory() as directory: write(directory + '/temporary')\n"
        "pathlib.Path('tree').mkdir(); write('tree/in-tree'); shutil.rmtree('tree')\n"
    )
    environment = with_keeping(planted.environment, ROOT)
    subprocess.run([sys.executable, "-c", code], cwd=planted.work, env=environment, check=True)
    found = {line.split(",")[0].rpartition("-")[2] for line in planted.found()}
    assert {"unlinked", "replaced", "other", "temporary", "tree"} <= found
