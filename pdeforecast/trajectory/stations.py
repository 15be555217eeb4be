"""Stations as tables: a text file with a row per observation, as a Dataset at loose points.

    latitude,longitude,height [km],height_error [km],time [h]
    52.1,5.2,0.012,0.001,0

Columns are named as the coordinates and the variables are; `name [unit]` says a unit where it is not the
usual one. `name_variance` is the variance of the observation error of a variable, `name_error` its
standard deviation. `time` and `sample` are optional, and so is every value: what is empty was not observed.
A column `station` names places: answers there carry it. Other columns are left alone, and so are lines that
begin with #. Semicolons or tabs may stand for commas.
"""

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdeforecast.errors import DataError, nearest
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory.layout import STATION, beyond
from pdeforecast.trajectory.units import factors

_MISSING = {"", "nan", "na", "n/a", "null", "none"}
_ORDER = ("sample", "time")


def read_stations(
    path: str | os.PathLike[str], geometry: Geometry, variables: Sequence[str], optional: Sequence[str] = ()
) -> xr.Dataset:
    """The Dataset of a table of stations, over (sample, time, point) as far as it has such columns.

    Args:
        variables: the columns that are needed beside the coordinates; none for places alone.
        optional: those that are read where all of them are there, such as static fields.

    Raises:
        DataError: if there is no such file, or it is empty, or lacks a column, has one twice, or has text
            in place of a number.
    """
    path = Path(path)
    header, rows = _table(path)
    names = _names(header, path)
    fields = [*variables, *(optional if set(optional) <= set(names) else ())]
    for name in (*geometry.coordinates, *fields):
        _require(name, [*geometry.coordinates, *variables], names, path)
    errors = [
        f"{name}_{kind}" for name in fields for kind in ("variance", "error") if f"{name}_{kind}" in names
    ]
    if variables:
        _check_errors(names, fields, path)
    keys = [name for name in _ORDER if variables and name in names]
    read = {
        name: _numbers(rows, names[name][0], header, path, name in (*geometry.coordinates, *keys))
        for name in (*geometry.coordinates, *keys, *fields, *errors)
    }
    for name in fields:
        _check_spread(read, name, rows, path)
    called = [row[names[STATION][0]].strip() for _, row in rows] if STATION in names else None
    ds = _arranged(read, geometry, keys, [*fields, *errors], called)
    for name in (name for name in read if name not in errors and names[name][1] is not None):
        ds[name].attrs["units"] = names[name][1]
    for name in errors:
        if name.endswith("_error"):
            ds = ds.assign({f"{name.removesuffix('_error')}_variance": ds[name] ** 2}).drop_vars(name)
    by = factors(ds, geometry.units)
    for name in geometry.coordinates:
        _check_limits(read[name] * by.get(name, 1.0), name, geometry, rows, path)
    return ds.assign_attrs(geometry=geometry.domain)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows that are not blank with their line numbers."""
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*.csv")])
        cure = f"Did you mean {path.parent / near}?" if near else "Check the path."
        raise DataError(f"expected a table of stations; there is no file {path}.", cure)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = ["\n" if line.startswith("#") else line for line in file]
        first = next((line for line in text if line.strip()), "")
        reader = csv.reader(text, delimiter=next((mark for mark in ",;\t" if mark in first), ","))
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"expected a table of stations as text; {path} is something else.",
            "Give a file in comma-separated values, in UTF-8.",
        ) from error
    if len(lines) < 2:
        raise DataError(
            f"expected a header and a row per observation; {path} has {len(lines)} lines.",
            "Give it a first line such as `x,y,name`, and numbers below.",
        )
    header = [cell.strip() for cell in lines[0][1]]
    for number, row in lines[1:]:
        if len(row) != len(header):
            raise DataError(
                f"expected {len(header)} cells in every line; line {number} of {path} has {len(row)}.",
                "Separate cells by commas, semicolons or tabs, and write decimals with a point.",
            )
    return header, lines[1:]


def _names(header: Sequence[str], path: Path) -> dict[str, tuple[int, str | None]]:
    """By name, the column and its unit, from `name [unit]`."""
    found: dict[str, tuple[int, str | None]] = {}
    for i, cell in enumerate(header):
        match = re.fullmatch(r"(.*?)\s*\[([^\]]*)\]", cell)
        name, unit = (match[1], match[2].strip()) if match else (cell, None)
        if name and name in found:
            raise DataError(
                f"expected every column once; {path} has {name} twice.", f"Keep one column {name}."
            )
        found[name] = i, unit
    return found


def _require(name: str, needed: Sequence[str], names: Mapping[str, Any], path: Path) -> None:
    if name in names:
        return
    near = nearest(name, [other for other in names if other and other not in needed])
    raise DataError(
        f"expected a column {name}; {path} has {', '.join(filter(None, names)) or 'none'}.",
        f"Rename the column {near} to {name}." if near else f"Add a column {name}.",
    )


def _check_errors(names: Mapping[str, Any], fields: Sequence[str], path: Path) -> None:
    """That every column of errors belongs to a variable, and to it alone."""
    for name in names:
        base, _, kind = name.rpartition("_")
        if kind in ("variance", "error") and base not in fields and nearest(base, fields):
            raise DataError(
                f"expected errors of {', '.join(fields)}; {path} has a column {name}.",
                f"Rename it to {nearest(base, fields)}_{kind}.",
            )
        own = names[name][1]
        if kind == "error" and base in fields and own not in (None, names[base][1]):
            raise DataError(
                f"expected {name} in the unit of {base}; {path} says {own!r}.",
                f"Convert it to {names[base][1] or 'the same'}, or leave out its unit.",
            )
    for name in fields:
        if {f"{name}_variance", f"{name}_error"} <= set(names):
            raise DataError(
                f"expected {name}_variance or {name}_error; {path} has both.", "Keep one of the two columns."
            )


def _numbers(
    rows: Sequence[tuple[int, list[str]]], column: int, header: Sequence[str], path: Path, needed: bool
) -> np.ndarray:
    """A column as numbers, NaN where it is empty; one that is needed has a finite number in every row."""
    values = np.empty(len(rows))
    for i, (line, row) in enumerate(rows):
        cell = row[column].strip()
        try:
            values[i] = math.nan if cell.lower() in _MISSING else float(cell)
        except ValueError:
            raise DataError(
                f"expected a number as {header[column]}; line {line} of {path} has {cell!r}.",
                "Write numbers such as -1.5e-3; leave the cell empty where nothing was observed.",
            ) from None
        if math.isinf(values[i]) or (needed and math.isnan(values[i])):
            raise DataError(
                f"expected a finite number as {header[column]}; line {line} of {path} has {cell!r}.",
                f"Fill it in, or {'delete line' if needed else 'leave the cell empty in line'} {line}.",
            )
    return values


def _check_spread(
    read: Mapping[str, np.ndarray], name: str, rows: Sequence[tuple[int, Any]], path: Path
) -> None:
    """That where a variable was observed, its error is a number ≥ 0."""
    for error in (f"{name}_error", f"{name}_variance"):
        if error not in read:
            continue
        for i in np.flatnonzero(~np.isnan(read[name]) & ~(read[error] >= 0))[:1]:
            came = "none" if np.isnan(read[error][i]) else f"{read[error][i]:g}"
            raise DataError(
                f"expected {error} ≥ 0 wherever {name} was observed; line {rows[i][0]} of {path} has {came}.",
                "Correct it; 0 stands for an exact value.",
            )


def _check_limits(
    values: np.ndarray, name: str, geometry: Geometry, rows: Sequence[tuple[int, Any]], path: Path
) -> None:
    """That positions lie within the space."""
    for i in np.flatnonzero(beyond(values, name, geometry))[:1]:
        low, high = geometry.extent[name]
        raise DataError(
            f"expected {name} from {low:g} to {high:g} in the unit {geometry.units[name]!r} of the "
            f"{geometry.name}; line {rows[i][0]} of {path} has {values[i]:g}.",
            f"Correct or remove the rows with {name} outside [{low:g}, {high:g}].",
        )


def _arranged(
    read: Mapping[str, np.ndarray],
    geometry: Geometry,
    keys: Sequence[str],
    fields: Sequence[str],
    called: Sequence[str] | None,
) -> xr.Dataset:
    """Rows as arrays over (sample, time, point); a place observed twice at once is two points."""
    labels = {key: np.unique(read[key], return_inverse=True) for key in keys}
    frame = list(zip(*(inverse.tolist() for _, inverse in labels.values()), strict=True))
    frame = frame or [()] * len(read[geometry.coordinates[0]])
    places = list(zip(*(read[name].tolist() for name in geometry.coordinates), strict=True))
    times: dict[Any, int] = {}
    points: dict[Any, int] = {}
    where = np.empty(len(places), dtype=np.int64)
    for i, (place, key) in enumerate(zip(places, frame, strict=True)):
        occurrence = times[place, key] = times.get((place, key), -1) + 1
        where[i] = points.setdefault((place, occurrence), len(points))
    coords: dict[str, Any] = {
        name: ("point", np.array([place[j] for place, _ in points]))
        for j, name in enumerate(geometry.coordinates)
    }
    for dim, (values, _) in labels.items():
        whole = dim == "sample" and bool((values == values.round()).all())
        coords[dim] = (dim, values.astype(np.int64) if whole else values)
    if called is not None:
        _, first = np.unique(where, return_index=True)
        coords[STATION] = ("point", np.array([called[row] for row in first]))
    shape = (*(len(values) for values, _ in labels.values()), len(points))
    data = {}
    for name in fields:
        array = np.full(shape, math.nan)
        array[(*(inverse for _, inverse in labels.values()), where)] = read[name]
        data[name] = ((*keys, "point"), array)
    return xr.Dataset(data, coords)
