"""How much room a search needs, reckoned from its sweep and its data."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.config import Config, ModelConfig

if TYPE_CHECKING:
    from model.prepared_data import PreparedData
    from tuning.sweeps.sweep_file import Sweep

_SAMPLES = 16
#: Beside its best weights, a running trial keeps two checkpoints: of weights and of Adam's state,
#: which is twice as large.
_RUNNING = 2 * 3


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a search needs of the cluster.

    Attributes:
        data: Bytes of the prepared data, which every node holds in shared memory.
        trials: How many are still to run.
        weights: Bytes of the best weights of a trial, on the average.
        gpus: Whether trials may train on GPUs.
    """

    data: int
    trials: int = 0
    weights: int = 0
    gpus: bool = True

    @classmethod
    def of(cls, sweep: Sweep, data: PreparedData, trials: int | None) -> Needs:
        """Reckons it; the models are those of a few points of the space."""
        arrays = [data.tokens, data.utterance_offsets, *data.examples.values()]
        return cls(
            data=sum(array.nbytes for array in arrays),
            trials=max(0, trials or 0),
            weights=_mean_weights(sweep, len(data.vocabulary)),
            gpus=sweep.space.constants.get("device", "auto") != "cpu",
        )

    @property
    def disk(self) -> int:
        """Bytes that are written into the storage at least, one trial running at a time."""
        return self.data + self.weights * (self.trials + _RUNNING * bool(self.trials))


def _mean_weights(sweep: Sweep, words: int) -> int:
    draw = random.Random(0)
    points = [sweep.space.sample(draw) for _ in range(_SAMPLES)]
    return (
        sum(weight_bytes(Config.from_mapping(point).model, words) for point in points) // _SAMPLES
    )


def weight_bytes(model: ModelConfig, words: int) -> int:
    """Bytes of a model's weights in single precision, but for those of the attention's score.

    Reckoned, because building a model takes its memory, and without memory (torch's ``meta``)
    takes seconds.
    """
    hidden, embedding = model.hidden_size, model.embedding_size or model.hidden_size

    def gru(inputs: int, layers: int, above: int, directions: int) -> int:
        sizes = [inputs, *[above] * (layers - 1)]
        return directions * sum(3 * hidden * (size + hidden + 2) for size in sizes)

    encoder = gru(embedding, model.encoder_layers, 2 * hidden, 2)
    decoder = gru(embedding, model.decoder_layers, hidden, 1) + (2 * hidden + 1) * hidden
    return 4 * (words * embedding + encoder + decoder + words * (hidden + 1))
