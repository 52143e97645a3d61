"""The versions of a registry: what each is, how two differ, and whether any was changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelDirectoryError, StorageError
from model.files import storage_errors
from model.model_directory import (
    MANIFEST,
    read_aliases,
    read_manifest,
    resolve,
    verify,
    versions,
)
from model.validation import did_you_mean

#: What a difference shows of words that one vocabulary lacks.
_WORDS_SHOWN = 5


@dataclass(frozen=True)
class ModelVersion:
    """One version of a named model, or a model directory outside of a registry.

    Attributes:
        path: The model directory.
        name: Of the model; for a directory outside of a registry, its path.
        version: Its number; None outside of a registry.
        aliases: Those that stand for it, in order of the alphabet.
        manifest: Format, lineage and digests; empty where it is damaged.
        metrics: What was measured; empty where it is damaged.
        problem: What is damaged, or None.
    """

    path: Path
    name: str
    version: int | None
    aliases: tuple[str, ...]
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    problem: str | None

    @property
    def lineage(self) -> dict[str, Any]:
        """Where it comes from."""
        return dict(self.manifest.get("lineage", {}))

    def to_mapping(self) -> dict[str, Any]:
        """Everything of it, in plain values."""
        return {
            "model": self.name,
            "version": self.version,
            "aliases": list(self.aliases),
            "path": str(self.path),
            "created": self.manifest.get("created"),
            "metrics": self.metrics,
            "lineage": self.lineage,
            "problem": self.problem,
        }


def read_metrics(directory: Path) -> dict[str, Any]:
    """The figures of a model directory; manifest and figures are checked, weights are not.

    Raises:
        ModelDirectoryError: where they are missing or changed.
        StorageError: where they cannot be read.
    """
    return dict(json.loads(_read_sealed(directory, "metrics.json")))


def _read_sealed(directory: Path, name: str) -> bytes:
    """The bytes of one file of a model directory, which fit its digest."""
    digest = read_manifest(directory)["files"][name]
    with storage_errors(directory / name, "read"):
        content = (directory / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelDirectoryError(f"{directory}: {name} was changed after the model was written.")
    return content


def known_models(registry: Path) -> list[str]:
    """Names of the models of a registry."""
    if not registry.is_dir():
        return []
    with storage_errors(registry, "read"):
        return sorted(p.name for p in registry.iterdir() if p.is_dir() and versions(p))


def home_of(name: str, registry: Path) -> Path:
    """The directory of a model's versions.

    Raises:
        ModelDirectoryError: where there is no such model, with the nearest name.
    """
    known = known_models(registry)
    if name not in known:
        hint = did_you_mean(name, known) if known else f"; {registry} has no models yet."
        raise ModelDirectoryError(f"{name}: unknown model{hint}")
    return registry / name


def list_versions(registry: Path, names: Sequence[str] = ()) -> list[ModelVersion]:
    """The versions of the named models, or of all; damaged ones say so.

    Weights are not read, so that long lists are quick: `damage` does that.

    Raises:
        ModelDirectoryError: where a name is unknown, or a model's aliases are damaged.
    """
    for name in names:
        home_of(name, registry)
    return [
        describe(registry / name / str(version))
        for name in names or known_models(registry)
        for version in versions(registry / name)
    ]


def describe(directory: Path) -> ModelVersion:
    """What a model directory is, by its manifest and figures.

    Raises:
        ModelDirectoryError: where the aliases beside it are damaged.
    """
    home, number = directory.resolve().parent, directory.resolve().name
    registered = number.isdecimal() and directory.is_dir()
    aliases = read_aliases(home) if registered else {}
    manifest, metrics, problem = dict[str, Any](), dict[str, Any](), None
    try:
        manifest, metrics = read_manifest(directory), read_metrics(directory)
    except (ModelDirectoryError, StorageError) as error:
        problem = str(error)
    return ModelVersion(
        path=directory,
        name=home.name if registered else str(directory),
        version=int(number) if registered else None,
        aliases=tuple(sorted(a for a, v in aliases.items() if registered and v == int(number))),
        manifest=manifest,
        metrics=metrics,
        problem=problem,
    )


# Damage


def damage(directory: Path) -> str | None:
    """What is missing or changed of a model directory, every file named; None where it is whole."""
    try:
        verify(directory)
    except (ModelDirectoryError, StorageError) as error:
        return str(error)
    return None


def added(directory: Path) -> list[str]:
    """Names in a model directory that are not of the model; nothing ever reads them."""
    own = {MANIFEST, *read_manifest(directory)["files"]}
    with storage_errors(directory, "read"):
        return sorted(path.name for path in directory.iterdir() if path.name not in own)


def directories(references: Sequence[str], registry: Path) -> list[Path]:
    """The model directories that references name; a bare NAME names all of its versions.

    Raises:
        ModelDirectoryError: where one is unknown.
    """
    found: list[Path] = []
    known = known_models(registry)
    for reference in references or known:
        if reference in known and not (Path(reference) / MANIFEST).exists():
            found += [registry / reference / str(v) for v in versions(registry / reference)]
        else:
            found.append(resolve(reference, registry))
    return found


def leftovers(registry: Path) -> list[Path]:
    """Directories of versions that are not whole yet, and may never be."""
    return sorted(registry.glob("*/.building-*"))


# Differences

Section = dict[str, tuple[Any, Any]]


def difference(first: Path, second: Path) -> dict[str, Section]:
    """How two models differ: by section and field, the value of each; None where one has it not.

    Raises:
        ModelDirectoryError: where one of them is damaged.
    """
    left, right = _sections(first), _sections(second)
    found = {name: _differing(left[name], right[name]) for name in left}
    words = _words(first), _words(second)
    if words[0] != words[1]:
        found["vocabulary"] = _word_difference(*words)
    return {name: section for name, section in found.items() if section}


def _sections(directory: Path) -> dict[str, dict[str, Any]]:
    manifest = verify(directory)
    lineage = dict(manifest["lineage"])
    packages = lineage.pop("versions", {})
    data = {"fingerprint": lineage.pop("data_fingerprint", None)}
    confirmation = lineage.pop("confirmation", None) or {}
    return {
        "configuration": json.loads(_read_sealed(directory, "config.json")),
        "metrics": json.loads(_read_sealed(directory, "metrics.json")),
        "data": data,
        "vocabulary": {},
        "lineage": lineage,
        "confirmation": {
            name: confirmation.get(name) for name in ("seeds", "seed", "separable", "commit")
        },
        "versions": packages,
        "weights": {"sha256": manifest["files"]["weights.pt"]},
    }


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> Section:
    names = [*left, *(name for name in right if name not in left)]
    return {
        name: (left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name)
    }


def _words(directory: Path) -> list[str]:
    return list(json.loads(_read_sealed(directory, "vocabulary.json")))


def _word_difference(left: Sequence[str], right: Sequence[str]) -> Section:
    only = _only(left, right), _only(right, left)
    if only == ("none", "none"):
        return {"order": ("one", "another")}
    return {"words": (len(left), len(right)), "words only here": only}


def _only(words: Sequence[str], others: Sequence[str]) -> str:
    lacking = set(others)
    found = [word for word in words if word not in lacking]
    more = f" and {len(found) - _WORDS_SHOWN} more" if len(found) > _WORDS_SHOWN else ""
    return " ".join(found[:_WORDS_SHOWN]) + more if found else "none"
