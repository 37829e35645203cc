"""Methods that a data class has before its own are generated."""

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any, ClassVar

import pytest

from claude_proxy.deferred import data_classes
from claude_proxy.deferred.data_classes import dataclass, field_names

_GENERATED = "<string>"  # where the code of `dataclasses`' methods is said to be


def is_generated(cls: Any) -> bool:
    return bool(cls.__dict__["__init__"].__code__.co_filename == _GENERATED)


@dataclass(frozen=True, slots=True)
class Kept:
    one: int
    two: list[int] = field(default_factory=list)
    three: str = field(default="", compare=False)
    kind: ClassVar[str] = "kept"


def classes(**options: bool) -> tuple[Any, Any]:
    """Return a class as `dataclasses` makes it, and one that waits."""

    def made(decorate: Any) -> Any:
        @decorate(slots=True, **options)
        class Pair:
            """Two values."""

            first: Any
            second: Any = 7
            third: Any = field(default=9, compare=False)

        return Pair

    return made(dataclasses.dataclass), made(dataclass)


OPTIONS = [
    {},
    {"frozen": True},
    {"frozen": True, "kw_only": True},
    {"eq": False},
    {"frozen": True, "eq": False},
    {"repr": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        ((1, 2, 3), {}),
        ((1, 2, 3, 4), {}),
        ((1,), {"first": 1}),
        ((), {"first": 1}),
        ((), {"first": 1, "third": 3}),
        ((1,), {"fourth": 4}),
        ((), {"second": 2}),
    ],
    ids=str,
)
def test_arguments_mean_what_they_mean_to_dataclasses(
    options: dict[str, bool], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    same, later = classes(**options)

    def outcome(cls: Any) -> tuple[object, ...]:
        try:
            made = cls(*args, **kwargs)
        except TypeError as error:
            return (str(error),)
        return made.first, made.second, made.third

    assert outcome(later) == outcome(same)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_instances_compare_and_hash_as_those_of_dataclasses(options: dict[str, bool]) -> None:
    same, later = classes(**options)
    pairs = [{"first": 1}, {"first": 1, "third": 3}, {"first": 2}]

    def outcome(cls: Any) -> list[object]:
        made = [cls(**one) for one in pairs]
        equal: list[object] = [one == other for one in made for other in [*made, 1, None]]
        if cls.__hash__ is None or cls.__hash__ is object.__hash__:
            return [*equal, cls.__hash__]
        return [*equal, *map(hash, made)]

    before = outcome(later)

    assert before == outcome(same)
    dataclasses.fields(later)
    assert is_generated(later)
    assert outcome(later) == before  # what is in a dictionary is found there


def test_first_instances_are_made_compared_copied_and_pickled_without_generated_methods() -> None:
    first = Kept(1)
    first.two.append(5)

    assert first != Kept(1)
    assert copy.copy(first) == first
    assert pickle.loads(pickle.dumps(first)) == first
    assert data_classes.replace(first, one=2) == Kept(2, [5])
    assert field_names(Kept) == ("one", "two", "three")
    match first:
        case Kept(one, _):
            assert one == 1
    assert not is_generated(Kept)


def test_an_instance_of_a_frozen_class_is_frozen_from_the_start() -> None:
    _, later = classes(frozen=True)
    first = later(1)

    with pytest.raises(dataclasses.FrozenInstanceError):
        del first.second
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.second = 1
    assert first.second == 7


def test_methods_of_the_class_itself_stay() -> None:
    @dataclass(frozen=True, slots=True)
    class Own:  # noqa: PLW1641 - the hash is generated
        value: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __repr__(self) -> str:
            return "hidden"

        def __post_init__(self) -> None:
            if self.value < 0:
                raise ValueError("below zero")

    assert Own(1) == Own(2)
    assert hash(Own(1)) != hash(Own(2))
    assert f"{Own(1)!r}" == "hidden"
    with pytest.raises(ValueError, match="below"):
        Own(-1)


def test_a_hash_of_the_class_itself_stays() -> None:
    @dataclass(slots=True)
    class Own:
        value: int

        def __hash__(self) -> int:
            return 5

    assert hash(Own(1)) == 5


def test_a_class_of_many_instances_gets_generated_methods() -> None:
    _, later = classes(frozen=True)

    many = [later(number) for number in range(1000)]

    assert is_generated(later)
    assert [one.first for one in many] == list(range(1000))


@pytest.mark.parametrize(
    "given",
    [field(default=1, kw_only=True), field(default=1, hash=False)],
    ids=["kw_only", "hash"],
)
def test_what_is_not_plain_waits_for_generated_methods(given: Any) -> None:
    @dataclass(frozen=True, slots=True)
    class Special:
        value: int = given

    assert Special() == Special()
    assert is_generated(Special)


def made_inside(decorate: Any) -> Any:
    @decorate(frozen=True, slots=True)
    class Text:
        """A text and what was made of it."""

        text: str
        length: int = field(init=False)
        seen: bool = field(default=True, init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", len(self.text))

    return Text


def test_a_field_that_is_no_argument_is_made_by_the_class() -> None:
    same, later = made_inside(dataclasses.dataclass), made_inside(dataclass)

    first = data_classes.replace(later("a"), text="two")

    assert (first.text, first.length, first.seen) == ("two", 3, True)
    assert later.__match_args__ == same.__match_args__
    assert hash(first) == hash(same("two"))
    assert first == later("two") != later("one")
    assert not is_generated(later)
    words = []
    for cls in (same, later):
        with pytest.raises(TypeError, match="length") as error:
            cls("a", length=1)
        words.append(str(error.value))
    assert words[0] == words[1]
    for replace in (dataclasses.replace, data_classes.replace):
        with pytest.raises((TypeError, ValueError), match="init=False"):
            replace(first, length=1)


def test_replace_asks_for_no_more_than_dataclasses_does() -> None:
    _, later = classes(frozen=True)

    assert data_classes.replace(later(1), second=3).second == 3
    with pytest.raises(TypeError, match="unexpected keyword argument 'fourth'"):
        data_classes.replace(later(1), fourth=4)


def test_replace_takes_classes_that_do_not_wait() -> None:
    same, _ = classes(frozen=True)

    assert data_classes.replace(same(1), first=2) == same(2)
    assert field_names(same) == ("first", "second", "third")
