"""What the code of a step kind is: a digest of everything that its function reaches.

A key holds a kind's version, which a person raises. Who changes the method and forgets it would be
given the results of the old code; so each record says which code made it, and a run says what of
its finished steps was made by other code than today's.

Reached are, by the imports in the source (also those inside of functions): of its own module and of
``kit.steps`` the definitions that the function uses, of the science rooms and of a package of one's
own whole modules. The kit's machinery is left out: it moves files, no numbers.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from kit.engine.registry import Registry, StepKind, params_of
from kit.engine.store import Store, StoredStep
from kit.manifest.source import nearest
from kit.results.plan import Plan, StepInstance

WHERE = (
    "it is looked for beside the nearest pyproject.toml with a table [tool.kit], among what is "
    "installed, and in PYTHONPATH"
)
WIRING = "kit.steps"
SCIENCE = tuple(f"kit.{room}" for room in ("evals", "lm", "methods", "mini", "tampering", "train"))


def code_digest(kind: StepKind, params: Mapping[str, Any]) -> str:
    """sha256 over the code that a kind's function reaches, and its ``science``.

    Args:
        kind: The kind.
        params: Of the step; they may name code of their own.

    Raises:
        ValueError: A module of ``science`` is not there.
    """
    further = kind.science(params_of(kind, params))
    return _digest(kind.run.__module__, kind.run.__qualname__, further)


def changed(entry: StoredStep | None, registry: Registry) -> bool:
    """Whether a finished step was made by other code than today's, as far as its record says.

    Without code in its record nothing can be said, and its kind need not be known here.
    """
    if entry is None or not entry.code:
        return False
    return entry.code != code_digest(registry.get(entry.kind), entry.params)


def other_code(plan: Plan, store: Store, registry: Registry) -> list[StepInstance]:
    """Finished steps of a plan that other code made."""
    return [
        instance
        for instance in plan.instances
        if changed(store.look(instance.key, "sizes").entry, registry)
    ]


def absent(science: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Modules and functions of a kind's ``science`` that are not there; nothing is imported.

    Yields:
        The entry, what is wrong with it, and what to do.
    """
    for entry in science:
        module, _, function = entry.partition(":")
        file = _file.__wrapped__(module)  # the file may have been written since
        if file is None:
            yield entry, f"there is no module {module!r}", WHERE
            continue
        try:
            body = ast.parse(file.read_text(encoding="utf-8")).body
        except (OSError, SyntaxError, ValueError) as error:
            yield entry, f"{file} cannot be read: {error}", "mend the module"
            continue
        bound = [name for node in body for name in _names(node)]
        if function and not {function, "*"} & set(bound):
            yield entry, f"{module} has no function {function!r}", nearest(function, bound)


@cache
def _digest(module: str, function: str, further: tuple[str, ...]) -> str:
    reach = _Reach(module.partition(".")[0])
    reach.definition(module, function)
    if not reach.parts:  # made inside of another function
        reach.module(module)
    for name in further:
        module = name.partition(":")[0]
        if _file(module) is None:
            raise ValueError(f"science of a step kind: there is no module {module!r}")
        reach.module(module)
    text = "".join(f"{name}\0{part}\0" for name, part in sorted(reach.parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()


class _Reach:
    """Source texts by name: of a module, or ``module:name`` of a definition.

    Args:
        own: Top-level package of the function; the kit's rooms are known by name.
    """

    def __init__(self, own: str) -> None:
        self.rooms = (*SCIENCE, WIRING) if own == "kit" else (*SCIENCE, WIRING, own)
        self.parts: dict[str, str] = {}

    def module(self, name: str) -> None:
        """Everything of a module, and what that reaches."""
        file = _file(name)
        if name in self.parts or file is None:
            return
        self.parts[name] = file.read_text(encoding="utf-8")
        parent = name.rpartition(".")[0]
        if _in(parent, self.rooms) and not _in(name, (WIRING,)):
            self.module(parent)
        for node in _imports(file):
            self._follow(node, _package(name, file))

    def definition(self, module: str, name: str) -> None:
        """A function, class or value of a module, and what it reaches."""
        file = _file(module)
        if f"{module}:{name}" in self.parts or file is None:
            return
        node = _bound(file).get(name)
        if node is None:
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._follow(node, _package(module, file), only=name)
            return
        self.parts[f"{module}:{name}"] = _text(file, node)
        for inner in ast.walk(node):
            self._follow(inner, _package(module, file))
            if isinstance(inner, ast.Name):
                self.definition(module, inner.id)

    def _follow(self, node: ast.AST, package: str, only: str = "") -> None:
        """What an import leads to; of several names ``only`` the one that is bound so."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _in(alias.name, self.rooms):
                    self.module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            for alias in node.names if _in(source, self.rooms) else ():
                if only and (alias.asname or alias.name) != only:
                    continue
                if _file(f"{source}.{alias.name}") is not None:
                    self.module(f"{source}.{alias.name}")
                elif _in(source, (WIRING,)):
                    self.definition(source, alias.name)
                else:
                    self.module(source)


def _in(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def _package(name: str, file: Path) -> str:
    """What relative imports in a module start from."""
    return name if file.name == "__init__.py" else name.rpartition(".")[0]


@cache
def _file(name: str) -> Path | None:
    """The source of a module, found below its top-level package without importing it."""
    top, *rest = name.split(".")
    known = sys.modules.get(top)
    spec = known.__spec__ if known is not None else importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin)
    if not rest:
        return base if base.suffix == ".py" else None
    path = base.parent.joinpath(*rest)
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _imports(file: Path) -> list[ast.AST]:
    """Every import of a module, also inside of functions."""
    return [n for n in ast.walk(_tree(file)) if isinstance(n, ast.Import | ast.ImportFrom)]


@cache
def _bound(file: Path) -> dict[str, ast.stmt]:
    """Name -> the statement at the top of a module that binds it."""
    return {name: node for node in _tree(file).body for name in _names(node)}


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.If | ast.Try):  # if TYPE_CHECKING
        yield from (name for inner in node.body for name in _names(inner))


def _text(file: Path, node: ast.stmt) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(lines[first - 1 : node.end_lineno])
