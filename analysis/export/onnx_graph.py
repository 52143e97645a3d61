"""The greedy search as one ONNX graph: ONNX's own GRU and Loop over the model's weights.

The graph is written node by node. `torch.onnx.export` cannot make it: the exporter over
`torch.export` unrolls a GRU for one source length and has no loop that ends on data, and the one
over TorchScript is deprecated. ONNX has both, so the graph is hardly longer than the equations.

Inputs, of which the last three may be left out:

    source      int64 (B, S)  word ids, each row ending with EOS and then PAD
    lengths     int64 (B,)    real tokens of each row, EOS included
    max_words   int64 ()      steps; default the model's longest reply
    early_exit  bool ()       stop as soon as every row has ended; default true
    replies     int64 (B, T)  name the best next word after each beginning of these; default none

Outputs: words int64 (B, T), and the log-probability of each among the words that may be said,
scores float (B, T); after its end a row has PAD and 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analysis.export.greedy import NEVER
from model.attention import ConcatScore, GeneralScore
from model.decoding import NEVER_SAID
from model.gru import WEIGHTS
from model.seq2seq import Seq2Seq, gru_layers
from model.vocabulary import EOS, PAD, SOS

OPSET = 18
_IR_VERSION = 10  # the first that knows everything of the opset; older runtimes refuse newer ones

# Shapes: B batch, S source length, T target length, H hidden, E embedding, V vocabulary, L layers.


class _Nodes:
    """Nodes and weights of a graph, named in the order in which they are added."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._prefix = prefix

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of names."""
        from onnx import helper

        number = len(self.nodes)
        names = [f"{self._prefix}{operator.lower()}_{number}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, value: Tensor, name: str = "") -> str:
        """Adds a constant; returns its name."""
        from onnx import numpy_helper

        name = name or f"{self._prefix}weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.detach().cpu().numpy(), name))
        return name

    def numbers(self, *values: int) -> str:
        """Adds a list of whole numbers."""
        return self.weight(torch.tensor(values, dtype=torch.int64))

    def linear(self, inputs: str, weight: Tensor, bias: Tensor) -> str:
        """(b, I) -> (b, O)."""
        named = self.weight(weight), self.weight(bias)
        return str(self.add("Gemm", inputs, *named, transB=1))

    def projected_keys(self, keys: str, layer: nn.Linear) -> str:
        """(B, S, H) -> (B, S, H)."""
        product = self.add("MatMul", keys, self.weight(layer.weight.t().contiguous()))
        return str(
            product if layer.bias is None else self.add("Add", product, self.weight(layer.bias))
        )


def make_graph(model: Seq2Seq, max_words: int, metadata: dict[str, str]) -> Any:
    """Writes the graph.

    Args:
        model: The weights.
        max_words: The longest reply, by default.
        metadata: What the file says of itself.

    Returns:
        An ``onnx.ModelProto`` that onnx's checker has accepted.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes = _Nodes()
    words, scores = _loop(nodes, model, _encode(nodes, model))
    nodes.nodes.append(helper.make_node("Transpose", [words], ["words"], perm=[1, 0]))
    nodes.nodes.append(helper.make_node("Transpose", [scores], ["scores"], perm=[1, 0]))
    nodes.weight(torch.tensor(max_words), "max_words")
    nodes.weight(torch.tensor(True), "early_exit")
    nodes.weight(torch.zeros((0, 0), dtype=torch.int64), "replies")
    graph = helper.make_graph(
        nodes.nodes,
        "greedy_search",
        [
            helper.make_tensor_value_info("source", TensorProto.INT64, ["B", "S"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]),
            helper.make_tensor_value_info("max_words", TensorProto.INT64, []),
            helper.make_tensor_value_info("early_exit", TensorProto.BOOL, []),
            helper.make_tensor_value_info("replies", TensorProto.INT64, ["rows", "given"]),
        ],
        [
            helper.make_tensor_value_info("words", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", "T"]),
        ],
        nodes.weights,
    )
    made = helper.make_model(
        graph,
        producer_name="dialogue-tune",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made


def graph_text(made: Any) -> str:
    """The graph in ONNX's own notation, without the weights."""
    from onnx import GraphProto, printer

    shown = GraphProto(name=made.graph.name)
    for field in ("node", "input", "output"):
        getattr(shown, field).extend(getattr(made.graph, field))
    return str(printer.to_text(shown))


@dataclass(frozen=True)
class _Encoded:
    """Names of what the decoder reads of the source.

    Attributes:
        keys: (B, S, H).
        prepared: The attention score's view of them, (B, S, H).
        padding: (B, S), 0 at real positions and -inf at padding.
        state: (L, B, H), the decoder's first state.
    """

    keys: str
    prepared: str
    padding: str
    state: str


def _encode(nodes: _Nodes, model: Seq2Seq) -> _Encoded:
    """The encoder."""
    from onnx import TensorProto

    steps_first = nodes.add("Transpose", "source", perm=[1, 0])  # (S, B)
    values = nodes.add("Gather", nodes.weight(model.embedding.weight), steps_first)  # (S, B, E)
    lengths = nodes.add("Cast", "lengths", to=TensorProto.INT32)
    outputs, states = "", []
    for layer in gru_layers(model.encoder):
        weights = [_gru_weight(layer, name) for name in WEIGHTS]
        outputs, last = nodes.add(
            "GRU",
            values,
            nodes.weight(weights[0]),
            nodes.weight(weights[1]),
            nodes.weight(torch.cat(weights[2:], dim=1)),
            lengths,
            outputs=2,
            direction="bidirectional",
            hidden_size=layer.hidden_size,
            linear_before_reset=1,
        )  # (S, 2, B, H), (2, B, H)
        by_row = nodes.add("Transpose", outputs, perm=[0, 2, 1, 3])  # (S, B, 2, H)
        values = nodes.add("Reshape", by_row, nodes.numbers(0, 0, -1))  # (S, B, 2H)
        states.append(last)
    summed = nodes.add("ReduceSum", outputs, nodes.numbers(1), keepdims=0)  # (S, B, H)
    count = 2 * len(states)
    which = nodes.numbers(*(i % count for i in range(model.config.decoder_layers)))
    every = nodes.add("Concat", *states, axis=0)
    keys = nodes.add("Transpose", summed, perm=[1, 0, 2])
    return _Encoded(
        keys=keys,
        prepared=_prepare(nodes, model, keys),
        padding=_padding(nodes),
        state=nodes.add("Gather", every, which),
    )


def _gru_weight(layer: nn.GRU, name: str) -> Tensor:
    """Of both directions, (2, 3H, ...), gates in ONNX's order z, r, n; torch's is r, z, n."""
    both = []
    for suffix in ("", "_reverse"):
        reset, update, new = getattr(layer, f"{name}_l0{suffix}").chunk(3)
        both.append(torch.cat([update, reset, new]))
    return torch.stack(both)


def _padding(nodes: _Nodes) -> str:
    """(B, S), 0 at real positions and -inf at padding."""
    one = torch.tensor(1)
    shape = nodes.add("Shape", "source")
    width = nodes.add("Gather", shape, nodes.weight(one), axis=0)
    positions = nodes.add("Range", nodes.weight(one * 0), width, nodes.weight(one))
    real = nodes.add("Less", positions, nodes.add("Unsqueeze", "lengths", nodes.numbers(1)))
    never = nodes.weight(torch.tensor(float("-inf")))
    return str(nodes.add("Where", real, nodes.weight(torch.tensor(0.0)), never))


def _prepare(nodes: _Nodes, model: Seq2Seq, keys: str) -> str:
    """The keys as the attention score takes them, once a source."""
    score = model.decoder.score
    if isinstance(score, GeneralScore):
        return nodes.projected_keys(keys, score.projection)
    if isinstance(score, ConcatScore):
        return nodes.projected_keys(keys, score.key_projection)
    return keys


def _loop(nodes: _Nodes, model: Seq2Seq, source: _Encoded) -> Any:
    """Words and scores (T, B) each."""
    rows = nodes.add("Shape", "lengths")  # (1,)
    start = nodes.add("Expand", nodes.weight(torch.tensor(SOS)), rows)
    ended = nodes.add("Expand", nodes.weight(torch.tensor(False)), rows)
    given = nodes.add("Gather", nodes.add("Shape", "replies"), nodes.weight(torch.tensor(1)))
    following = nodes.add("Greater", given, nodes.weight(torch.tensor(0)))
    body = _body(nodes, model, source, following)
    outputs = nodes.add(
        "Loop",
        *("max_words", "", start, source.state, ended),
        outputs=5,
        body=body,
    )
    return outputs[3:]


def _body(outer: _Nodes, model: Seq2Seq, source: _Encoded, following: str) -> Any:
    """One step. Its weights lie in the outer graph, where a runtime prepares them once."""
    from onnx import TensorProto, helper

    step = _Nodes("step_")
    step.weights = outer.weights
    words = _previous(step, following)
    inputs, after = words, []
    for i in range(model.config.decoder_layers):
        hidden = step.add("Gather", "state", step.weight(torch.tensor(i)), axis=0)
        inputs = _cell(step, model, i, inputs, hidden)
        after.append(step.add("Unsqueeze", inputs, step.numbers(0)))
    context = _attend(step, model, inputs, source)
    both = step.add("Concat", inputs, context, axis=1)
    combine, bias = model.decoder.combine, model.output.bias.detach().clone()
    bias[list(NEVER_SAID)] = NEVER
    attentional = step.add("Tanh", step.linear(both, combine.weight, combine.bias))
    scores = step.linear(attentional, model.output.weight, bias)  # (B, V)
    best = step.add("ReduceMax", scores, step.numbers(1), keepdims=1)
    rest = step.add("ReduceLogSumExp", step.add("Sub", scores, best), step.numbers(1), keepdims=0)
    word = step.add("ArgMax", scores, axis=1, keepdims=0)
    pad = step.weight(torch.tensor(PAD))
    said = step.add("Where", "ended", pad, word)
    zero = step.weight(torch.tensor(0.0))
    score = step.add("Where", "ended", zero, step.add("Neg", rest))
    ends = step.add("Equal", said, step.weight(torch.tensor(EOS)))
    ended = step.add("And", step.add("Or", "ended", ends), step.add("Not", following))
    number = step.add("Cast", ended, to=TensorProto.INT32)
    every = step.add("Cast", step.add("ReduceMin", number, keepdims=0), to=TensorProto.BOOL)
    goes_on = step.add("Not", step.add("And", "early_exit", every))
    state = step.add("Concat", *after, axis=0)
    layers, hidden_size = model.config.decoder_layers, model.config.hidden_size
    return helper.make_graph(
        step.nodes,
        "step",
        [
            helper.make_tensor_value_info("t", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("last", TensorProto.INT64, ["B"]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [layers, "B", hidden_size]),
            helper.make_tensor_value_info("ended", TensorProto.BOOL, ["B"]),
        ],
        [
            helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
            helper.make_tensor_value_info(said, TensorProto.INT64, ["B"]),
            helper.make_tensor_value_info(state, TensorProto.FLOAT, [layers, "B", hidden_size]),
            helper.make_tensor_value_info(ended, TensorProto.BOOL, ["B"]),
            *_step_outputs(step, said, score),
        ],
    )


def _step_outputs(step: _Nodes, said: str, score: str) -> Sequence[Any]:
    """What the loop collects; a name must not be output twice."""
    from onnx import TensorProto, helper

    names = step.add("Identity", said), step.add("Identity", score)
    return [
        helper.make_tensor_value_info(names[0], TensorProto.INT64, ["B"]),
        helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["B"]),
    ]


def _previous(step: _Nodes, following: str) -> str:
    """The previous words (B,): of the given replies after the first step, else what was said."""
    from onnx import TensorProto, helper

    one = step.weight(torch.tensor(1))
    later = step.add("GreaterOrEqual", "t", one)
    given = step.add("And", later, following)
    before = step.add("Sub", "t", one)
    branches = []
    for name, node in (
        ("given", helper.make_node("Gather", ["replies", before], ["given_word"], axis=1)),
        ("said", helper.make_node("Identity", ["last"], ["said_word"])),
    ):
        output = helper.make_tensor_value_info(f"{name}_word", TensorProto.INT64, ["B"])
        branches.append(helper.make_graph([node], name, [], [output]))
    return str(step.add("If", given, then_branch=branches[0], else_branch=branches[1]))


def _cell(step: _Nodes, model: Seq2Seq, number: int, inputs: str, hidden: str) -> str:
    """The equations of `model.gru`: the next state (B, H)."""
    input_weight, hidden_weight, input_bias, hidden_bias = (
        getattr(gru_layers(model.decoder)[number], f"{name}_l0") for name in WEIGHTS
    )
    if number == 0:  # the input gates of every word, computed now
        table = torch.addmm(input_bias, model.embedding.weight, input_weight.t())
        gates = step.add("Gather", step.weight(table), inputs)
    else:
        gates = step.linear(inputs, input_weight, input_bias)
    recurrent = step.linear(hidden, hidden_weight, hidden_bias)
    r, z, n = step.add("Split", gates, outputs=3, axis=1, num_outputs=3)
    of_r, of_z, of_n = step.add("Split", recurrent, outputs=3, axis=1, num_outputs=3)
    reset = step.add("Sigmoid", step.add("Add", r, of_r))
    update = step.add("Sigmoid", step.add("Add", z, of_z))
    new = step.add("Tanh", step.add("Add", n, step.add("Mul", reset, of_n)))
    kept = step.add("Mul", update, step.add("Sub", hidden, new))
    return str(step.add("Add", new, kept))


def _attend(step: _Nodes, model: Seq2Seq, query: str, source: _Encoded) -> str:
    """The context (B, H) of a query (B, H)."""
    score = model.decoder.score
    if isinstance(score, ConcatScore):
        projected = step.linear(query, score.query_projection.weight, score.query_projection.bias)
        wide = step.add("Unsqueeze", projected, step.numbers(1))  # (B, 1, H)
        pairs = step.add("Tanh", step.add("Add", wide, source.prepared))  # (B, S, H)
        direction = step.weight(score.direction.weight.t().contiguous())
        scores = step.add("MatMul", pairs, direction)  # (B, S, 1)
    else:
        scores = step.add("MatMul", source.prepared, step.add("Unsqueeze", query, step.numbers(2)))
    flat = step.add("Add", step.add("Squeeze", scores, step.numbers(2)), source.padding)
    weights = step.add("Unsqueeze", step.add("Softmax", flat, axis=1), step.numbers(1))
    context = step.add("MatMul", weights, source.keys)  # (B, 1, S) @ (B, S, H)
    return str(step.add("Squeeze", context, step.numbers(1)))


class OnnxSearch:
    """An ONNX file called as `analysis.export.greedy.GreedySearch` is, through onnxruntime.

    Args:
        content: The bytes of the file.
        threads: For one call; None takes torch's number.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # it warns that inputs with a default are no constants
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def __call__(
        self, source: Tensor, lengths: Tensor, max_words: int, early_exit: bool
    ) -> tuple[Tensor, Tensor]:
        """Decodes greedily."""
        return self._run(source, lengths, max_words=max_words, early_exit=early_exit)

    def follow(self, source: Tensor, lengths: Tensor, replies: Tensor) -> tuple[Tensor, Tensor]:
        """The best next word after each beginning of given replies, and its log-probability."""
        return self._run(source, lengths, max_words=replies.shape[1], replies=replies)

    def _run(
        self,
        source: Tensor,
        lengths: Tensor,
        *,
        max_words: int,
        early_exit: bool = False,
        replies: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        inputs = {"source": source, "lengths": lengths.clamp(1, source.shape[1])}
        inputs |= {"max_words": torch.tensor(max_words), "early_exit": torch.tensor(early_exit)}
        inputs |= {} if replies is None else {"replies": replies}
        words, scores = self.session.run(
            ["words", "scores"], {name: value.numpy() for name, value in inputs.items()}
        )
        return torch.from_numpy(words), torch.from_numpy(scores)
