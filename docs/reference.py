"""The reference of all public modules, made from their docstrings by pdoc.

`python docs/reference.py build/docs` writes it to a folder.
"""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import pdeforecast


def modules() -> list[str]:
    """The names of the package and of all its public modules."""
    found = (module.name for module in pkgutil.walk_packages(pdeforecast.__path__, "pdeforecast."))
    return ["pdeforecast", *(name for name in found if not name.rpartition(".")[2].startswith("_"))]


def render(folder: Path) -> None:
    """Writes a page for each module, and a search over all of them, into `folder`."""
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        # Modules are named one by one, because pdoc leaves out what a package does not name in `__all__`.
        warnings.filterwarnings("ignore", message="The module specification")
        pdoc.pdoc(*modules(), output_directory=folder)


if __name__ == "__main__":
    render(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
