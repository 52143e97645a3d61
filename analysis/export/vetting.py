"""Programs of `torch.export` from a file that somebody else may have made, without running code.

`torch.export.load` trusts its file: it unpickles what cannot be loaded otherwise, evaluates sizes
and guards as Python, writes names into source code, and opens shared libraries. So `vetted` writes
the archive anew, of what an export of this project holds and nothing else:

- weights, constants and what describes them, none of them pickled;
- the graph, its operators all of ATen, its sizes sums and products of symbols, its names names;
- neither example inputs, which are pickled, nor guards, which are Python, nor where in the source
  a node came from. None of these is needed to run it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

from model.errors import ExportError

_GRAPH = "archive/models/model.json"
_EXAMPLES = "archive/data/sample_inputs/model.pt"
_CONFIGS = re.compile(
    r"archive/data/(weights/model_weights|constants/model_constants)_config\.json"
)
_PLAIN = re.compile(
    r"archive/(data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id)"
)
_OPERATOR = re.compile(r"torch\.ops\.aten\.(?!__)\w+\.(?!__)\w+", re.ASCII)
#: A size is evaluated: these names, numbers and marks alone.
_SIZE = re.compile(
    r"(Symbol\('[su]\d+'|(Integer|Mul|Add)\(|(positive|integer)=True|\d+|[-(), ])*", re.ASCII
)
#: A name may become source code.
_NAME = re.compile(r"[\w.:-]*", re.ASCII)
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict")
_DATE = (1980, 1, 1, 0, 0, 0)


def vetted(content: bytes) -> bytes:
    """The same program as an archive that `torch.export.load` runs no code of.

    Args:
        content: A ``.pt2`` file.

    Raises:
        ExportError: for what no export of this project holds.
    """
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as given,
        zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as file,
    ):
        names = given.namelist()
        if len(set(names)) < len(names):
            raise _refused("a file in it is there twice")
        for name in names:
            read = _reader_of(name)
            file.writestr(zipfile.ZipInfo(name, _DATE), read(given.read(name)))
    return written.getvalue()


def _reader_of(name: str) -> Callable[[bytes], bytes]:
    """What becomes of a file of the archive."""
    if name == _GRAPH:
        return _graph
    if name == _EXAMPLES:
        return lambda content: b""
    if _CONFIGS.fullmatch(name):
        return _config
    if _PLAIN.fullmatch(name):
        return lambda content: content
    raise _refused(f"{name!r} is no file of an export")


def _config(content: bytes) -> bytes:
    """Which tensor lies in which file; without any that is pickled."""
    config = json.loads(content)
    for name, entry in config["config"].items():
        if entry.get("use_pickle") is not False:
            raise _refused(f"{name!r} is pickled")
    return json.dumps(config).encode()


def _graph(content: bytes) -> bytes:
    program = json.loads(content)
    program |= {"guards_code": [], "torch_version": ""}
    _check(program)
    return json.dumps(program).encode()


def _check(value: Any, key: str = "") -> None:
    """Checks every text of a graph and removes what is told of a node; `key` is what it is of."""
    if isinstance(value, dict):
        if "metadata" in value:
            value["metadata"] = {}
        for name, part in value.items():
            _check_text(name, "name")
            _check(part, name)
    elif isinstance(value, list):
        for part in value:
            _check(part, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key in ("in_spec", "out_spec"):
        _check_structure(json.loads(text)[1] if text else None)
        return
    pattern = {"target": _OPERATOR, "expr_str": _SIZE}.get(key, _NAME)
    if not pattern.fullmatch(text):
        raise _refused(f"{key}: {text[:60]!r} is nothing that an export of a model needs")


def _check_structure(spec: Any) -> None:
    """Of arguments: tuples, lists and mappings, which are made without looking anything up."""
    if spec is None:
        return
    if spec["type"] is not None and spec["type"] not in _CONTAINERS:
        raise _refused(f"arguments of type {str(spec['type'])[:60]!r}")
    for part in spec["children_spec"]:
        _check_structure(part)


def _refused(problem: str) -> ExportError:
    return ExportError(f"was not opened, since it could run code: {problem}.")
