"""Checkpoints: written whole or not at all, and never unpickled blindly.

A file is one line naming the format, one line with the SHA-256 of the rest, and then what
``torch.save`` writes. The digest is there because a torn or altered zip archive is not always
noticed by ``torch.load``.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError
from model.files import RemoteFile, atomic_write, reason_of

#: Number of the format written here; a newer one is refused.
FORMAT = 1
_MAGIC = b"dialogue-tune checkpoint "


def snapshot(value: Any) -> Any:
    """A copy in CPU memory of tensors, plain values and what holds them, which nothing changes."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item) for item in value)
    return value


def write_checkpoint(
    path: Path | RemoteFile,
    contents: Mapping[str, Any],
    allow: Callable[[], None] | None = None,
    *,
    parents: bool = True,
) -> None:
    """Writes tensors and plain values to a file, replacing it atomically.

    Args:
        path: The file.
        contents: Its values by name.
        allow: As in `atomic_write`.
        parents: Likewise.

    Raises:
        StorageError: where the file cannot be written; an older one is left as it was.
    """
    buffer = io.BytesIO()
    torch.save(dict(contents), buffer)
    payload = buffer.getbuffer()
    digest = hashlib.sha256(payload).hexdigest().encode()
    header = _MAGIC + str(FORMAT).encode() + b"\n" + digest + b"\n"
    atomic_write(path, lambda file: file.writelines([header, payload]), allow, parents=parents)


def read_checkpoint(path: Path | RemoteFile, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what `write_checkpoint` wrote, its tensors put on a device.

    Raises:
        CheckpointError: where the file is missing, damaged, foreign or of a newer format.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}.") from error
    first, _, rest = contents.partition(b"\n")
    if not first.startswith(_MAGIC) or not first[len(_MAGIC) :].isdigit():
        raise CheckpointError(f"{path}: is not a checkpoint of this project.")
    if int(first[len(_MAGIC) :]) > FORMAT:
        raise CheckpointError(
            f"{path}: has format {int(first[len(_MAGIC) :])}, written by a newer version; "
            f"this one reads up to {FORMAT}."
        )
    digest, _, payload = rest.partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(f"{path}: is damaged: its contents do not match their digest.")
    try:
        loaded: dict[str, Any] = torch.load(
            io.BytesIO(payload), map_location=device, weights_only=True
        )
    except (pickle.UnpicklingError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be loaded: {error}") from None
    return loaded
