"""`python -m saga.admission`."""

from saga.admission.service import main

if __name__ == "__main__":
    main()
