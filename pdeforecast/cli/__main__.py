"""`python -m pdeforecast.cli`."""

import sys

from pdeforecast.cli import main

if __name__ == "__main__":
    sys.exit(main())
