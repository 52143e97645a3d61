"""One session of a search: Ray Tune runs the assignments there are, up to the end or Ctrl-C."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from model.cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from model.errors import ResourceError, StorageError
from model.prepared_data import PreparedData
from model.wording import plural
from tuning.cluster import MOST_AT_ONCE, Resources, fitting
from tuning.concurrency import Concurrency
from tuning.coordinator import Coordinator
from tuning.environment import versions
from tuning.experiment import Experiment
from tuning.head_watch import STARTED_ANEW, HeadWatch, is_of_new_head
from tuning.interrupts import Interrupts
from tuning.journal import Journal, Row, compact, read_journal
from tuning.journal.row import INTERRUPTED, TIME_BUDGET
from tuning.journal.segments import SENT_SEGMENT_ROWS
from tuning.preflight.preflight import Room
from tuning.preflight.probe import DRIVER, mail_file, write_and_read
from tuning.prometheus import SearchMetrics
from tuning.scheduling import PbtScheduler, make_scheduler
from tuning.scratch import scratch_directory
from tuning.searchers import STATES, make_searcher
from tuning.storage.mirror import Mirror
from tuning.storage.patience import patience_seconds, patiently
from tuning.study import StudyListener
from tuning.time_budget import TimeBudget
from tuning.tracking import WandbTracker
from tuning.trials.trial_files import TrialFiles, contents_of_trials, leftovers_among
from tuning.view import LiveView, duration

#: Ends after which a trial never runs again, unless from its start: nothing to go on from is kept.
_FINAL = frozenset(STATES) - {"failed"}


class Driver:
    """Holds an experiment whose lock the caller has, with everything that its journal tells.

    Args:
        experiment: What to run or to go on with.
        budget: When we were asked to, and for how long.
        mirror: Keeps an object store up to date, where the experiment is on one.

    Attributes:
        coordinator: In the state that the journal's rows left it in.
    """

    def __init__(
        self, experiment: Experiment, budget: TimeBudget, mirror: Mirror | None = None
    ) -> None:
        self.experiment = experiment
        self.budget = budget
        self.mirror = mirror
        self.sweep = experiment.sweep()
        self.past = read_journal(experiment.journal).rows if experiment.journal.is_dir() else []
        self.coordinator = self._coordinator()

    def _coordinator(self) -> Coordinator:
        manifest, past = self.experiment.manifest, self.past
        searcher = make_searcher(self.sweep, manifest["seed"])
        self.experiment.starting_points().give_to(searcher)
        coordinator = Coordinator(
            searcher,
            make_scheduler(self.sweep, manifest["seed"]),
            self._journal(next_seq=past[-1].seq + 1 if past else 0),
            self.experiment.objectives,
            trials=manifest["trials"],
            max_failures=manifest["settings"]["max_failures"],
        )
        coordinator.keep_weights = self._keep_weights
        coordinator.replay(past)
        return coordinator

    def _journal(self, next_seq: int) -> Journal:
        rows = None if self.mirror is None else SENT_SEGMENT_ROWS
        return Journal(self.experiment.journal, next_seq, rows)

    def _keep_weights(self, source: int, trial: int, iteration: int) -> None:
        place = self.experiment.place
        TrialFiles(place, trial).keep_clone(TrialFiles(place, source), iteration)

    def drive(
        self,
        data: PreparedData,
        room: Room,
        begin: Callable[[Coordinator], None] = lambda coordinator: None,
    ) -> None:
        """Runs the search, with Ray connected, up to its end, Ctrl-C or the end of its time.

        Args:
            data: The experiment's data.
            room: What the cluster has for it, see `tuning.preflight.preflight`.
            begin: Called once the session is on record: it may ask the coordinator for more.
        """
        coordinator = self.coordinator
        settings = self.experiment.manifest["settings"]
        places = partial(fitting, room.resources, room.more)
        concurrency = Concurrency(places, room.trials, settings["concurrency"])
        self._remove_leftovers()
        seconds = time.monotonic() - self.budget.started
        known = f"{plural(len(coordinator.trials), 'trial')} known"
        coordinator.session("session", known, startup_seconds=seconds)
        begin(coordinator)
        searched = list(self.sweep.space.searched)
        with LiveView(
            coordinator, self.experiment.name, concurrency=concurrency(), searched=searched
        ) as view:
            followers = self._followers(view)
            self.past = []  # it may be large, and nobody needs it any more
            metrics = SearchMetrics(coordinator, self.experiment.name)
            remover = _CheckpointRemover(self._forget)
            coordinator.listeners = [view, remover, metrics, *followers]
            if self.mirror is not None:
                self.mirror.on_problem = view.note
                coordinator.check, coordinator.keep_safe = self.mirror.check, self.mirror.flush
            try:
                self._fit(data, room.resources, concurrency, view)
            except KeyboardInterrupt:
                view.note("stopped at once")
            except Exception as error:
                if is_of_new_head(error):  # which answered a call before we asked who it is
                    raise self._without_head(STARTED_ANEW) from None
                raise
            finally:
                for follower in followers:
                    follower.close()
            if coordinator.exhausted and coordinator.done:
                ended = plural(len(coordinator.trials), "trial")
                view.note(f"no other configuration is left; {ended}")
        coordinator.listeners = []
        self._remove_leftovers()
        coordinator.end_session(TIME_BUDGET if self.budget.ended_search else INTERRUPTED)
        coordinator.journal.close()
        if coordinator.done:
            journal = self.experiment.journal
            patiently(partial(compact, journal), anchor=journal)

    def _without_head(self, why: str) -> ResourceError:
        """What the user is to know where the cluster's head is gone."""
        address = self.experiment.manifest["settings"]["address"]
        option = "" if address is None else f" --address {address}"
        return ResourceError(
            f"{why}.\neverything is kept in {self.experiment.place}; with a head again, go on: "
            f"python -m tuning resume {self.experiment.place}{option}"
        )

    def _end_without_head(self, view: LiveView, interrupts: Interrupts, why: str) -> None:
        """Ends this process, see ``tuning.head_watch``.

        Nothing is tidied up, as where the process is killed: whoever tries to waits for the head.
        """
        with suppress(Exception):
            view.close()
            kind = "stopped" if interrupts.stopping else "error"
            for line in str(self._without_head(why)).splitlines():
                print(f"{kind}: {line}", file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED if interrupts.stopping else EXIT_BAD_INPUT)

    def _followers(self, view: LiveView) -> list[WandbTracker | StudyListener]:
        """Those who are told of everything and write it down elsewhere."""
        study = StudyListener(self.experiment, on_problem=view.note)
        mode = self.experiment.manifest["settings"]["wandb"]
        if mode == "disabled":
            return [study]
        tracker = WandbTracker(
            self.experiment.path,
            self.experiment.name,
            mode=mode,
            run_id=str(self.experiment.manifest["id"]),
            project=self.sweep.project,
            entity=self.sweep.entity,
            tags=tuple(self.sweep.tags),
            past=self.past,
            on_problem=view.note,
        )
        return [study, tracker]

    def _remove_leftovers(self) -> None:
        """Checkpoints of ended trials: a driver died too early, or a worker was slow."""
        ended = [t for t, record in self.coordinator.trials.items() if record.state in _FINAL]
        with suppress(StorageError):  # they are in nobody's way
            contents = contents_of_trials(self.experiment.place)
            for trial in ended:
                if leftovers_among(contents(trial)):
                    self._forget(trial)

    def _forget(self, trial: int) -> None:
        """Removes the checkpoints of a trial, once its end is known where the experiment is."""
        files = TrialFiles(self.experiment.place, trial)
        if self.mirror is None:
            files.remove_checkpoints()
        else:
            self.mirror.afterwards(files.remove_checkpoints)

    def _fit(
        self, data: PreparedData, resources: Resources, concurrency: Concurrency, view: LiveView
    ) -> None:
        """Lets Ray Tune run the coordinator's assignments until there are none, or Ctrl-C."""
        from ray import tune

        from tuning.adapters import BudgetStopper, ScheduleAdapter, SearchAdapter

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        # All workers start at once; how many assignments are out is the adapter's to limit.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(MOST_AT_ONCE)
        interrupts = Interrupts(view)
        concurrency.on_change = view.concurrency_changed
        journal = self.coordinator.journal
        journal.on_wait, journal.stopped = view.note, lambda: interrupts.stopping
        if self.mirror is not None:
            self.mirror.stopped = journal.stopped
        stopper = BudgetStopper(self.budget, lambda: _announce_end(self.budget, view))
        search = SearchAdapter(
            self.coordinator, concurrency, interrupts.announce, self._storage_works
        )
        with scratch_directory() as scratch:  # nothing of ours is in it
            tuner = tune.Tuner(
                self._trainable(data, resources),
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=ScheduleAdapter(search),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                    trial_name_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(scratch),
                    verbose=0,
                    stop=stopper,
                    # We restart trials ourselves.
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(
                        checkpoint_frequency=0, checkpoint_at_end=False
                    ),
                ),
            )
            end = partial(self._end_without_head, view, interrupts)
            with interrupts, HeadWatch(end, view.note, hurried=lambda: interrupts.stopping):
                tuner.fit()
            if search.error is not None:
                raise search.error

    def _storage_works(self) -> bool:
        """Whether the driver can write and read where the trials do."""
        token = secrets.token_hex(8)
        file = mail_file(self.experiment.place / "trials", token, DRIVER)
        return write_and_read(file, token) is None

    def _trainable(self, data: PreparedData, resources: Resources) -> Any:
        from ray import tune

        from tuning.trials.trainable import DialogueTrainable

        scheduler, objectives = self.coordinator.scheduler, self.experiment.objectives
        targets = any(objective.target is not None for objective in objectives)
        trainable = tune.with_parameters(
            DialogueTrainable,
            data=np.frombuffer(data.as_bytes(), dtype=np.uint8),  # once a node, read in place
            experiment=str(self.experiment.place),
            session=0 if self.mirror is None else self.mirror.session,
            objectives=objectives,
            # A search with a target may end any trial at any report.
            stops_at=None if targets else scheduler.stops_at,
            clones=isinstance(scheduler, PbtScheduler),
            versions=versions(),
            patience=patience_seconds(),
        )
        return tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus})


def _announce_end(budget: TimeBudget, view: LiveView) -> None:
    assert budget.seconds is not None
    view.note(f"the time budget of {duration(budget.seconds)} is over: stopping; all is kept")


class _CheckpointRemover:
    """Removes a trial's resume checkpoints once the journal says that it has ended.

    Those of failed trials stay: they may be run again.
    """

    def __init__(self, remove: Callable[[int], None]) -> None:
        self.remove = remove

    def heard(self, row: Row) -> None:
        """Called with every new row."""
        if row.trial is not None and row.state in _FINAL:
            self.remove(row.trial)
