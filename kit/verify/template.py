"""The empty table of an expectation, for results that are measured elsewhere."""

from __future__ import annotations

import csv
import io

from kit.manifest.expectation_types import Expectation
from kit.verify.tables import COLUMNS


def template(expected: Expectation) -> str:
    """CSV with one row a cell that can be compared; ``kit verify EXP --results FILE`` reads it.

    Rows left empty count as missing. Repeat a row with another ``seed`` for each replicate.
    ``n`` is filled in where the published number rests on it.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for cell in expected.cells:
        if cell.tolerance is not None and cell.tolerance.kind != "trajectory":
            row = {"cell": cell.id, "unit": cell.unit}
            writer.writerow(row | ({"n": str(cell.n)} if cell.n else {}))
    return out.getvalue()
