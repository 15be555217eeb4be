"""The spaces of the package. A new geometry is one file and one line in `SPACES`."""

from pdeforecast.geometry.ball import Ball
from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.cylinder import Cylinder
from pdeforecast.geometry.no_symmetry import NoSymmetry
from pdeforecast.geometry.periodic_plane import PeriodicPlane
from pdeforecast.geometry.plane import DistancePlane, Plane, TranslatedPlane
from pdeforecast.geometry.sphere import IsotropicSphere, RotatingSphere, Sphere

SPACES: tuple[Geometry, ...] = (
    PeriodicPlane(),
    Plane(),
    Sphere(),
    RotatingSphere(),
    Ball(),
    Cylinder(),
)
"""Each with all of its symmetry."""

GEOMETRIES: dict[str, Geometry] = {
    geometry.name: geometry
    for geometry in (
        *SPACES,
        TranslatedPlane(),
        DistancePlane(),
        IsotropicSphere(),
        *map(NoSymmetry, SPACES),
    )
}

__all__ = [
    "GEOMETRIES",
    "SPACES",
    "Ball",
    "Cylinder",
    "DistancePlane",
    "Geometry",
    "IsotropicSphere",
    "NoSymmetry",
    "PeriodicPlane",
    "Plane",
    "RotatingSphere",
    "Sphere",
    "TranslatedPlane",
]
