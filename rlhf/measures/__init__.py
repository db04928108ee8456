"""Measures: arrays to numbers.

Takes: numpy arrays (shapes in the names: `margins_N` is one number a pair) and seeds. Gives: floats and frozen records.
Writes: nothing. Never: reads a file or the store, knows what a pair is, returns NaN.

What can't be measured is refused or None, never NaN: an empty array raises ValueError, as its caller must say how an
absent figure is shown. Formula and source stand in each docstring.
"""

from rlhf.measures import agreement, calibration, intervals, ranking, similarity

__all__ = ["agreement", "calibration", "intervals", "ranking", "similarity"]
