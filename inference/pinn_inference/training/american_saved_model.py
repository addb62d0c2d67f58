"""An American model as a TensorFlow SavedModel like a European one's, see `saved_model`, with its European part."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing.american_artefact import AmericanArtefact
from pinn_inference.pricing.american_engine import TensorFlowAlgebra
from pinn_inference.pricing.american_greeks import PREMIUM_ROUNDING, Greeks, PutTerms, addition, exercised, held
from pinn_inference.pricing.american_network import inside, premium_gradient
from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.model import MIN_VARIANCE
from pinn_inference.pricing.tensorflow_engine import Formula
from pinn_inference.tensorflow_runtime import Tensor, load_tensorflow
from pinn_inference.training import saved_model

OUTPUTS: Final = (*saved_model.OUTPUTS, "exercise_boundary")


def export_american(directory: Path, artefact: AmericanArtefact, european: Artefact) -> None:
    """Writes the SavedModel with one signature, `serving_default`; inputs as for `saved_model.export`.

    Outputs: those of `OUTPUTS`, float64 of shape (n,), in the units of `Quotes`. An option that one of the two models
    was not trained for gets NaN in all of them; one that is never exercised early has its European price.
    """
    tf = load_tensorflow()
    formula = Formula(tf, european.network, european.certificate)
    networks, certificate = artefact.networks, artefact.certificate
    bounds = tf.constant(certificate.bound)
    knots_per_s = len(certificate.bound) / float(certificate.s[-1])

    def price(
        spot: Tensor,
        strike: Tensor,
        maturity: Tensor,
        rate: Tensor,
        dividend: Tensor,
        volatility: Tensor,
        is_call: Tensor,
    ) -> dict[str, Tensor]:
        def choose(condition: Tensor, if_so: Tensor | float, if_not: Tensor | float) -> Tensor:
            return tf.where(condition, *(tf.cast(value, tf.float64) for value in (if_so, if_not)))

        rows = formula.whole(None, spot, strike, maturity, rate, dividend, volatility, choose(is_call, 1.0, -1.0))
        *european_values, error_bound, variance = tf.unstack(rows[: len(saved_model.OUTPUTS) + 1])
        put_spot, put_strike = choose(is_call, strike, spot), choose(is_call, spot, strike)
        put_rate, put_dividend = choose(is_call, dividend, rate), choose(is_call, rate, dividend)
        per_variance = 2.0 / (volatility * volatility)
        put = PutTerms(
            spot=put_spot,
            strike=put_strike,
            x=tf.math.log(put_spot / put_strike),
            s=volatility * tf.sqrt(maturity),
            kappa=put_rate * per_variance,
            lambda_=put_dividend * per_variance,
        )
        never = (put_rate <= 0.0) & (put_dividend >= put_rate)
        ours = inside(networks.domain, put.s, put.kappa, put.lambda_)
        *jets, b = premium_gradient(TensorFlowAlgebra(tf), networks, put.x, put.s, put.kappa, put.lambda_)
        alive = ~never & (put.x > b) & (put.x < b + networks.domain.z_max * put.s)
        added = addition(choose, put, is_call, volatility, [choose(alive, jet, 0.0) for jet in jets])
        waiting, done = held(choose, Greeks(*european_values), added, put, is_call), exercised(choose, put, is_call)
        answer = {
            name: choose(~never & (put.x <= b), if_exercised, choose(never, if_european, if_held))
            for name, if_european, if_held, if_exercised in zip(
                Greeks._fields, european_values, waiting, done, strict=True
            )
        }
        knot = tf.clip_by_value(tf.math.ceil(put.s * knots_per_s - 1.0), 0.0, len(certificate.bound) - 1.0)
        bound = put.strike * (tf.gather(bounds, tf.cast(knot, tf.int32)) + PREMIUM_ROUNDING)
        answer["error_bound"] = error_bound + choose(never, 0.0, bound)
        boundary = choose(is_call, put.spot * tf.exp(-b), put.strike * tf.exp(b))
        answer["exercise_boundary"] = choose(never, choose(is_call, np.inf, 0.0), boundary)
        known = (never | ours) & (variance >= MIN_VARIANCE) & (variance <= european.network.domain.w_max)
        return {name: choose(known, column, np.nan) for name, column in answer.items()}

    saved_model.write(directory, price)
