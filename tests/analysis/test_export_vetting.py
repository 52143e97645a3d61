"""Code that somebody put into an export of torch.export is not run."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch

from analysis.export import exporting, load_exported
from analysis.export.build import build, make_package_parts
from analysis.export.packages import make_package, write_package
from analysis.export.vetting import vetted
from model.config import Config
from model.errors import ExportError
from model.model_directory import DialogueModel
from model.seq2seq import Seq2Seq
from model.vocabulary import EOS, Vocabulary

GRAPH = "archive/models/model.json"
EXAMPLES = "archive/data/sample_inputs/model.pt"
WEIGHTS = "archive/data/weights/model_weights_config.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    values = {"hidden_size": 3, "encoder_layers": 1, "decoder_layers": 1, "max_length": 2}
    config = Config.from_mapping(values)
    vocabulary = Vocabulary.from_list(["<pad>", "<sos>", "<eos>", "<unk>", "a", "b"])
    seq2seq = Seq2Seq(config.model, len(vocabulary)).eval()
    return DialogueModel(seq2seq, config, vocabulary, {}, {}, None)


@pytest.fixture(scope="module")
def package(model):
    encoder, step = make_package_parts(model, precision="fp32", device="cpu")
    programs = make_package(encoder, step, 2, "cpu")
    return write_package(programs, {"format": 1, "kind": "torch-export"})


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, directory):
        self.directory = str(directory)

    def __reduce__(self):
        return (os.mkdir, (self.directory,))


def rewritten(content, change):
    """A zip archive with what `change` makes of the contents of its files by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        files = {name: file.read(name) for name in file.namelist()}
    change(files)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, part in files.items():
            file.writestr(name, part)
    return written.getvalue()


def crafted(package, change):
    """A package whose step is changed."""

    def change_step(files):
        files["step.pt2"] = rewritten(files["step.pt2"], change)

    return rewritten(package, change_step)


def set_in(name, *path):
    """Changes one value of a JSON file in the archive: the last of `path` is the value."""
    *keys, last, value = path

    def change(files):
        whole = found = json.loads(files[name])
        for key in keys:
            found = found[key]
        found[last] = value
        files[name] = json.dumps(whole).encode()

    return change


def opened(content, tmp_path):
    path = tmp_path / "file.pt2.zip"
    path.write_bytes(content)
    return load_exported(path)


def test_what_is_vetted_says_the_same(model, package, tmp_path):
    found = opened(package, tmp_path)
    source, lengths = torch.tensor([[4, EOS], [5, EOS]]), torch.tensor([2, 2])
    words, scores = found(source, lengths, 3, False)
    expected = build(model)(source, lengths, 3, False)
    assert torch.equal(words, expected[0])
    torch.testing.assert_close(scores, expected[1])


def test_a_pickle_where_example_inputs_are_is_not_read(package, tmp_path):
    """torch.export.load would load it without `weights_only` once that has failed."""
    saved = io.BytesIO()
    torch.save((Bomb(tmp_path / "boom"), {}), saved)

    def change(files):
        assert EXAMPLES in files
        files[EXAMPLES] = saved.getvalue()

    content = crafted(package, change)
    opened(content, tmp_path)
    assert not (tmp_path / "boom").exists()
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        step = file.read("step.pt2")
    with contextlib.suppress(Exception):  # torch trips over its own warning
        torch.export.load(io.BytesIO(step))  # it is a bomb
    assert (tmp_path / "boom").exists()


def bombs():
    """What each is called, how the archive is changed, and what the error says."""
    program = "exec('import os; os.mkdir(\"boom\")')"

    def opaque(files):
        files["archive/data/constants/opaque_obj_0"] = pickle.dumps(Bomb("boom"))

    def older(files):
        files["archive/data/weights/model.pt"] = pickle.dumps(Bomb("boom"))

    def library(files):
        files["archive/data/aotinductor/model/model.so"] = b"ELF"

    def node(files):
        nodes = json.loads(files[GRAPH])["graph_module"]["graph"]["nodes"]
        set_in(GRAPH, *NODES, 0, nodes[0] | {"target": "torch.os.mkdir"})(files)

    def name(files):
        program = json.loads(files[GRAPH])
        inputs = program["graph_module"]["graph"]["inputs"]
        inputs[0]["as_tensor"]["name"] = "words=print(1)"
        files[GRAPH] = json.dumps(program).encode()

    size = {"min_val": 1, "max_val": 2}
    graph = ("graph_module", "graph")
    symbol = {"as_expr": {"expr_str": program, "hint": None}}
    pickled = {"path_name": "weight_0", "is_param": False, "use_pickle": True}
    structure = json.dumps([1, {"type": "os.mkdir", "context": "null", "children_spec": []}])
    signature = {"in_spec": structure, "out_spec": "", "inputs": [], "outputs": []}
    calls = [{"fqn": "", "signature": signature}]
    NODES = (*graph, "nodes")
    return {
        "opaque": (opaque, "'archive/data/constants/opaque_obj_0' is no file of an export"),
        "older format": (older, "'archive/data/weights/model.pt' is no file of an export"),
        "library": (library, "'archive/data/aotinductor/model/model.so' is no file"),
        "weight": (set_in(WEIGHTS, "config", "x", pickled), "'x' is pickled"),
        "constant": (set_in(CONSTANTS, "config", "x", pickled), "'x' is pickled"),
        "operator": (node, "target: 'torch.os.mkdir' is nothing that an export"),
        "size": (set_in(GRAPH, *graph, "sym_int_values", "s1", symbol), "expr_str: 'exec"),
        "argument": (name, r"name: 'words=print\(1\)' is nothing that"),
        "symbol": (set_in(GRAPH, "range_constraints", program, size), "name: 'exec"),
        "structure": (
            set_in(GRAPH, "graph_module", "module_call_graph", calls),
            "arguments of type 'os.mkdir'",
        ),
    }


@pytest.mark.parametrize("bomb", bombs())
def test_what_could_run_code_is_refused(package, tmp_path, monkeypatch, bomb):
    monkeypatch.chdir(tmp_path)
    change, message = bombs()[bomb]
    problem = f"file.pt2.zip: was not opened, since it could run code: {message}"
    with pytest.raises(ExportError, match=problem):
        opened(crafted(package, change), tmp_path)
    assert not (tmp_path / "boom").exists()


def test_guards_are_python_and_left_out(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = ["__import__('os').mkdir('boom') or True"]
    search = opened(crafted(package, set_in(GRAPH, "guards_code", code)), tmp_path)
    search(torch.tensor([[4, EOS]]), torch.tensor([2]), 3, False)
    assert not (tmp_path / "boom").exists()


def test_two_files_of_one_name_are_refused(package):
    """One reader takes the first of them, another the last."""
    with zipfile.ZipFile(io.BytesIO(package)) as file:
        step = io.BytesIO(file.read("step.pt2"))
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(step, "a") as file,
    ):
        file.writestr(GRAPH, b"{}")
    with pytest.raises(ExportError, match="a file in it is there twice"):
        vetted(step.getvalue())


class TestWithoutOneDnn:
    """As on a torch that was built without it."""

    def test_exports_can_be_imported(self):
        code = (
            "import torch; torch._C.parse_ir = None; torch.backends.mkldnn.is_available = bool\n"
            "import analysis.export"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_file_for_the_cpu_is_refused(self, model, monkeypatch):
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        with pytest.raises(
            ExportError, match="for the CPU needs a torch .* built with oneDNN, .* Take ONNX"
        ):
            build(model)

    def test_so_is_a_file_from_elsewhere(self, tmp_path, monkeypatch):
        def fail(*arguments):
            raise RuntimeError("Unknown builtin op: mkldnn::_reorder_linear_weight.")

        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            file.writestr("x/extra/export.json", '{"format": 1, "kind": "torchscript"}')
        monkeypatch.setattr(exporting, "_load_torchscript", fail)
        with pytest.raises(ExportError, match="is damaged: Unknown builtin op"):
            opened(content.getvalue(), tmp_path)
        monkeypatch.setattr(exporting, "has_onednn", lambda: False)
        with pytest.raises(ExportError, match="file for the CPU it needs a torch"):
            opened(content.getvalue(), tmp_path)
