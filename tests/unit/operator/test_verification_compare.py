"""What the pods' prices show: right, wrong, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing.loading import numpy_models, read_sources
from pinn_inference.pricing.model import bundled_directory
from pinn_operator.core.samples import (
    PodPrices,
    PriceFault,
    PriceOption,
    PricePod,
    PriceProtocol,
    PriceReply,
    Quote,
)
from pinn_operator.core.status.verification import WORST_LIMIT, VerificationVerdict
from pinn_operator.core.verification import compare as comparing
from pinn_operator.core.verification.compare import Finding, compare
from pinn_operator.core.verification.grid import MONEYNESS, TERMS, grid, moneyness, ordinary, sample, term
from pinn_operator.core.verification.tolerances import apart, price_allowance
from tests.support import prices
from tests.support.prices import CANARY, STABLE, Change, answer, off_by, question, same

FULL = question()
OTHER = PricePod("eu-bbbb-x-2", "10.0.0.3:8000", canary=True, full=False)
Reply = Callable[[PricePod, PriceReply], PriceReply]


def found(canary: Change = same, stable: Change = same, **options: object) -> Finding:
    asked = question(240, CANARY, STABLE, OTHER)
    return compare(asked, answer(asked, canary=canary, stable=stable, **options), tolerance=1e-6)  # type: ignore[arg-type]


def without_stable(canary: Change = same) -> Finding:
    asked = question(240, CANARY)
    return compare(asked, answer(asked, canary=canary), tolerance=1e-6)


def short_put(option: PriceOption) -> bool:
    return not option.call and option.maturity < 7 / 365


@cache
def by_the_network() -> dict[PriceOption, Quote]:
    """What the bundled networks answer."""
    options = grid(240).options
    sources = read_sources(bundled_directory(), bundled_directory("american"))
    quotes = numpy_models(sources).price(prices.batch(options))
    columns = [getattr(quotes, name).tolist() for name in prices.NUMBERS]
    return {option: Quote(*row, method="pinn") for option, row in zip(options, zip(*columns, strict=True), strict=True)}


def network(option: PriceOption, quote: Quote) -> Quote:
    return by_the_network()[option]


# --- good revisions ---------------------------------------------------------------------------------------------------


def test_a_revision_that_prices_like_stable_passes_and_says_what_was_compared() -> None:
    shown = found()
    assert (shown.verdict, shown.reason) == (VerificationVerdict.PASS, "PricesMatch")
    assert (shown.compared, shown.styles, shown.protocol) == (240, "european, american", "/v1/price")
    assert shown.pods == (CANARY.name, OTHER.name)
    assert shown.stable_pods == (STABLE.name,)
    assert "240 options (european, american) of eu-bbbb-x-1, eu-bbbb-x-2 agree with eu-aaaa-x-1" in shown.message


@pytest.mark.parametrize(("canary", "stable"), [(network, same), (same, network), (network, network)])
def test_two_models_that_are_each_as_exact_as_they_say_pass(canary: Change, stable: Change) -> None:
    """The bundled networks beside the equations that they were trained on: no false alarm in price or Greeks."""
    assert found(canary, stable).verdict is VerificationVerdict.PASS


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), bound=st.sampled_from([1e-7, 1e-6, 1e-5, 1e-4]))
def test_models_that_are_off_by_less_than_their_bounds_pass(seed: int, bound: float) -> None:
    """A tenth of the bound, as those of two trainings are: no-arbitrage has to bear it too."""
    draw = np.random.default_rng(seed)

    def trained(option: PriceOption, quote: Quote) -> Quote:
        error = bound * option.strike
        return replace(quote, price=quote.price + float(draw.uniform(-1, 1)) * error / 2, error_bound=error)

    table: dict[PriceOption, Quote] = {}

    def model(option: PriceOption, quote: Quote) -> Quote:
        return table.setdefault(option, trained(option, quote))

    assert found(model).verdict is VerificationVerdict.PASS
    assert found(same, model).verdict is VerificationVerdict.PASS
    assert without_stable(model).verdict is VerificationVerdict.PASS


def test_a_first_revision_with_right_prices_passes_by_itself() -> None:
    shown = without_stable()
    assert (shown.verdict, shown.reason) == (VerificationVerdict.PASS, "PricesConsistent")
    assert "there was no stable revision to compare them with" in shown.message


def test_a_server_that_gives_prices_alone_can_be_verified() -> None:
    def bare(option: PriceOption, quote: Quote) -> Quote:
        return Quote(quote.price)

    assert found(bare, bare).verdict is VerificationVerdict.PASS


# --- wrong prices -----------------------------------------------------------------------------------------------------


def test_a_model_that_is_wrong_only_for_puts_under_a_week_is_found() -> None:
    shown = found(off_by(1e-4, short_put))
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesDiffer")
    assert 0 < len(shown.worst) <= WORST_LIMIT
    assert all(" put " in cell.option and cell.excess > 1 for cell in shown.worst)
    assert "options differ from stable's" in shown.message
    assert "times the tolerance" in shown.message


@pytest.mark.parametrize("american", [False, True])
@pytest.mark.parametrize("call", [False, True])
@pytest.mark.parametrize("strike", MONEYNESS)
@pytest.mark.parametrize("length", TERMS)
def test_a_model_that_is_wrong_in_one_stratum_is_found(length: str, strike: str, call: bool, american: bool) -> None:
    def here(option: PriceOption) -> bool:
        return (term(option), moneyness(option), option.call, option.american) == (length, strike, call, american)

    shown = found(off_by(1e-4 if call else -1e-4, here))
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesDiffer")


@settings(deadline=None, max_examples=40)
@given(index=st.integers(0, 239), times=st.floats(1.01, 1e6), up=st.booleans())
def test_any_one_price_beyond_its_tolerance_is_found(index: int, times: float, up: bool) -> None:
    option, right = grid(240).options[index], prices.right_prices(240)[index]
    allowed = price_allowance(option, right, right, tolerance=1e-6)
    shown = found(off_by((times if up else -times) * allowed / option.strike, lambda it: it == option))
    assert shown.verdict is VerificationVerdict.FAIL
    assert shown.worst[0].canary != shown.worst[0].expected


@pytest.mark.parametrize(("greek", "factor"), [
    ("delta", 1.01), ("gamma", 1.05), ("vega", 1.01), ("theta", 1.05), ("rho", 1.05), ("vega", 0.01),
    ("theta", 1 / 365),
])  # fmt: skip
def test_a_wrong_greek_is_found_though_every_price_is_right(greek: str, factor: float) -> None:
    def wrong(option: PriceOption, quote: Quote) -> Quote:
        return replace(quote, **{greek: getattr(quote, greek) * factor})

    shown = found(wrong)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesDiffer")
    assert {cell.quantity for cell in shown.worst} == {greek}


def test_a_greek_that_is_not_given_any_more_is_found() -> None:
    shown = found(lambda option, quote: replace(quote, vega=None))
    assert shown.verdict is VerificationVerdict.FAIL
    assert shown.worst[0].canary is None


def test_a_huge_error_bound_excuses_nothing() -> None:
    def careless(option: PriceOption, quote: Quote) -> Quote:
        return replace(quote, price=quote.price + 0.01 * option.strike, error_bound=1e9)

    assert found(careless).verdict is VerificationVerdict.FAIL


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_price_that_is_not_finite_is_found(value: float) -> None:
    shown = found(lambda option, quote: replace(quote, price=value) if short_put(option) else quote)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesNotFinite")
    assert "is not finite" in shown.message


RULES: list[tuple[str, Change]] = [
    ("put-call parity", off_by(1e-3, lambda it: not it.american and it.call and term(it) == "months")),
    ("lower bound", lambda option, quote: replace(quote, price=0.5 * quote.price)),
    ("upper bound", lambda option, quote: replace(quote, price=quote.price + option.spot + option.strike)),
    ("at least the European price", off_by(-1e-3, lambda it: it.american)),
    ("monotone in the strike", off_by(0.3, lambda it: it.call and moneyness(it) in ("high", "deep high"))),
    ("convex in the strike", off_by(5e-3, lambda it: moneyness(it) == "at")),
]


@pytest.mark.parametrize(("rule", "wrong"), RULES, ids=[rule for rule, _ in RULES])
def test_prices_that_allow_arbitrage_are_found_without_a_stable_revision(rule: str, wrong: Change) -> None:
    asked = question(240, CANARY)
    shown = compare(asked, answer(asked, canary=wrong), tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesArbitrage")
    broken = comparing.arbitrage(
        asked.options, grid(240),
        {i: wrong(o, q) for i, (o, q) in enumerate(zip(asked.options, prices.right_prices(240), strict=True))},
        tolerance=1e-6,
    )  # fmt: skip
    assert rule in {breach.rule for breach in broken}


def test_what_stable_does_too_is_no_reason_against_the_canary() -> None:
    wrong = off_by(5e-3, lambda it: moneyness(it) == "at")
    assert found(wrong, wrong).verdict is VerificationVerdict.PASS


def test_prices_that_depend_on_when_they_are_asked_for_are_found() -> None:
    def wavering(pod: PricePod, reply: PriceReply) -> PriceReply:
        if not pod.canary or reply.wave < 60:
            return reply
        return replace(reply, quotes=tuple(replace(it, price=it.price * 1.001) for it in reply.quotes))

    shown = found(reply=wavering)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesNotReproducible")
    assert shown.worst[0].quantity == "price, asked again"


def test_prices_that_differ_between_a_list_and_alone_are_found() -> None:
    def batching(pod: PricePod, reply: PriceReply) -> PriceReply:
        if not pod.canary or len(reply.options) == 1 or not pod.full:
            return reply
        return replace(reply, quotes=tuple(replace(it, price=it.price * 1.001) for it in reply.quotes))

    assert found(reply=batching).reason == "PricesNotReproducible"


def test_pods_of_one_revision_that_price_differently_are_found() -> None:
    def unlike(pod: PricePod, reply: PriceReply) -> PriceReply:
        if pod.name != OTHER.name:
            return reply
        return replace(reply, quotes=tuple(replace(it, price=it.price * 1.001) for it in reply.quotes))

    shown = found(reply=unlike)
    assert shown.verdict is VerificationVerdict.FAIL
    assert {"PodsDiffer", "PricesDiffer"} <= shown.also


def test_a_revision_that_refuses_what_stable_prices_is_found() -> None:
    def refusing(pod: PricePod, reply: PriceReply) -> PriceReply:
        if pod.canary and any(FULL.options[index].rate < 0 for index in reply.options):
            return replace(reply, status=400, quotes=(), message="rate must be positive")
        return reply

    shown = found(reply=refusing)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesDiffer")
    assert shown.worst[0].quantity == "refused"


def test_a_revision_that_falls_back_where_stables_model_prices_is_found() -> None:
    def fallen(option: PriceOption, quote: Quote) -> Quote:
        return replace(quote, method="closed_form") if not option.american else quote

    shown = found(fallen)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesFallBack")
    assert "120 of 240 options by closed_form" in shown.message
    assert found(fallen, fallen).verdict is VerificationVerdict.PASS


def test_how_many_of_the_options_asked_in_traffic_have_no_model_is_told() -> None:
    def european_only(option: PriceOption, quote: Quote) -> Quote:
        return replace(quote, method="integral_equation") if option.american else quote

    american = sum(FULL.options[number].american for number in ordinary(240))
    assert found(european_only, european_only).fallbacks == american > 0
    assert found().fallbacks == 0


# --- errors, slowness, silence ----------------------------------------------------------------------------------------


def spoilt(share: int, change: Callable[[PriceReply], PriceReply], *, both: bool = False) -> Reply:
    """Every `share`th single request of the canary, or of both, is answered otherwise."""

    def reply(pod: PricePod, given: PriceReply) -> PriceReply:
        hit = len(given.options) == 1 and (given.options[0] * 7 + given.wave) % share == 0
        return change(given) if hit and (both or pod.canary) else given

    return reply


def failed(reply: PriceReply) -> PriceReply:
    return replace(reply, status=500, quotes=(), message="boom")


def slow(reply: PriceReply) -> PriceReply:
    return replace(reply, seconds=1.5)


def without_answer(reply: PriceReply) -> PriceReply:
    return replace(reply, status=0, quotes=(), fault=PriceFault.SLOW, seconds=2.0, message="no answer within 2 s")


@pytest.mark.parametrize(("change", "share", "reason"), [
    (failed, 3, "PriceErrors"), (failed, 20, "PriceErrors"), (slow, 10, "PricesSlow"),
    (without_answer, 10, "PricesSlow"),
])  # fmt: skip
def test_a_revision_that_answers_worse_than_stable_is_found(
    change: Callable[[PriceReply], PriceReply], share: int, reason: str
) -> None:
    shown = found(reply=spoilt(share, change))
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, reason)
    assert "of stable 0 of" in shown.message


@pytest.mark.parametrize("change", [failed, slow, without_answer])
def test_what_hits_both_alike_is_no_reason_against_the_canary(change: Callable[[PriceReply], PriceReply]) -> None:
    assert found(reply=spoilt(5, change, both=True)).reason not in ("PriceErrors", "PricesSlow")


@pytest.mark.parametrize("change", [failed, slow, without_answer])
def test_one_bad_moment_of_the_canary_alone_is_no_reason_against_it(change: Callable[[PriceReply], PriceReply]) -> None:
    def moment(pod: PricePod, reply: PriceReply) -> PriceReply:
        return change(reply) if pod.canary and 40 <= reply.wave < 46 else reply

    assert found(reply=moment).verdict is VerificationVerdict.PASS


def test_an_option_that_fails_each_time_is_found_though_it_is_one_of_hundreds() -> None:
    def one(pod: PricePod, reply: PriceReply) -> PriceReply:
        return failed(reply) if pod.canary and 17 in reply.options else reply

    shown = found(reply=one)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PriceErrors")
    assert "1 options fail each time" in shown.message


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0, 0.5), cluster=st.integers(1, 8))
def test_revisions_alike_on_a_noisy_machine_are_never_found_to_be_worse_twice(
    seed: int, rate: float, cluster: int
) -> None:
    draw = np.random.default_rng(seed)
    noisy = {wave for wave in range(200) if draw.random() < rate / cluster for wave in range(wave, wave + cluster)}

    def noise(pod: PricePod, reply: PriceReply) -> PriceReply:
        return slow(reply) if reply.wave in noisy and draw.random() < 0.5 else reply

    both = [found(reply=noise).verdict for _ in range(2)]
    assert both != [VerificationVerdict.FAIL, VerificationVerdict.FAIL]


def gone(pod: PricePod) -> PodPrices:
    return PodPrices(pod, PriceProtocol.UNKNOWN, (), "connection refused")


def test_pods_that_cannot_be_reached_are_not_the_revisions_fault() -> None:
    given = answer(FULL)
    for index in (0, 1):
        pods = list(given.pods)
        pods[index] = gone(pods[index].pod)
        shown = compare(FULL, replace(given, pods=tuple(pods)), tolerance=1e-6)
        assert (shown.verdict, shown.reason) == (VerificationVerdict.ERROR, "VerificationUnavailable")
        assert "could not be asked for prices: connection refused" in shown.message


def test_a_pod_beside_those_asked_in_full_is_verified_later_when_it_is_away() -> None:
    asked = question(240, CANARY, STABLE, OTHER)
    given = answer(asked)
    shown = compare(asked, replace(given, pods=(*given.pods[:2], gone(OTHER))), tolerance=1e-6)
    assert shown.verdict is VerificationVerdict.PASS
    assert shown.pods == (CANARY.name,)


def test_answers_that_are_no_prices_are_an_error_with_the_words() -> None:
    def garbage(pod: PricePod, reply: PriceReply) -> PriceReply:
        return (
            replace(reply, quotes=(), fault=PriceFault.UNREADABLE, message="not JSON: <html>") if pod.canary else reply
        )

    shown = found(reply=garbage)
    assert shown.verdict is VerificationVerdict.ERROR
    assert "not JSON: <html>" in shown.message


def test_an_answer_that_came_too_late_as_a_whole_is_an_error_that_names_the_fields() -> None:
    asked = FULL
    given = replace(answer(asked), complete=False)
    shown = compare(asked, given, tolerance=1e-6)
    assert shown.verdict is VerificationVerdict.ERROR
    assert "spec.verification.timeoutSeconds" in shown.message


def test_a_server_without_an_interface_for_prices_is_not_applicable() -> None:
    pods = tuple(PodPrices(pod, PriceProtocol.NONE, (), "404 to both") for pod in FULL.pods)
    shown = compare(FULL, replace(answer(FULL), pods=pods), tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.NOT_APPLICABLE, "NoPriceApi")


def test_a_server_that_refuses_every_question_is_not_applicable() -> None:
    shown = found(reply=lambda pod, reply: replace(reply, status=422, quotes=(), message="field required: notional"))
    assert shown.verdict is VerificationVerdict.NOT_APPLICABLE
    assert "notional" in shown.message


def test_a_revision_that_has_lost_the_interface_which_stable_has_fails() -> None:
    given = answer(FULL)
    lost = PodPrices(CANARY, PriceProtocol.NONE, (), "404")
    shown = compare(FULL, replace(given, pods=(lost, given.pods[1])), tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PriceApiMissing")


def test_a_stable_revision_without_the_interface_is_compared_with_nothing() -> None:
    given = answer(FULL)
    old = PodPrices(STABLE, PriceProtocol.NONE, (), "404")
    shown = compare(FULL, replace(given, pods=(given.pods[0], old)), tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.PASS, "PricesConsistent")


# --- samples in traffic -----------------------------------------------------------------------------------------------


@given(turn=st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_a_small_sample_finds_a_model_that_has_changed_and_passes_one_that_has_not(turn: int) -> None:
    pods = (replace(CANARY, full=False), replace(STABLE, full=False))
    asked = replace(question(240, *pods), waves=(), sample=sample(240, 10, turn))
    assert compare(asked, answer(asked), tolerance=1e-6).verdict is VerificationVerdict.PASS
    assert compare(asked, answer(asked, canary=network), tolerance=1e-6).verdict is VerificationVerdict.PASS
    shown = compare(asked, answer(asked, canary=off_by(1e-3)), tolerance=1e-6)
    assert (shown.verdict, shown.reason) == (VerificationVerdict.FAIL, "PricesDiffer")


# --- hostile answers --------------------------------------------------------------------------------------------------

NUMBER = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.none())


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_whatever_numbers_come_back_it_says_something_short(data: st.DataObject) -> None:
    price, greek, bound = data.draw(st.floats()), data.draw(NUMBER), data.draw(st.floats())
    shown = found(lambda option, quote: replace(quote, price=price, delta=greek, rho=greek, error_bound=bound))
    assert shown.verdict in VerificationVerdict
    assert len(shown.message) < 1024
    assert len(shown.worst) <= WORST_LIMIT


def test_two_prices_of_one_option_may_differ_by_what_both_bounds_allow_together() -> None:
    option = grid(240).options[0]
    left, right = Quote(1.0, error_bound=0.01), Quote(1.029, error_bound=0.02)
    allowed = price_allowance(option, left, right, tolerance=1e-6)
    assert allowed == pytest.approx(0.03 + 1e-6 * option.strike)
    assert apart(option, left, right, allowed) is None
    assert apart(option, left, Quote(1.031), allowed) == ("price", 1.0, 1.031, allowed)
