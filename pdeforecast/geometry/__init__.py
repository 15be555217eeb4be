"""The spaces of the package. A new geometry is one file and one line in `GEOMETRIES`."""

from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.no_symmetry import NoSymmetry
from pdeforecast.geometry.periodic_plane import PeriodicPlane

_SPACES: tuple[Geometry, ...] = (PeriodicPlane(),)

GEOMETRIES: dict[str, Geometry] = {
    geometry.name: geometry for space in _SPACES for geometry in (space, NoSymmetry(space))
}

__all__ = ["GEOMETRIES", "Geometry", "NoSymmetry", "PeriodicPlane"]
