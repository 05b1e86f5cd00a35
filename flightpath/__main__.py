"""`python -m flightpath`."""

from flightpath.cli import main

main()
