"""The Mills ratio against mpmath: the coefficients, the values, the narrow differences."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from pinn_inference.pricing import mills


def exact(y: mp.mpf) -> mp.mpf:
    if y > 1000:  # four terms of the asymptotic series
        return 1 / y - 1 / y**3 + 3 / y**5 - 15 / y**7
    return mp.sqrt(mp.pi / 2) * mp.exp(y * y / 2) * mp.erfc(y / mp.sqrt(2))


def test_the_coefficients_are_those_of_the_chebyshev_series() -> None:
    nodes = 64
    with mp.workdps(40):
        angles = [mp.pi * (j + mp.mpf(1) / 2) / nodes for j in range(nodes)]
        values = []
        for angle in angles:
            y = 5 * (1 + mp.cos(angle)) / (1 - mp.cos(angle))
            values.append((1 + y) * exact(y))
        for order, coefficient in enumerate(mills._COEFFICIENTS):
            series = sum(value * mp.cos(order * angle) for value, angle in zip(values, angles, strict=True))
            series *= mp.mpf(1 if order == 0 else 2) / nodes
            assert coefficient == pytest.approx(float(series), rel=1e-15, abs=1e-19), order


def test_the_ratio_is_exact_to_four_units_in_the_last_place() -> None:
    y = np.concatenate([np.linspace(0.0, 40.0, 401), np.geomspace(41.0, 1e8, 30)])
    with mp.workdps(40):
        for point, value in zip(y, mills.mills_ratio(y), strict=True):
            assert abs(float(mp.mpf(float(value)) / exact(mp.mpf(float(point))) - 1)) < 1e-15, point


def test_the_ratio_at_infinity_is_zero() -> None:
    assert mills.mills_ratio(np.array([np.inf])).tolist() == [0.0]


@pytest.mark.parametrize("half_width", [1e-8, 1e-4, 1e-2, 0.0499])
def test_differences_keep_twelve_digits_however_narrow(half_width: float) -> None:
    y = np.linspace(0.0, 38.0, 77)
    found = mills.narrow_difference(y, np.full_like(y, half_width), mills.mills_ratio(y))
    with mp.workdps(60):
        for point, value in zip(y, found, strict=True):
            h, centre = mp.mpf(half_width), mp.mpf(float(point))
            assert abs(float(mp.mpf(float(value)) / (exact(centre - h) - exact(centre + h)) - 1)) < 1e-12, point


def test_the_distribution_keeps_its_lower_tail() -> None:
    z = np.array([-37.0, -8.0, -1.0, 0.0, 1.0, 8.0])
    with mp.workdps(40):
        for point, value in zip(z, mills.normal_distribution(z), strict=True):
            assert float(mp.mpf(float(value)) / mp.ncdf(mp.mpf(float(point))) - 1) == pytest.approx(0.0, abs=1e-13)
