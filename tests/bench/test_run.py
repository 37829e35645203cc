"""Which measurements a run makes."""

import pytest

from bench.run import chosen_tests


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("requests-1", ["requests-1"]),
        ("requests", ["requests-1", "requests-16", "requests-64"]),
        ("runs-10, start-r", ["start-run", "runs-10"]),
        ("nothing", []),
    ],
)
def test_a_name_chooses_itself_and_anything_else_what_begins_with_it(
    wanted: str, names: list[str]
) -> None:
    assert [measurement.name for measurement in chosen_tests(wanted)] == names
