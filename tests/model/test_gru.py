"""Our recurrence is torch's GRU, forwards and backwards, in every layout and precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model import gru as module
from model.gru import _cudnn, _Recurrence, gru
from model.linear import linear
from model.packing import Packing

LENGTHS = torch.tensor([3, 7, 1, 7, 5, 2, 2, 6, 4, 1])
INPUTS, H = 6, 5


def layer(bidirectional):
    torch.manual_seed(0)
    return nn.GRU(INPUTS, H, bidirectional=bidirectional)


def real():
    return torch.arange(int(LENGTHS.max())) < LENGTHS.unsqueeze(1)


def reference(torch_layer, padded, state):
    """Torch's own, over PackedSequence; outputs and states with rows as in the batch."""
    packed = pack_padded_sequence(padded, LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, last = torch_layer(packed, state)
    return pad_packed_sequence(outputs, batch_first=True)[0], last


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("path", "static"), [("recurrence", False), ("recurrence", True), ("cudnn", True)]
)
def test_equals_torch_with_gradients(bidirectional, path, static, monkeypatch):
    if path == "cudnn":  # what a GPU runs, which torch also has for the CPU
        monkeypatch.setattr(module, "_recurrence", _cudnn)
    ours = layer(bidirectional)
    theirs = copy.deepcopy(ours)
    directions = 2 if bidirectional else 1
    inputs = torch.randn(len(LENGTHS), 7, INPUTS) * real().unsqueeze(2)
    state = torch.randn(directions, len(LENGTHS), H)
    weights = torch.randn(len(LENGTHS), 7, directions * H) * real().unsqueeze(2)
    found = []
    for run in ("ours", "theirs"):
        x, h = inputs.clone().requires_grad_(), state.clone().requires_grad_()
        if run == "ours":
            packing = Packing.static(real()) if static else Packing.tight(LENGTHS)
            outputs, last = gru(ours, packing.pack(x), h, packing)
            outputs = packing.pad(outputs.transpose(0, 1).flatten(1))
            parameters = ours.parameters()
        else:
            outputs, last = reference(theirs, x, h)
            parameters = theirs.parameters()
        ((outputs * weights).sum() + (last**2).sum()).backward()
        # In the static layout what stands at padding is computed too, and hidden by masks.
        gradients = [p.grad for p in parameters]
        found.append([outputs * real().unsqueeze(2), last, x.grad, h.grad, *gradients])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_no_state_is_zeros():
    packing = Packing.tight(LENGTHS)
    inputs = torch.randn(len(packing.flat), INPUTS)
    zeros = torch.zeros(2, len(LENGTHS), H)
    torch.testing.assert_close(
        gru(layer(True), inputs, None, packing), gru(layer(True), inputs, zeros, packing)
    )


def test_gradients_by_finite_differences():
    packing = Packing.tight(LENGTHS[:4])
    torch.manual_seed(1)
    d, n, h = 2, len(packing.flat), 3
    arguments = [(d, n, 3 * h), (d, 4, h), (d, 3 * h, h), (d, 3 * h)]
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in arguments]
    assert torch.autograd.gradcheck(lambda *t: _Recurrence.apply(*t, packing), tensors)


def test_bf16_is_near_fp32():
    packing = Packing.tight(LENGTHS)
    inputs = torch.randn(len(packing.flat), INPUTS)
    exact, _ = gru(layer(True), inputs, None, packing)
    near, last = gru(layer(True), inputs.bfloat16(), None, packing)
    assert near.dtype == last.dtype == torch.bfloat16
    torch.testing.assert_close(near.float(), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_is_torchs_with_gradients(dtype):
    weight, bias = torch.randn(7, 4, requires_grad=True), torch.randn(7, requires_grad=True)
    inputs = torch.randn(9, 4, requires_grad=True)
    found = []
    for function in (linear, nn.functional.linear):
        cast = [t.to(dtype) for t in (inputs, weight, bias)]
        output = linear(cast[0], weight, bias) if function is linear else function(*cast)
        assert output.dtype == dtype
        (output.float() ** 2).sum().backward()
        found.append([output, *(t.grad.clone() for t in (inputs, weight, bias))])
        for tensor in (inputs, weight, bias):
            tensor.grad = None
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found[0], found[1], rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(linear(cast[0], weight, bias), found[0][0])
