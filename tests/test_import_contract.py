"""Who may import whom: on the syntax trees, and in interpreters that start afresh."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("verifier", "service")

HEAVY = ("torch", "onnx", "onnxruntime", "cvxpy", "scs", "clarabel", "scipy")

#: Ours that the checker may import: what no method, importer or network has touched.
PURE = (
    "verifier.canonical_json",
    "verifier.certificate",
    "verifier.certificate_json",
    "verifier.certificate_reader",
    "verifier.certificate_shapes",
    "verifier.checker",
    "verifier.errors",
    "verifier.json_shapes",
    "verifier.norm_json",
    "verifier.norms",
    "verifier.proof_reader",
    "verifier.property",
    "verifier.region_json",
    "verifier.regions",
    "verifier.request_json",
    "verifier.version",
)

#: Path, without suffix: what it must not import, by prefix.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "verifier": ("service",),
    "verifier/network": (
        "verifier.onnx_import",
        "verifier.methods",
        "verifier.verify",
        "verifier.checker",
    ),
    "verifier/onnx_import": ("verifier.methods", "verifier.verify", "verifier.checker"),
    "verifier/methods": ("verifier.onnx_import", "verifier.verify", "verifier.checker"),
    "service/app": (*HEAVY, "verifier.methods", "verifier.network", "verifier.onnx_import"),
    "service/routes": (*HEAVY, "verifier.methods", "verifier.network", "verifier.onnx_import"),
}


def modules(path: str) -> list[Path]:
    """The files of a package, or the one file of a module."""
    base = ROOT / path
    return sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]


def imports(file: Path) -> set[str]:
    """Every module that a file imports when it runs; what only type checkers read is left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in walk_at_run_time(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def walk_at_run_time(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [part for child in node.orelse for part in walk_at_run_time(child)]
    found = [node]
    for child in ast.iter_child_nodes(node):
        found += walk_at_run_time(child)
    return found


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("path", FORBIDDEN)
def test_forbidden_edges_are_absent(path: str) -> None:
    edges = [(file, name) for file in modules(path) for name in imports(file)]
    assert edges
    assert [(str(f), n) for f, n in edges if within(n, FORBIDDEN[path])] == []


def test_checker_imports_numpy_the_standard_library_and_pure_modules_alone() -> None:
    roots = {name for file in modules("verifier/checker") for name in imports(file)}
    strange = {
        name
        for name in roots
        if not within(name, PURE)
        and name != "verifier"
        and name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy"}
    }
    assert strange == set()


@pytest.mark.parametrize("path", PURE)
def test_pure_modules_import_pure_modules_alone(path: str) -> None:
    names = {n for file in modules(path.replace(".", "/")) for n in imports(file)}
    ours = {name for name in names if name.startswith(("verifier.", "service"))}
    assert {name for name in ours if not within(name, PURE)} == set()


def test_no_method_imports_the_inside_of_another() -> None:
    """`verifier.methods.lipsdp` is public; `verifier.methods.lipsdp.form` is lipsdp's alone."""
    crossing: list[tuple[str, str]] = []
    for file in modules("verifier/methods"):
        own = file.relative_to(ROOT / "verifier/methods").parts[0].removesuffix(".py")
        for name in imports(file):
            parts = name.split(".")
            if parts[:2] != ["verifier", "methods"] or len(parts) < 4 or parts[2] == own:
                continue
            if (ROOT / "/".join(parts)).with_suffix(".py").exists():
                crossing.append((file.name, name))
    assert crossing == []


def loaded_by(code: str) -> set[str]:
    """The top-level modules and our own that an interpreter has loaded after running `code`."""
    report = "import sys; print('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import verifier.checker",
        "import service.app",
        "import service.cli",
        "from verifier import check, parse_request, parse_certificate",
    ],
)
def test_import_pulls_in_nothing_heavy(code: str) -> None:
    assert loaded_by(code) & set(HEAVY) == set()


def test_checker_pulls_in_numpy_alone() -> None:
    """No package from elsewhere but numpy: what it needs can be read in an afternoon."""
    before = loaded_by("import numpy")
    after = loaded_by("import verifier.checker")
    tops = {name.partition(".")[0] for name in after - before} - set(sys.stdlib_module_names)
    assert {top for top in tops if not top.startswith("_")} == {"verifier"}


def test_lipcert_check_imports_neither_torch_nor_a_solver() -> None:
    code = "from service.cli import run\nrun(['check', 'absent.json', '--model', 'absent.onnx'])"
    loaded = loaded_by(code)
    assert "verifier.checker" in loaded
    assert loaded & set(HEAVY) == set()
