"""Lists of names and numbers in messages."""

from medunet.base.words import list_some, two_digits


def test_no_more_names_are_listed_than_can_be_read() -> None:
    assert list_some([]) == ""
    assert list_some("abcde") == "a, b, c, d, e"
    assert list_some(range(7), 2) == "0, 1 and 5 more"
    assert list_some(["a", "b"], 1, separator="; ") == "a and 1 more"


def test_a_number_has_no_exponent() -> None:
    assert [two_digits(number) for number in (0, 2e-5, 0.123, 3.45, 16, 99.6, 123.4, 5678)] == [
        "0", "0", "0.12", "3.5", "16", "100", "123", "5678"
    ]  # fmt: skip
