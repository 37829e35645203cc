"""Data classes whose methods wait for the first instance."""

import copy
import dataclasses
import pickle
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from importlib import import_module
from threading import Barrier
from typing import Any, ClassVar

import pytest

from claude_proxy.deferred.data_classes import dataclass
from tests.test_architecture import MODULES


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    names: tuple[str, ...] = field(default=(), compare=False)
    kind: ClassVar[str] = "point"


@dataclass(slots=True)
class Counter:
    count: int = 0
    seen: list[int] = field(default_factory=list)
    started: bool = field(default=False, init=False)


@dataclass(frozen=True, slots=True)
class Solid(Point):
    z: int = 3

    def __post_init__(self) -> None:
        if self.z < 0:
            raise ValueError("below the ground")


def made_at_once(**options: bool) -> Any:
    """Return classes as `dataclasses` itself makes them, by name."""
    dataclass_ = dataclasses.dataclass

    @dataclass_(**options)
    class Same:
        """Two numbers."""

        a: int
        b: int = 1

    @dataclass(**options)
    class Later:
        """Two numbers."""

        a: int
        b: int = 1

    return Same, Later


@pytest.mark.parametrize(
    "options",
    [
        {"frozen": True},
        {"frozen": True, "order": True},
        {"frozen": True, "kw_only": True},
        {"eq": False},
        {"repr": False},
        {},
    ],
    ids=str,
)
def test_a_class_has_what_dataclasses_gives_it(options: dict[str, bool]) -> None:
    same, later = made_at_once(slots=True, **options)

    later(a=1)

    assert later.__dict__.keys() - same.__dict__.keys() <= {"__getstate__", "__setstate__"}
    assert same.__dict__.keys() - later.__dict__.keys() == set()
    assert later.__slots__ == same.__slots__
    assert later.__match_args__ == same.__match_args__
    assert later.__hash__ is None if same.__hash__ is None else later.__hash__ is not None


def test_an_instance_behaves_as_one_of_dataclasses() -> None:
    first = Point(1)

    assert (first.x, first.y, first.names) == (1, 2, ())
    assert first == Point(1, 2, ("other",))
    assert hash(first) == hash(Point(1))
    assert repr(first).endswith("Point(x=1, y=2, names=())")
    assert dataclasses.replace(first, y=5) == Point(1, 5)
    assert Point.kind == "point"
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.x = 3  # type: ignore[misc]


def test_wrong_arguments_are_a_type_error_from_the_first_instance_on() -> None:
    _, later = made_at_once(slots=True)

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        later()


def test_each_instance_has_its_own_default() -> None:
    first, second = Counter(), Counter()

    first.seen.append(1)

    assert (second.seen, second.started) == ([], False)


def test_a_subclass_has_the_fields_of_its_base() -> None:
    assert Solid(1, z=4) == Solid(1, 2, (), 4)
    assert [one.name for one in dataclasses.fields(Solid)] == ["x", "y", "names", "z"]
    with pytest.raises(ValueError, match="below"):
        Solid(1, z=-1)


def test_an_abstract_class_stays_abstract() -> None:
    @dataclass(frozen=True, slots=True)
    class Shape(ABC):
        side: int

        @abstractmethod
        def area(self) -> int: ...

    @dataclass(frozen=True, slots=True)
    class Square(Shape):
        def area(self) -> int:
            return self.side**2

    assert Square(3).area() == 9
    with pytest.raises(TypeError, match="abstract"):
        Shape(3)  # type: ignore[abstract]


def test_fields_can_be_asked_of_a_class_without_an_instance() -> None:
    _, later = made_at_once(slots=True)

    assert dataclasses.is_dataclass(later)
    assert [one.name for one in dataclasses.fields(later)] == ["a", "b"]


@pytest.mark.parametrize("frozen", [True, False])
def test_an_instance_that_comes_from_a_pickle_may_be_the_first(*, frozen: bool) -> None:
    _, later = made_at_once(slots=True, frozen=frozen)
    unmade = later.__new__(later)

    unmade.__setstate__([1, 2])

    assert unmade == later(1, 2)


@pytest.mark.parametrize("value", [Point(1), Solid(1), Counter(4)], ids=repr)
def test_an_instance_can_be_copied_and_pickled(value: object) -> None:
    assert copy.copy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value


def test_a_class_that_many_threads_need_first_is_made_once() -> None:
    _, later = made_at_once(slots=True, frozen=True)
    barrier = Barrier(8)

    def make(number: int) -> Any:
        barrier.wait()
        return later(number)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(make, range(8)))

    assert [one.a for one in found] == list(range(8))


def test_a_class_without_slots_is_made_at_once() -> None:
    _, later = made_at_once(frozen=True)

    assert "__eq__" in vars(later)


def test_every_class_of_the_package_can_be_made() -> None:
    """No import finds a class that `dataclasses` refuses any more, so this does."""
    found = {
        thing
        for name in MODULES
        if name != "__main__"
        for thing in vars(import_module(f"claude_proxy.{name}".removesuffix("."))).values()
        if isinstance(thing, type) and thing.__module__.startswith("claude_proxy.")
    }

    assert len([dataclasses.fields(one) for one in found if dataclasses.is_dataclass(one)]) > 100
