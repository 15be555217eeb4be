"""The Dataset convention: a state or a trajectory as an `xarray.Dataset`, and as tensors.

A field is a function of position, so a Dataset keeps its coordinates beside its numbers:

    grid       u(sample, time, y, x)      with x(x), y(y)
    sensors    u(sample, time, point)     with x(point), y(point)
    a swath    u(sample, time, scan, pixel)     with x(scan, pixel), y(scan, pixel): sensors, too

`sample` and `time` (`lead_time` in a forecast) may be absent; a variable without time is static.
Dimensions may come in any order, axes in any direction and from any origin. NaN means *not
observed*. `u_variance`, where present, is the variance of the observation error of u.

A point's components follow `geometry.coordinates`; a grid's dimensions, slow first, are those names
reversed (y, x · latitude, longitude · radius, latitude, longitude). Nothing here names a geometry.
"""

from pdeforecast.trajectory.asking import lead_times, start_time, target
from pdeforecast.trajectory.checks import check, faults
from pdeforecast.trajectory.files import check_target, open_dataset, save_dataset, state_hash
from pdeforecast.trajectory.layout import (
    STATION,
    TIMES,
    axes_of,
    default_axes,
    flat,
    geometry_of,
    grid_dims,
    grid_points,
    is_grid,
    loose_points,
    station_names,
    times_of,
)
from pdeforecast.trajectory.matching import SAME_TIME, Matched, match
from pdeforecast.trajectory.output import check_output, write
from pdeforecast.trajectory.stations import read_stations
from pdeforecast.trajectory.streaming import StreamedValues, stream
from pdeforecast.trajectory.tensors import (
    Samples,
    measure,
    observations,
    samples,
    to_dataset,
    trajectory_values,
)
from pdeforecast.trajectory.units import (
    converted,
    factor,
    factors,
    time_factor,
    time_unit,
    times_in,
    unit_of,
    unit_of_times,
)

__all__ = [
    "SAME_TIME",
    "STATION",
    "TIMES",
    "Matched",
    "Samples",
    "StreamedValues",
    "axes_of",
    "check",
    "check_output",
    "check_target",
    "converted",
    "default_axes",
    "factor",
    "factors",
    "faults",
    "flat",
    "geometry_of",
    "grid_dims",
    "grid_points",
    "is_grid",
    "lead_times",
    "loose_points",
    "match",
    "measure",
    "observations",
    "open_dataset",
    "read_stations",
    "samples",
    "save_dataset",
    "start_time",
    "state_hash",
    "station_names",
    "stream",
    "target",
    "time_factor",
    "time_unit",
    "times_in",
    "times_of",
    "to_dataset",
    "trajectory_values",
    "unit_of",
    "unit_of_times",
    "write",
]
