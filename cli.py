"""Run the command line from a checkout: `python cli.py tokens "a red fox"`."""

import sys

from clipcond.cli import main

if __name__ == "__main__":
    sys.exit(main())
