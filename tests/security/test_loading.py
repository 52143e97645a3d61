"""Nothing that is read is run: no unsafe loading anywhere in the code, read from the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    file
    for directory in ("model", "tuning", "analysis", "benchmarks", "deploy")
    for file in (ROOT / directory).rglob("*.py")
)

#: Calls that run what they are given, or load by pickle, whatever their arguments.
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "cloudpickle.load",
    "cloudpickle.loads",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "joblib.load",
    "dill.load",
    "dill.loads",
    "jsonpickle.decode",
    "pandas.read_pickle",
    "pd.read_pickle",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "yaml.unsafe_load_all",
    "torch.jit.load",
    "torch.export.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "runpy.run_path",
    "importlib.import_module",
}

#: Modules whose functions, imported by name, would hide from the names above.
HIDDEN = {"pickle", "cloudpickle", "marshal", "shelve", "joblib", "dill", "jsonpickle", "runpy"}

#: The exceptions, each with its reason.
ALLOWED = {
    # A TorchScript file is a program: docs/export.md says to open only those of people one trusts.
    ("analysis/export/exporting.py", "torch.jit.load"),
    # Of an archive that is written anew before, without pickles, Python and libraries.
    ("analysis/export/packages.py", "torch.export.load"),
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call and the name of what is called, ``torch.load``; of what has none, ``.method``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name if re.fullmatch(r"[\w.]+", name) else f".{name.rpartition('.')[2]}", node


def keyword(call: ast.Call, name: str) -> str | None:
    """The source of a keyword argument; None where it is not given."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def unsafe(tree: ast.AST) -> Iterator[str]:
    """What a file does that could run what it reads."""
    for name, call in calls(tree):
        if name in FORBIDDEN or name.rpartition(".")[2] == "extractall":
            yield name
        elif name == "torch.load" and keyword(call, "weights_only") != "True":
            yield "torch.load without weights_only=True"
        elif name == "yaml.load" and keyword(call, "Loader") not in ("_Loader", "yaml.SafeLoader"):
            yield "yaml.load without a safe loader"
        elif keyword(call, "allow_pickle") not in (None, "False"):
            yield f"{name} with allow_pickle"
        elif keyword(call, "shell") not in (None, "False"):
            yield f"{name} with shell"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in HIDDEN:
            yield f"from {node.module} import"
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "yaml"):
            yield from (f"from {node.module} import load" for a in node.names if a.name == "load")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_read_is_never_run(file):
    name = str(file.relative_to(ROOT))
    found = set(unsafe(ast.parse(file.read_text(encoding="utf-8"))))
    assert found == {what for where, what in ALLOWED if where == name}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch.load(f)", "torch.load without weights_only=True"),
        ("torch.load(f, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(f, weights_only=safe)", "torch.load without weights_only=True"),
        ("import pickle\npickle.loads(x)", "pickle.loads"),
        ("from pickle import loads", "from pickle import"),
        ("from torch import load", "from torch import load"),
        ("np.load(f, allow_pickle=True)", "np.load with allow_pickle"),
        ("yaml.load(f, Loader=yaml.Loader)", "yaml.load without a safe loader"),
        ("yaml.load(f)", "yaml.load without a safe loader"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("subprocess.run(c, shell=True)", "subprocess.run with shell"),
        ("os.system(c)", "os.system"),
        ("ZipFile(f).extractall(d)", ".extractall"),
        ("archive.extractall(d)", "archive.extractall"),
        ("torch.jit.load(f)", "torch.jit.load"),
        ("pd.read_pickle(f)", "pd.read_pickle"),
    ],
)
def test_it_would_be_found(source, found):
    assert list(unsafe(ast.parse(source))) == [found]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(f, weights_only=True)",
        "yaml.load(f, Loader=yaml.SafeLoader)",
        "np.load(f)",
        "model.eval()",
        "build(x).eval()",
        "re.compile(p)",
        "subprocess.run(c, shell=False)",
        "from torch import nn",
    ],
)
def test_what_is_safe_is_left_alone(source):
    assert list(unsafe(ast.parse(source))) == []


def test_the_loader_of_sweep_files_makes_plain_values_only():
    import yaml

    from tuning.sweeps.yaml_file import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        yaml.load("!!python/object/apply:os.getcwd []", Loader=_Loader)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    stated = [line.partition("#")[0].strip() for line in lines]
    pins = [line for line in stated if line and line != "-r requirements.txt"]
    assert pins
    assert [p for p in pins if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+", p)] == []


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/cluster-local.yaml"])
def test_clusters_ask_for_the_token_and_show_the_dashboard_to_their_head_alone(name):
    import yaml

    cluster = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    head, workers = cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]
    starts = [line for line in [*head, *workers] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert [line for line in starts if "dashboard-host" in line] == starts[:1]


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "ray-job.yaml"])
def test_on_kubernetes_the_token_guards_what_the_loopback_address_cannot(name):
    """There a service forwards the dashboard, which must listen on the pod's address."""
    import yaml

    manifest = yaml.safe_load((ROOT / "deploy" / "kubernetes" / name).read_text(encoding="utf-8"))
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert spec["authOptions"] == {"mode": "token"}
