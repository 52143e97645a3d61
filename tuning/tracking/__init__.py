"""Weights & Biases: one thread of the driver holds all runs, off the search's path.

The listener puts rows on a queue; the thread opens, feeds and closes the runs, one a trial. The
search waits for it at its end alone, and there a bounded time. A run that W&B fails is left alone,
which is said once; so are all of them after three in a row. Nothing is lost by it: the journal has
everything, and what W&B has is asked of its server, or read from its files (`wandb_log`). A
resumed search fills in what is missing, and so does a tracker that is told to send everything.

Keys are never taken through configuration: they come from the environment or ``~/.netrc``, as
``wandb login`` leaves them.
"""

from tuning.tracking.tracker import WandbTracker
from tuning.tracking.wandb_mode import QUIET, Patience, choose_mode, has_key

__all__ = ["QUIET", "Patience", "WandbTracker", "choose_mode", "has_key"]
