"""Text that users read is plain present-day English: a short list of words stays out of it."""

import re

import pytest

from tests.docs import texts

# What reads as translated or old, and what to say instead.
INSTEAD = {
    r"mend(?:s|ed|ing)?\b": "fix",
    r"anew\b": "again",
    r"whoever\b": "anyone who, the client that",
    r"(?:of|by|with) ours\b": "our",
    r"of (?:its|theirs|yours) own's\b": "its, their, your",
    r"in the place of\b": "instead of",
    r"takes? the place of\b": "replaces",
    r"in its stead\b": "instead of it",
    r"likewise\b": "also, too",
    r"seldom\b": "rarely",
    r"(?:is|are) told\b": "gets, learns",
    r"thrice\b": "three times",
    r"twice over\b": "twice",
    r"has it that\b": "says that",
    r"in whatever clothes\b": "wherever it appears",
    r"gives? way\b": "is replaced",
    r"a word about\b": "a message about",
    r"outdo(?:es)?\b": "has precedence over",
    r"for nothing\b(?! else)": "in vain",
    r"so that none\b": "so that no",
    r"(?:is|are) had\b": "is available",
    r"can(?:not)? be had\b": "is available, is not available",
    r"stands? (?:there|here|in|behind|before|after|at|on|where|twice)\b": "is (written)",
    r"what becomes of\b": "what happens to",
    r"(?:no|any|every|which) word of\b": "nothing of",
    r"goes? by\b": "follows, uses",
    r"hand(?:s|ed)? (?:it |them |this |that )?on\b": "pass on",
}
BANNED = re.compile(rf"\b(?:{'|'.join(INSTEAD)})", re.IGNORECASE)
_CODE = re.compile(r"`[^`\n]*`")


def found_in(text: str) -> list[str]:
    """Return the banned words of a text, leaving out what it quotes as code."""
    return [match.group() for match in BANNED.finditer(_CODE.sub("", text))]


def test_text_that_users_read_has_no_banned_word() -> None:
    found = {place: found_in(text) for place, text in texts.everything().items()}

    assert {place: words for place, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "text",
    ["mend: chmod 600", "Whoever reads", "a proxy of ours", "it stands in the file", "is told"],
)
def test_a_banned_word_is_found(text: str) -> None:
    assert found_in(text)


@pytest.mark.parametrize("text", ["recommend it", "a standard", "amendment", "told apart", "hours"])
def test_a_word_that_holds_a_banned_one_is_not_found(text: str) -> None:
    assert not found_in(text)
