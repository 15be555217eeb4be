"""Forecasts of physical fields in space and time by equivariant neural fields.

A state on a *geometry* is *encoded* as a few *latents* (poses and contexts); latent *dynamics* move
them; a *field* reads them back anywhere in space. Nothing is ever seen except from a pose, so moving
the world moves the forecast.

    import pdeforecast as pf
    model = pf.load("navier-stokes")
    forecast = model.forecast(state, lead_time=[0.5, 1, 7.3], grid={"y": 256, "x": 256})
"""

from pdeforecast import metrics
from pdeforecast.checkpoint import load, save, shipped
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.latents import Latents

__version__ = "0.1.0"

__all__ = ["GEOMETRIES", "Forecaster", "Latents", "__version__", "load", "metrics", "save", "shipped"]
