"""Lists everything that is measured, in the order of the tables."""

from bench.measurements import LOADS, Measurement
from bench.starts import STARTS

ALL: tuple[Measurement, ...] = (*LOADS, *STARTS)
