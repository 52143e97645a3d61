"""A prepared data set: the examples that a model learns from, in one file that needs no parsing.

The file is in the safetensors layout: the header's length (8 bytes, little-endian), a JSON header
with dtype, shape and place of each array, and the arrays. Any safetensors reader opens it, and
the arrays are used where they lie: mapped from disk, or in Ray's object store, without a copy.

=====================  =====  ======  ===========================================================
``train``              int64  (N, 2)  examples: the first utterance of the context, and the reply
``validation``         int64  (N, 2)  the same, of dialogues held out for choosing
``test``               int64  (N, 2)  the same, of dialogues held out for the final test
``utterance_offsets``  int64  (U+1,)  where each utterance begins in ``tokens``; at last, its end
``tokens``             int32  (all,)  word ids of every utterance, each followed by ``EOS``
``vocabulary``         uint8  (any,)  the words in UTF-8, a line feed between them
=====================  =====  ======  ===========================================================
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import PreparedDataError
from model.files import atomic_write, reason_of
from model.vocabulary import EOS, Vocabulary

SPLITS = ("train", "validation", "test")
#: Suffix of the file name.
SUFFIX = ".safetensors"
#: Number of the format that is written, and the highest that is read.
FORMAT = 1

_FORMAT_KEY = "prepared_data_format"
_TYPES = {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8}
#: Type and number of axes of every array, in file order: widest first, so that all are aligned.
_LAYOUT = {
    "train": ("I64", 2),
    "validation": ("I64", 2),
    "test": ("I64", 2),
    "utterance_offsets": ("I64", 1),
    "tokens": ("I32", 1),
    "vocabulary": ("U8", 1),
}
_ALIGNMENT = 64
_ADVICE = "prepare it again with `python -m model prepare`"


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedData:
    """Examples of all three splits with their vocabulary. Immutable; made by `create`.

    An example (first, reply) is a context and what was replied: the utterances first, ...,
    reply - 1 are consecutive turns of a dialogue, and utterance `reply` answers the last of them.
    Never write into the arrays: they may lie in memory that is shared or read-only.

    Attributes:
        vocabulary: The words, counted in the training split alone.
        fingerprint: SHA-256 in hexadecimal over the arrays, the vocabulary, the settings without
            ``corpus`` (what was read counts, not where it lay) and the format.
        settings: The `DataConfig` as a mapping.
        counts: What was kept and dropped; see `model.preparation.PreparationReport`.
        tokens: int32, the word ids of every utterance, each followed by ``EOS``.
        utterance_offsets: (U+1,) int64; utterance u is ``tokens[offsets[u]:offsets[u + 1]]``.
        examples: (N, 2) int64 for each of `SPLITS`.
    """

    vocabulary: Vocabulary
    fingerprint: str
    settings: dict[str, Any]
    counts: dict[str, int]
    tokens: Tensor
    utterance_offsets: Tensor
    examples: dict[str, Tensor]

    @classmethod
    def create(
        cls,
        *,
        vocabulary: Vocabulary,
        tokens: Tensor,
        utterance_offsets: Tensor,
        examples: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        counts: Mapping[str, int],
    ) -> PreparedData:
        """Checks the parts and takes their fingerprint.

        Raises:
            PreparedDataError: where the parts contradict each other.
        """
        arrays = {**examples, "utterance_offsets": utterance_offsets, "tokens": tokens}
        arrays = {name: array.contiguous() for name, array in arrays.items()}
        arrays["vocabulary"] = _words_to_array(vocabulary)
        fingerprint = _fingerprint(arrays, settings)
        return cls._from_arrays(arrays, fingerprint, dict(settings), dict(counts), "prepared data")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PreparedData:
        """Maps a file into memory: nothing is copied or unpickled, and processes share it.

        Everything but the fingerprint is checked; `verify` checks that too.

        Raises:
            PreparedDataError: naming the file, the problem and what to do.
        """
        try:
            with Path(path).open("rb") as file:
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise _refusal(path, f"cannot be read: {reason_of(error)}") from error
        except ValueError:
            raise _refusal(path, "is empty") from None
        return cls.from_buffer(buffer, str(path))

    @classmethod
    def from_buffer(cls, buffer: Any, source: str = "prepared data") -> PreparedData:
        """Reads the bytes of a file where they lie; the tensors share the buffer's memory.

        Args:
            buffer: Anything with the buffer protocol: bytes, a memory map, or a (read-only) numpy
                array of Ray's object store. It is kept alive by the tensors.
            source: What to call it in errors.

        Raises:
            PreparedDataError: naming the source, the problem and what to do.
        """
        view = memoryview(buffer)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        header, start = _read_header(view, source)
        metadata = _read_metadata(header, source)
        arrays = _read_arrays(view, header, start, source)
        return cls._from_arrays(arrays, **metadata, source=source)

    @classmethod
    def _from_arrays(
        cls,
        arrays: Mapping[str, Tensor],
        fingerprint: str,
        settings: dict[str, Any],
        counts: dict[str, int],
        source: str,
    ) -> PreparedData:
        for name, (dtype, axes) in _LAYOUT.items():
            if arrays[name].dtype != _TYPES[dtype] or arrays[name].dim() != axes:
                raise _refusal(source, f"array {name!r} is not {_TYPES[dtype]} of {axes} axes")
        data = cls(
            vocabulary=_array_to_words(arrays["vocabulary"], source),
            fingerprint=fingerprint,
            settings=settings,
            counts=counts,
            tokens=arrays["tokens"],
            utterance_offsets=arrays["utterance_offsets"],
            examples={split: arrays[split] for split in SPLITS},
        )
        for problem in _contradictions(data):
            raise _refusal(source, problem)
        return data

    def utterance(self, index: int) -> Tensor:
        """The word ids of one utterance, ``EOS`` included: (T,) int32, a view."""
        start, end = self.utterance_offsets[index : index + 2].tolist()
        return self.tokens[start:end]

    def with_vocabulary(self, vocabulary: Vocabulary) -> PreparedData:
        """The same examples in the ids of another vocabulary; words it lacks become ``UNK``."""
        ids = torch.tensor(vocabulary.encode(self.vocabulary.words), dtype=torch.int32)
        return PreparedData.create(
            vocabulary=vocabulary,
            tokens=ids[self.tokens.long()],
            utterance_offsets=self.utterance_offsets,
            examples=self.examples,
            settings=self.settings,
            counts=self.counts,
        )

    def verify(self, source: str = "prepared data") -> None:
        """Recomputes the fingerprint.

        Raises:
            PreparedDataError: where it is not the one that was stored.
        """
        found = _fingerprint(self._arrays(), self.settings)
        if found != self.fingerprint:
            problem = f"is damaged: its fingerprint is {found}, but should be {self.fingerprint}"
            raise _refusal(source, problem)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file whole or not at all.

        Raises:
            StorageError: naming the path and the reason, with nothing half-written left.
        """
        atomic_write(path, self.as_bytes())

    def as_bytes(self) -> bytes:
        """The file as bytes, the same for the same data on every machine."""
        arrays = self._arrays()
        metadata = {
            _FORMAT_KEY: str(FORMAT),
            "fingerprint": self.fingerprint,
            "settings": json.dumps(self.settings, sort_keys=True),
            "counts": json.dumps(self.counts, sort_keys=True),
        }
        views = [_bytes_of(array) for array in arrays.values()]
        return b"".join([_write_header(arrays, metadata), *views])

    def _arrays(self) -> dict[str, Tensor]:
        arrays = {
            **self.examples,
            "utterance_offsets": self.utterance_offsets,
            "tokens": self.tokens,
            "vocabulary": _words_to_array(self.vocabulary),
        }
        return {name: arrays[name] for name in _LAYOUT}


def _refusal(source: object, problem: str, advice: str = _ADVICE) -> PreparedDataError:
    return PreparedDataError(f"{source}: {problem}; {advice}.")


# Writing


def _write_header(arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        end = start + array.nbytes
        header[name] = {
            "dtype": _LAYOUT[name][0],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(array: Tensor) -> bytes | memoryview:
    """The bytes of a contiguous array where they lie; valid while the array lives."""
    if not array.nbytes:
        return b""
    return memoryview((ctypes.c_char * array.nbytes).from_address(array.data_ptr())).cast("B")


def _words_to_array(vocabulary: Vocabulary) -> Tensor:
    return torch.frombuffer(bytearray("\n".join(vocabulary.words).encode()), dtype=torch.uint8)


def _fingerprint(arrays: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    described = {
        "format": FORMAT,
        "settings": {name: value for name, value in settings.items() if name != "corpus"},
        "shapes": {name: list(arrays[name].shape) for name in _LAYOUT},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in _LAYOUT:
        digest.update(_bytes_of(arrays[name]))
    return digest.hexdigest()


# Reading


def _read_header(view: memoryview, source: str) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    start = 8 + int.from_bytes(view[:8], "little")
    if len(view) < max(start, 10):
        raise _refusal(source, "is cut off, or is not a prepared data set")
    try:
        header = json.loads(bytes(view[8:start]))
    except (ValueError, RecursionError):
        raise _refusal(source, "is not a prepared data set: its header is not JSON") from None
    if not isinstance(header, dict):
        raise _refusal(source, "is not a prepared data set: its header is not a mapping")
    return header, start


def _read_metadata(header: Mapping[str, Any], source: str) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    metadata = metadata if isinstance(metadata, dict) else {}
    number = str(metadata.get(_FORMAT_KEY))[:9]
    if not number.isdecimal():
        raise _refusal(source, f"is not a prepared data set: its header has no {_FORMAT_KEY}")
    if int(number) > FORMAT:
        newer = f"was written by a newer version (format {number}; this one reads {FORMAT})"
        raise _refusal(source, f"{newer}; install the newer version", "or prepare it again here")
    try:
        return {
            "fingerprint": str(metadata["fingerprint"]),
            "settings": dict(json.loads(metadata["settings"])),
            "counts": dict(json.loads(metadata["counts"])),
        }
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _refusal(source, "has damaged metadata in its header") from None


def _read_arrays(
    view: memoryview, header: Mapping[str, Any], start: int, source: str
) -> dict[str, Tensor]:
    names = set(header) - {"__metadata__"}
    if names != set(_LAYOUT):
        wrong = ", ".join(sorted(names ^ set(_LAYOUT)))
        raise _refusal(source, f"has missing or unknown arrays ({wrong})")
    arrays = {}
    for name in _LAYOUT:
        shape, begin, end = _place(name, header[name], source)
        if start + end > len(view):
            problem = f"is cut off: it has {len(view)} bytes, but array {name!r} ends at"
            raise _refusal(source, f"{problem} {start + end}")
        arrays[name] = _array_at(view, _TYPES[_LAYOUT[name][0]], shape, start + begin)
    return arrays


def _place(name: str, entry: Any, source: str) -> tuple[list[int], int, int]:
    """Shape, begin and end of one array, checked."""
    dtype, axes = _LAYOUT[name]
    try:
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        whole = all(type(n) is int and 0 <= n < 2**48 for n in (*shape, begin, end))
        fits = whole and end - begin == prod(shape) * _TYPES[dtype].itemsize
        if entry["dtype"] == dtype and len(shape) == axes and fits:
            return shape, begin, end
    except (KeyError, TypeError, ValueError):
        pass
    raise _refusal(source, f"describes array {name!r} wrongly: {str(entry)[:100]}")


def _array_at(view: memoryview, dtype: torch.dtype, shape: list[int], offset: int) -> Tensor:
    if not prod(shape):
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():  # read-only is what we want: nothing here writes
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        flat = torch.frombuffer(view, dtype=dtype, count=prod(shape), offset=offset)
    return flat.view(shape)


def _array_to_words(array: Tensor, source: str) -> Vocabulary:
    try:
        return Vocabulary.from_list(bytes(_bytes_of(array)).decode().split("\n"))
    except ValueError as error:
        raise _refusal(source, f"has a damaged vocabulary ({str(error).rstrip('.')})") from None


def _contradictions(data: PreparedData) -> Iterator[str]:
    """Yields what of the arrays cannot be; a later check relies on the earlier ones."""
    tokens, offsets = data.tokens, data.utterance_offsets
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(tokens):
        yield "has utterances that are not in the tokens"
    if (offsets.diff() < 1).any():
        yield "has utterances in the wrong order"
    if (tokens < 0).any() or (tokens >= len(data.vocabulary)).any():
        yield f"has word ids outside of its vocabulary of {len(data.vocabulary)} words"
    if not torch.equal((tokens == EOS).nonzero().flatten() + 1, offsets[1:]):
        yield "has utterances that do not end where <eos> is"
    for split, examples in data.examples.items():
        if examples.shape[1] != 2:
            yield f"has {split} examples of {examples.shape[1]} numbers, not 2"
        first, reply = examples.unbind(1)
        if (first < 0).any() or (first >= reply).any() or (reply >= len(offsets) - 1).any():
            yield f"has {split} examples of utterances that are not there"
