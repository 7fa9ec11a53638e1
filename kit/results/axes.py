"""From the axes of a step instance to its cells: by the role that each axis has.

``replicate`` axes (seeds, pairs of models) give the observations of a cell, ``setting`` axes the
``@<setting>`` of its id, ``group`` axes and the field ``group`` of a record its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kit.results.ids import ALL

REPLICATE, SETTING, GROUP = "replicate", "setting", "group"
ROLES = (REPLICATE, SETTING, GROUP)


@dataclass(frozen=True)
class Origin:
    """Where a number comes from.

    Attributes:
        group: First part of its cell id.
        replicate: The same string in two cells means the same replicate; empty without such axes.
        settings: Values of the setting axes that the experiment varies, in the order of the axes.
        step: Instance id of the step that measured it.
    """

    group: str
    replicate: str
    settings: tuple[str, ...] = ()
    step: str = ""


def roles_of(axes: Iterable[str], declared: Mapping[str, str] | None = None) -> dict[str, str]:
    """The role of each axis.

    Args:
        axes: Names, in the order of the instance.
        declared: Axis -> role, as the manifest says. Where it says nothing at all, the first axis
            is the replicate and the others are settings. An axis that it leaves out is a setting:
            then it shows in the ids, and nothing is averaged that nobody asked to average.

    Raises:
        ValueError: A role that there is not.
    """
    unknown = {role for role in (declared or {}).values() if role not in ROLES}
    if unknown:
        raise ValueError(f"unknown axis role {sorted(unknown)[0]!r}: roles are {', '.join(ROLES)}")
    if declared:
        return {axis: declared.get(axis, SETTING) for axis in axes}
    return {axis: SETTING if i else REPLICATE for i, axis in enumerate(axes)}


class Axes:
    """Which axes of an experiment show in cell ids, and as what.

    A setting axis shows only if it takes more than one value over all instances of the table.

    Args:
        instances: Axes of every instance whose numbers the table has: axis -> value (a record for
            record axes, whose ``id`` counts).
        roles: Axis -> role; see :func:`roles_of`.
    """

    def __init__(
        self, instances: Iterable[Mapping[str, Any]], roles: Mapping[str, str] | None = None
    ) -> None:
        self._declared = roles
        values: dict[str, set[str]] = {}
        for axes in instances:
            for axis, role in roles_of(axes, roles).items():
                if role == SETTING:
                    values.setdefault(axis, set()).add(name_of(axes[axis]))
        self.varied = frozenset(axis for axis, names in values.items() if len(names) > 1)

    def origin(self, step: str, axes: Mapping[str, Any]) -> Origin:
        """Where the numbers of one instance belong.

        The replicate is the values of its replicate axes joined by ``/``, a record with a ``seed``
        as ``<id>/<seed>``; the group what the field ``group`` of records says, and the values of
        group axes without one, joined by ``-``.
        """
        roles = roles_of(axes, self._declared)
        groups, replicates, settings = [], [], []
        for axis, value in axes.items():
            if roles[axis] == REPLICATE:
                replicates.append(_replicate(value))
            elif roles[axis] == SETTING and axis in self.varied:
                settings.append(name_of(value))
            if isinstance(value, Mapping) and "group" in value:
                groups.append(str(value["group"]))
            elif roles[axis] == GROUP:
                groups.append(name_of(value))
        return Origin(
            group="-".join(dict.fromkeys(groups)) or ALL,
            replicate="/".join(replicates),
            settings=tuple(settings),
            step=step,
        )


def name_of(value: Any) -> str:
    """What an axis value is called: a record's ``id``, or the scalar."""
    return str(value["id"] if isinstance(value, Mapping) else value)


def _replicate(value: Any) -> str:
    seed = f"/{value['seed']}" if isinstance(value, Mapping) and "seed" in value else ""
    return name_of(value) + seed
