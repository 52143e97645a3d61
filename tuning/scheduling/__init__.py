"""Schedulers: plain objects that say, report by report, which trials go on.

``base`` says what a scheduler is; each of the others is one of them with its options, and
``making`` finds it by what a sweep file or a command line says. ``docs/schedulers.md`` has the
rules in words.
"""

from tuning.scheduling.asha import AshaScheduler, HyperbandSettings
from tuning.scheduling.base import Clone, Decision, Scheduler, SchedulerSettings
from tuning.scheduling.fifo import FifoScheduler, FifoSettings
from tuning.scheduling.hyperband import BracketSettings, HyperbandScheduler
from tuning.scheduling.making import (
    SCHEDULERS,
    make_scheduler,
    parse_early_terminate,
    parse_scheduler,
)
from tuning.scheduling.median import MedianScheduler, MedianSettings
from tuning.scheduling.pbt import CHANGEABLE, PbtScheduler, PbtSettings

__all__ = [
    "Clone",
    "Decision",
    "Scheduler",
    "AshaScheduler",
    "FifoScheduler",
    "HyperbandScheduler",
    "MedianScheduler",
    "PbtScheduler",
    "CHANGEABLE",
    "SCHEDULERS",
    "SchedulerSettings",
    "BracketSettings",
    "FifoSettings",
    "HyperbandSettings",
    "MedianSettings",
    "PbtSettings",
    "make_scheduler",
    "parse_early_terminate",
    "parse_scheduler",
]
