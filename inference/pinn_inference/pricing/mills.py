"""The Mills ratio and the normal distribution, vectorised, in float64, with full relative accuracy in the tails.

The Mills ratio m(y) = (1 − Φ(y))/φ(y) = √(π/2)·erfcx(y/√2) is what remains of an option's time value once the Gaussian
is divided out. Written in it, wings keep all their digits where differences of Φ would have none left.
SciPy has the function; it would add 100 MB to an image that needs this one function of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pinn_inference.pricing.types import FloatArray

SQRT_HALF_PI: Final = 1.2533141373155003
INV_SQRT_2PI: Final = 0.3989422804014327
NARROW: Final = 0.05

# Chebyshev coefficients of (1 + y)·m(y) in t = (y − 5)/(y + 5), t in [−1, 1); the first one is halved already.
# Computed with mpmath at 40 digits on 64 nodes; tests/unit/inference/pricing/test_mills.py computes them again.
_CENTRE: Final = 5.0
_COEFFICIENTS: Final = (
    1.1579976221305188,
    -0.1633449388451398,
    -0.013683136055781576,
    0.03082200019810004,
    -0.016220073012046806,
    0.005616691016460094,
    -0.0014133933783549216,
    0.0002502625460725661,
    -2.468907239728387e-05,
    -1.0107964061837592e-06,
    7.495419179740573e-07,
    -7.600274268728337e-08,
    -1.1574771441328644e-08,
    3.333386472599843e-09,
    7.538039628171347e-11,
    -1.1104247263727494e-10,
    3.509243776551059e-12,
    3.6894953861750955e-12,
    -2.3376697776383095e-13,
    -1.3271797523541405e-13,
    9.921706995888276e-15,
    5.276004995455379e-15,
    -3.373097694187922e-16,
    -2.2804338776379946e-16,
    7.496330565808626e-18,
    1.0328041877290668e-17,
)


def mills_ratio(y: FloatArray) -> FloatArray:
    """m(y) = (1 − Φ(y))/φ(y) for y ≥ 0 of any shape, infinity included; relative error below 1e-15.

    Clenshaw's recurrence; m decreases from √(π/2) at 0 to 1/y far out. A negative y is outside the approximation.
    """
    t2 = 2.0 - 4.0 * _CENTRE / (y + _CENTRE)
    b1, b2, room = np.zeros_like(y), np.zeros_like(y), np.empty_like(y)
    for coefficient in _COEFFICIENTS[:0:-1]:  # b1, b2 = t2·b1 − b2 + coefficient, b1
        np.multiply(t2, b1, out=room)
        room -= b2
        room += coefficient
        b1, b2, room = room, b1, b2
    return (0.5 * t2 * b1 - b2 + _COEFFICIENTS[0]) / (1.0 + y)


def normal_density(z: FloatArray) -> FloatArray:
    """φ(z) = exp(−z²/2)/√(2π); underflows to 0 for |z| > 38.6."""
    with np.errstate(under="ignore", over="ignore"):
        return np.exp(-0.5 * z * z) * INV_SQRT_2PI


def normal_distribution(z: FloatArray) -> FloatArray:
    """Φ(z), with full relative accuracy in the lower tail."""
    with np.errstate(under="ignore"):
        tail = normal_density(z) * mills_ratio(np.abs(z))
    return np.where(z > 0.0, 1.0 - tail, tail)


def narrow_difference(y: FloatArray, half_width: FloatArray, ratio: FloatArray) -> FloatArray:
    """m(y − h) − m(y + h) for 0 < h < 0.05 and y ≥ 0, given `ratio` = m(y); a plain difference loses log10(1/h) digits.

    Taylor's series about y, whose derivatives follow from m′ = y·m − 1 and m⁽ᵏ⁺¹⁾ = y·m⁽ᵏ⁾ + k·m⁽ᵏ⁻¹⁾. The relative
    error stays below 1e-12 for y up to 38.
    """
    first = y * ratio - 1.0
    second = y * first + ratio
    third = y * second + 2.0 * first
    fourth = y * third + 3.0 * second
    fifth = y * fourth + 4.0 * third
    sixth = y * fifth + 5.0 * fourth
    seventh = y * sixth + 6.0 * fifth
    h2 = half_width * half_width
    return -2.0 * half_width * (first + h2 / 6.0 * (third + h2 / 20.0 * (fifth + h2 / 42.0 * seventh)))
