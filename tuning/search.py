"""Searchers: plain objects that propose configurations and hear what became of them.

Trials are numbered 0, 1, 2, ... in the order of `Searcher.ask` and `Searcher.replay`. A proposal
depends on nothing but the seed, the number of the trial, and what was proposed and told before:
randomness is drawn afresh for every trial from a hash of seed and number. A searcher that is
replayed what a journal holds thus goes on exactly as if it had never been interrupted.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.errors import ExperimentError
from tuning.distributions import Scalar
from tuning.search_space import SearchSpace

if TYPE_CHECKING:
    from tuning.sweep_file import Sweep

#: How a trial can end.
STATES = ("finished", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``finished`` (no iterations left), ``stopped`` (early, by the scheduler),
            ``diverged`` (its loss became NaN or exploded) or ``failed`` (gave no result).
        value: Best so far of the objective, or None where it never had one.
        iteration: Training iterations done.
    """

    state: str
    value: float | None
    iteration: int

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, but got {self.state!r}.")


class Searcher(ABC):
    """Proposes configurations of a search space.

    Args:
        space: What to search.

    Attributes:
        asked: How many trials there are so far; the number of the next one.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.asked = 0

    def ask(self) -> dict[str, Scalar] | None:
        """Proposes the next trial.

        Returns:
            Searched fields and constants as plain Python scalars, or None where every point of a
            grid has been proposed.
        """
        configuration = self._propose(self.asked)
        if configuration is not None:
            self.asked += 1
        return configuration

    def replay(self, configuration: Mapping[str, Scalar]) -> None:
        """Takes a proposal from a journal instead of making it, with the same effect.

        Raises:
            ExperimentError: where the configuration is not a point of the search space.
        """
        if not self.space.contains(configuration):
            raise ExperimentError(
                f"trial {self.asked} of the journal is outside the search space: "
                f"{dict(configuration)!r}; was the sweep changed since?"
            )
        self._accept(self.asked, configuration)
        self.asked += 1

    def report(self, trial: int, iteration: int, value: float) -> None:
        """Hears a running trial's best value so far; one that is not finite is ignored."""
        self._check_asked(trial)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Hears how a trial ended; called once for each trial."""
        self._check_asked(trial)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later proposals depend on, ready for JSON."""
        return {"format": 1, "searcher": type(self).__name__, "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of `state_dict`.

        Raises:
            ExperimentError: where the state is of another kind of searcher, or another seed.
        """
        check_state(state, self.state_dict(), ("format", "searcher"))
        self.asked = state["asked"]

    @abstractmethod
    def _propose(self, number: int) -> dict[str, Scalar] | None:
        """Makes the proposal for a trial."""

    def _accept(self, number: int, configuration: Mapping[str, Scalar]) -> None:  # noqa: B027
        """Notes a proposal that was made earlier; most searchers need not."""

    def _check_asked(self, trial: int) -> None:
        if not 0 <= trial < self.asked:
            raise ValueError(f"trial {trial} was never asked for; there are {self.asked} so far.")


class GridSearcher(Searcher):
    """Every point of the space once, in the order of the sweep file, the last field fastest.

    Raises:
        ValueError: where a range is continuous.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        size = space.size()
        if size is None:
            raise ValueError("a grid cannot enumerate a continuous range; name its values.")
        self.points = size

    def _propose(self, number: int) -> dict[str, Scalar] | None:
        return self.space.grid_point(number) if number < self.points else None


class RandomSearcher(Searcher):
    """Independent draws from the space (Bergstra and Bengio 2012)."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space)
        self.seed = seed

    def _propose(self, number: int) -> dict[str, Scalar] | None:
        return self.space.sample(random.Random(derived_seed(self.seed, number)))

    def state_dict(self) -> dict[str, Any]:
        """The seed and the number of trials."""
        return {**super().state_dict(), "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Searcher.load_state_dict`."""
        check_state(state, self.state_dict(), ("format", "searcher", "seed"))
        super().load_state_dict(state)


def derived_seed(seed: int, number: int) -> int:
    """A seed of 32 bits for one trial; the same in every process, unlike ``hash``."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def make_searcher(sweep: Sweep, seed: int) -> Searcher:
    """The searcher that a sweep file's ``method`` asks for."""
    from tuning.tpe import TPESearcher

    if sweep.method == "grid":
        return GridSearcher(sweep.space)
    if sweep.method == "random":
        return RandomSearcher(sweep.space, seed)
    return TPESearcher(sweep.space, seed, sweep.goal)


def check_goal(goal: str) -> str:
    """Returns the goal.

    Raises:
        ValueError: where it is neither of the two.
    """
    if goal not in ("minimize", "maximize"):
        raise ValueError(f"goal must be minimize or maximize, but got {goal!r}.")
    return goal


def check_state(state: Mapping[str, Any], own: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Compares the settings in a saved state with those of the object that is to load it.

    Raises:
        ExperimentError: naming the first setting that differs.
    """
    for key in settings:
        if state.get(key) != own[key]:
            raise ExperimentError(
                f"this saved state is of another search: its {key} is {state.get(key)!r}, "
                f"but must be {own[key]!r}."
            )
