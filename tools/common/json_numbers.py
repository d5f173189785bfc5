"""Numbers of JSON texts. Python takes more for numbers than others do: NaN, Infinity, integers of any length, and
`true` for a 1."""

import math
import sys


def finite(text):
    """The value of a number's text."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def is_finite(value):
    """Whether it is a number that a double holds."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_count(value):
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and is_finite(value) and value >= 1
