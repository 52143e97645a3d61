"""From a trained model to a TorchScript module: scripted throughout, or with its parts traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from analysis.export.greedy import (
    NEVER,
    BidirectionalLayer,
    ConcatScore,
    Direction,
    DotScore,
    GeneralScore,
    GreedySearch,
    Layer,
    PackedEncoder,
    Step,
    TorchEncoder,
    WordGates,
)
from analysis.export.layers import PRECISIONS, PlainLinear, linear_layer
from analysis.export.packages import BucketEncoder, WordStep
from analysis.export.quiet import quiet
from model.attention import ConcatScore as TrainedConcatScore
from model.attention import GeneralScore as TrainedGeneralScore
from model.decoding import NEVER_SAID
from model.errors import ConfigurationError
from model.gru import WEIGHTS
from model.model_directory import DialogueModel
from model.seq2seq import Seq2Seq, gru_layers
from model.vocabulary import EOS, PAD

#: How TorchScript comes by the modules.
FORMS = ("script", "trace")

#: Weights of one direction of a layer, as `model.gru.WEIGHTS` lists them.
Weights = Sequence[Tensor]


def build(
    model: DialogueModel, *, form: str = "script", precision: str = "fp32", device: str = "cpu"
) -> torch.jit.ScriptModule:
    """Builds the greedy search of a model as a TorchScript module.

    Called with ``(source (B, S) int64, lengths (B,) int64, max_words, early_exit)`` it returns the
    words (B, T) int64 and the log-probability of each among the words that may be said (B, T) fp32;
    see `analysis.export.greedy.GreedySearch`.

    Args:
        model: The model; its weights are copied.
        form: ``script``: all of it compiled. ``trace``: encoder and decoder step traced, and the
            search around them compiled.
        precision: ``fp32``, ``bf16`` (products and states), or ``int8`` (products; on the CPU).
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: for a form, precision or device that there is not.
    """
    check_choices(form=form, precision=precision, device=device)
    with quiet(), torch.no_grad():
        search = make_search(_copied(model, device), form=form, precision=precision)
        module: torch.jit.ScriptModule = torch.jit.script(search.eval())
    return module


def _copied(model: DialogueModel, device: str) -> Seq2Seq:
    seq2seq = Seq2Seq(model.config.model, len(model.vocabulary))
    seq2seq.load_state_dict(model.model.state_dict())
    return seq2seq.to(device).eval().requires_grad_(False)


def check_choices(*, form: str, precision: str, device: str) -> None:
    """Checks what was asked for.

    Raises:
        ConfigurationError: naming everything that cannot be.
    """
    problems = []
    for name, value, valid in (
        ("form", form, FORMS),
        ("precision", precision, PRECISIONS),
        ("device", device, ("cpu", "cuda")),
    ):
        if value not in valid:
            problems.append(f"{name}: must be one of {', '.join(valid)}, but got {value!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        problems.append("device: there is no CUDA device here; use cpu.")
    if device == "cuda" and precision == "int8":
        problems.append("precision: int8 products are for the CPU; use bf16 or fp32 on a GPU.")
    if problems:
        raise ConfigurationError("export", problems)


def make_search(model: Seq2Seq, *, form: str, precision: str) -> GreedySearch:
    """The search over a model's weights; with ``trace`` its two parts are traced."""
    step = _make_step(model, precision)
    on_gpu = model.output.weight.device.type == "cuda"
    if form == "trace" or on_gpu:
        encoder = _make_torch_encoder(model, precision)
    else:
        encoder = _make_packed_encoder(model, precision)
    if form == "trace":
        return GreedySearch(*_traced(encoder.eval(), step.eval(), model))
    return GreedySearch(encoder, step)


def _traced(encoder: nn.Module, step: nn.Module, model: Seq2Seq) -> tuple[nn.Module, nn.Module]:
    """Both parts traced on three sources of different lengths."""
    device = model.output.weight.device
    source = torch.full((3, 5), EOS, device=device)
    source[1, 4:], source[2, 2:] = PAD, PAD
    lengths = torch.tensor([5, 4, 2], device=device)
    trace: Callable[..., nn.Module] = torch.jit.trace
    traced_encoder = trace(encoder, (source, lengths))
    keys, prepared, padding, state = encoder(source, lengths)
    examples = torch.full((3,), EOS, device=device), state, keys, prepared, padding
    return traced_encoder, trace(step, examples)


def _weights_of(layer: nn.GRU, direction: str = "") -> Weights:
    """`model.gru.WEIGHTS` of a layer; of its second direction with ``_reverse``."""
    return [getattr(layer, f"{name}_l0{direction}") for name in WEIGHTS]


def _dtype(precision: str) -> torch.dtype:
    """Of tables and states."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _word_gates(model: Seq2Seq, weights: Weights, precision: str) -> nn.Module:
    weight, _, bias, _ = (given.detach() for given in weights)
    return WordGates(model.embedding.weight.detach(), weight, bias, _dtype(precision))


def _make_packed_encoder(model: Seq2Seq, precision: str) -> nn.Module:
    layers = nn.ModuleList()
    for i, layer in enumerate(gru_layers(model.encoder)):
        directions = []
        for suffix in ("", "_reverse"):
            weights = _weights_of(layer, suffix)
            input_weight, hidden_weight, input_bias, hidden_bias = weights
            inputs = (
                _word_gates(model, weights, precision)
                if i == 0
                else linear_layer(input_weight, input_bias, precision)
            )
            recurrent = linear_layer(hidden_weight, hidden_bias, precision)
            directions.append(Direction(inputs, recurrent, hidden_bias.to(_dtype(precision))))
        layers.append(BidirectionalLayer(*directions))
    return PackedEncoder(layers, _make_score(model), model.config.decoder_layers)


def _make_torch_encoder(model: Seq2Seq, precision: str) -> nn.Module:
    dtype = _dtype(precision)
    layers = gru_layers(model.encoder)
    first = layers[0]
    gru = nn.GRU(
        first.input_size, first.hidden_size, len(layers), batch_first=True, bidirectional=True
    )
    for i, layer in enumerate(layers):
        for suffix in ("", "_reverse"):
            for name in WEIGHTS:
                copied = getattr(layer, f"{name}_l0{suffix}")
                getattr(gru, f"{name}_l{i}{suffix}").data.copy_(copied)
    gru = gru.to(model.output.weight.device, dtype).requires_grad_(False)
    table = model.embedding.weight.detach().to(dtype)
    return TorchEncoder(table, gru, _make_score(model), model.config.decoder_layers)


def make_package_parts(
    model: DialogueModel, *, precision: str, device: str
) -> tuple[nn.Module, nn.Module]:
    """A `BucketEncoder` and a `WordStep`, of layers that `torch.export` can read."""
    with torch.no_grad():
        seq2seq = _copied(model, device)
        layers = nn.ModuleList()
        for layer in gru_layers(seq2seq.encoder):
            directions = nn.ModuleList()
            for suffix in ("", "_reverse"):
                weights = _weights_of(layer, suffix)
                products = [
                    linear_layer(weights[i], weights[i + 2], precision, packed=False)
                    for i in (0, 1)
                ]
                directions.append(nn.ModuleList(products))
            layers.append(directions)
        table = seq2seq.embedding.weight.detach().to(_dtype(precision))
        score, count = _make_score(seq2seq), seq2seq.config.decoder_layers
        encoder = BucketEncoder(table, layers, score, count)
        return encoder.eval(), WordStep(_make_step(seq2seq, precision, packed=False)).eval()


def _make_step(model: Seq2Seq, precision: str, packed: bool = True) -> Step:
    layers = nn.ModuleList()
    for i, layer in enumerate(gru_layers(model.decoder)):
        weights = _weights_of(layer)
        input_weight, hidden_weight, input_bias, hidden_bias = weights
        inputs = (
            _word_gates(model, weights, precision)
            if i == 0
            else linear_layer(input_weight, input_bias, precision, packed=packed)
        )
        recurrent = linear_layer(hidden_weight, hidden_bias, precision, packed=packed)
        layers.append(Layer(inputs, recurrent))
    combine = model.decoder.combine
    bias = model.output.bias.detach().clone()
    bias[list(NEVER_SAID)] = NEVER
    return Step(
        layers,
        _make_score(model),
        linear_layer(combine.weight, combine.bias, precision, packed=packed),
        linear_layer(model.output.weight, bias, precision, packed=packed),
    )


def _make_score(model: Seq2Seq) -> nn.Module:
    """The attention score, which is always computed in fp32."""
    score = model.decoder.score
    if isinstance(score, TrainedGeneralScore):
        return GeneralScore(_plain(score.projection))
    if isinstance(score, TrainedConcatScore):
        parts = score.query_projection, score.key_projection, score.direction
        return ConcatScore(*map(_plain, parts))
    return DotScore()


def _plain(layer: nn.Linear) -> nn.Module:
    weight = layer.weight.detach()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    return PlainLinear(weight, bias)
