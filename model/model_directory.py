"""Model directories: a trained model with all it needs, sealed against change.

    weights.pt       the weights, in the format of ``model.checkpoint``
    config.json      the configuration, every field
    vocabulary.json  the words, in the order of their ids
    metrics.json     what was measured of it
    manifest.json    format, lineage, and the SHA-256 of every file, itself included

A registry holds versions of named models, ``registry/NAME/VERSION``, and ``aliases.json`` in
``registry/NAME``. A MODEL argument is a path, ``NAME`` (its alias ``production``), ``NAME@alias``
or ``NAME:VERSION``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import read_checkpoint, write_checkpoint
from model.config import Config
from model.decoding import Stepper, greedy
from model.errors import CheckpointError, ConfigurationError, ModelDirectoryError
from model.files import atomic_write, reason_of, sha256_of, storage_errors
from model.graphs import RecordedGreedy
from model.seq2seq import Seq2Seq
from model.text import normalise
from model.training import resolve_device
from model.validation import did_you_mean
from model.vocabulary import EOS, PAD, Vocabulary

#: Number of the format written here; a newer one is refused.
FORMAT = 1
#: The same of a registry's aliases; 2 added their history.
ALIASES_FORMAT = 2
MANIFEST = "manifest.json"
#: The files that a manifest names.
_FILES = ("config.json", "metrics.json", "vocabulary.json", "weights.pt")
_SEAL = "manifest_sha256"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def canonical_json(value: Any) -> bytes:
    """The one way that a value is written in a model directory, so that every byte counts."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def write_model_directory(
    directory: Path,
    *,
    weights: Mapping[str, torch.Tensor],
    config: Config,
    vocabulary: Vocabulary,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
) -> Path:
    """Writes a model directory, whole or not at all.

    Args:
        directory: Must not exist yet.
        weights: State of a `Seq2Seq`.
        config: Its configuration.
        vocabulary: The words that its token ids stand for.
        metrics: What was measured: finite numbers, text or None.
        lineage: Where it comes from: experiment, trial, data fingerprint, commit, versions.

    Returns:
        The directory.

    Raises:
        ModelDirectoryError: where the directory exists already.
        StorageError: where it cannot be written.
    """
    taken = ModelDirectoryError(f"{directory}: exists already; versions are never overwritten.")
    if directory.exists():
        raise taken
    building = directory.with_name(f".building-{secrets.token_hex(8)}")
    with storage_errors(directory):
        building.mkdir(parents=True)
        try:
            write_checkpoint(building / "weights.pt", {"weights": dict(weights)})
            atomic_write(building / "config.json", canonical_json(config.to_mapping()))
            atomic_write(building / "vocabulary.json", canonical_json(vocabulary.to_list()))
            atomic_write(building / "metrics.json", canonical_json(dict(metrics)))
            atomic_write(building / MANIFEST, canonical_json(_manifest(building, lineage)))
            building.rename(directory)
        except BaseException as error:
            shutil.rmtree(building, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise taken from None  # by another process, since we looked
            raise
    return directory


def _manifest(directory: Path, lineage: Mapping[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "lineage": dict(lineage),
        "files": {path.name: sha256_of(path) for path in sorted(directory.iterdir())},
    }
    return manifest | {_SEAL: hashlib.sha256(canonical_json(manifest)).hexdigest()}


def verify(directory: Path) -> dict[str, Any]:
    """Checks every byte of a model directory against its manifest.

    Returns:
        The manifest.

    Raises:
        ModelDirectoryError: naming every file that is missing or changed.
    """
    manifest = read_manifest(directory)
    problems = []
    for name, digest in manifest["files"].items():
        file = directory / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif sha256_of(file) != digest:
            problems.append(f"{name} was changed after the model was written")
    if problems:
        raise ModelDirectoryError(f"{directory}: {'; '.join(problems)}.")
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a model directory, whose seal is checked, but not the files it names.

    Raises:
        ModelDirectoryError: where it is missing, changed or of a newer format.
    """
    file = directory / MANIFEST
    try:
        text = file.read_bytes()
        manifest = json.loads(text)
    except OSError as error:
        raise ModelDirectoryError(
            f"{directory}: is not a model directory: {MANIFEST}: {reason_of(error)}."
        ) from None
    except (ValueError, RecursionError):
        raise ModelDirectoryError(f"{file}: is damaged: not JSON.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise ModelDirectoryError(f"{file}: is not a manifest of this project.")
    if manifest["format"] > FORMAT:
        raise ModelDirectoryError(
            f"{file}: has format {manifest['format']}, written by a newer version; "
            f"this one reads {FORMAT}."
        )
    if not _is_sealed(manifest, text):
        raise ModelDirectoryError(f"{file}: was changed after the model was written.")
    files = manifest.get("files")
    if not isinstance(files, dict) or tuple(sorted(files)) != _FILES:
        raise ModelDirectoryError(f"{file}: does not name the files of a model.")
    return manifest


def _is_sealed(manifest: dict[str, Any], text: bytes) -> bool:
    unsealed = {key: value for key, value in manifest.items() if key != _SEAL}
    try:
        seal = hashlib.sha256(canonical_json(unsealed)).hexdigest()
        return bool(manifest.get(_SEAL) == seal and canonical_json(manifest) == text)
    except ValueError:  # NaN or infinity, which we never write
        return False


#: Longer sources, of which there are few, are not worth a CUDA graph of their size.
_LONGEST_RECORDED = 64


@dataclass(frozen=True)
class DialogueModel:
    """A trained model, ready to reply.

    Attributes:
        model: The weights.
        config: How it was trained.
        vocabulary: Its words.
        metrics: What was measured of it.
        manifest: Format, lineage and digests.
        path: The directory it was loaded from.
    """

    model: Seq2Seq
    config: Config
    vocabulary: Vocabulary
    metrics: dict[str, Any]
    manifest: dict[str, Any]
    path: Path

    def replies(self, texts: Sequence[str]) -> list[str]:
        """Replies to each text; unknown words are read as ``<unk>``, and "" gives ""."""
        asked = [self.vocabulary.encode(normalise(text)) for text in texts]
        rows = [i for i, ids in enumerate(asked) if ids]
        answers = [""] * len(texts)
        if rows:
            decoded = self._decode([[*asked[i], EOS] for i in rows])
            for i, ids in zip(rows, decoded, strict=True):
                answers[i] = self.vocabulary.decode(ids)
        return answers

    def reply(self, text: str) -> str:
        """Replies to one text."""
        return self.replies([text])[0]

    @cached_property
    def _stepper(self) -> Stepper:
        """The decoder prepared for many replies, at the first of them."""
        return Stepper(self.model, fold=True)

    def _decode(self, sources: list[list[int]]) -> list[list[int]]:
        lengths = torch.tensor([len(source) for source in sources])
        device = self.model.output.weight.device
        padded = torch.full((len(sources), int(lengths.max())), PAD)
        for row, source in zip(padded, sources, strict=True):
            row[: len(source)] = torch.tensor(source)
        max_words = self.config.data.max_length
        if device.type == "cuda" and padded.shape[1] <= _LONGEST_RECORDED:
            words = self._recorded(*padded.shape)(padded.to(device), max_words)
        else:
            words = greedy(self.model, padded.to(device), lengths, max_words, self._stepper)
        decoded: list[list[int]] = words.tolist()
        return decoded

    @cached_property
    def _graphs(self) -> dict[tuple[int, int], RecordedGreedy]:
        """Recorded so far, by size."""
        return {}

    def _recorded(self, rows: int, width: int) -> RecordedGreedy:
        """The graph of one of a few sizes, which so many sources of this width fit into."""
        size = 1 << (rows - 1).bit_length(), -(-width // 16) * 16
        if size not in self._graphs:
            self._graphs[size] = RecordedGreedy(self.model, self._stepper, *size)
        return self._graphs[size]


#: What files raise that fit their digests and yet make no sense: somebody sealed them anew.
_UNREADABLE = (
    *(ConfigurationError, CheckpointError, OSError),
    *(RuntimeError, ValueError, KeyError, TypeError, AttributeError),
)


def load(
    reference: str | Path, registry: str | Path = "registry", device: str = "auto"
) -> DialogueModel:
    """Opens a model, verifying every file of it.

    Args:
        reference: A model directory, ``NAME``, ``NAME@alias`` or ``NAME:VERSION``.
        registry: Directory of the named models.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ModelDirectoryError: where it is unknown, damaged or of a newer format.
    """
    directory = resolve(str(reference), Path(registry))
    manifest = verify(directory)
    try:
        config = Config.from_mapping(_read_json(directory / "config.json"), str(directory))
        vocabulary = Vocabulary.from_list(_read_json(directory / "vocabulary.json"))
        model = Seq2Seq(config.model, len(vocabulary))
        model.load_state_dict(read_checkpoint(directory / "weights.pt")["weights"])
        metrics = dict(_read_json(directory / "metrics.json"))
    except _UNREADABLE as error:
        raise ModelDirectoryError(f"{directory}: cannot be loaded: {error}") from None
    return DialogueModel(
        model=model.to(resolve_device(device)).eval(),
        config=config,
        vocabulary=vocabulary,
        metrics=metrics,
        manifest=manifest,
        path=directory,
    )


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def resolve(reference: str, registry: Path) -> Path:
    """The model directory that a MODEL argument names.

    Raises:
        ModelDirectoryError: with the nearest known name, alias or version.
    """
    if _is_model_directory(Path(reference)):
        return Path(reference)
    name, alias, version = split_reference(reference)
    if not name:
        raise ModelDirectoryError(f"{reference}: is not a model directory: no {MANIFEST} in it.")
    home = registry / name
    if not home.is_dir():
        known = sorted(p.name for p in registry.iterdir()) if registry.is_dir() else []
        hint = did_you_mean(name, known) if known else f"; {registry} has no models yet."
        raise ModelDirectoryError(f"{reference}: unknown model{hint}")
    if version is None:
        aliases = read_aliases(home)
        if alias not in aliases:
            raise ModelDirectoryError(
                f"{reference}: {name} has no alias {alias!r}{did_you_mean(alias, aliases)}"
            )
        version = aliases[alias]
    if not (home / str(version)).is_dir():
        raise ModelDirectoryError(
            f"{reference}: {name} has no version {version}; "
            f"it has {', '.join(map(str, versions(home))) or 'none'}."
        )
    return home / str(version)


def _is_model_directory(path: Path) -> bool:
    try:
        return (path / MANIFEST).exists()
    except (OSError, ValueError):  # a name that no file can have, or a place we may not look at
        return False


def split_reference(reference: str) -> tuple[str, str, int | None]:
    """Name, alias and version of ``NAME``, ``NAME@alias`` or ``NAME:VERSION``; "" for a path."""
    match = re.fullmatch(rf"({_NAME.pattern})(?:@([\w.-]+)|:([0-9]+))?", reference)
    if match is None:
        return "", "", None
    return match[1], match[2] or "production", int(match[3]) if match[3] else None


def valid_name(name: str) -> bool:
    """Whether a text can name a model: up to 200 letters, digits, ``._-``, no mark first."""
    return _NAME.fullmatch(name) is not None


def versions(home: Path) -> list[int]:
    """Versions of a named model, the oldest first."""
    return sorted(int(p.name) for p in home.iterdir() if re.fullmatch(r"[0-9]+", p.name))


def read_aliases(home: Path) -> dict[str, int]:
    """Which version each alias of a named model stands for.

    Raises:
        ModelDirectoryError: where the file is damaged or of a newer format.
    """
    file = home / "aliases.json"
    if not file.exists():
        return {}
    try:
        content = _read_json(file)
        number = int(content["format"])
        if number > ALIASES_FORMAT:
            raise ModelDirectoryError(f"{file}: has format {number}, written by a newer version.")
        aliases = dict(content["aliases"])
        if any(type(version) is not int for version in aliases.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ModelDirectoryError(f"{file}: is damaged.") from None
    return aliases
