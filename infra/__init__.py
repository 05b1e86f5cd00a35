"""What Flightpath runs on: clusters, clouds and the driver that provisions them."""
