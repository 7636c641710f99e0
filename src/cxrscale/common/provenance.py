"""What a result was made from: digests of code, settings and files. Imports neither torch nor pandas.

A stage reruns when its *meaning* changes. Snakemake sees a changed param, so each rule carries, as a param, a digest
of the code that the stage runs: its script and every `cxrscale` module that the script imports, directly or through
others. The digest is taken of the parsed code, so comments, docstrings, blank lines and time stamps are no part of it,
and of the parse tree's meaning rather than of its printed form, so neither is the version of Python.

Known limits, kept harmless by convention: a module chosen by name at run time is not seen (such rules name it, see
`code_digest(modules=...)`), nor is a file that is no Python (`files=...` for templates).
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cxrscale
from cxrscale.common.errors import StudyError

PACKAGE = "cxrscale"
SOURCE_ROOT = Path(cxrscale.__file__).resolve().parents[1]


def require_checkout(script: str | Path) -> None:
    """Raise StudyError if the imported `cxrscale` is not the one that lies beside `script` in the same checkout.

    script: a file in `<checkout>/workflow/scripts/` or `<checkout>/Snakefile`.
    """
    script = Path(script).resolve()
    checkout = next((p for p in script.parents if (p / "src" / PACKAGE / "__init__.py").is_file()), None)
    if checkout is not None and checkout / "src" != SOURCE_ROOT:
        raise StudyError(
            f"{script} belongs to {checkout}, but Python imports {PACKAGE} from {SOURCE_ROOT}. "
            f"Results would be filed under code that did not make them. "
            f"Run `make install` in {checkout} and use its .venv, or unset PYTHONPATH."
        )


def digest(value: Any) -> str:
    """Sixteen hex digits of SHA-256 over the canonical JSON of `value` (keys sorted)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. Raises OSError if it cannot be read."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def code_digest(script: str | Path, modules: Iterable[str] = (), files: Iterable[str | Path] = ()) -> str:
    """Digest of a script and of all `cxrscale` modules it imports, directly and through others.

    script: the Python file that a rule runs.
    modules: dotted names of modules that the script imports by a name made at run time.
    files: files that are read, not imported (templates, style sheets); these count byte by byte.
    Returns sixteen hex digits. Raises StudyError if a named module does not exist, SyntaxError if one cannot be parsed.
    """
    found: dict[str, str] = {}
    waiting = sorted({*_imports(Path(script)), *modules})
    for name in modules:
        if _module_file(name) is None:
            raise StudyError(f"there is no module {name} in {SOURCE_ROOT}")
    while waiting:
        name = waiting.pop()
        path = _module_file(name)
        if name in found or path is None:
            continue
        found[name] = canonical_code(path)
        waiting += _imports(path)
    read = {Path(f).name: file_digest(f) for f in files}
    return digest({"script": canonical_code(Path(script)), "modules": found, "files": read})


def _module_file(name: str) -> Path | None:
    base = SOURCE_ROOT.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(path: Path) -> frozenset[str]:
    """Dotted names of the package's modules that a file imports, anywhere in it, with the packages they lie in."""
    return _read_code(path)[1]


def canonical_code(path: Path) -> str:
    """The digest of a file's code without comments, docstrings and layout, the same on every version of Python."""
    return _read_code(path)[0]


def _read_code(path: Path) -> tuple[str, frozenset[str]]:
    stat = path.stat()
    return _parse_code(path, stat.st_mtime_ns, stat.st_size)


@cache
def _parse_code(path: Path, mtime_ns: int, size: int) -> tuple[str, frozenset[str]]:
    """The digest of a file's code and what it imports; parsed once, since every start of a job needs all of them."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imports = _imports_of(tree, path)
    return hashlib.sha256(_canonical(tree).encode()).hexdigest(), imports


def _imports_of(tree: ast.Module, path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: the package that holds the file, one folder up a dot
                package = path.resolve().relative_to(SOURCE_ROOT).parts[: -node.level]
                module = ".".join([*package, *filter(None, [module])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    with_parents: set[str] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == PACKAGE:
            with_parents.update(".".join(parts[: i + 1]) for i in range(len(parts)))
    return frozenset(name for name in with_parents if _module_file(name) is not None)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


def _canonical(node: Any) -> str:
    """A text of a parse tree that leaves out docstrings, and what is empty, since versions of Python differ in that."""
    if isinstance(node, ast.JoinedStr):
        node = ast.JoinedStr(_joined(node.values))
    if isinstance(node, ast.AST):
        fields = dict(sorted(ast.iter_fields(node)))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields["body"] = _without_docstring(node.body)
        kept = (
            f"{name}={_canonical(value)}"
            for name, value in fields.items()
            if value not in (None, []) or (isinstance(node, ast.Constant) and name == "value")
        )
        return f"{type(node).__name__}({','.join(kept)})"
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    return repr(node)


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, neighbouring texts made one and empty ones left out: Python 3.12 splits them."""
    parts: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(str(parts[-1].value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            parts.append(value)
    return parts


def code_digest_of(scripts: Path, name: str, modules: Iterable[str] = (), files: Iterable[str | Path] = ()) -> str:
    """`code_digest` of a script by its name in the folder of scripts."""
    return code_digest(scripts / name, modules, files)
