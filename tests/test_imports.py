"""The arrows between the packages, read from the source and tried with packages taken away."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model", "tuning", "analysis")

#: What a package may import of the others: whole packages or modules.
ALLOWED = {
    "model": (),
    "tuning": ("model",),
    "analysis": (
        "model",
        "tuning.experiment",  # the directory and manifest of a search: where everything is
        "tuning.journal",  # its rows, and the same in columns: the truth that results are read from
        "tuning.trials.trial_files",  # where the best weights of a trial are
        "tuning.storage.place",  # a directory, or a place on an object store
        "tuning.sweeps.sweep_file",  # the sweep that a manifest holds
        "tuning.spaces.grammar",  # conditions on results are written like those of a sweep file
        "tuning.spaces.search_space",  # the searched hyper-parameters and their distributions
        "tuning.distributions",  # where a value lies in what it was drawn from
        "tuning.study.space",  # how a space is told to Optuna, whose importance and figures we use
        "tuning.study.trials",  # what a trial's state is called there
        "tuning.optuna_log",  # and keeping it quiet meanwhile
        "tuning.coordinator",  # what an objective is, and when a value is better
        "tuning.scheduling",  # schedulers are plain objects: simulating them on a journal
        "tuning.searchers",  # and so are searchers
        "tuning.tracking",  # the names of runs, to link results to Weights & Biases
    ),
}

#: The only modules that load Ray when they are imported: Ray's own base classes are theirs.
NEEDS_RAY = {"tuning.adapters", "tuning.trials.trainable"}


def modules(package: str) -> dict[str, Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


ALL = {name: file for package in PACKAGES for name, file in modules(package).items()}


def imported(node: ast.AST, module: str) -> Iterator[str]:
    """The modules that one statement imports, by their full names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = module.split(".")[: -node.level] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            name = f"{source}.{alias.name}"
            yield name if name in ALL else source


def imports(tree: ast.AST, module: str) -> set[str]:
    """Everything that a module imports, at any depth of it."""
    return {name for node in ast.walk(tree) for name in imported(node, module)}


def loaded_at_import(tree: ast.Module, module: str) -> set[str]:
    """What is imported when the module is: not within functions, not for type checking only."""
    found: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        found.update(imported(node, module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes.extend(node.orelse)
            continue
        nodes.extend(ast.iter_child_nodes(node))
    return found


def forbidden(names: set[str], module: str) -> list[str]:
    """The names that break the arrows of a module's package."""
    own = module.split(".", maxsplit=1)[0]
    allowed = (own, *ALLOWED[own])
    return sorted(
        name
        for name in names
        if name.split(".")[0] in PACKAGES
        and not any(name == arrow or name.startswith(f"{arrow}.") for arrow in allowed)
    )


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@pytest.mark.parametrize("module", ALL)
def test_arrows_go_one_way(module):
    assert forbidden(imports(parse(ALL[module]), module), module) == []


@pytest.mark.parametrize("module", ALL)
def test_nothing_is_imported_by_a_name_that_cannot_be_read(module):
    """Which would pass the test above unseen."""
    used = {ast.unparse(node) for node in ast.walk(parse(ALL[module])) if hasattr(node, "ctx")}
    assert not used & {"__import__", "importlib.import_module", "import_module"}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("model.chat", "import tuning", ["tuning"]),
        ("model.chat", "def f():\n    from analysis.results import Results", ["analysis.results"]),
        ("model.chat", "from model import config", []),
        ("model.chat", "from ..tuning import journal", ["tuning.journal"]),
        ("model.chat", "from . import config", []),
        ("tuning.journal", "import analysis.results as r", ["analysis.results"]),
        ("tuning.journal", "if TYPE_CHECKING:\n    import analysis", ["analysis"]),
        ("tuning.journal", "from model.errors import X", []),
        ("analysis.results", "from tuning import launch", ["tuning.launch"]),
        ("analysis.results", "from tuning import journal", []),
        ("analysis.results", "import tuning", ["tuning"]),
        (
            "analysis.results",
            "from tuning.trials.trainable import DialogueTrainable",
            ["tuning.trials.trainable"],
        ),
        ("analysis.results", "from tuning.journal import Row", []),
    ],
)
def test_a_wrong_arrow_would_be_found(module, source, found):
    assert forbidden(imports(ast.parse(source), module), module) == found


def test_the_allowed_modules_are_there():
    arrows = {arrow for names in ALLOWED.values() for arrow in names}
    assert arrows <= set(ALL)
    assert not arrows & NEEDS_RAY


def test_ray_is_loaded_by_the_modules_that_exist_for_it_alone():
    def uses(module: str, package: str) -> bool:
        loaded = loaded_at_import(parse(ALL[module]), module)
        return any(name.split(".")[0] == package for name in loaded)

    assert {module for module in ALL if uses(module, "ray")} == NEEDS_RAY
    assert not [module for module in ALL if uses(module, "wandb")]


def import_without(taken_away: list[str], names: list[str]) -> str:
    """Imports modules in a fresh process in which some packages cannot be; returns what it said."""
    code = (
        "import importlib, sys\n"
        f"for name in {taken_away!r}: sys.modules[name] = None\n"
        f"for name in {names!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except Exception as error: print(f'{name}: {type(error).__name__}: {error}')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_everything_but_rays_own_modules_loads_without_ray_and_wandb():
    assert import_without(["ray", "wandb"], sorted(set(ALL) - NEEDS_RAY)) == ""


def test_rays_own_modules_do_need_it():
    """Or the test above would take nothing away."""
    said = import_without(["ray"], sorted(NEEDS_RAY)).splitlines()
    assert [line.split(":")[0] for line in said] == sorted(NEEDS_RAY)
    assert all(": ModuleNotFoundError: " in line and "ray" in line for line in said)


def test_the_model_needs_torch_and_the_standard_library_alone():
    """torch itself may load numpy."""
    others = ["ray", "wandb", "pandas", "pyarrow", "optuna", "rich", "yaml", "tqdm", "scipy"]
    others += ["sklearn", "safetensors", "pytest", "hypothesis"]
    assert import_without([*others, "tuning", "analysis"], sorted(modules("model"))) == ""


def test_the_command_lines_answer_before_torch_and_ray_are_loaded():
    code = (
        "import sys, model, model.__main__, tuning\n"
        "print([name for name in ('torch', 'ray', 'wandb') if name in sys.modules])\n"
        "import tuning.__main__\n"
        "print([name for name in ('ray', 'wandb') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n[]\n"
