"""Reading YAML as people mean it: YAML 1.2's numbers, no key twice, errors with their line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from model.errors import ConfigurationError
from model.validation import did_you_mean


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's numbers, and no key given twice.

    PyYAML follows YAML 1.1, where ``1e-4`` is text while ``1:30`` and ``010`` are numbers of
    another value, and lets the last of two equal keys win.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return node


_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$|0x[0-9a-fA-F]+$")
_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("float", "int", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        ConfigurationError: where it is missing, unreadable, not UTF-8, or no YAML, with the line.
    """
    source = str(path)
    try:
        return yaml.load(_text(path), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = error.problem or error.context
        raise ConfigurationError(source, [f"{place}not valid YAML: {what}."]) from None
    except (yaml.YAMLError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ConfigurationError(source, [f"not valid YAML: {what}."]) from None
    except RecursionError:
        raise ConfigurationError(source, ["not valid YAML: nested too deeply."]) from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(str(path), [f"no such file{_near_files(path)}"]) from None
    except OSError as error:
        raise ConfigurationError(str(path), [f"cannot be read: {error.strerror}."]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"line {line}: not UTF-8 text (byte 0x{error.object[error.start]:02x})."
        raise ConfigurationError(str(path), [problem]) from None


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; {path.parent} is no directory."
    files = [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
    return did_you_mean(path.name, files)
