"""Lists of names in messages."""

from medunet.base.words import list_some


def test_no_more_names_are_listed_than_can_be_read() -> None:
    assert list_some([]) == ""
    assert list_some("abcde") == "a, b, c, d, e"
    assert list_some(range(7), 2) == "0, 1 and 5 more"
    assert list_some(["a", "b"], 1, separator="; ") == "a and 1 more"
