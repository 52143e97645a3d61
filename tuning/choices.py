"""Searcher and scheduler chosen on the command line, whatever the sweep file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import ConfigurationError
from model.validation import did_you_mean
from tuning.scheduling import SCHEDULERS
from tuning.searchers import SEARCHERS
from tuning.sweeps.extension import EXTENSION
from tuning.sweeps.sweep_file import Sweep, overridden, parse_sweep
from tuning.sweeps.yaml_file import read_yaml


def load_chosen(
    path: str | Path, searcher: str | None, overrides: Mapping[str, Any] | None = None
) -> Sweep:
    """Reads a sweep file as if it had said what was chosen, without which it may not be right.

    Args:
        path: The file.
        searcher: A name of `tuning.searchers.SEARCHERS`, or None for the file's own.
        overrides: Fields set to one value each, whatever the file says of them.

    Raises:
        ConfigurationError: where the name is unknown, or naming everything wrong with the file.
    """
    _check("--searcher", searcher, SEARCHERS)
    mapping = read_yaml(Path(path))
    block = mapping.get(EXTENSION) if isinstance(mapping, Mapping) else None
    if searcher is not None and isinstance(mapping, Mapping) and isinstance(block, Mapping | None):
        mapping = _extended(mapping, searcher=searcher)
    if overrides and isinstance(mapping, Mapping):
        mapping = overridden(mapping, overrides)
    said = [f"--set {name}={value}" for name, value in (overrides or {}).items()]
    return _parsed(mapping, str(path), [*said, *_said(searcher, None)])


def with_choices(sweep: Sweep, searcher: str | None, scheduler: str | None) -> Sweep:
    """The sweep with another searcher or scheduler, as if its file had said so.

    Args:
        sweep: As it was read.
        searcher: A name of `tuning.searchers.SEARCHERS`, or None for the sweep's own.
        scheduler: A name of `tuning.scheduling.SCHEDULERS`, or None. It keeps the options that the
            sweep has for the same scheduler, and has the defaults otherwise.

    Raises:
        ConfigurationError: where a name is unknown, or the whole no longer fits together.
    """
    _check("--searcher", searcher, SEARCHERS)
    _check("--scheduler", scheduler, SCHEDULERS)
    raw = sweep.to_mapping()
    chosen: dict[str, Any] = {}
    if searcher is not None:
        chosen["searcher"] = searcher
    own = sweep.scheduler or sweep.early_terminate
    if scheduler is not None and (own is None or own.kind != scheduler):
        chosen["scheduler"] = {"type": scheduler}
        raw.pop("early_terminate", None)
    if not chosen:
        return sweep
    return _parsed(_extended(raw, **chosen), sweep.source, _said(searcher, scheduler))


def _extended(mapping: Mapping[str, Any], **chosen: Any) -> dict[str, Any]:
    """What a sweep file holds, with choices in our own part of it."""
    return {**mapping, EXTENSION: {**(mapping.get(EXTENSION) or {}), **chosen}}


def _said(searcher: str | None, scheduler: str | None) -> list[str]:
    options = {"--searcher": searcher, "--scheduler": scheduler}
    return [f"{option} {name}" for option, name in options.items() if name]


def _parsed(mapping: Any, source: str, said: list[str]) -> Sweep:
    """The sweep; what is wrong with it is told with the options that it was read for."""
    try:
        return parse_sweep(mapping, source)
    except ConfigurationError as error:
        raise ConfigurationError(" ".join([source, *said]), error.problems) from None


def _check(option: str, name: str | None, known: dict[str, type]) -> None:
    if name is not None and name not in known:
        raise ConfigurationError(option, [f"unknown name {name!r}{did_you_mean(name, known)}"])
