"""GRU layers over the packed layout.

The layer is `torch.nn.GRU`'s (Cho et al. 2014, https://arxiv.org/abs/1406.1078, as in torch's
documentation):

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
    h' = (1 - z) * n + z * h

A GPU runs it by cuDNN. On the CPU torch steps through the sequence with some twenty small
operations a step, each with its node for the backward pass, and adds up the recurrent weight's
gradient step by step. `_Recurrence` does both directions of a layer at once, and takes the gradient
of the recurrent weight in one product over all steps (``docs/speed.md`` has the figures).

Both directions run forwards: the second reads each row mirrored, its last token first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model.linear import linear
from model.packing import Packing

#: Of a layer, in the order in which torch takes them.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

# Shapes: D directions (1 or 2), N positions, B rows, I inputs, H hidden; gates lie as r, z, n.


def gru(
    layer: nn.GRU, inputs: Tensor, state: Tensor | None, packing: Packing
) -> tuple[Tensor, Tensor]:
    """Runs one layer, one or both directions, over packed rows.

    Args:
        layer: A `torch.nn.GRU` of one layer; its weights are cast to the dtype of the inputs.
        inputs: (N, I), fp32 or bf16.
        state: (D, B, H), before the first step, rows as in the batch; None for zeros.
        packing: Where the rows lie.

    Returns:
        The outputs of each direction (D, N, H), and the states after each row's last real token
        (D, B, H), rows as in the batch.
    """
    directions = 2 if layer.bidirectional else 1
    if state is None:
        state = inputs.new_zeros(directions, len(packing.order), layer.hidden_size)
    state = state.to(inputs.dtype).index_select(1, packing.order)
    run = _cudnn if inputs.device.type == "cuda" else _recurrence
    outputs = run(layer, inputs, state, packing)  # (D, N, H), the second direction mirrored
    last = outputs.index_select(1, packing.last)
    if directions == 2:
        outputs = torch.stack([outputs[0], outputs[1].index_select(0, packing.mirror)])
    return outputs, last


def layer_weights(layer: nn.GRU, name: str) -> list[Tensor]:
    """One of `WEIGHTS`, of each direction."""
    names = [f"{name}_l0"] + ([f"{name}_l0_reverse"] if layer.bidirectional else [])
    return [getattr(layer, n) for n in names]


def _recurrence(layer: nn.GRU, inputs: Tensor, state: Tensor, packing: Packing) -> Tensor:
    """By `_Recurrence`, after one product for the input gates of both directions."""
    dtype = inputs.dtype
    gates = linear(
        inputs,
        torch.cat(layer_weights(layer, "weight_ih")),
        torch.cat(layer_weights(layer, "bias_ih")),
    )  # (N, D * 3H)
    each = list(gates.chunk(len(state), dim=1))
    if len(state) == 2:
        each[1] = each[1].index_select(0, packing.mirror)
    hidden: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        torch.stack(each),
        state,
        torch.stack(layer_weights(layer, "weight_hh")).to(dtype),
        torch.stack(layer_weights(layer, "bias_hh")).to(dtype),
        packing,
    )
    return hidden


def _cudnn(layer: nn.GRU, inputs: Tensor, state: Tensor, packing: Packing) -> Tensor:
    """By torch's own GRU, each direction for itself; needs the static layout.

    cuDNN's bidirectional layer would need packed sequences, whose shapes change with the batch.
    """
    steps, rows = len(packing.sizes), packing.sizes[0]
    reads = [inputs, inputs.index_select(0, packing.mirror)] if len(state) == 2 else [inputs]
    outputs = []
    for d, read in enumerate(reads):
        hidden, _ = torch._VF.gru(
            read.view(steps, rows, -1),
            state[d : d + 1],
            _in_one_buffer([layer_weights(layer, name)[d] for name in WEIGHTS], inputs.dtype),
            True,  # has biases
            1,  # layers
            0.0,  # dropout
            torch.is_grad_enabled(),  # training: keep what the backward pass needs
            False,  # bidirectional
            False,  # batch first
        )
        outputs.append(hidden.flatten(0, 1))
    return torch.stack(outputs)


def _in_one_buffer(weights: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Casts weights into one flat buffer, as cuDNN wants them; else it warns and copies them."""
    flat = torch.cat([weight.flatten() for weight in weights]).to(dtype)
    parts = torch.split(flat, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


class _Recurrence(torch.autograd.Function):
    """The part of a GRU that goes step by step, with its gradient."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes arguments by position
        ctx: Any, gates: Tensor, state: Tensor, weight: Tensor, bias: Tensor, packing: Packing
    ) -> Tensor:
        """Hidden states of every position.

        Args:
            ctx: Of autograd.
            gates: (D, N, 3H), W_i x + b_i.
            state: (D, B, H), before the first step.
            weight: (D, 3H, H), W_h.
            bias: (D, 3H), b_h.
            packing: Of the N positions.

        Returns:
            (D, N, H).
        """
        h = state.shape[-1]
        reset_update = torch.empty_like(gates[..., : 2 * h])  # r and z
        new = torch.empty_like(gates[..., 2 * h :])  # n
        recurrent_new = torch.empty_like(new)  # W_hn h + b_hn
        outputs = torch.empty_like(new)
        transposed, bias = weight.transpose(1, 2), bias.unsqueeze(1)
        hidden, start = state, 0
        for rows in packing.sizes:
            at = slice(start, start + rows)
            hidden = hidden[:, :rows]
            recurrent = torch.baddbmm(bias, hidden, transposed)  # (D, rows, 3H)
            rz, n, u = reset_update[:, at], new[:, at], recurrent_new[:, at]
            torch.add(gates[:, at, : 2 * h], recurrent[..., : 2 * h], out=rz).sigmoid_()
            u.copy_(recurrent[..., 2 * h :])
            torch.addcmul(gates[:, at, 2 * h :], rz[..., :h], u, out=n).tanh_()
            hidden = torch.lerp(n, hidden, rz[..., h:], out=outputs[:, at])
            start += rows
        ctx.save_for_backward(reset_update, new, recurrent_new, outputs, state, weight)
        ctx.packing = packing
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """What a state's gradient is multiplied by is known beforehand, but for the gradient."""
        reset_update, n, u, outputs, state, weight = ctx.saved_tensors
        h = state.shape[-1]
        r, z = reset_update[..., :h], reset_update[..., h:]
        before = torch.cat([state, outputs.index_select(1, ctx.packing.previous)], dim=1)
        to_new = (1 - z) * (1 - n * n)  # d h' / d (the argument of tanh)
        factors = n.new_empty(*n.shape[:2], 3, h)  # d h' / d (W_h h + b_h), of r, z and n
        torch.mul(to_new * u, r * (1 - r), out=factors[:, :, 0])
        torch.mul(before - n, z * (1 - z), out=factors[:, :, 1])
        torch.mul(to_new, r, out=factors[:, :, 2])

        to_state = gradient.clone()  # d loss / d h', gathered from its two uses
        end, carried = n.shape[1], None
        for rows in reversed(ctx.packing.sizes):
            at = slice(end - rows, end)
            here = to_state[:, at]
            if carried is not None:
                here[:, : carried.shape[1]] += carried
            through_gates = factors[:, at].mul_(here.unsqueeze(2)).flatten(2)  # (D, rows, 3H)
            carried = torch.baddbmm(here * z[:, at], through_gates, weight)
            end -= rows
        recurrent = factors.flatten(2)  # (D, N, 3H), d loss / d (W_h h + b_h)
        gates = recurrent.clone()
        torch.mul(to_state, to_new, out=gates[..., 2 * h :])
        return (
            gates,
            carried,
            torch.bmm(recurrent.transpose(1, 2), before),
            recurrent.sum(dim=1),
            None,
        )
