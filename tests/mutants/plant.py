"""Single-point bugs that a hand could make: an operator, a number, a condition, a lost statement.

Each is a replacement of one stretch of source text, so that the rest of the file keeps its lines.
Annotations, docstrings, decorators and texts are left alone: what a message says is no behaviour.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.mutants.rules import rule

COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
COMPUTED = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*",
    ast.Pow: "*",
}  # fmt: skip
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "abs": "float"}


@dataclass(frozen=True)
class Mutant:
    """One planted bug.

    Attributes:
        path: File below the repository.
        line: Of the change, from 1.
        function: Names of the classes and functions around it, by dots.
        what: What was changed, in words.
        start: First changed character of the file.
        end: The one after the last.
        text: What stands there instead.
    """

    path: str
    line: int
    function: str
    what: str
    start: int
    end: int
    text: str

    def planted(self, source: str) -> str:
        """The source with the bug."""
        return source[: self.start] + self.text + source[self.end :]


class _Planter(ast.NodeVisitor):
    def __init__(self, path: str, source: str) -> None:
        self.path, self.source = path, source
        self.mutants: list[Mutant] = []
        self._around: list[str] = []
        raw = source.splitlines(keepends=True)
        self._lines = [line.encode() for line in raw]
        self._starts = [0]
        for line in raw:
            self._starts.append(self._starts[-1] + len(line))

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._at(node.lineno, node.col_offset),
            self._at(node.end_lineno, node.end_col_offset),
        )

    def _text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self.source[start:end]

    def _add(self, node: ast.expr | ast.stmt, text: str, what: str) -> None:
        start, end = self._span(node)
        name = ".".join(self._around)
        self.mutants.append(Mutant(self.path, node.lineno, name, what, start, end, text))

    def _between(self, left: ast.expr, right: ast.expr, text: str, node: ast.expr) -> None:
        start, end = self._span(left)[1], self._span(right)[0]
        was = self.source[start:end]
        closing = was[: len(was) - len(was.lstrip(") \n"))]
        opening = was[len(was.rstrip("( \n")) :]
        if "#" in was:
            return
        name, what = ".".join(self._around), f"{was.strip(') (')} becomes {text}"
        made = f"{closing} {text} {opening}"
        self.mutants.append(Mutant(self.path, node.lineno, name, what, start, end, made))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """A function without its annotations and decorators."""
        self._around.append(node.name)
        for value in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
            self.visit(value)
        self._around.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class."""
        self._around.append(node.name)
        for value in node.body:
            self.visit(value)
        self._around.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value alone."""
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        """The condition turned round; not where only types are imported."""
        if "TYPE_CHECKING" in self._text(node.test):
            return
        self._add(node.test, f"not ({self._text(node.test)})", "the condition is turned round")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A statement that is a call, left out."""
        if isinstance(node.value, ast.Call):
            self._add(node, "pass", "the call is left out")
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """A refusal left out; the text of one stays."""
        self._add(node, "pass", "the refusal is left out")

    def visit_Compare(self, node: ast.Compare) -> None:
        """Another comparison."""
        sides = [node.left, *node.comparators]
        for i, operator in enumerate(node.ops):
            self._between(sides[i], sides[i + 1], COMPARED[type(operator)], node)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operation on numbers; not on what is visibly text."""
        text = any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right))
        said = any(isinstance(side, ast.Constant) and isinstance(side.value, str | bytes)
                   for side in (node.left, node.right))  # fmt: skip
        if type(node.op) in COMPUTED and not text and not said:
            self._between(node.left, node.right, COMPUTED[type(node.op)], node)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """``and`` for ``or``."""
        other = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, other, node)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """A lost ``not`` or sign."""
        if isinstance(node.op, ast.Not | ast.USub):
            self._add(node, f"({self._text(node.operand)})", "the sign is lost")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Another number, or the other truth value."""
        if isinstance(node.value, bool):
            self._add(node, str(not node.value), f"{node.value} becomes {not node.value}")
        elif isinstance(node.value, int):
            self._add(node, f"{node.value + 1}", f"{node.value} becomes {node.value + 1}")
        elif isinstance(node.value, float):
            self._add(node, repr(node.value * 2 + 1), "another number")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts stay."""

    def visit_Call(self, node: ast.Call) -> None:
        """The opposite of a builtin."""
        if isinstance(node.func, ast.Name) and node.func.id in CALLED:
            other = CALLED[node.func.id]
            self._add(node.func, other, f"{node.func.id} becomes {other}")
        self.generic_visit(node)


def mutants(path: str, source: str) -> list[Mutant]:
    """Every bug that can be planted into a file; a few are no programs."""
    planter = _Planter(path, source)
    planter.visit(ast.parse(source))
    return planter.mutants


def parses(source: str) -> bool:
    """Whether it is a program."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def sample(root: Path, count: int, seed: int) -> tuple[list[Mutant], dict[str, int]]:
    """A seeded sample over the whole of ``kit/``: a bug each in lines drawn with equal chances.

    Returns:
        The bugs, and how many more were drawn on the way that a rule excludes, by rule.
    """
    sources = {str(path.relative_to(root)): _read(path) for path in _files(root)}
    lines: dict[tuple[str, int], list[Mutant]] = {}
    for path, source in sources.items():
        for one in mutants(path, source):
            lines.setdefault((one.path, one.line), []).append(one)
    random = Random(seed)
    places = list(lines)
    random.shuffle(places)
    made: list[Mutant] = []
    excluded: Counter[str] = Counter()
    for place in places:
        one = random.choice(lines[place])
        source = sources[one.path]
        if len(made) == count:
            break
        if not parses(one.planted(source)):
            continue
        if name := rule(one.path, source, one.start, one.end):
            excluded[name] += 1
        else:
            made.append(one)
    return made, dict(sorted(excluded.items()))


def _files(root: Path) -> Iterator[Path]:
    yield from sorted((root / "kit").rglob("*.py"))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
