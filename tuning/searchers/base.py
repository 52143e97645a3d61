"""What a searcher is: a plain object that proposes configurations and hears what became of them.

Trials are numbered 0, 1, 2, ... in the order of `Searcher.ask` and `Searcher.replay`. A proposal
depends on nothing but the seed, the number of the trial, and what was proposed and told before:
randomness is drawn afresh for every trial from a hash of seed and number. A searcher that is
replayed what a journal holds thus goes on exactly as if it had never been interrupted.

What holds for all of them is here: known points come first, nothing is proposed twice, constraints
are kept, a finite space ends, a state is saved and restored. A searcher adds `Searcher._propose`,
and where it learns, `Searcher._accept`, `Searcher._learn` and `Searcher._learn_past`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any, ClassVar

from model.errors import ConfigurationError, ExperimentError
from tuning.distributions import Scalar
from tuning.outcome import Outcome, PastTrial
from tuning.spaces.points import Points, faults_of
from tuning.spaces.search_space import SearchSpace

Configuration = dict[str, Scalar]

_FORMAT = 3


class Searcher(ABC):
    """Proposes configurations of a search space.

    Args:
        space: What to search.
        seed: Of all proposals.
        goal: ``minimize`` or ``maximize``; only searchers that learn care.
        other_goals: Those of further objectives, whose values are `Outcome.others`.

    Attributes:
        name: As in `tuning.searchers.SEARCHERS`.
        asked: How many trials there are so far; the number of the next one.
        points: What was proposed, and what is left of a finite space.

    Raises:
        ConfigurationError: where this searcher cannot search the space (see `problems`), or not
            for several objectives.
    """

    name: ClassVar[str]
    #: Whether its proposals depend on how trials ended.
    learns: ClassVar[bool] = False
    #: Whether it can search for several objectives: it learns from all, or from none.
    several_objectives: ClassVar[bool] = True

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        goal: str = "minimize",
        other_goals: Sequence[str] = (),
    ) -> None:
        problems = self.problems(space)
        if other_goals and not self.several_objectives:
            problems.append(f"metrics: {self.name} learns from one objective; use tpe or gp.")
        if problems:
            raise ConfigurationError(f"searcher {self.name}", problems)
        self.space = space
        self.seed = seed
        self.goal = check_goal(goal)
        self.other_goals = [check_goal(other) for other in other_goals]
        self._queue: deque[Configuration] = deque()
        self._restart()

    @classmethod
    def problems(cls, space: SearchSpace) -> list[str]:
        """Why this searcher cannot search a space, one line each, and what to use instead."""
        return []

    # What a driver calls

    def ask(self) -> Configuration | None:
        """Proposes the next trial: enqueued configurations first, then the searcher's own.

        Returns:
            Searched fields and constants as plain Python scalars; or None where the search is
            exhausted, every allowed point of a finite space having been proposed.
        """
        if self._queue:
            configuration: Configuration | None = self._queue.popleft()
        elif self.points.exhausted:
            return None
        else:
            configuration = self._propose(self.asked)
        if configuration is None:
            return None
        self._take(configuration)
        return dict(configuration)

    def enqueue(
        self, configurations: Iterable[Mapping[str, Scalar]], source: str = "points to try"
    ) -> None:
        """Proposes known configurations before anything else, in this order.

        A journal is replayed after this, so that what was proposed already leaves the queue.

        Args:
            configurations: Values of all searched fields; constants may be left out.
            source: Where they come from, for messages.

        Raises:
            ConfigurationError: with all faults of all configurations.
        """
        self._queue.extend(self._checked(list(configurations), source))

    def warm_start(self, trials: Iterable[PastTrial], source: str = "warm start") -> None:
        """Takes in trials of other experiments, before the first proposal.

        They are no trials of this search. Searchers that learn learn from them; none proposes
        their configurations again.

        Raises:
            ConfigurationError: with all faults, where configurations are outside of the space.
        """
        trials = list(trials)
        configurations = self._checked([past.configuration for past in trials], source)
        for past, configuration in zip(trials, configurations, strict=True):
            outcome = self._finite(past.outcome)
            reports = tuple((step, value) for step, value in past.reports if math.isfinite(value))
            self._events.append(("past", configuration, asdict(outcome), reports))
            self.points.add(configuration)
            self._learn_past(PastTrial(configuration, outcome, reports))

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
        taken = self._ordered(configuration)
        if taken in self._queue:
            self._queue.remove(taken)
        self._take(taken)

    def report(self, trial: int, iteration: int, value: float) -> None:
        """Hears a running trial's best value so far, which a searcher may learn from."""
        self._check_asked(trial)

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Hears how a trial ended; a value that is not finite counts as none.

        Raises:
            ValueError: where it ended before; `retried` comes first.
        """
        self._check_asked(trial)
        if trial in self._outcomes:
            raise ValueError(f"trial {trial} has ended already, as {self._outcomes[trial].state}.")
        outcome = self._finite(outcome)
        self._outcomes[trial] = outcome
        self._events.append(("tell", trial, asdict(outcome)))
        self._learn(trial, outcome)

    def retried(self, trial: int) -> None:
        """Forgets how a trial ended, because it runs again: another `tell` will come.

        Raises:
            ValueError: where it ended with a result, or has not ended.
        """
        self._check_asked(trial)
        outcome = self._outcomes.get(trial)
        if outcome is None or (
            outcome.state in ("finished", "stopped") and outcome.value is not None
        ):
            state = "runs" if outcome is None else outcome.state
            raise ValueError(f"trial {trial} {state}; only trials without a result run again.")
        del self._outcomes[trial]
        self._events.append(("retried", trial))
        self._forget(trial)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later proposals depend on, ready for JSON."""
        return {
            **{"format": _FORMAT, "searcher": type(self).__name__, **self._settings()},
            **{"asked": self.asked, "queue": list(self._queue)},
            "events": [list(event) for event in self._events],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a state of `state_dict`, by doing again what it tells.

        Raises:
            ExperimentError: where the state is of another kind of searcher, or another seed.
        """
        check_state(state, self.state_dict(), ("format", "searcher", *self._settings()))
        self._restart()
        for event in state["events"]:
            self._redo(*event)
        self._queue = deque(self._ordered(configuration) for configuration in state["queue"])

    # What a kind of searcher fills in

    @abstractmethod
    def _propose(self, number: int) -> Configuration | None:
        """Makes the proposal for a trial: a point that is new, or None where none is left."""

    def _accept(self, number: int, configuration: Configuration) -> None:  # noqa: B027
        """Hears what a trial's configuration is, whoever proposed it."""

    def _learn(self, trial: int, outcome: Outcome) -> None:  # noqa: B027
        """Hears how a trial ended; its value is finite or None."""

    def _learn_past(self, past: PastTrial) -> None:  # noqa: B027
        """Hears of a trial of another experiment."""

    def _forget(self, trial: int) -> None:  # noqa: B027
        """Hears that a trial which ended without a result is running again."""

    def _restart(self) -> None:
        """Begins anew, without any trial."""
        self.asked = 0
        self.points = Points(self.space)
        self._configurations: list[Configuration] = []
        self._outcomes: dict[int, Outcome] = {}
        self._events: list[tuple[Any, ...]] = []

    def _settings(self) -> dict[str, Any]:
        """What a saved state must have in common with this searcher."""
        return {"seed": self.seed, "goal": self.goal, "other_goals": self.other_goals}

    # Shared work

    def _take(self, configuration: Configuration) -> None:
        """Makes a configuration the next trial."""
        self._accept(self.asked, configuration)
        self.points.add(configuration)
        self._configurations.append(configuration)
        self._events.append(("ask", configuration))
        self.asked += 1

    def _redo(self, kind: str, *details: Any) -> None:
        """Does again what an event of a saved state tells."""
        if kind == "ask":
            self._take(self._ordered(details[0]))
        elif kind == "tell":
            self.tell(details[0], _outcome(details[1]))
        elif kind == "retried":
            self.retried(details[0])
        else:
            configuration, outcome, reports = details
            self.warm_start([PastTrial(configuration, _outcome(outcome), reports)])

    def _checked(
        self, configurations: Sequence[Mapping[str, Scalar]], source: str
    ) -> list[Configuration]:
        """The configurations with the constants, in the space's order."""
        constants = self.space.constants
        whole = [{**constants, **configuration} for configuration in configurations]
        problems = [
            f"configuration {number}: {fault}"
            for number, configuration in enumerate(whole, start=1)
            for fault in faults_of(self.space, configuration)
        ]
        if problems:
            raise ConfigurationError(source, problems)
        return [self._ordered(configuration) for configuration in whole]

    def _ordered(self, configuration: Mapping[str, Scalar]) -> Configuration:
        return {name: configuration[name] for name in self.space.parameters}

    def _finite(self, outcome: Outcome) -> Outcome:
        """The outcome with a value for each objective, None for what is missing or not finite."""
        given = [outcome.value, *outcome.others]
        value, *others = (
            v if v is not None and math.isfinite(v) else None
            for v, _ in zip_longest(given, (self.goal, *self.other_goals))
        )
        return replace(outcome, value=value, others=tuple(others))

    def _check_asked(self, trial: int) -> None:
        if not 0 <= trial < self.asked:
            raise ValueError(f"trial {trial} was never asked for; there are {self.asked} so far.")


def derived_seed(seed: int, *numbers: int) -> int:
    """A seed of 32 bits for one trial or step; the same in every process, unlike ``hash``."""
    text = ":".join(str(number) for number in (seed, *numbers))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


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


def _outcome(mapping: Mapping[str, Any]) -> Outcome:
    """An outcome that was saved as a mapping, perhaps as JSON, which has no tuples."""
    return Outcome(**{**mapping, "others": tuple(mapping["others"])})
