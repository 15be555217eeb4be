"""Words on axes: names with their units, and numbers with theirs."""

import re

_PLAIN = {"degrees": "°", "degrees_east": "°E", "degrees_north": "°N", "1": "–", "": "–"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def label(name: str, unit: str) -> str:
    """The name of an axis with its unit in brackets; a dash where it has none."""
    return f"{name} ({pretty(unit)})"


def quantity(number: float, unit: str) -> str:
    """A number with its unit, if it has one."""
    return f"{number:g}" if unit in ("1", "") else f"{number:g} {pretty(unit)}"


def pretty(unit: str) -> str:
    """The unit with raised exponents: `m s-1` as m s⁻¹."""
    return _PLAIN.get(unit) or re.sub(r"(?<=[a-zA-Z])-?\d+", lambda n: n[0].translate(_RAISED), unit)


def squared(unit: str) -> str:
    """The unit of a square: `m s-1` becomes m2 s-2."""
    if not re.fullmatch(r"[a-zA-Z0-9 /-]*", unit):
        return f"({unit})²"
    return re.sub(r"([a-zA-Z]+)(-?\d+)?", lambda part: f"{part[1]}{2 * int(part[2] or 1)}", unit)


def bearing(longitude: float, latitude: float) -> str:
    """A place on a globe in whole degrees."""
    return f"{abs(latitude):.0f}° {'N' if latitude >= 0 else 'S'}, {longitude % 360:.0f}° E"
