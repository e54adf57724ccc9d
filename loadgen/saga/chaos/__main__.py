"""`python -m saga.chaos`."""

import sys

from saga.chaos.cli import main

if __name__ == "__main__":
    sys.exit(main())
