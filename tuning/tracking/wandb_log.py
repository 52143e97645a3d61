"""What is in the files that Weights & Biases leaves on disk: which steps of which run.

W&B writes every record to a file before it sends it, online too: ``run-TIME-ID/run-ID.wandb``, or
``offline-run-TIME-ID/run-ID.wandb``. A run that goes on later gets another directory with the same
id: a segment. A driver that is killed takes W&B's process with it, and what that had not yet
flushed (up to 15 s): so what was logged is read from here, and never taken from our own journal.

The files are protocol buffers in LevelDB's log format
(https://github.com/google/leveldb/blob/main/doc/log_format.md), after 7 bytes of header: blocks of
32 KiB, each record in one or more chunks of checksum (4 bytes), length (2, little endian), type
(1: whole, 2: first, 3: middle, 4: last) and data; no chunk's header crosses a block.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = 7  # bytes, of the file and of each chunk alike
_BLOCK = 32768
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class Segment:
    """One stretch of a run: what was logged between an opening and its end.

    Attributes:
        file: Its ``.wandb`` file.
        started: When it was opened, in seconds since 1970; 0 where not even that was written.
        last_step: The highest step in it; -1 where there is none.
        exit_code: What its run ended with; None where its process died.
        whole_bytes: Size of the file up to the end of its last whole record.
        is_synced: Whether it is marked as being on the server: an end in the file does not say so.
    """

    file: Path
    started: float
    last_step: int
    exit_code: int | None
    whole_bytes: int
    is_synced: bool

    def mend(self) -> None:
        """Cuts off a torn end and hides an empty file; to be called when its process is dead.

        ``wandb sync`` sends no later segment of a run after a torn one, and nothing at all of any
        run where one file is empty.
        """
        if self.file.stat().st_size > self.whole_bytes:
            os.truncate(self.file, self.whole_bytes)
        if not self.started:
            self.mark_synced()

    def mark_synced(self) -> None:
        """Says to ``wandb sync`` that the server has it: sending it again would double its rows."""
        _mark(self.file).touch()


def _mark(file: Path) -> Path:
    """The file whose existence tells ``wandb sync`` that another one is sent."""
    return file.with_name(f"{file.name}.synced")


def read_segments(directory: Path, run_id: str) -> dict[int, list[Segment]]:
    """The segments of every trial's run, in the order of their beginning.

    Args:
        directory: W&B's own, ``runs/NAME/wandb``; it may be missing.
        run_id: What the ids of the runs begin with; trial 7 has ``RUN_ID-0007``.
    """
    found: dict[int, list[Segment]] = {}
    for file in directory.glob(f"*run-*/run-{run_id}-*.wandb"):
        number = file.stem.removeprefix(f"run-{run_id}-")
        if number.isdecimal():
            found.setdefault(int(number), []).append(read_segment(file))
    return {trial: sorted(parts, key=lambda part: part.started) for trial, parts in found.items()}


def read_segment(file: Path) -> Segment:
    """Reads a file, up to where it is torn."""
    started, last_step, exit_code, whole_bytes = 0.0, -1, None, _HEADER
    for record, end in read_records(file):
        whole_bytes = end
        kind = record.WhichOneof("record_type")
        if kind == "run" and not started:
            started = record.run.start_time.ToMicroseconds() / 1e6
        elif kind == "history":
            last_step = max(last_step, record.history.step.num)
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return Segment(file, started, last_step, exit_code, whole_bytes, _mark(file).exists())


def read_records(file: Path) -> Iterator[tuple[Any, int]]:
    """The whole records of a file as ``wandb_internal_pb2.Record``, each with where it ends."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2

    for data, end in _whole(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        yield record, end


def _whole(content: bytes) -> Iterator[tuple[bytes, int]]:
    """The data of each whole record, chunks put together, up to the first that is torn."""
    position, data = _HEADER, b""
    while position + _HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:  # the rest of a block that has no room for a chunk's header
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        end = position + _HEADER + length
        if kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or end > len(content):
            return
        data += content[position + _HEADER : end]
        position = end
        if kind in (_WHOLE, _LAST):
            yield data, end
            data = b""


def mark_sent(run: Any) -> None:
    """Marks the file of a closed run that the server has whole."""
    for file in Path(run.dir).parent.glob("*.wandb"):
        _mark(file).touch()


def upload_trouble(run: Any) -> str | None:
    """Why a closed run could not be sent whole, in words; None where nothing is known.

    W&B gives up sending after an answer like "forbidden", and says so in its log alone.
    """
    log = Path(getattr(run, "dir", "")).parent / "logs" / "debug-internal.log"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fatal = [line for line in lines if "fatal error" in line]
    return str(json.loads(fatal[0])["msg"])[:300] if fatal else None
