"""What clusters cost: prices from a file, the monthly cost of a plan, a forecast, right-sizing. All of it pure."""
