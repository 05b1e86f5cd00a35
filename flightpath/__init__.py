"""The front door: the command line and everything that runs Flightpath on one machine."""
