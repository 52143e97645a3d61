"""Optimizers of encoder and decoder, their learning rates, clipping and gradient norms.

The shared embedding belongs to the decoder's optimizer (``embedding_update: once``). In the
published chatbot it belongs to both and is stepped twice an iteration, with the encoder's and with
the decoder's learning rate (``embedding_update: twice``). ``docs/training.md`` has the measurement
behind the default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from model.config import TrainingConfig
from model.dynamo import leave_dynamo_out, plain_step
from model.seq2seq import Seq2Seq

_UPDATE_RULES: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


class Optimizers:
    """The pair of optimizers of a model, stepped together.

    Args:
        model: Its parameters are updated in place.
        config: Optimizer, learning rates, clip and the treatment of the embedding.
    """

    def __init__(self, model: Seq2Seq, config: TrainingConfig) -> None:
        self.clip = config.clip
        embedding = list(model.embedding.parameters())
        encoder = list(model.encoder.parameters())
        decoder = embedding + list(model.decoder.parameters()) + list(model.output.parameters())
        if config.embedding_update == "twice":
            encoder = embedding + encoder
        self.parameters = {"encoder": encoder, "decoder": decoder}
        rates = {
            "encoder": config.learning_rate,
            "decoder": config.learning_rate * config.decoder_learning_ratio,
        }
        leave_dynamo_out()
        rule: Any = _UPDATE_RULES[config.optimizer]
        options = {"fused": True}  # one pass over parameters, gradients and moments
        if decoder[0].device.type == "cuda" and config.optimizer != "sgd":
            options["capturable"] = True  # for CUDA graphs: the step count is on the device
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            side: rule(parameters, lr=rates[side], **options)
            for side, parameters in self.parameters.items()
        }

    def zero_grad(self) -> None:
        """Forgets the gradients of the last iteration."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def clip_gradients(self) -> tuple[Tensor, Tensor]:
        """Scales the gradients of encoder and decoder, each down to a norm of at most `clip`.

        Returns:
            The norms of encoder and decoder before clipping, scalars.
        """
        encoder, decoder = (self._clip_side(p) for p in self.parameters.values())
        return encoder, decoder

    def _clip_side(self, parameters: Iterable[Tensor]) -> Tensor:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.clip > 0:
            scale = torch.clamp(self.clip / (norm + 1e-6), max=1.0)
            if scale.device.type != "cpu" or scale < 1:  # a GPU would have to be waited for
                torch._foreach_mul_(gradients, scale)
        return norm

    def step(self) -> None:
        """Updates the parameters from their gradients, encoder first."""
        with torch.no_grad():
            for optimizer in self.optimizers.values():
                plain_step(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """State of both optimizers, as `load_state_dict` takes it."""
        return {side: optimizer.state_dict() for side, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        for side, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[side])
