"""The errors of cost, one tree, each saying what, got and expected.

CostError
├── InvalidPrices     the price file cannot be read, or a row in it is wrong
├── UnknownPrice      the file has no price for something that the plan uses: no guess is made
├── TooFewDays        a forecast or an advice from less history than it needs
└── UsageUnavailable  Prometheus did not answer, or answered an error; the same question may succeed later
"""

from serving import errors as base


class CostError(base.FlightpathError):
    code = "cost"


class InvalidPrices(CostError, base.InvalidInput):
    code = "cost_prices"


class UnknownPrice(CostError, base.NotFound):
    code = "cost_unknown_price"


class TooFewDays(CostError, base.InvalidInput):
    code = "cost_too_few_days"


class UsageUnavailable(CostError, base.RetryableError):
    code = "cost_usage"
