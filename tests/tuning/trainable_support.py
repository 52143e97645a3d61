"""The trainable in this process, without Ray."""

import numpy as np

from tests.tuning.coordinator_support import GOAL
from tuning.experiment import MANIFEST
from tuning.trials.trainable import DialogueTrainable


def local_trainable(directory, data):
    """The trainable as Ray sets it up in a worker, for trials of an experiment in a directory."""
    (directory / MANIFEST).write_text("{}")
    content = np.frombuffer(data.as_bytes(), dtype=np.uint8)

    class Local(DialogueTrainable):
        def setup(self, config):
            stops_at = config.get("stops_at")
            super().setup(config, content, str(directory), [GOAL], stops_at)

    return Local
