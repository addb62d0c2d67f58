"""Who takes part in `rivals.py`: each prices a batch of options its own way, and answers in the units of our server.

A contestant's `prepare` turns a batch into a function without arguments, outside the clock: columns into Python floats
where it works on these, objects made that a careful user would make once. What is timed is what has to be done again
for other options: set inputs, price, read the price and every Greek that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.artefact import bundled_directory
from pinn_inference.pricing.model import load_model, load_numpy_model
from pinn_inference.pricing.scalar import ScalarPricer
from pinn_inference.pricing.types import Method, OptionBatch, Quotes

if TYPE_CHECKING:
    from pinn_inference.pricing.american_scalar import AmericanScalarPricer

Columns = dict[str, NDArray[np.float64]]
Run = Callable[[], Columns]
Kind = Literal["ours", "formula", "library", "network"]

GREEKS = ("delta", "gamma", "vega", "theta", "rho")
VALUES = ("price", *GREEKS)
MANY = (1, 4096, 65_536)
ONE_BY_ONE = (1, 4096)
SLOW = (1, 64)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of pricing. `sizes` are the batches it is timed with; a loop takes as long per option in any of them."""

    name: str
    kind: Kind
    style: Literal["european", "american"]
    prepare: Callable[[OptionBatch], Run]
    sizes: tuple[int, ...]
    note: str = ""
    has_accuracy: bool = True


def european() -> list[Contestant]:
    """For European options, ours first."""
    return [
        *_our_european(),
        Contestant("closed form, NumPy and SciPy", "formula", "european", _textbook, MANY, "as textbooks write it"),
        Contestant("closed form, Python's math", "formula", "european", _one_by_one(_math_quote), ONE_BY_ONE, "a loop"),
        Contestant(
            "QuantLib, AnalyticEuropeanEngine", "library", "european", QuantLibMarket(), ONE_BY_ONE, "a loop in Python"
        ),
        Contestant(
            "QuantLib, BlackCalculator",
            "library",
            "european",
            _one_by_one(_black_calculator),
            ONE_BY_ONE,
            "a loop in Python",
        ),
        Contestant("vollib (the new py_vollib)", "library", "european", _vollib, ONE_BY_ONE, "a loop in Python"),
        Contestant(
            "Keras model.predict, 4 × 64",
            "network",
            "european",
            _keras_predict,
            MANY,
            "untrained: its speed means something, its values do not; price alone, no Greeks",
            has_accuracy=False,
        ),
    ]


def american() -> list[Contestant]:
    """For American options: ours and QuantLib's engines."""
    import QuantLib as ql  # noqa: N813

    engine = ql.QdFpAmericanEngine
    schemes = (
        ("fast", engine.fastScheme()),
        ("accurate", engine.accurateScheme()),
        ("high precision", engine.highPrecisionScheme()),
    )
    quantlib = {
        **{f"QdFp {name}": lambda process, scheme=scheme: engine(process, scheme) for name, scheme in schemes},
        "Barone-Adesi and Whaley": ql.BaroneAdesiWhaleyApproximationEngine,
        "Bjerksund and Stensland": ql.BjerksundStenslandApproximationEngine,
        "binomial (Leisen-Reimer, 501)": lambda process: ql.BinomialLRVanillaEngine(process, 501),
        "binomial (CRR, 1,000)": lambda process: ql.BinomialCRRVanillaEngine(process, 1000),
        "finite differences (200 × 200)": lambda process: ql.FdBlackScholesVanillaEngine(process, 200, 200),
    }
    return [
        *_our_american(),
        *(
            Contestant(f"QuantLib, {name}", "library", "american", QuantLibMarket(make), SLOW, "price alone; a loop")
            for name, make in quantlib.items()
        ),
    ]


def _our_european() -> list[Contestant]:
    directory = bundled_directory()
    by_numpy, by_tensorflow = load_numpy_model(directory), load_model(directory, threads=1)
    by_tensorflow.warm_up()
    return [
        Contestant(
            "ours, scalar",
            "ours",
            "european",
            _one_by_one(_scalar(ScalarPricer(by_numpy.artefact))),
            ONE_BY_ONE,
            "single quotes; here a loop",
        ),
        Contestant("ours, NumPy", "ours", "european", _by_network(by_numpy.price), MANY, "small batches"),
        Contestant("ours, TensorFlow", "ours", "european", _by_network(by_tensorflow.price), MANY, "large batches"),
        Contestant("ours, closed form", "ours", "european", _columns_of(closed_form.price), MANY, "outside the domain"),
    ]


def _our_american() -> list[Contestant]:
    directory = bundled_directory("american")
    from pinn_inference.pricing.american import load_american, load_numpy_american
    from pinn_inference.pricing.american_scalar import AmericanScalarPricer

    european = load_numpy_model(bundled_directory())
    by_numpy = load_numpy_american(directory, european)
    by_tensorflow = load_american(directory, load_model(bundled_directory(), threads=1), threads=1)
    by_tensorflow.warm_up()
    scalar = AmericanScalarPricer(by_numpy.artefact, ScalarPricer(european.artefact))
    note = "price, Greeks, exercise boundary"
    return [
        Contestant("ours, scalar", "ours", "american", _one_by_one(_scalar(scalar)), ONE_BY_ONE, f"{note}; a loop"),
        Contestant("ours, NumPy", "ours", "american", _by_network(by_numpy.price), MANY, note),
        Contestant("ours, TensorFlow", "ours", "american", _by_network(by_tensorflow.price), MANY, note),
    ]


def _scalar(pricer: ScalarPricer | AmericanScalarPricer) -> Callable[..., Sequence[float]]:
    def quote(*option: Any) -> Sequence[float]:
        answer = pricer.quote(*option)
        if answer is None:
            raise ValueError(f"outside the trained domain: {option}")
        return answer[:6]

    return quote


def _by_network(price: Callable[[OptionBatch], Quotes]) -> Callable[[OptionBatch], Run]:
    """Refuses a batch that the network does not price alone: its time would be that of two methods."""

    def prepare(batch: OptionBatch) -> Run:
        elsewhere = np.count_nonzero(price(batch).method != Method.PINN)
        if elsewhere:
            raise ValueError(f"{elsewhere} of {len(batch)} options are outside the trained domain")
        return _columns_of(price)(batch)

    return prepare


def _columns_of(price: Callable[[OptionBatch], Quotes]) -> Callable[[OptionBatch], Run]:
    def prepare(batch: OptionBatch) -> Run:
        def run() -> Columns:
            quotes = price(batch)
            return {name: getattr(quotes, name) for name in VALUES}

        return run

    return prepare


def rows(batch: OptionBatch) -> list[tuple[float, float, float, float, float, float, bool]]:
    """Options as tuples of Python's own numbers: spot, strike, maturity, rate, dividend, volatility, is call."""
    columns = (
        batch.spot,
        batch.strike,
        batch.maturity,
        batch.rate,
        batch.dividend,
        batch.volatility,
        batch.is_call,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _one_by_one(quote: Callable[..., Sequence[float]]) -> Callable[[OptionBatch], Run]:
    """A loop over `quote`, which gives the price and the five Greeks of one option."""

    def prepare(batch: OptionBatch) -> Run:
        options = rows(batch)

        def run() -> Columns:
            found = [quote(*option) for option in options]
            return dict(zip(VALUES, zip(*found, strict=True), strict=True))  # type: ignore[arg-type]

        return run

    return prepare


def _math_quote(
    spot: float, strike: float, maturity: float, rate: float, dividend: float, volatility: float, is_call: bool
) -> Sequence[float]:
    sign = 1.0 if is_call else -1.0
    root = math.sqrt(maturity)
    spread = volatility * root
    d1 = (math.log(spot / strike) + (rate - dividend) * maturity) / spread + 0.5 * spread
    d2 = d1 - spread
    asset, cash = spot * math.exp(-dividend * maturity), strike * math.exp(-rate * maturity)
    upper = 0.5 * math.erfc(-sign * d1 * math.sqrt(0.5))
    lower = 0.5 * math.erfc(-sign * d2 * math.sqrt(0.5))
    vega = asset * math.exp(-0.5 * d1 * d1) / math.sqrt(2.0 * math.pi) * root
    return (
        sign * (asset * upper - cash * lower),
        sign * asset * upper / spot,
        vega / (spot * spot * spread * root),
        vega,
        sign * (dividend * asset * upper - rate * cash * lower) - 0.5 * vega * volatility / maturity,
        sign * maturity * cash * lower,
    )


def _textbook(batch: OptionBatch) -> Run:
    from scipy.special import ndtr

    def run() -> Columns:
        sign = np.where(batch.is_call, 1.0, -1.0)
        root = np.sqrt(batch.maturity)
        spread = batch.volatility * root
        d1 = (
            np.log(batch.spot / batch.strike) + (batch.rate - batch.dividend) * batch.maturity
        ) / spread + 0.5 * spread
        asset = batch.spot * np.exp(-batch.dividend * batch.maturity)
        cash = batch.strike * np.exp(-batch.rate * batch.maturity)
        held, owed = asset * ndtr(sign * d1), cash * ndtr(sign * (d1 - spread))
        vega = asset * np.exp(-0.5 * d1 * d1) / math.sqrt(2.0 * math.pi) * root
        return {
            "price": sign * (held - owed),
            "delta": sign * held / batch.spot,
            "gamma": vega / (batch.spot**2 * spread * root),
            "vega": vega,
            "theta": sign * (batch.dividend * held - batch.rate * owed)
            - 0.5 * vega * batch.volatility / batch.maturity,
            "rho": sign * batch.maturity * owed,
        }

    return run


def _black_calculator(
    spot: float, strike: float, maturity: float, rate: float, dividend: float, volatility: float, is_call: bool
) -> Sequence[float]:
    import QuantLib as ql  # noqa: N813

    discount = math.exp(-rate * maturity)
    found = ql.BlackCalculator(
        ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, strike),
        spot * math.exp((rate - dividend) * maturity),
        volatility * math.sqrt(maturity),
        discount,
    )
    return (
        found.value(),
        found.delta(spot),
        found.gamma(spot),
        found.vega(maturity),
        found.theta(spot, maturity),
        found.rho(maturity),
    )


class QuantLibMarket:
    """QuantLib's instruments: one process and one engine whose quotes are set anew for every option.

    With `make_engine` American options, whose engines give a price alone; without it European ones and their Greeks.
    Maturities must be whole days of a year of 365: QuantLib counts in dates.
    """

    def __init__(self, make_engine: Callable[[Any], Any] | None = None) -> None:
        self._make_engine = make_engine

    def __call__(self, batch: OptionBatch) -> Run:
        import QuantLib as ql  # noqa: N813

        today = ql.Date(2, 1, 2026)
        ql.Settings.instance().evaluationDate = today
        calendar, days = ql.NullCalendar(), ql.Actual365Fixed()
        spot, rate, dividend, volatility = (ql.SimpleQuote(value) for value in (100.0, 0.0, 0.0, 0.2))

        def flat(quote: Any) -> Any:
            return ql.YieldTermStructureHandle(ql.FlatForward(today, ql.QuoteHandle(quote), days))

        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(spot),
            flat(dividend),
            flat(rate),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, calendar, ql.QuoteHandle(volatility), days)),
        )
        american = self._make_engine is not None
        engine = self._make_engine(process) if self._make_engine else ql.AnalyticEuropeanEngine(process)
        options = [(*option, today + round(365 * option[2])) for option in rows(batch)]

        def run() -> Columns:
            found: list[Sequence[float]] = []
            for s, k, _, r, q, sigma, is_call, expiry in options:
                spot.setValue(s)
                rate.setValue(r)
                dividend.setValue(q)
                volatility.setValue(sigma)
                payoff = ql.PlainVanillaPayoff(ql.Option.Call if is_call else ql.Option.Put, k)
                exercise = ql.AmericanExercise(today, expiry) if american else ql.EuropeanExercise(expiry)
                option = ql.VanillaOption(payoff, exercise)
                option.setPricingEngine(engine)
                if american:
                    found.append((option.NPV(),))
                else:
                    found.append(
                        (option.NPV(), option.delta(), option.gamma(), option.vega(), option.theta(), option.rho())
                    )
            return dict(zip(VALUES, zip(*found, strict=True), strict=False))  # type: ignore[arg-type]

        return run


def american_reference(batch: OptionBatch) -> NDArray[np.float64]:
    """Prices by QuantLib's QdFp engine with more nodes than its scheme of high precision has.

    The two agree to 1e-9 of the strike, and schemes with other quadratures to 2e-8.
    """
    import QuantLib as ql  # noqa: N813

    run = QuantLibMarket(lambda process: ql.QdFpAmericanEngine(process, ql.QdFpLegendreScheme(100, 40, 60, 400)))
    return np.asarray(run(batch)()["price"])


def _vollib(batch: OptionBatch) -> Run:
    from vollib.black_scholes_merton import black_scholes_merton
    from vollib.black_scholes_merton.greeks import analytical

    options = [
        ("c" if is_call else "p", spot, strike, maturity, rate, volatility, dividend)
        for spot, strike, maturity, rate, dividend, volatility, is_call in rows(batch)
    ]
    functions = (black_scholes_merton, *(getattr(analytical, name) for name in GREEKS))

    def run() -> Columns:
        found = [[function(*option) for function in functions] for option in options]
        columns = np.array(found, dtype=np.float64).T
        return in_units_of_ours(dict(zip(VALUES, columns, strict=True)))

    return run


def in_units_of_ours(columns: Columns) -> Columns:
    """vollib's vega and rho are per percentage point and its theta is per day of a year of 365."""
    scales = {"vega": 100.0, "rho": 100.0, "theta": 365.0}
    return {name: scales.get(name, 1.0) * column for name, column in columns.items()}


def _keras_predict(batch: OptionBatch) -> Run:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    hidden = [tf.keras.layers.Dense(64, "tanh") for _ in range(4)]
    model = tf.keras.Sequential([tf.keras.layers.Input((6,)), *hidden, tf.keras.layers.Dense(1)])
    inputs = np.stack(
        [batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend, batch.volatility], axis=1
    ).astype(np.float32)

    def run() -> Columns:
        return {"price": model.predict(inputs, batch_size=len(inputs), verbose=0)[:, 0]}

    return run
