"""Plays the processes of a thousand trials in one, so that what a driver can take is measured.

Ray Tune, with `played` around it, begins no process for a trial: one process of Ray answers for all
of them what the project's trainable would have, at once or after a while. Everything else is as
ever: a placement group and a future for each trial, calls and results through Ray, the coordinator.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

#: More answers than this are never under way at once.
_MOST = 10_000


def metrics(trial: int, number: int) -> dict[str, float | int | None]:
    """Figures of a report, as many and as long as those of a trainer.

    Args:
        trial: Number of the trial.
        number: Of its report, from 1: the loss falls.
    """
    loss = 3 + math.sin(trial) / 10 + 1 / number
    figures: dict[str, float | int | None] = {"loss": loss}
    figures |= {"grad_norm": loss / 1.1, "encoder_grad_norm": loss / 3}
    figures |= {"decoder_grad_norm": loss / 1.3, "tokens_per_second": 1e4 / loss}
    figures |= {"val_loss": loss, "val_perplexity": math.exp(loss), "best_val_loss": loss}
    figures |= {"val_token_accuracy": 1 / loss, "epoch": number / 70}
    seconds = ("train", "eval", "save", "write", "step")
    figures |= {f"{name}_seconds": loss / 7 for name in seconds}
    counts = {"iteration": number, "best_iteration": number, "parameters": 6117}
    return figures | counts | {"peak_memory_mb": 300 * loss}


def make_host() -> Any:
    """The process that plays the trials, with everything imported there that it needs."""
    import ray

    @ray.remote(num_cpus=0, max_concurrency=_MOST)
    class Host:
        async def nothing(self) -> dict[str, Any]:
            return {"done": False}

        async def train(self, config: dict[str, Any], number: int, every: float) -> dict[str, Any]:
            import asyncio
            import random

            from benchmarks.played_trials import result

            if every:  # the first ones at random moments, so that they do not come together
                await asyncio.sleep(every * random.random() if number == 1 else every)
            return result(config, number)

    host = Host.remote()  # type: ignore[attr-defined]
    ray.get(host.train.remote({"trial": 0}, 1, 0.0))
    return host


def result(config: dict[str, Any], number: int) -> dict[str, Any]:
    """What a trial's process returns for a report: ours, and what Ray Tune adds to it there."""
    from model.training import Report

    trial, now = config["trial"], time.time()
    report = Report(number, metrics(trial, number), "running", improved=True)
    told: dict[str, Any] = {"report": report, "worker": f"10.0.0.1:{trial}"}
    if number == 1:
        told |= {"note": None, "worker_device": "cpu", "worker_type": None}
    told |= dict.fromkeys(("time_this_iter_s", "time_total_s", "time_since_restore"), now)
    told |= {"trial_id": "a1b2c3d4", "date": "2000-01-01_00-00-00", "timestamp": int(now)}
    told |= {"training_iteration": number, "iterations_since_restore": number, "pid": 1}
    return told | {
        "hostname": "n",
        "node_ip": "10.0.0.1",
        "pid": 1,
        "done": False,
        "config": config,
    }


class _Handle:
    """Stands for Ray's handle of a trial's process."""

    def __init__(
        self, host: Any, config: Mapping[str, Any], every: float, begun: Callable[[int], object]
    ) -> None:
        self._host, self._every, self._begun = host, every, begun
        self._config, self._steps = dict(config), 0

    def __getattr__(self, name: str) -> _Method:
        return _Method(lambda *arguments: self._call(name, *arguments))

    def _call(self, name: str, *arguments: Any) -> Any:
        if name == "reset":
            self._config, self._steps = dict(arguments[0]), 0
        if name != "train":
            return self._host.nothing.remote()  # to stop, to say what it is, to be there
        self._begun(self._config["trial"])
        self._steps += 1
        return self._host.train.remote(self._config, self._steps, self._every)


class _Method:
    """A method of a handle."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any, **keywords: Any) -> Any:
        return self._call(*arguments, *keywords.values())


class _Class:
    """Stands for the class of trials' processes, bound to a place."""

    def __init__(self, make: Callable[[Mapping[str, Any]], _Handle]) -> None:
        self._make = make

    def remote(self, **keywords: Any) -> _Handle:
        return self._make(keywords["config"])


@contextmanager
def played(
    every: float,
    begun: Callable[[int], object],
    reported: Callable[[], object],
    over: Callable[[], bool],
) -> Iterator[None]:
    """Plays the trials of a search that is run in the block, with Ray connected.

    Args:
        every: Seconds between two reports of a trial; 0 for at once.
        begun: Called with a trial's number whenever a step of it is asked for.
        reported: Called with each report, before the coordinator takes it.
        over: Asked whether the search's time is over; it needs a time budget to be.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources

    from tuning.coordinator import Coordinator
    from tuning.time_budget import TimeBudget

    host, report = make_host(), Coordinator.report

    def make(config: Mapping[str, Any]) -> _Handle:
        return _Handle(host, config, every, begun)

    def counted(*arguments: Any, **keywords: Any) -> Any:
        reported()
        return report(*arguments, **keywords)

    place = "annotate_remote_entities"
    with ExitStack() as stack:
        for patch in (
            mock.patch.object(PlacementGroupAcquiredResources, place, lambda *_: [_Class(make)]),
            mock.patch.object(RayActorManager, "cleanup", lambda self: None),  # there is nobody
            mock.patch.object(Coordinator, "report", counted),
            mock.patch.object(TimeBudget, "over", property(lambda self: over())),
        ):
            stack.enter_context(patch)
        yield
