"""Judges how many trials fit on a GPU: plain functions of what was measured there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tuning.trials.gpu_memory import gib, share

#: Ray counts ten-thousandths of a GPU.
_PARTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a configuration took of a GPU; sizes in bytes.

    Attributes:
        device: The GPU's model.
        total: Of the GPU.
        free: What trials can have of it.
        reserved: What torch held at its peak, in use or not; None where memory ran out.
        context: What CUDA and its libraries took beside that.
        within_share: Whether it ran when held to a trial's share.
        tried: ``, tried to allocate 2.00 GiB more``, or nothing; where memory ran out.
        problem: Why nothing could be measured, in words.
    """

    device: str = "GPU"
    total: int = 0
    free: int = 0
    reserved: int | None = None
    context: int = 0
    within_share: bool = True
    tried: str = ""
    problem: str | None = None

    @property
    def taken(self) -> int:
        """What a process took of the GPU at its peak."""
        return (self.reserved or 0) + self.context


@dataclass
class Packing:
    """How trials share GPUs.

    Attributes:
        gpus: What each trial is to hold.
        problems: One line each, why the search cannot run.
        notes: What should be known.
    """

    gpus: float
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def trials_each(gpus: float) -> int:
    """How many trials share a GPU, of which each holds so much."""
    return int(1 / gpus) if 0 < gpus < 1 else 1


def part(trials: int) -> float:
    """What each of so many trials holds of a GPU."""
    return 1.0 if trials == 1 else math.floor(_PARTS / trials) / _PARTS


def places(measured: Measured, wanted: int) -> int:
    """How many of the trials that are to share a GPU fit, from 0 to `wanted`."""
    if measured.reserved is None:
        return 0
    most = wanted if measured.within_share else wanted - 1
    return next((n for n in range(most, 1, -1) if _fits(measured, n)), 1)


def _fits(measured: Measured, trials: int) -> bool:
    """Whether so many fit beside each other, each within its share."""
    allowed = share(part(trials), measured.total)
    assert measured.reserved is not None and allowed is not None
    return measured.reserved <= allowed and trials * measured.taken <= measured.free


def judge(gpus: float, measured: Mapping[str, Measured], configuration: str) -> Packing:
    """Lowers a packing to what fits everywhere; says where not even one trial fits.

    Args:
        gpus: What each trial is to hold.
        measured: By the name of the node, one for each kind of GPU.
        configuration: The one that was tried, in words.
    """
    packing, wanted = Packing(gpus), trials_each(gpus)
    fewest = wanted
    for node, each in measured.items():
        if each.problem is not None:
            packing.problems.append(f"{node}: a GPU could not be tried: {each.problem}.")
            continue
        fitting = places(each, wanted)
        if fitting == 0:
            packing.problems.append(_refusal(node, each, configuration))
        elif fitting < fewest:
            fewest, packing.gpus = fitting, part(fitting)
            packing.notes = [_lowered(node, each, configuration, wanted, fitting)]
    return packing


def _refusal(node: str, measured: Measured, configuration: str) -> str:
    return (
        f"{node}: {measured.device}: the most demanding configuration needs more than the "
        f"{gib(measured.free)} that are free of {gib(measured.total)}{measured.tried} "
        f"({configuration}); lower the largest batch_size, hidden_size or number of layers, or "
        "use GPUs with more memory."
    )


def _lowered(node: str, measured: Measured, configuration: str, wanted: int, fitting: int) -> str:
    fit = "1 fits" if fitting == 1 else f"{fitting} fit"
    holds = "a whole GPU" if fitting == 1 else f"1/{fitting} of a GPU"
    return (
        f"{node}: {measured.device}: the most demanding configuration takes "
        f"{gib(measured.taken)}, and {gib(measured.free)} are free, so {fit}, not {wanted} as "
        f"asked for ({configuration}); each trial holds {holds} (--gpus-per-trial "
        f"{part(fitting):g})."
    )
