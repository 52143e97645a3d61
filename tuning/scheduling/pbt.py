"""Population-based training: bad trials go on with good ones' weights and changed settings."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from model.validation import setting
from model.wording import plural
from tuning.scheduling.base import (
    Clone,
    Decision,
    Fault,
    Scheduler,
    SchedulerSettings,
    cost,
    finite_or_none,
    or_infinity,
)
from tuning.scheduling.explore import explored
from tuning.scheduling.fifo import stops_nothing
from tuning.searchers import Outcome, check_goal, check_state, derived_seed
from tuning.spaces.search_space import SearchSpace

if TYPE_CHECKING:
    from tuning.sweeps.sweep_file import Sweep

#: Fields that can change in the middle of a run: the trainer reads them anew for every batch, or
#: takes them when it is built, and no weight or optimizer state has its shape from them. Of the
#: others, some are the model itself (sizes, attention) or its optimizer's state (optimizer,
#: embedding_update), some say which batch is the next (batch_size, seed), some what a trial costs
#: and how it is measured (iterations, report_every, precision).
CHANGEABLE = (
    "learning_rate",
    "decoder_learning_ratio",
    "clip",
    "teacher_forcing_ratio",
    "dropout",
)

#: Searchers that do not learn from results.
SEARCHERS = ("random", "grid")


class PbtScheduler(Scheduler):
    """Lets trials that are behind go on from those that are ahead.

    Jaderberg et al. 2017, "Population Based Training of Neural Networks" (arXiv:1711.09846),
    Algorithm 1 with truncation selection (section 4.1.1): every `interval` reports a trial that is
    among the worst share of the population takes weights and configuration of one drawn from the
    best share (exploit), the configuration changed a little (explore, see
    ``tuning.scheduling.explore``). A trial's fitness is the value of the report itself, ``latest``,
    for that is what its weights are worth now. Nothing is stopped.

    The population of a trial is those that have not ended and whose last judgement was at the same
    report. (Ray's compares the newest values whatever the trials' ages, so that a young trial is
    always bad, and takes over weights trained for longer than itself.) It works among trials that
    run at the same time: give it as many workers as the population has members.

    Draws come from (seed, trial, report) alone, so that a replay gives the same clones.

    Args:
        space: What is searched; fields of `CHANGEABLE` alone.
        seed: Of the draws.
        interval: Reports between two judgements of a trial, at least 1.
        goal: ``minimize`` or ``maximize``.
        quantile_fraction: Share of the population that is replaced, and that is copied from;
            rounded up, at most half. From 0, for never, to 0.5.
        resample_probability: Of drawing a field anew from its distribution.
        reports: Reports that a trial makes, the last of which is not judged; None where unknown.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        interval: int = 2,
        goal: str = "minimize",
        *,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        reports: int | None = None,
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval must be at least 1, but got {interval!r}.")
        if not 0 <= quantile_fraction <= 0.5:
            raise ValueError(
                f"quantile_fraction must be between 0 and 0.5, but got {quantile_fraction!r}."
            )
        self.space, self.seed, self.interval = space, seed, interval
        self.goal = check_goal(goal)
        self.quantile_fraction = quantile_fraction
        self.resample_probability = resample_probability
        self.reports = reports
        judged = None if reports is None else range(interval, reports, interval)
        self.stops_at = None if judged is None else frozenset(judged)
        self._configurations: dict[int, dict[str, Any]] = {}
        self._judged: dict[int, tuple[int, float]] = {}  # number of the judgement, cost then
        self._clones: dict[int, Clone] = {}
        self._ended: set[int] = set()

    def started(self, trial: int, configuration: Mapping[str, Any]) -> None:
        """Keeps the configuration: clones of the trial start from it."""
        self._configurations[trial] = dict(configuration)

    def report(
        self, trial: int, report_number: int, value: float, *, latest: float | None = None
    ) -> Decision:
        """Judges the trial if this report reaches a judgement that is new to it.

        Raises:
            ValueError: where `started` never told of the trial.
        """
        if trial not in self._configurations:
            raise ValueError(f"trial {trial} reports, but never started.")
        self._ended.discard(trial)  # one that failed may run again
        judgement = self._judgement(report_number)
        if judgement <= self._judged.get(trial, (0, 0.0))[0]:
            return Decision.CONTINUE
        fitness = cost(value if latest is None else latest, self.goal)
        self._judged[trial] = judgement, fitness
        self._clones.pop(trial, None)
        source = self._better_one(trial, self._rng(trial, report_number, "exploit"))
        if source is None:
            return Decision.CONTINUE
        self._configurations[trial] = explored(
            self.space,
            self._configurations[source],
            self._rng(trial, report_number, "explore"),
            self.resample_probability,
        )
        self._clones[trial] = Clone(source, dict(self._configurations[trial]))
        return Decision.CLONE

    def _judgement(self, report: int) -> int:
        """Number of the last judgement up to a report, from 1; 0 before the first."""
        last = report if self.reports is None else min(report, self.reports - 1)
        return last // self.interval

    def _rng(self, trial: int, report: int, step: str) -> random.Random:
        number = 2 * report + (step == "explore")
        return random.Random(derived_seed(derived_seed(self.seed, trial), number))

    def _better_one(self, trial: int, rng: random.Random) -> int | None:
        """A trial of the best share to copy, where this one is of the worst and truly worse."""
        judgement, fitness = self._judged[trial]
        population = {
            other: cost
            for other, (number, cost) in self._judged.items()
            if number == judgement and other not in self._ended
        }
        ranked = sorted(population, key=lambda other: (population[other], other))
        share = min(math.ceil(len(ranked) * self.quantile_fraction), len(ranked) // 2)
        if trial not in ranked[len(ranked) - share :]:
            return None
        # One that was itself told to copy another has given up the weights that were judged.
        better = [
            other
            for other in ranked[:share]
            if population[other] < fitness and other not in self._clones
        ]
        return rng.choice(better) if better else None

    def clone_of(self, trial: int) -> Clone:
        """See `Scheduler.clone_of`."""
        return self._clones[trial] if trial in self._clones else super().clone_of(trial)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Takes the trial out of the population: its checkpoints are gone."""
        self._ended.add(trial)

    def describe(self) -> str:
        """When and among whom."""
        return (
            f"population-based training: every {plural(self.interval, 'report')}, the worst "
            f"{self.quantile_fraction:.0%} of the trials at the same report go on from one of the "
            f"best {self.quantile_fraction:.0%}; run as many at once as the population has members"
        )

    def state_dict(self) -> dict[str, Any]:
        """Settings, configurations, last judgements (None: not finite), clones and who ended."""
        return {
            "format": 1,
            "scheduler": "pbt",
            "seed": self.seed,
            "interval": self.interval,
            "goal": self.goal,
            "quantile_fraction": self.quantile_fraction,
            "resample_probability": self.resample_probability,
            "reports": self.reports,
            "configurations": [[trial, dict(c)] for trial, c in self._configurations.items()],
            "judged": [
                [trial, number, finite_or_none(fitness)]
                for trial, (number, fitness) in self._judged.items()
            ],
            "clones": [
                [trial, clone.source, dict(clone.configuration)]
                for trial, clone in self._clones.items()
            ],
            "ended": sorted(self._ended),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replaces everything heard so far."""
        settings = ("seed", "interval", "goal", "quantile_fraction", "resample_probability")
        check_state(state, self.state_dict(), ("format", "scheduler", *settings, "reports"))
        self._configurations = {trial: dict(c) for trial, c in state["configurations"]}
        self._judged = {trial: (n, or_infinity(cost)) for trial, n, cost in state["judged"]}
        self._clones = {trial: Clone(source, dict(c)) for trial, source, c in state["clones"]}
        self._ended = set(state["ended"])


@dataclass(frozen=True, kw_only=True)
class PbtSettings(SchedulerSettings):
    """``type: pbt`` of the ``dialogue_tune.scheduler`` block, see `PbtScheduler`."""

    kind: ClassVar[str] = "pbt"
    interval: int = setting(2, int, low=1, help="reports between two judgements of a trial")
    quantile_fraction: float = setting(
        0.25, float, low=0, high=0.5, help="share of the population that is replaced"
    )
    resample_probability: float = setting(
        0.25, float, low=0, high=1, help="of drawing a field anew from its distribution"
    )

    def misfits(self, sweep: Sweep) -> Iterator[Fault]:
        """Yields where a searcher would be misled, or a trial could not go on from another."""
        searcher = sweep.searcher or sweep.method
        if searcher not in SEARCHERS:
            yield (
                "",
                f"pbt works with the searchers {' and '.join(SEARCHERS)} only, but this is "
                f"{searcher}: it changes settings in the middle of a trial, so a searcher that "
                "learns would be told results of configurations that it never proposed.",
            )
        yield from self._space_misfits(sweep.space)
        yield from self._checkpoint_misfits(sweep.space)

    def _space_misfits(self, space: SearchSpace) -> Iterator[Fault]:
        can = f"pbt can search {', '.join(CHANGEABLE)}"
        fixed = [name for name in space.searched if name not in CHANGEABLE]
        if fixed:
            yield "", f"{', '.join(fixed)} cannot change in the middle of a run; {can}."
        if not space.searched:
            yield "", f"nothing is searched that pbt could change; {can}."
        if space.conditional:
            yield "", "pbt cannot change fields that are searched under a condition (when)."

    def _checkpoint_misfits(self, space: SearchSpace) -> Iterator[Fault]:
        when = space.constants.get("checkpoint_when", "report")
        every = space.constants.get("checkpoint_every", 1)
        if when != "report":
            yield (
                "",
                "pbt lets trials go on from each other's checkpoints, so checkpoint_when must be "
                f"report, but is {when}.",
            )
        elif isinstance(every, int) and every > self.interval:
            yield (
                "interval",
                f"must be at least checkpoint_every ({every}), for there to be checkpoints to go "
                f"on from, but is {self.interval}.",
            )

    def make(self, sweep: Sweep, seed: int) -> Scheduler:  # noqa: D102
        if sweep.reports is not None and self.interval >= sweep.reports:
            return stops_nothing("pbt", self.interval, sweep.reports)
        return PbtScheduler(
            sweep.space,
            seed,
            self.interval,
            sweep.objective.goal,
            quantile_fraction=self.quantile_fraction,
            resample_probability=self.resample_probability,
            reports=sweep.reports,
        )
