"""What a result was made from: digests of code, settings and files. Imports neither torch nor pandas.

A stage reruns when its *meaning* changes. Snakemake sees a changed param, so each rule carries, as a param, a digest
of the code that the stage runs: its script and every `cxrscale` module that the script imports, directly or through
others. The digest is taken of the parsed code, so comments, docstrings, blank lines and time stamps are no part of it,
and of the parse tree's meaning rather than of its printed form, so neither is the version of Python. Words for readers
are no part of it either (`wording`): log messages, messages of errors, what a column means, strings that stand alone.
Of a module of declarations (`DECLARATIONS`) only what is imported by name counts, with what it is made of, and of
settings only those that the code reads: a new table of one stage reruns no other, and a new setting reruns nothing.

A module that only runs a job (devices, locks, logs, checkpoints) says so by a number at its top level,
`RESULT_VERSION = 1`, and counts by that number alone: not at all while it is 1. Whoever mends something in it that
changes results raises the number. What it imports counts by the same rules as what others import.

Known limits, kept harmless by convention: a module chosen by name at run time is not seen (such rules name it, see
`code_digest(modules=...)`), nor is a file that is no Python (`files=...` for templates).
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cxrscale
from cxrscale.common.errors import StudyError
from cxrscale.common.wording import without_words

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

PACKAGE = "cxrscale"
SOURCE_ROOT = Path(cxrscale.__file__).resolve().parents[1]

#: Modules that only declare: of these, names count by themselves.
DECLARATIONS = ("contracts", "places", "rows", "settings")
#: The name of the number by which a module says that it only runs jobs.
VERSION_NAME = "RESULT_VERSION"


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
    for name in modules:
        if _module_file(name) is None:
            raise StudyError(f"there is no module {name} in {SOURCE_ROOT}")
    script = Path(script)
    found: dict[str, str] = {}
    visited: set[str] = set()
    declared: set[str] = set()
    used = set(_read_code(script).attributes)
    waiting = sorted({*_imports(script), *modules})
    while waiting:
        name = waiting.pop()
        if name in visited or name in declared:
            continue
        path, declaration = _module_file(name), _declaration(name)
        if declaration is not None:
            declared.add(name)
            waiting += _read_declaration(*declaration)[1]
        elif path is not None:
            code = _read_code(path)
            visited.add(name)
            if code.result_version is None:
                found[name] = code.digest
                used |= code.attributes
            elif code.result_version > 1:
                found[name] = f"{VERSION_NAME} {code.result_version}"
            waiting += code.imports
    for name in declared:
        path, member = _declaration(name) or (Path(), "")
        found[name] = _read_declaration(path, member, frozenset(used))[0]
    read = {Path(f).name: file_digest(f) for f in files}
    return digest({"script": canonical_code(script), "modules": found, "files": read})


def _module_file(name: str) -> Path | None:
    base = SOURCE_ROOT / name.replace(".", "/")
    return next((file for file in (Path(f"{base}.py"), base / "__init__.py") if file.is_file()), None)


def _declaration(name: str) -> tuple[Path, str] | None:
    """The module of declarations and the name within it that a dotted name stands for, if it stands for such."""
    module, _, member = name.rpartition(".")
    path = _module_file(module) if module.rpartition(".")[2] in DECLARATIONS else None
    return (path, member) if path is not None else None


def _imports(path: Path) -> frozenset[str]:
    """Dotted names of the package's modules that a file imports, anywhere in it, with the packages they lie in; of
    modules of declarations the names within them."""
    return _read_code(path).imports


def canonical_code(path: Path) -> str:
    """The digest of a file's code without comments, docstrings and layout, the same on every version of Python."""
    return _read_code(path).digest


class _Code(NamedTuple):
    """The digest of a file's code, what it imports, the names of all attributes that it reads, and its RESULT_VERSION,
    if it only runs a job."""

    digest: str
    imports: frozenset[str]
    attributes: frozenset[str]
    result_version: int | None


def _read_code(path: Path) -> _Code:
    stat = path.stat()
    return _parse_code(path, stat.st_mtime_ns, stat.st_size)


@cache
def _parse_code(path: Path, mtime_ns: int, size: int) -> _Code:
    """Parsed once, since every start of a job needs all of them."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imports, version = _imports_of(tree, path), _result_version(tree, path)
    canonical = _Canonical()
    text = canonical.text(without_words(tree))
    return _Code(hashlib.sha256(text.encode()).hexdigest(), imports, frozenset(canonical.attributes), version)


def _result_version(tree: ast.Module, path: Path) -> int | None:
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == VERSION_NAME for target in targets):
            value = getattr(statement.value, "value", None)  # type: ignore[attr-defined]
            if type(value) is not int or value < 1:
                raise StudyError(f"{path} line {statement.lineno}: {VERSION_NAME} must be a whole number, 1 or more.")
            return value
    return None


def _imports_of(tree: ast.Module, path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: the package that holds the file, one folder up a dot
                package = path.resolve().relative_to(SOURCE_ROOT).parts[: -node.level]
                module = ".".join([*package, *filter(None, [module])])
            members = {f"{module}.{alias.name}" for alias in node.names if alias.name != "*"}
            names |= members
            if not members or not all(map(_declaration, members)):
                names.add(module)
    return _known(names)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, with those within others."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(statement, part, []))


def _known(names: set[str]) -> frozenset[str]:
    """Those of the package's modules among dotted names, and the packages they lie in."""
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == PACKAGE:
            inner = len(parts) - (_declaration(name) is not None)  # of a name within a module, not the module
            found.update(".".join(parts[:i]) for i in (*range(1, inner), len(parts)))
    return frozenset(name for name in found if _module_file(name) is not None or _declaration(name) is not None)


def _read_declaration(path: Path, member: str, used: frozenset[str] = frozenset()) -> tuple[str, frozenset[str]]:
    """The digest of one name of a module of declarations, with the names of the module that it is made of, and the
    modules of the package that these import.

    used: attributes that the code reads. Of a class of settings only these fields count: a setting that comes later
    changes nothing before some code reads it.
    """
    stat = path.stat()
    file = (path, stat.st_mtime_ns, stat.st_size)
    tree, imported = _parse_declarations(*file)
    parts: dict[str, str] = {}
    imports: set[str] = set()
    waiting = [member]
    while waiting:
        name = waiting.pop()
        if name in imported:
            imports.add(imported[name])
        if name in parts or name not in tree:
            continue
        fields = _fields_of(tree[name]) if path.stem == "settings" else frozenset()
        parts[name], names = _declared(*file, name, fields - used)
        waiting += names
    return digest(parts), _known(imports)


@cache
def _declared(path: Path, mtime_ns: int, size: int, name: str, unused: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """The canonical text of what defines a name, without fields that no code reads, and the names in it."""
    statements = [_without_fields(s, unused) for s in _parse_declarations(path, mtime_ns, size)[0][name]]
    names = (node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name))
    return _Canonical().text(statements), tuple(dict.fromkeys(names))


def _fields_of(statements: list[ast.stmt]) -> frozenset[str]:
    """The fields that classes declare."""
    inside = (s for c in statements if isinstance(c, ast.ClassDef) for s in c.body if isinstance(s, ast.AnnAssign))
    return frozenset(getattr(s.target, "id", "") for s in inside)


def _without_fields(statement: ast.stmt, fields: frozenset[str]) -> ast.stmt:
    if not (fields and isinstance(statement, ast.ClassDef)):
        return statement
    kept = [s for s in statement.body if not (isinstance(s, ast.AnnAssign) and getattr(s.target, "id", "") in fields)]
    return ast.ClassDef(**{**dict(ast.iter_fields(statement)), "body": kept})


@cache
def _parse_declarations(path: Path, mtime_ns: int, size: int) -> tuple[dict[str, list[ast.stmt]], dict[str, str]]:
    """Name -> the statements that define it, without words, and name -> the dotted name that it is imported from."""
    tree = without_words(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            imported |= {a.asname or a.name: f"{statement.module}.{a.name}" for a in statement.names}
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            defined.setdefault(statement.name, []).append(statement)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    defined.setdefault(node.id, []).append(statement)
    return defined, imported


def _without_strings(body: list[ast.stmt]) -> list[ast.stmt]:
    """Without docstrings, of what is defined or below a name: strings that stand alone."""
    return [
        s
        for s in body
        if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str))
    ]


class _Canonical:
    """Writes parse trees as a text that leaves out docstrings, and what is empty, since versions of Python differ in
    that. attributes: the names of all that were in the trees."""

    def __init__(self) -> None:
        self.attributes: set[str] = set()

    def text(self, node: Any) -> str:
        kind = type(node)
        if kind is list:
            return f"[{','.join(map(self.text, node))}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.JoinedStr):
            node = ast.JoinedStr(_joined(node.values))
        elif isinstance(node, ast.Attribute):
            self.attributes.add(node.attr)
        parts = []
        for name in _parts_of(kind):  # type: ignore[arg-type]
            value: Any = getattr(node, name, None)
            if name == "body" and kind in DOCUMENTED:
                value = _without_strings(value)
            if (value is not None and value != []) or (kind is ast.Constant and name == "value"):
                parts.append(f"{name}={self.text(value)}")
        return f"{kind.__name__}({','.join(parts)})"


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _parts_of(kind: type[ast.AST]) -> list[str]:
    """In an order of their own. Whether a name is read or written follows from where it stands."""
    return sorted(name for name in kind._fields if name != "ctx")


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
