"""Foreign files into the convention of `pdeforecast.trajectory`: one layout, one file.

A layout *reads*: it opens a file lazily and calls its dimensions by our names (`Source`). The rest is
common: which geometry it is, its coordinates (`fit`), and the file that is written, a block at a time.
"""

from pdeforecast.convert.conversion import Conversion, Wishes, convert, understand
from pdeforecast.convert.detection import LAYOUTS, detect, open_source
from pdeforecast.convert.source import Source

__all__ = ["LAYOUTS", "Conversion", "Source", "Wishes", "convert", "detect", "open_source", "understand"]
