"""Forecasts as files, a block at a time: NetCDF, Zarr, or a table, by the suffix of the path."""

import csv
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdeforecast.errors import UsageError
from pdeforecast.replacing import replacing_by_name
from pdeforecast.trajectory.blocks import BLOCK, blocks
from pdeforecast.trajectory.files import Written, check_target, each_block, need_zarr, save_dataset
from pdeforecast.trajectory.layout import STATION, TIMES


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Ask whether `write` can write there, before the work that fills it.

    Raises:
        UsageError: if `path` exists and may not be overwritten, its folder is missing, or it is to be Zarr
            and there is no zarr.
    """
    check_target(path, overwrite)
    if Path(path).suffix.lower() == ".zarr":
        need_zarr(Path(path))


def write(
    ds: xr.Dataset, path: str | os.PathLike[str], overwrite: bool = False, progress: Written | None = None
) -> None:
    """Write a forecast: `.csv` is a table with a row per point, `.zarr` Zarr, anything else NetCDF4.

    What `ds` makes when it is asked for is never whole in memory. As many lead times of a place as fit are
    asked for together. The file stands in its place when it is whole.

    Raises:
        UsageError: as `check_output` does, or if the disk has too little room.
    """
    path = Path(path)
    kind = path.suffix.lower()
    check_output(path, overwrite)
    _check_room(ds, path)
    dims = [str(dim) for dim in ds.dims]
    split = [*(dim for dim in dims if dim not in ("sample", *TIMES)), *TIMES, "sample"]
    split = [dim for dim in split if dim in dims]
    if kind not in (".csv", ".zarr"):
        save_dataset(ds, path, overwrite, progress, split)
        return
    with replacing_by_name(path) as beside:
        if kind == ".csv":
            _table(ds, beside, progress)
        else:
            _zarr(ds, beside, progress, split)


def _check_room(ds: xr.Dataset, path: Path) -> None:
    """That the disk takes what will be written, before an hour is spent on filling it."""
    size = sum(array.nbytes for array in ds.data_vars.values())
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise UsageError(
            f"expected room for {size / 1e9:.3g} GB in {path.parent}; its disk has {free / 1e9:.3g} GB left.",
            "Ask for fewer points or lead times, or give a path on another disk with `-o`.",
        )


def _table(ds: xr.Dataset, path: Path, progress: Written | None) -> None:
    """A row per sample, time and point; the header says units other than 1."""
    names = list(ds.data_vars)
    dims = ds[names[0]].dims
    loose = [str(name) for name in ds.coords if ds[name].dims == ("point",)]
    loose.sort(key=lambda name: name != STATION)
    keys = [str(dim) for dim in dims if dim != "point"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([_headed(ds, name) for name in (*keys, *loose, *map(str, names))])
        labels = {str(dim): _labels(ds, str(dim)) for dim in dims}
        where_of = {name: _labels(ds, name) for name in loose}
        done, total = 0, sum(ds[name].nbytes for name in names)
        split = [str(dim) for dim in dims]
        limit = BLOCK // 16  # as text and as Python's numbers a block is larger
        for parts in zip(*(blocks(ds[name].variable, limit, split=split) for name in names), strict=True):
            where = parts[0][0]
            values = [block for _, block in parts]
            starts = [where.get(dim, slice(0)).start or 0 for dim in split]
            for index in np.ndindex(values[0].shape):
                at = {dim: i + start for dim, i, start in zip(split, index, starts, strict=True)}
                row: list[Any] = [labels[key][at[key]] for key in keys]
                row += [where_of[name][at["point"]] for name in loose]
                table.writerow([*row, *(f"{block[index]:.8g}" for block in values)])
            done += sum(block.nbytes for block in values)
            if progress is not None:
                progress(done, total)


def _headed(ds: xr.Dataset, name: str) -> str:
    unit = str(ds[name].attrs.get("units", "1")) if name in ds.variables else "1"
    return name if unit == "1" else f"{name} [{unit}]"


def _labels(ds: xr.Dataset, dim: str) -> list[str]:
    if dim not in ds.coords:
        return [str(i) for i in range(ds.sizes[dim])]
    return [str(label) for label in ds[dim].values.tolist()]


def _zarr(ds: xr.Dataset, path: Path, progress: Written | None, split: list[str]) -> None:
    """Coordinates and attributes by xarray, then the fields a block at a time, a block being a few chunks."""
    import zarr

    names = list(ds.data_vars)
    ds.drop_vars(names).to_zarr(path, consolidated=False)
    group, fields = zarr.open_group(path, mode="a"), {}
    for name in names:
        array = ds[name]
        _, first = next(
            blocks(xr.Variable(array.dims, np.broadcast_to(np.float32(0), array.shape)), split=split)
        )
        made = fields[str(name)] = group.create_array(
            str(name),
            shape=array.shape,
            chunks=first.shape,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=[str(dim) for dim in array.dims],
        )
        made.attrs.update(array.attrs)
    for name, where, values in each_block(ds, progress, split):
        fields[name][where] = values
    # Without them a reader is warned that opening is slow, with them the writer that Zarr 3 has none yet.
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(group.store)
