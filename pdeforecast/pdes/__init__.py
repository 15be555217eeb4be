"""The equations of the package. A new PDE is one file and one line in `PDES`."""

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pdeforecast.errors import UsageError, nearest
from pdeforecast.pdes.base import PDE
from pdeforecast.pdes.cahn_hilliard import CahnHilliard
from pdeforecast.pdes.convection import Convection
from pdeforecast.pdes.diffusion_plane import DiffusionPlane
from pdeforecast.pdes.diffusion_sphere import DiffusionSphere
from pdeforecast.pdes.navier_stokes import NavierStokes
from pdeforecast.pdes.shallow_water import ShallowWater

_EQUATIONS: tuple[type[PDE], ...] = (
    NavierStokes,
    DiffusionPlane,
    DiffusionSphere,
    ShallowWater,
    Convection,
    CahnHilliard,
)
PDES: dict[str, type[PDE]] = {pde.name: pde for pde in _EQUATIONS}

__all__ = [
    "PDE",
    "PDES",
    "CahnHilliard",
    "Convection",
    "DiffusionPlane",
    "DiffusionSphere",
    "NavierStokes",
    "ShallowWater",
    "find",
    "make",
    "parameters",
]


def find(name: str) -> type[PDE]:
    """The equation of that name.

    Raises:
        UsageError: if there is none.
    """
    if name in PDES:
        return PDES[name]
    raise UsageError(
        f"expected an equation among {', '.join(PDES)}; came {name!r}.",
        f"Type `{nearest(name, PDES) or next(iter(PDES))}`.",
    )


def make(name: str, overrides: Mapping[str, object] | None = None) -> PDE:
    """The equation of that name with some parameters set, as by `--set key=value`.

    Args:
        overrides: values, or their spelling, by parameter.

    Raises:
        UsageError: if the equation or a parameter is unknown, or a value is not its number.
    """
    equation = find(name)
    known = {field.name: field.type for field in fields(equation)}
    values: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        if key not in known:
            raise UsageError(
                f"{name} has no parameter {key!r}; it has {'; '.join(parameters(equation).values())}.",
                f"Type `--set {nearest(key, known) or next(iter(known))}={value}`.",
            )
        values[key] = _number(equation, key, value, known[key] in (int, "int"))
    return equation(**values)


def parameters(equation: type[PDE]) -> dict[str, str]:
    """Each parameter with its default and the line of the docstring that gives its unit."""
    text = inspect.getdoc(equation) or ""
    lines = dict(re.findall(r"^\s+(\w+): (.+?)\.?$", text, flags=re.MULTILINE))
    return {
        field.name: f"{field.name} = {field.default} ({lines.get(field.name, 'undocumented')})"
        for field in fields(equation)
    }


def _number(equation: type[PDE], key: str, value: object, whole: bool) -> int | float:
    try:
        number = int(str(value)) if whole else float(str(value))
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    raise UsageError(
        f"expected a {'whole ' if whole else ''}number as {key}; came {value!r}.",
        f"Type a value such as `--set {key}={next(f.default for f in fields(equation) if f.name == key)}`.",
    )
