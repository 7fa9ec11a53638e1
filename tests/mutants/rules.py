"""What is no bug wherever it is planted: rules that stand before a sample is drawn.

A mutant under a rule is not tried; the record counts them by rule (``excluded_by_rule``). Texts,
annotations, decorators and ``if TYPE_CHECKING`` are never planted into at all
(:mod:`tests.mutants.plant`).
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache

RULES = {
    "invariant": "strict=True of zip lost: it says that lengths agree, which no input breaks",
    "template": "the tests of the template that `kit new` copies: not code of the kit",
    "repr": "a __repr__: for a debugger",
    "plural": "an ending of a word in a sentence",
    "speed": "how much at once, how often to look, what is kept in memory: no result depends on it",
    "durability": "fsync: seen only when the power goes",
    "drawing": "widths, sizes and places of a picture's lines, and the indentation of a text",
    "limit": "the number itself of a constant that bounds how much is shown, read or accepted",
    "gpu": "the branch of a condition on CUDA and calls of torch.cuda: reached on a GPU alone",
}
SPEED_KEYWORDS = {
    "auto_refresh", "buffering", "maxsize", "non_blocking", "num_workers", "persistent_workers",
    "pin_memory", "refresh", "use_reentrant", "use_tqdm",
}  # fmt: skip
SPEED_CALLS = {"time.sleep", "gc.collect", "torch.set_num_threads", "malloc_trim"}
SPEED_NAMES = re.compile(
    r"^_?(\w*CHUNK|\w*BLOCK_BYTES|_BLOCK|BLOCK_SIZE|\w*POLL\w*|\w*REFRESH\w*|ROWS(_AT_A_TIME)?"
    r"|WRITERS|SCAN|SETS_AT_ONCE|READS_A_SECOND|\w*PROGRESS_SECONDS)$"
)
LIMIT_NAMES = re.compile(
    r"^_?(MOST|MOST_(CELLS|CHECKS|CLAIMS|DEVIATIONS|FORESTS|IDS|INPUTS|ITEMS|LINES|NAMED|POINTS"
    r"|PROBLEMS|ROWS|STEPS|TABLES|UNUSUAL)|LONGEST|LIMIT|MAX_\w+|LARGEST_(FLOAT|COUNT)|NAMED|SHOWN"
    r"|\w+_BYTES|MANY|WIDE|AROUND)$"
)
LIMIT_FILES = re.compile(
    r"^kit/(errors|manifest/|pins/|engine/|report/|cli/|lm/load|verify/(compare|render|records)"
    r"|methods/defensive_tokens/alpaca)"
)
DRAWING_KEYWORDS = {
    "alpha", "borderpad", "capsize", "columnspacing", "dpi", "fontsize", "handlelength", "indent",
    "labelspacing", "length", "linewidth", "markeredgewidth", "markersize", "ncols", "pad",
    "rotation", "width", "xytext", "zorder",
}  # fmt: skip


def rule(path: str, source: str, start: int, end: int) -> str | None:
    """The rule under which a replaced stretch of a file is no bug; None if it may be one.

    Args:
        path: File below the repository.
        source: Its text.
        start: First replaced character.
        end: The one after the last.
    """
    if path.startswith("kit/cli/template/tests/"):
        return "template"
    nodes = _around(source, start, end)
    for node, outer in zip(nodes, [None, *nodes], strict=False):
        if name := _of(path, node, outer, source):
            return name
    return None


def _of(path: str, node: ast.AST, outer: ast.AST | None, source: str) -> str | None:
    if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__rich_repr__"):
        return "repr"
    if isinstance(node, ast.keyword) and isinstance(outer, ast.Call):
        called = ast.unparse(outer.func)
        lost = isinstance(node.value, ast.Constant) and node.value.value
        if node.arg == "strict" and called == "zip" and lost:
            return "invariant"
        if node.arg in SPEED_KEYWORDS or (node.arg == "use_cache" and lost is False):
            return "speed"
        drawn = path.startswith("kit/report/figures/") or node.arg == "indent"
        if drawn and node.arg in DRAWING_KEYWORDS:
            return "drawing"
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in SPEED_CALLS or called.endswith(".cache_clear"):
            return "speed"
        if called in ("os.fsync", "fsync_dir"):
            return "durability"
        if path.startswith("kit/report/figures/") and called in ("draw", "ax.margins"):
            return "drawing"
    name = node.targets[0] if isinstance(node, ast.Assign) else None
    if isinstance(name, ast.Name) and SPEED_NAMES.match(name.id):
        return "speed"
    if isinstance(name, ast.Name) and LIMIT_NAMES.match(name.id) and LIMIT_FILES.match(path):
        return "limit"
    if isinstance(node, ast.IfExp) and _ending(node):
        return "plural"
    if isinstance(outer, ast.If) and node in outer.body and _cuda(outer.test):
        return "gpu"
    return "gpu" if isinstance(node, ast.Call) and _cuda(node.func) else None


def _ending(node: ast.IfExp) -> bool:
    """``"s" if count != 1 else ""``."""
    sides = [side.value for side in (node.body, node.orelse)
             if isinstance(side, ast.Constant) and isinstance(side.value, str)]  # fmt: skip
    return len(sides) == 2 and {*sides} <= {"", "s", "es", "y", "ies"}


def _cuda(node: ast.AST) -> bool:
    """Whether CUDA is asked or used: ``torch.cuda``, ``is_cuda``, ``device.type == "cuda"``."""
    return bool(re.search(r"\bcuda\.|\bis_cuda\b|\.type == 'cuda'", ast.unparse(node)))


def _around(source: str, start: int, end: int) -> list[ast.AST]:
    """Nodes about a stretch of the text, the outermost first."""
    tree, lines, starts = _parsed(source)

    def at(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1][:column].decode())

    made: list[ast.AST] = []
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.expr | ast.stmt | ast.keyword):
            first = at(node.lineno, node.col_offset)
            last = at(node.end_lineno or node.lineno, node.end_col_offset or 0)
            if not (first <= start and end <= last):
                continue
            made.append(node)
            nodes = list(ast.iter_child_nodes(node))
        else:
            nodes += ast.iter_child_nodes(node)
    return made


@lru_cache(maxsize=8)
def _parsed(source: str) -> tuple[ast.Module, list[bytes], list[int]]:
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return ast.parse(source), [line.encode() for line in lines], starts
