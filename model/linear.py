"""Matrix products with a weight, by the library that does them fastest.

On the CPU torch hands products of fp32 numbers to MKL and of bf16 numbers to oneDNN. oneDNN is no
slower in fp32, and faster with one thread or few rows (``docs/speed.md``), with the same accuracy,
so the forward product is asked of it directly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Shapes: N positions, I inputs, O outputs.

_ONEDNN: Any = (
    torch.ops.mkldnn._linear_pointwise
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else None
)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer, inputs @ weight.T + bias, computed in the dtype of the inputs.

    Args:
        inputs: (N, I), fp32 or bf16.
        weight: (O, I), cast to the dtype of the inputs.
        bias: (O,), likewise.
    """
    if inputs.dtype != torch.float32 or inputs.device.type != "cpu" or _ONEDNN is None:
        return F.linear(inputs, weight.to(inputs.dtype), bias.to(inputs.dtype))
    if torch.is_grad_enabled():
        product: Tensor = _OneDnnLinear.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return _onednn(inputs, weight, bias)


def _onednn(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    product: Tensor = _ONEDNN(inputs, weight, bias, "none", [], "")
    return product


class _OneDnnLinear(torch.autograd.Function):
    """The operator itself has no derivative; MKL is as fast for the gradients."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _onednn(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        return gradient @ weight, gradient.t() @ inputs, gradient.sum(dim=0)
