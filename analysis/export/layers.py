"""Matrix products of an exported module: one class for each way to compute them, all called alike.

Weights and biases are read once, here; whoever uses a layer does not know its precision. This file
is compiled by TorchScript, which reads annotations as they stand.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.export.quiet import quiet
from model.errors import ExportError

#: What `linear_layer` can compute in.
PRECISIONS = ("fp32", "bf16", "int8")

# Shapes: N rows, I inputs, O outputs.


def linear_layer(weight: Tensor, bias: Tensor, precision: str, packed: bool = True) -> nn.Module:
    """A linear layer for inference, inputs (N, I) -> (N, O).

    Args:
        weight: (O, I), fp32, on the device where it will be used.
        bias: (O,), fp32.
        precision: One of `PRECISIONS`; int8 on the CPU alone.
        packed: On the CPU, lay the weight out beforehand as oneDNN wants it.

    Raises:
        ExportError: where that is wanted and this torch has no oneDNN.
    """
    weight, bias = weight.detach(), bias.detach()
    if precision == "int8":
        return _int8_layer(weight, bias)
    if precision == "bf16":
        weight, bias = weight.bfloat16(), bias.bfloat16()
    if packed and weight.device.type == "cpu":
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


class PlainLinear(nn.Module):
    """By torch's own product, on any device, in the dtype of the weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone())
        self.register_buffer("bias", bias.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, I) -> (N, O)."""
        return F.linear(inputs.to(self.weight.dtype), self.weight, self.bias)


# oneDNN's product takes an empty list of optional numbers, a type that TorchScript knows but that
# no Python annotation can name.
_ONEDNN_LINEAR = """
graph(%inputs : Tensor, %weight : Tensor, %bias : Tensor):
  %none : str = prim::Constant[value="none"]()
  %scalars : Scalar?[] = prim::ListConstruct()
  %algorithm : str = prim::Constant[value=""]()
  %outputs : Tensor = mkldnn::_linear_pointwise(
      %inputs, %weight, %bias, %none, %scalars, %algorithm)
  return (%outputs)
"""
#: The product as TorchScript calls it by this name; made when it is first needed (`_make_product`).
onednn_linear: Any = None

NEEDS_ONEDNN = (
    "needs a torch (in C++, a libtorch) built with oneDNN, as the usual ones are; this one "
    "was not. Take ONNX, or torch.export."
)


def has_onednn() -> bool:
    """Whether this torch was built with oneDNN and its product for inference."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _make_product() -> None:
    """Makes `onednn_linear`.

    Raises:
        ExportError: where this torch has no oneDNN.
    """
    global onednn_linear  # noqa: PLW0603  # TorchScript looks it up among this file's names
    if not has_onednn():
        raise ExportError(f"a TorchScript or text file for the CPU {NEEDS_ONEDNN}")
    if onednn_linear is None:
        graph = torch._C.parse_ir(_ONEDNN_LINEAR)
        onednn_linear = torch._C._create_function_from_graph("__torch__.onednn_linear", graph)


class PackedLinear(nn.Module):
    """By oneDNN, fp32 or bf16, with the weight laid out beforehand as its product wants it.

    The layout depends on the processor: the file holds the plain weight, and it is laid out anew
    when the file is loaded.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        _make_product()
        self.dtype = weight.dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.bias = bias.clone()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, I) -> (N, O)."""
        outputs: Tensor = onednn_linear(inputs.to(self.dtype), self.weight, self.bias)
        return outputs

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, Tensor, torch.dtype, bool]:
        return self.weight.to_dense(), self.bias, self.dtype, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, Tensor, torch.dtype, bool]) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(state[0])
        self.bias = state[1]
        self.dtype = state[2]
        self.training = state[3]


def _int8_layer(weight: Tensor, bias: Tensor) -> nn.Module:
    """Weights of 8 bits with a scale for each output; inputs are quantised as they come."""
    scales = weight.abs().amax(dim=1).clamp(min=1e-8) / 127
    with quiet():
        from torch.ao.nn.quantized.dynamic import Linear

        quantised = torch.quantize_per_channel(
            weight, scales, torch.zeros(len(weight), dtype=torch.int64), 0, torch.qint8
        )
        layer: Any = Linear(weight.shape[1], weight.shape[0])  # type: ignore[no-untyped-call]
        layer.set_weight_bias(quantised, bias)
        made: nn.Module = layer
    return made
