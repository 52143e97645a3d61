"""Searcher and scheduler chosen on the command line, whatever the sweep file says."""

from __future__ import annotations

from model.errors import ConfigurationError
from model.validation import did_you_mean
from tuning.scheduling import SCHEDULERS
from tuning.searchers import SEARCHERS
from tuning.sweeps.sweep_file import Sweep, parse_sweep


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
    extension = dict(raw.get("dialogue_tune") or {})
    if searcher is not None:
        extension["searcher"] = searcher
    own = sweep.scheduler or sweep.early_terminate
    if scheduler is not None and (own is None or own.kind != scheduler):
        extension["scheduler"] = {"type": scheduler}
        raw.pop("early_terminate", None)
    if not extension:
        return sweep
    try:
        return parse_sweep(raw | {"dialogue_tune": extension}, sweep.source)
    except ConfigurationError as error:
        options = {"--searcher": searcher, "--scheduler": scheduler}
        said = " ".join(f"{option} {name}" for option, name in options.items() if name)
        raise ConfigurationError(f"{sweep.source} {said}".strip(), error.problems) from None


def _check(option: str, name: str | None, known: dict[str, type]) -> None:
    if name is not None and name not in known:
        raise ConfigurationError(option, [f"unknown name {name!r}{did_you_mean(name, known)}"])
