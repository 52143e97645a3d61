"""What an experiment lacks: files that should be there, and what its trials never said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from model.checkpoint import read_checkpoint
from model.errors import CheckpointError
from model.wording import plural
from tuning.experiment import Experiment
from tuning.storage.place import AnyPath, place
from tuning.trials.trial_files import TrialFiles, checkpoints_among, contents_of_trials

#: States of trials whose best weights are on disk when the journal has their last row.
_SAVED = ("finished", "stopped", "diverged")
#: How many trials are named in a sentence.
_NAMED = 10


def files_of_trials(experiment: AnyPath, trials: Sequence[int]) -> pd.DataFrame:
    """The files of trials: the best weights, and the newest checkpoint to go on from.

    Args:
        experiment: Where the experiment is.
        trials: Numbers of the trials; the index of the frame.

    Returns:
        Columns ``weights`` and ``checkpoint``: paths, missing where there is no such file.

    Raises:
        StorageError: where an object store cannot be read.
    """
    weights: list[str | None] = []
    checkpoints: list[str | None] = []
    contents = contents_of_trials(experiment)
    for trial in trials:
        files = TrialFiles(experiment, trial)
        there = contents(trial)
        newest = next(iter(checkpoints_among(there)), None)
        weights.append(str(files.best) if files.best in there else None)
        checkpoints.append(str(newest) if newest else None)
    index = pd.Index(trials, name="trial")
    return pd.DataFrame({"weights": weights, "checkpoint": checkpoints}, index=index, dtype="str")


def what_is_missing(experiment: Experiment, trials: pd.DataFrame, objective: str) -> list[str]:
    """What cannot be told or done with an experiment for want of it, in words.

    Args:
        experiment: The experiment.
        trials: Its table of trials.
        objective: The metric that trials are ranked by.
    """
    return [*_missing_files(experiment), *_missing_of_trials(trials, objective)]


def _missing_files(experiment: Experiment) -> Iterator[str]:
    if not experiment.has_data():
        yield (
            f"{experiment.data_file}: the data set is missing: nothing can be promoted, and the "
            "search cannot go on."
        )
    if not experiment.journal.is_dir():
        yield f"{experiment.journal}: there is no journal: no trial has begun, or it was lost."


def _missing_of_trials(trials: pd.DataFrame, objective: str) -> Iterator[str]:
    if trials.empty:
        return
    state, valued = trials["state"], trials[objective].notna()
    done = ~state.isin(["running", "interrupted"])
    reported = trials["iteration"] > 0
    if not state.isin(["finished", "stopped"]).any():
        yield f"of {plural(len(trials), 'trial')} none has finished."
    if silent := _named(trials, done & ~reported):
        yield f"ended without a report: {silent}."
    if unsaved := _named(trials, state.isin(_SAVED) & valued & trials["weights"].isna()):
        yield f"the best weights are missing, so they cannot be promoted: {unsaved}."
    held = trials["checkpoint_when"] == "end"  # as configured
    begins_anew = (state == "interrupted") & reported & trials["checkpoint"].isna() & ~held
    if lost := _named(trials, begins_anew):
        yield f"interrupted and without a checkpoint, so a resume trains them anew: {lost}."


def _named(trials: pd.DataFrame, chosen: pd.Series[bool]) -> str:
    """``trials 3, 4 and 12 more``; empty where there are none."""
    return named(trials.loc[chosen.astype(bool), "trial"].tolist())


def named(trials: Sequence[int]) -> str:
    """``trial 3``, ``trials 3 and 4``, or ``trials 0, 1, ... and 12 more``; empty for none."""
    if not trials:
        return ""
    texts = [str(trial) for trial in trials]
    if len(texts) == 1:
        return f"trial {texts[0]}"
    if len(texts) > _NAMED:
        return f"trials {', '.join(texts[:_NAMED])} and {len(texts) - _NAMED} more"
    return f"trials {', '.join(texts[:-1])} and {texts[-1]}"


def damaged_files(files: Iterable[str]) -> list[str]:
    """Reads weights and checkpoints whole, and says which are damaged, in words.

    Shows its progress where stderr is a terminal.
    """
    from tqdm import tqdm

    problems = []
    for file in tqdm(list(files), desc="verifying", unit="file", disable=None, leave=False):
        try:
            read_checkpoint(place(file))
        except CheckpointError as error:
            problems.append(str(error))
    return problems
