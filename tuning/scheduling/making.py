"""From the names and options that people write to a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from model.errors import ConfigurationError
from model.validation import Problems, did_you_mean
from tuning.scheduling.asha import HyperbandSettings
from tuning.scheduling.base import Scheduler, SchedulerSettings
from tuning.scheduling.fifo import FifoScheduler, FifoSettings
from tuning.scheduling.hyperband import BracketSettings
from tuning.scheduling.median import MedianSettings
from tuning.scheduling.pbt import PbtSettings

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep

#: The options of each scheduler, by the name that ``--scheduler`` and the sweep file give it.
SCHEDULERS: dict[str, type[SchedulerSettings]] = {
    settings.kind: settings
    for settings in (HyperbandSettings, BracketSettings, MedianSettings, PbtSettings, FifoSettings)
}

_Settings = TypeVar("_Settings", bound=SchedulerSettings)

#: Where the options stand in a sweep file.
BLOCK = "dialogue_tune.scheduler"


def parse_scheduler(block: Any, problems: Problems) -> SchedulerSettings | None:
    """Reads the ``dialogue_tune.scheduler`` block of a sweep file, or a name standing for it.

    Returns:
        The settings, or None where problems were noted.
    """
    mapping = {"type": block} if isinstance(block, str) else block
    names = ", ".join(SCHEDULERS)
    if not isinstance(mapping, Mapping):
        problems.add(BLOCK, f"must be a mapping with type ({names}), but got {block!r}.")
        return None
    name = mapping.get("type")
    if "type" not in mapping:
        problems.add(f"{BLOCK}.type", f"is required; supported: {names}.")
    elif not isinstance(name, str) or name not in SCHEDULERS:
        problems.add(f"{BLOCK}.type", f"unknown type {name!r}{did_you_mean(str(name), SCHEDULERS)}")
    else:
        return _parsed(SCHEDULERS[name], mapping, BLOCK, problems)
    return None


def parse_early_terminate(block: Any, problems: Problems) -> HyperbandSettings | None:
    """Reads the ``early_terminate`` block of a sweep file: W&B's, with the one type it knows.

    Returns:
        The settings, or None where problems were noted.
    """
    path, noted = "early_terminate", len(problems.found)
    if not isinstance(block, Mapping):
        problems.add(path, f"must be a mapping with type and min_iter, but got {block!r}.")
        return None
    kind = block.get("type")
    if "type" not in block:
        problems.add(f"{path}.type", "is required; supported: hyperband.")
    elif kind != "hyperband":
        meant = did_you_mean(str(kind), ["hyperband"])
        problems.add(f"{path}.type", f"unknown type {kind!r}{meant}")
    settings = _parsed(HyperbandSettings, block, path, problems)
    if not {"min_iter", "max_iter", "s"} & block.keys():
        problems.add(path, "needs min_iter, or max_iter and s.")
    return settings if len(problems.found) == noted else None


def _parsed(
    kind: type[_Settings], block: Mapping[str, Any], path: str, problems: Problems
) -> _Settings | None:
    """The settings of a block, whose type has been looked at."""
    noted = len(problems.found)
    valid = ("type", *kind.keys())
    for key in block:
        if key not in valid:
            problems.unknown_key(path, key, valid)
    for key, problem in kind.faults(block):
        problems.add(f"{path}.{key}" if key else path, problem)
    if len(problems.found) > noted:
        return None
    return kind(**{key: block[key] for key in block if key != "type"})


def make_scheduler(sweep: Sweep, seed: int = 0, name: str | None = None) -> Scheduler:
    """The scheduler that a sweep file asks for, or another one by its name.

    Where the file asks for none, or every judgement is beyond the reports that a trial makes,
    nothing is stopped; `Scheduler.describe` says why.

    Args:
        sweep: What is searched.
        seed: Of what population-based training draws.
        name: A key of `SCHEDULERS`, which overrides the file. Options are the file's where it asks
            for the same scheduler, and the defaults otherwise.

    Raises:
        ConfigurationError: where the name is unknown, or the scheduler cannot be used here.
    """
    own = sweep.scheduler or sweep.early_terminate
    if name is None and own is None:
        return FifoScheduler()
    if name is not None and name not in SCHEDULERS:
        meant = did_you_mean(name, SCHEDULERS)
        raise ConfigurationError("--scheduler", [f"unknown scheduler {name!r}{meant}"])
    if own is not None and name in (None, own.kind):
        settings, source, path = own, sweep.source, _path_of(sweep)
    else:
        assert name is not None
        settings, source, path = SCHEDULERS[name](), "--scheduler", name
    problems = Problems(source)
    for key, problem in settings.misfits(sweep):
        problems.add(f"{path}.{key}" if key else path, problem)
    problems.raise_if_any()
    return settings.make(sweep, seed)


def _path_of(sweep: Sweep) -> str:
    return "early_terminate" if sweep.scheduler is None else BLOCK
