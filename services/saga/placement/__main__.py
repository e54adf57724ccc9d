"""`python -m saga.placement`."""

from saga.placement.service import main

if __name__ == "__main__":
    main()
