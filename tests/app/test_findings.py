import pytest

from metseg.findings import plain_number, sides_in_words


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"), (1.25, 3, "1.25"), (27, 3, "27"), (100.04, 3, "100"), (1500, 3, "1500"), (123456.7, 6, "123457"),
        (2.5e7, 6, "25000000"), (9.999, 3, "10"), (1e-5, 3, "0.00001"), (-0.04567, 2, "-0.046"), (0.9375, 4, "0.9375"),
    ],
)  # fmt: skip
def test_numbers_for_people_have_no_exponent(value, digits, text):
    assert plain_number(value, digits) == text


def test_sides_read_as_before():
    assert sides_in_words((0.6, 0.9375, 2.0)) == "0.6x0.9375x2"
    assert sides_in_words((1.0, 1.23456, 10.0)) == "1x1.235x10"
