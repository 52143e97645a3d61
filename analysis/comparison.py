"""Several experiments together: one frame of all their trials, and one line for each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.results import Results
from analysis.selection import TRIAL_STATES, choose
from model.errors import ExperimentError


@dataclass(frozen=True)
class Comparison:
    """Several experiments together.

    Attributes:
        results: The results of each, by its name; by its path, where names are the same.

    Example:
        >>> both = compare(["first", "second"])                    # doctest: +SKIP
        >>> both.summary, both.warnings                            # doctest: +SKIP
        >>> both.select(where="clip > 25", sort="val_loss", top=9) # doctest: +SKIP
    """

    results: dict[str, Results]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of all, one below the other, with the column ``experiment`` first."""
        return self._together(lambda results: results.trials)

    @cached_property
    def history(self) -> pd.DataFrame:
        """The reports of all, likewise."""
        return self._together(lambda results: results.history)

    def _together(self, frame_of: Callable[[Results], pd.DataFrame]) -> pd.DataFrame:
        frames = []
        for name, results in self.results.items():
            frame = frame_of(results).copy()
            frame.insert(0, "experiment", pd.Series(name, index=frame.index, dtype="str"))
            frames.append(frame)
        # Columns without any value have no type of their own; they come from the others.
        columns = list(dict.fromkeys(name for frame in frames for name in frame))
        told = [frame.dropna(axis=1, how="all") for frame in frames if len(frame)]
        if not told:
            return frames[0].reindex(columns=columns)
        return pd.concat(told, ignore_index=True).reindex(columns=columns)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each experiment.

        Columns: experiment, created, method (of search), objective and goal, number of trials and
        of those in each state, the best value, its trial and the searched fields of it (JSON),
        iterations trained in all, worker hours, and the data: corpus, fingerprint, and the loss of
        a unigram model on its validation split.
        """
        frame = pd.DataFrame([_summary(name, one) for name, one in self.results.items()])
        return frame.astype({"best": "float64", "best_trial": "Int64"})

    @cached_property
    def warnings(self) -> list[str]:
        """Why values of these experiments cannot be compared, in words; empty where they can."""
        return [
            f"{what} differ ({'; '.join(f'{name}: {text}' for name, text in found.items())}); "
            f"{consequence}"
            for what, said, consequence in _MUST_AGREE
            if len(set((found := {n: said(r) for n, r in self.results.items()}).values())) > 1
        ]

    @cached_property
    def problems(self) -> list[str]:
        """What is damaged or missing, of each experiment, in words."""
        return [f"{name}: {p}" for name, one in self.results.items() for p in one.problems]

    def select(
        self,
        *,
        where: str | None = None,
        state: str | Sequence[str] | None = None,
        sort: str | None = None,
        descending: bool = False,
        columns: Sequence[str] | None = None,
        top: int | None = None,
    ) -> pd.DataFrame:
        """Some of the trials; as `Results.select`, but where `top` is given, sort by a column.

        Raises:
            ConfigurationError: naming what there is no such column or state of, with the nearest.
        """
        return choose(
            self.trials,
            states=self.trials["state"],
            state=state,
            where=where,
            sort=sort,
            descending=descending,
            columns=columns,
            top=top,
        )


def compare(references: Sequence[str | Path], storage: str | Path = "runs") -> Comparison:
    """Opens several experiments, by directory, name, or ``latest``.

    Raises:
        ExperimentError: where one is unknown or unreadable, or named twice.
    """
    opened = [Results.open(reference, storage) for reference in references]
    paths = [str(results.experiment.path) for results in opened]
    for path in paths:
        if paths.count(path) > 1:
            raise ExperimentError(f"{path}: is named twice; name each experiment once.")
    names = [results.experiment.name for results in opened]
    unique = len(set(names)) == len(names)
    return Comparison(dict(zip(names if unique else paths, opened, strict=True)))


def _summary(name: str, results: Results) -> dict[str, Any]:
    manifest, trials = results.experiment.manifest, results.trials
    ranked = results.ranked()
    best = None if ranked.empty else ranked.iloc[0]
    searched = {} if best is None else {field: _plain(best[field]) for field in results.searched}
    return {
        "experiment": name,
        "created": manifest["created"],
        "method": manifest["sweep"].get("method"),
        "objective": results.objective,
        "goal": results.experiment.objective.goal,
        "trials": len(trials),
        **{state: int((trials["state"] == state).sum()) for state in TRIAL_STATES},
        "best": None if best is None else best[results.objective],
        "best_trial": None if best is None else best["trial"],
        "best_configuration": json.dumps(searched),
        "iterations": int(trials["iteration"].sum()),
        "worker_hours": round(float(trials["seconds"].sum()) / 3600, 4),
        "corpus": manifest["data"]["settings"].get("corpus"),
        "data_fingerprint": manifest["data"]["fingerprint"],
        "unigram_val_loss": manifest["data"]["unigram_val_loss"],
    }


def _plain(value: Any) -> Any:
    """A cell as JSON has it."""
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def _objective(results: Results) -> str:
    return f"{results.experiment.objective.goal} {results.objective}"


def _fingerprint(results: Results) -> str:
    return str(results.experiment.manifest["data"]["fingerprint"])[:12]


def _subset(results: Results) -> str:
    """How many validation examples each report was evaluated on; all for the same ones."""
    sizes = sorted(set(results.trials["val_examples"].dropna().astype(int).tolist()))
    return " and ".join(map(str, sizes)) or "none"


#: What experiments must have in common for their values to be compared.
_MUST_AGREE: tuple[tuple[str, Callable[[Results], str], str], ...] = (
    ("objectives", _objective, "their best values say different things."),
    ("data fingerprints", _fingerprint, "losses on different data cannot be compared."),
    ("numbers of validation examples", _subset, "values on different subsets differ by chance."),
)
