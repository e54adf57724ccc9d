"""`python -m saga.gateway`."""

import sys

from saga.gateway.service import main

if __name__ == "__main__":
    sys.exit(main())
