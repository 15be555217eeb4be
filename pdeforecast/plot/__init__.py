"""Pictures of forecasts: films, triptychs, error over lead time, spectra, animations, pages.

Forecast and truth share one colour scale, taken from the truth, so that a forecast that leaves its
range shows as saturated. Signed fields are symmetric about 0, in colours that colour-blind readers
tell apart. With a truth, everything is drawn at the places that both have: a grid as an image, loose
points as dots. Of several variables the first is drawn, unless another is asked for. A sphere is seen as
a globe and as a map, a ball as a shell (where the truth, else the forecast, varies most) and two cuts.

Every function builds a `Figure` of its own and leaves matplotlib's global state alone.
"""

from pdeforecast.plot.animation import ANIMATIONS, animate, check_animation
from pdeforecast.plot.files import FORMATS, check_picture, save
from pdeforecast.plot.film import COLUMNS, forecast
from pdeforecast.plot.triptych import curves, triptych

__all__ = [
    "ANIMATIONS",
    "COLUMNS",
    "FORMATS",
    "animate",
    "check_animation",
    "check_picture",
    "curves",
    "forecast",
    "save",
    "triptych",
]
