"""The shape of the package, read from its files: imports go down only, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rlhf_pipeline"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the bottom to the top. A module imports its own layer or lower ones; the longest matching prefix decides.
LAYERS = (
    ("__init__", "errors"),
    ("records", "config", "artifacts"),
    ("data", "launch", "ppo", "decoding", "machine", "ensembles", "normalization", "sharding"),
    ("models", "bases", "tokenization", "encoding", "generation", "scoring", "rewards", "arguments", "derived"),
    ("launch.plan",),
    ("jobs", "networks", "prepared", "progress", "stopping", "training", "ppo.trainer", "ranking"),
    ("stages", "evaluate", "feedback", "data.command", "data.inspection", "launch.doctor"),
    ("cli", "__main__"),
)
LAYER = {prefix: level for level, prefixes in enumerate(LAYERS) for prefix in prefixes}

WITHOUT_TORCH = ("errors", "records", "config", "artifacts", "data", "launch", "jobs", "cli", "__main__", "__init__")
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "vllm"}
TRL_ALLOWED = ("stages", "ppo", "models", "generation", "arguments", "ranking.trainer", "sharding")
ONE_HOME = {"matplotlib": ("evaluate", "artifacts"), "vllm": ("generation",), "yaml": ("config",)}
VAGUE = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}


def name_of(file: Path) -> str:
    """`ppo/trainer.py` is `ppo.trainer`; a package is named like its folder."""
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(file: Path, *, top_level_only: bool = False) -> Iterator[tuple[str, int]]:
    """Every imported module as an absolute dotted name, with its line; also names that are modules themselves."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["rlhf_pipeline", *file.relative_to(PACKAGE).parts[:-1]]
    for node in _top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import: not those inside functions, nor under `if TYPE_CHECKING`."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def layer_of(module: str) -> int | None:
    """The layer of `ppo.trainer`, by its longest listed prefix."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in LAYER:
            return LAYER[prefix]
    return None


def ours(file: Path) -> Iterator[tuple[str, int]]:
    """Imports of this package, without its name, where they name a module that exists."""
    for module, line in imports(file):
        bare = module.removeprefix("rlhf_pipeline.")
        path = PACKAGE / bare.replace(".", "/")
        if module != bare and (path.with_suffix(".py").is_file() or path.is_dir()):
            yield bare, line


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_has_a_layer(file: Path) -> None:
    assert layer_of(name_of(file)) is not None, f"{name_of(file)}: add it to LAYERS"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_down_only(file: Path) -> None:
    here = layer_of(name_of(file))
    up = [
        f"{file.name}:{line} imports {module}" for module, line in ours(file) if (layer_of(module) or 0) > (here or 0)
    ]
    assert up == []


@pytest.mark.parametrize("file", [f for f in FILES if within(name_of(f), ("stages",))], ids=name_of)
def test_stages_never_import_each_other(file: Path) -> None:
    others = [module for module, _ in ours(file) if within(module, ("stages",)) and module != "stages"]
    assert others == []


@pytest.mark.parametrize("file", [f for f in FILES if within(name_of(f), WITHOUT_TORCH)], ids=name_of)
def test_light_modules_import_nothing_heavy_when_loaded(file: Path) -> None:
    heavy = {module.split(".")[0] for module, _ in imports(file, top_level_only=True)} & (
        HEAVY | {"datasets", "pyarrow"}
    )
    assert heavy == set()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_maths_needs_torch_alone(file: Path) -> None:
    if name_of(file) in {"ppo.masked", "ppo.advantages", "ppo.kl", "ppo.losses", "ranking.losses", "ensembles"}:
        assert {module.split(".")[0] for module, _ in imports(file)} & HEAVY <= {"torch"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_libraries_stay_in_their_home(file: Path) -> None:
    used = {module.split(".")[0] for module, _ in imports(file)}
    name = name_of(file)
    assert "trl" not in used or within(name, TRL_ALLOWED)
    for library, homes in ONE_HOME.items():
        assert library not in used or within(name, homes), f"{library} belongs to {homes}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_pickle_and_no_vague_names(file: Path) -> None:
    assert file.name not in VAGUE
    assert not {module.split(".")[0] for module, _ in imports(file)} & {"pickle", "dill", "cloudpickle"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_stay_short(file: Path) -> None:
    """At most 400 lines a file and 60 a function (CONTRIBUTING)."""
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    too_long = [
        f"{f.name}: {f.end_lineno - f.lineno + 1}" for f in functions if f.end_lineno and f.end_lineno - f.lineno >= 60
    ]
    assert too_long == []


def test_the_reader_sees_relative_and_nested_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: an upward, relative, lazy import is found."""
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "jobs.py").touch()
    file = tmp_path / "data" / "bad.py"
    file.write_text("def f():\n    from ..jobs import Job\n    import torch\n")
    assert list(ours(file)) == [("jobs", 2)]
    assert ("torch", 3) in list(imports(file))
    assert "torch" not in {module for module, _ in imports(file, top_level_only=True)}
    assert (layer_of("jobs") or 0) > (layer_of("data.bad") or 0)
