"""Rules of the tree that no linter knows: design section 9 and house rules 2 and 12."""

import ast
import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from grimp import ImportGraph

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / name / "saga" for name in ("shared", "services", "loadgen")]
NO_SERVICES = ("cli", "client")
PUBLIC = {"client"}  # packages that programs outside import by name
SHELLS = ("service", "config", "__main__", "http_*", "zmq_*", "*_metrics")
IMPURE = {
    "aiohttp",
    "asyncio",
    "nats",
    "prometheus_client",
    "socket",
    "structlog",
    "subprocess",
    "threading",
    "time",
    "uvloop",
    "zmq",
}
MAX_LINES = 400
FORBIDDEN_NAMES = {"utils", "common", "helpers", "manager"}


def modules(*roots: Path) -> list[Path]:
    """All Python files below these roots."""
    return sorted(path for root in roots for path in root.rglob("*.py"))


def is_pure(path: Path) -> bool:
    """Whether house rule 2 holds for this file of services/."""
    inside = path.relative_to(ROOT / "services" / "saga")
    return inside.parts[0] not in NO_SERVICES and not any(
        fnmatchcase(part.removesuffix(".py"), shell) for part in inside.parts for shell in SHELLS
    )


def impure_imports(source: str) -> set[str]:
    """What in this source reaches the outside world; of `random` only the class, to be seeded, is allowed."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in IMPURE | {"random"}}
            found |= {alias.name for alias in node.names if alias.name.startswith("saga.runtime")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {alias.name for alias in node.names}
            module = node.module
            if module.split(".")[0] in IMPURE or module.startswith("saga.runtime"):
                found.add(module)
            elif (module == "random" and names != {"Random"}) or (module == "saga" and "runtime" in names):
                found.add(f"{module}: {', '.join(sorted(names))}")
    return found


def test_no_root_hides_the_others():
    assert [root for root in ROOTS if (root / "__init__.py").exists()] == []


def test_every_package_says_what_it_is():
    """An `__init__.py` is one docstring; of a public package also what it exports."""
    for root in ROOTS:
        for package in {path.parent for path in modules(root)} - {root}:
            init = package / "__init__.py"
            assert init.exists(), f"{package} has no __init__.py"
            body = ast.parse(init.read_text()).body
            assert ast.get_docstring(ast.parse(init.read_text())), f"{init} says nothing"
            if package.name in PUBLIC:
                assert all(isinstance(one, ast.Expr | ast.ImportFrom | ast.Assign) for one in body)
            else:
                assert len(body) == 1, f"{init} holds more than its docstring"


@pytest.mark.parametrize("path", modules(ROOT / "services"), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_of_services_are_pure_but_for_the_shells(path: Path):
    if is_pure(path):
        assert impure_imports(path.read_text()) == set()


def test_files_are_short_and_named_for_what_they_do():
    for path in modules(*ROOTS, ROOT / "tests", ROOT / "bench"):
        assert len(path.read_text().splitlines()) <= MAX_LINES, f"{path} is too long: one file, one idea"
        assert path.stem not in FORBIDDEN_NAMES, f"{path} is named for nothing"


def test_the_walk_sees_what_it_should():
    assert impure_imports("import asyncio.queues, math") == {"asyncio.queues"}
    assert impure_imports("def f():\n    from time import monotonic") == {"time"}
    assert impure_imports("from saga.runtime.bus import Bus\nimport saga.runtime") == {
        "saga.runtime.bus",
        "saga.runtime",
    }
    assert impure_imports("from random import Random\nfrom saga.kernel import effects") == set()
    assert impure_imports("from random import random") == {"random: random"}


def test_the_import_contract_sees_what_it_should():
    """`make check` relies on tests/purity.py."""
    spec = importlib.util.spec_from_file_location("purity", ROOT / "tests" / "purity.py")
    assert spec is not None
    assert spec.loader is not None
    purity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(purity)
    graph = ImportGraph()
    for importer, imported in (
        ("saga.worker.service", "asyncio"),
        ("saga.worker.http_engine", "saga.runtime.bus"),
        ("saga.worker.state", "saga.worker.policy"),
        ("saga.worker.state", "saga.worker.http_engine"),
        ("saga.worker.policy", "time"),
        ("saga.worker.policy", "timeit"),
        ("saga.worker.tags", "saga.runtime.bus"),
    ):
        graph.add_import(importer=importer, imported=imported)
    graph.add_module("saga.worker")
    contract = purity.PureModules(
        name="pure",
        session_options={},
        contract_options={"packages": ["saga.worker"], "shells": list(SHELLS), "impure": ["saga.runtime", *IMPURE]},
    )

    check = contract.check(graph, verbose=False)

    assert not check.kept
    assert check.metadata["broken"] == [
        ("saga.worker.policy", "time"),
        ("saga.worker.state", "saga.worker.http_engine"),
        ("saga.worker.tags", "saga.runtime.bus"),
    ]
