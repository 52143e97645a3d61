"""The search as an Optuna study: ``runs/NAME/study.log``, for optuna-dashboard and Optuna itself.

    python -m tuning.study NAME     prints the file, brought up to date if no search is running

A listener writes it while the search runs, in a thread of its own: the search never waits for it,
and goes on without it when it fails. A trial is RUNNING while it runs, COMPLETE with its best
value when it finished, PRUNED with its best value when the scheduler stopped it, and FAIL when it
diverged or failed; one that was interrupted is WAITING until it is resumed.
"""

from tuning.study.listener import STUDY, StudyListener, bring_up_to_date

__all__ = ["STUDY", "StudyListener", "bring_up_to_date"]
