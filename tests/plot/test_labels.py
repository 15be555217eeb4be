"""Units as a reader expects them."""

import pytest

from pdeforecast.plot.labels import bearing, label, pretty, quantity, squared


@pytest.mark.parametrize(
    ("unit", "shown", "square"),
    [
        ("1", "–", "–"),
        ("K", "K", "K²"),
        ("s-1", "s⁻¹", "s⁻²"),
        ("m s-1", "m s⁻¹", "m² s⁻²"),
        ("kg m-3", "kg m⁻³", "kg² m⁻⁶"),
        ("m/s", "m/s", "m²/s²"),
        ("m^2", "m^2", "(m^2)²"),
    ],
)
def test_exponents_are_raised_and_squares_have_twice_as_much(unit: str, shown: str, square: str) -> None:
    assert label("u", unit) == f"u ({shown})" and pretty(squared(unit)) == square


def test_numbers_carry_their_unit_if_they_have_one() -> None:
    assert quantity(1.5, "hours") == "1.5 hours" and quantity(2.0, "1") == "2"
    assert label("latitude", "degrees_north") == "latitude (°N)"
    assert bearing(-10.0, -20.0) == "20° S, 350° E"
