"""What fresh runs say of the best configurations: means, intervals, and which one has won."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from model.errors import ExperimentError
from tuning.coordinator import Objective
from tuning.experiment import git_commit, versions
from tuning.storage.place import AnyPath

#: Probability that the interval covers the mean over all seeds, were values normally distributed.
CONFIDENCE = 0.95
#: One run has no interval.
FEWEST_SEEDS = 2


@dataclass(frozen=True)
class Outcome:
    """What one fresh run gave.

    Attributes:
        seed: Its seed.
        state: ``finished`` or ``diverged``.
        value: The objective on the whole validation split, at its best report; None where it
            diverged before its first.
        weights: The weights that were judged.
    """

    seed: int
    state: str
    value: float | None
    weights: AnyPath


@dataclass(frozen=True)
class Confirmed:
    """One configuration, as the search saw it and as its fresh runs did.

    Attributes:
        trials, state, searched: As in `Candidate`.
        searched_whole: The objective of the search's own weights on the whole validation split;
            None where they are gone.
        outcomes: Of every fresh run.
        mean, low, high: Mean of the runs, and ends of its interval; None where a run has no value
            or there are fewer than two.
    """

    trials: tuple[int, ...]
    state: str
    searched: float
    searched_whole: float | None
    outcomes: tuple[Outcome, ...]
    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(
        cls,
        trials: tuple[int, ...],
        state: str,
        searched: float,
        outcomes: Sequence[Outcome],
        searched_whole: float | None = None,
    ) -> Confirmed:
        """With the mean and the interval of the outcomes, by the one rule that there is."""
        known = [outcome.value for outcome in outcomes if outcome.value is not None]
        whole = len(known) == len(outcomes) >= FEWEST_SEEDS
        interval = mean_interval(known) if whole else (None, None, None)
        return cls(trials, state, searched, searched_whole, tuple(outcomes), *interval)

    @property
    def seeds(self) -> frozenset[int]:
        """The seeds of its runs."""
        return frozenset(outcome.seed for outcome in self.outcomes)

    def on(self, seeds: Collection[int]) -> Confirmed:
        """The same, judged by the runs with some of its seeds alone."""
        outcomes = [outcome for outcome in self.outcomes if outcome.seed in seeds]
        return Confirmed.of(self.trials, self.state, self.searched, outcomes, self.searched_whole)

    def overlaps(self, other: Confirmed) -> bool:
        """Whether the two intervals have a point in common."""
        assert self.low is not None and self.high is not None
        assert other.low is not None and other.high is not None
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class SoFar:
    """What confirmations of an experiment have left, finished or cut off.

    Attributes:
        configurations: Those that have the same seeds, at least two, and are compared; the best
            mean first, at last those that have none.
        unfinished: Those that lack some of these seeds, in the search's order.
        problems: What could not be read, in words.
    """

    configurations: tuple[Confirmed, ...] = ()
    unfinished: tuple[Confirmed, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confirmation:
    """The best configurations of a search compared over fresh seeds.

    Attributes:
        objective: What they are compared by, on the whole validation split.
        configurations: The best mean first; at last those that a run of diverged at once.
        seeds: The fresh seeds, the same for all configurations but for one it was searched with.
    """

    objective: Objective
    configurations: tuple[Confirmed, ...]
    seeds: int

    @property
    def winner(self) -> Confirmed:
        """The configuration with the best mean."""
        return self.configurations[0]

    @property
    def promoted(self) -> Outcome:
        """The winner's run that is best on the validation split: its weights are promoted."""
        return _best(self.winner.outcomes, self.objective)

    @property
    def separable(self) -> bool | None:
        """Whether the winner's interval is apart from the runner-up's; None without one."""
        if len(self.configurations) < 2 or self.configurations[1].mean is None:
            return None
        return not self.winner.overlaps(self.configurations[1])

    def words(self) -> list[str]:
        """What was found, a sentence a line."""
        name, winner = self.objective.name, self.winner
        assert winner.mean is not None
        lines = [
            f"trial {winner.trials[0]}'s configuration has the best mean: {name} "
            f"{winner.mean:.4f} ({winner.low:.4f} to {winner.high:.4f}, {CONFIDENCE:.0%}) over "
            f"{self.seeds} fresh seeds; the search had shown {winner.searched:.4f}"
        ]
        if self.separable is not None:
            other = self.configurations[1]
            apart = (
                "its interval is apart from that of"
                if self.separable
                else f"{self.seeds} seeds do not separate it: its interval overlaps that of"
            )
            lines.append(
                f"{apart} the runner-up, trial {other.trials[0]}: "
                f"{other.mean:.4f} ({other.low:.4f} to {other.high:.4f})"
            )
        promoted = self.promoted
        lines.append(
            f"promoted are the weights of seed {promoted.seed}, the best of the {self.seeds} on "
            f"validation ({promoted.value:.4f}); of the configuration expect the mean"
        )
        return lines

    def to_mapping(self) -> dict[str, Any]:
        """Everything of it, for the lineage of the promoted model; plain values."""
        return {
            "objective": self.objective.name,
            "split": "validation, all of it",
            "confidence": CONFIDENCE,
            "seeds": self.seeds,
            "rule": "best mean over fresh seeds; weights of its best run on validation",
            "seed": self.promoted.seed,
            "separable": self.separable,
            "configurations": [_described(each) for each in self.configurations],
            "commit": git_commit(),
            "versions": versions(),
        }


def _described(configuration: Confirmed) -> dict[str, Any]:
    mapping = asdict(configuration)
    mapping["trials"] = list(configuration.trials)
    mapping["outcomes"] = [
        {"seed": each.seed, "state": each.state, "value": each.value}
        for each in configuration.outcomes
    ]
    return mapping


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of at least two values and its interval by Student's t distribution.

    mean -+ t(n - 1) s / sqrt(n), where s is the standard deviation with n - 1 below.
    """
    from scipy.special import stdtrit

    mean = statistics.fmean(values)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _best(outcomes: Sequence[Outcome], objective: Objective) -> Outcome:
    best = outcomes[0]
    for outcome in outcomes[1:]:
        if objective.better(outcome.value, best.value):
            best = outcome
    return best


def by_mean(found: Sequence[Confirmed], objective: Objective) -> tuple[Confirmed, ...]:
    """The best mean first, equal ones as they were; at last those without a mean."""
    sign = 1 if objective.goal == "minimize" else -1
    return tuple(
        sorted(found, key=lambda each: math.inf if each.mean is None else sign * each.mean)
    )


def so_far(found: Sequence[Confirmed], objective: Objective, problems: Sequence[str] = ()) -> SoFar:
    """Compares configurations on the most seeds that at least two of them have.

    Where no two have two seeds in common, the one with the most stands alone.

    Args:
        found: With the outcomes of the runs that have ended, in the search's order.
        objective: What they are compared by.
        problems: What could not be read.
    """
    seeds = _common_seeds([each.seeds for each in found])
    whole = [each.on(seeds) for each in found if seeds and seeds <= each.seeds]
    unfinished = [each for each in found if not (seeds and seeds <= each.seeds)]
    return SoFar(by_mean(whole, objective), tuple(unfinished), tuple(problems))


def _common_seeds(each: Sequence[frozenset[int]]) -> frozenset[int]:
    shared = [one & other for one, other in combinations(each, 2)]
    enough = [seeds for seeds in shared if len(seeds) >= FEWEST_SEEDS]
    enough = enough or [seeds for seeds in each if len(seeds) >= FEWEST_SEEDS]
    # Of equally many seeds those that most configurations have; then any, but always the same.
    return max(
        enough,
        key=lambda seeds: (len(seeds), sum(seeds <= other for other in each), sorted(seeds)),
        default=frozenset(),
    )


def compared(
    found: Sequence[Confirmed], objective: Objective, seeds: int, experiment: Path
) -> Confirmation:
    """Ranks the configurations by their means.

    Args:
        found: In the search's order, which decides between equal means.
        objective: What they are compared by.
        seeds: Runs of each.
        experiment: To name in an error.

    Raises:
        ExperimentError: where none has a mean.
    """
    ranked = by_mean(found, objective)
    if ranked[0].mean is None:
        raise ExperimentError(
            f"{experiment}: of each of the best configurations a fresh run diverged before its "
            "first report; none can be confirmed. Try more with --top."
        )
    return Confirmation(objective, ranked, seeds)
