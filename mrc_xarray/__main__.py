"""``python -m mrc_xarray`` runs the command ``mrc-xarray``."""

import sys

from mrc_xarray.cli import main

if __name__ == "__main__":
    sys.exit(main())
