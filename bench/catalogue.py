"""Lists everything that is measured, in the order of the tables."""

from bench.container_starts import CONTAINER_STARTS
from bench.measurements import LOADS, Measurement
from bench.runs import RUNS
from bench.starts import STARTS

ALL: tuple[Measurement, ...] = (*LOADS, *STARTS, *CONTAINER_STARTS, *RUNS)
