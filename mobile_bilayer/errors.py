"""The one error that people see."""


class MobileBilayerError(Exception):
    """Bad input: says what we got, what we need and what to do next. The command line exits with 2."""
