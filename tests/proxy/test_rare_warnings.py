"""A warning that is caused again and again is said once a minute, by bounded memory."""

from claude_proxy.proxy.rare_warnings import RareWarnings


def test_each_text_is_said_once_a_minute() -> None:
    said: list[str] = []
    now = [0.0]
    warnings = RareWarnings(said.append, lambda: now[0])

    for moment in (0.0, 1.0, 59.0, 60.0, 61.0):
        now[0] = moment
        warnings.warn("a")
    warnings.warn("b")

    assert said == ["a", "a", "b"]


def test_many_different_texts_are_not_all_remembered() -> None:
    said: list[str] = []
    warnings = RareWarnings(said.append, lambda: 0.0)

    for number in range(1000):
        warnings.warn(str(number))
    warnings.warn("0")

    assert said == [*map(str, range(1000)), "0"]
    assert len(warnings._said) < 100


def test_a_text_that_takes_long_is_made_once_a_second_at_most() -> None:
    said: list[str] = []
    now = [0.0]
    warnings = RareWarnings(said.append, lambda: now[0])

    def text(*, may_take_long: bool) -> str:
        return "long" if may_take_long else "short"

    for what, moment in (("a", 0.0), ("a", 0.5), ("b", 0.5), ("c", 1.0)):
        now[0] = moment
        warnings.warn_about(what, text)

    assert said == ["long", "short", "long"]
