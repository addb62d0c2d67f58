"""Stories of a revision's prices: what is wrong from its start is seen by no client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinn_operator.core.samples import PriceOption, Quote
from pinn_operator.core.status.verification import VerificationVerdict
from tests.story.world import Behaviour, World, constant, service, serving
from tests.support.prices import Change, off_by

VERIFIED: dict[str, Any] = {"mode": "Auto"}


def world(
    behaviour: Behaviour | None = None, *, verification: dict[str, Any] | None = None, **images: Behaviour
) -> World:
    """A world whose first revision serves and whose second, `pinn:2`, was just applied."""
    found = serving(
        World(
            service(verification=VERIFIED if verification is None else verification),
            images={"pinn:2": behaviour or Behaviour(), **{f"pinn:{key[1:]}": value for key, value in images.items()}},
        )
    )
    found.apply(image="pinn:2")
    return found


def verdict(it: World) -> VerificationVerdict | None:
    return it.state.verification.verdict if it.state.verification is not None else None


def rolled_back(it: World) -> bool:
    return it.state.phase == "RolledBack"


def short_put(option: PriceOption) -> bool:
    return not option.call and option.maturity < 7 / 365


def never_had_weight(it: World) -> bool:
    return all(weight == 0 for _, weight in it.weights)


# --- good ones --------------------------------------------------------------------------------------------------------


def test_a_revision_whose_prices_agree_is_promoted_and_says_what_was_compared() -> None:
    it = world().run_until(lambda it: it.weight == 10, at_most=30)
    shown = it.state.verification
    assert shown is not None
    assert (shown.verdict, shown.reason, shown.compared) == (VerificationVerdict.PASS, "PricesMatch", 240)
    assert it.state.stable is not None
    assert shown.stable == it.state.stable.revision
    condition = it.state.condition("ModelVerified")
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "PricesMatch")
    assert "240 options" in condition.message
    it.until_stable("pinn:2")
    assert it.failed_requests == 0


def test_no_weight_is_given_before_the_prices_were_compared() -> None:
    it = world()
    it.oracle.reachable = False
    it.run(40)
    assert never_had_weight(it)
    assert it.state.next is not None
    assert "prices" in it.state.next.waiting_for
    it.oracle.reachable = True
    it.until_stable("pinn:2")


def test_new_pods_are_asked_too_before_the_weight_rises_and_each_sample_is_another_one() -> None:
    it = world().run_until(lambda it: it.weight == 50, at_most=200)
    shown = it.state.verification
    assert shown is not None
    ready = {pod.name for pod in it.pods if pod.image == "pinn:2" and pod.ready}
    assert len(ready) == 2
    assert set(shown.pods) == ready
    samples = {asked.sample for asked in it.oracle.questions if not asked.waves}
    assert len(samples) >= 5


def test_samples_in_traffic_are_small() -> None:
    it = world().run_until(lambda it: it.weight == 50, at_most=200)
    asked = [question for question in it.oracle.questions if not question.waves]
    usual = [sum(len(question.sample) for _ in question.pods) for question in asked if len(question.pods) == 2]
    assert usual
    assert max(usual) <= 20


def test_the_first_revision_is_looked_at_and_serves_whatever_comes_of_it() -> None:
    it = World(
        service(verification=VERIFIED), images={"pinn:1": Behaviour(prices=off_by(0.3, lambda o: not o.american))}
    )
    it.run_until(lambda it: verdict(it) is not None and verdict(it) != "Pending", at_most=60)
    assert verdict(it) is VerificationVerdict.FAIL
    assert it.state.phase == "Stable"
    condition = it.state.condition("ModelVerified")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "PricesArbitrage")


# --- wrong prices -----------------------------------------------------------------------------------------------------


def nan(option: PriceOption, quote: Quote) -> Quote:
    return replace(quote, price=float("nan"))


@pytest.mark.parametrize(("model", "reason"), [
    (off_by(1e-4, short_put), "PricesDiffer"), (off_by(-0.01), "PricesDiffer"), (nan, "PricesNotFinite"),
])  # fmt: skip
def test_a_model_with_wrong_prices_is_rejected_at_weight_0_with_no_failed_request(model: Change, reason: str) -> None:
    it = world(Behaviour(prices=model)).run_until(rolled_back, at_most=120).run(30)
    assert it.state.rejected is not None
    assert (it.state.rejected.reason, it.state.rejected.weight) == (reason, 0)
    assert never_had_weight(it)
    assert it.failed_requests == 0
    record = it.state.last_rollback
    assert record is not None
    assert record.verification is not None
    assert record.verification.worst


def test_the_record_names_the_worst_cells_in_units_of_the_tolerance() -> None:
    it = world(Behaviour(prices=off_by(1e-4, short_put))).run_until(rolled_back, at_most=120)
    record = it.state.last_rollback
    assert record is not None
    assert record.verification is not None
    worst = record.verification.worst[0]
    assert worst.option.startswith(("european put S=", "american put S="))
    assert worst.canary is not None
    assert worst.expected is not None
    assert worst.excess == pytest.approx(abs(worst.canary - worst.expected) / worst.tolerance, rel=1e-3)
    assert "times the tolerance" in record.value


def test_a_difference_that_is_meant_passes_by_the_line_that_the_message_says() -> None:
    it = (
        world(Behaviour(prices=off_by(1e-4, lambda option: option.american)))
        .run_until(rolled_back, at_most=120)
        .run(60)
    )
    assert it.state.rejected is not None
    revision, message = it.state.rejected.revision, it.state.rejected.message
    assert f"write spec.verification.acknowledgedRevision: {revision}" in message
    it.apply(verification={**VERIFIED, "acknowledgedRevision": revision})
    it.until_stable("pinn:2")
    shown = it.state.verification
    assert shown is not None
    assert shown.acknowledged_time is not None
    assert it.said("PriceDifferenceAcknowledged")
    assert it.failed_requests == 0


def test_an_acknowledgement_of_another_revision_is_none() -> None:
    it = world(Behaviour(prices=off_by(1e-4)), verification={**VERIFIED, "acknowledgedRevision": "0123abcd"})
    it.run_until(rolled_back, at_most=120)
    assert never_had_weight(it)


def test_prices_that_are_not_finite_are_acknowledged_by_nobody() -> None:
    it = world(Behaviour(prices=nan)).run_until(rolled_back, at_most=120)
    assert it.state.rejected is not None
    revision = it.state.rejected.revision
    assert "acknowledgedRevision" not in it.state.rejected.message
    it.apply(verification={**VERIFIED, "acknowledgedRevision": revision})
    it.run(120)
    assert it.weight == 0
    assert rolled_back(it)


def test_a_difference_that_breaks_parity_can_be_meant_too() -> None:
    it = world(Behaviour(prices=off_by(1e-3, short_put))).run_until(rolled_back, at_most=120).run(60)
    assert it.state.rejected is not None
    assert "allow arbitrage" in it.state.rejected.message
    it.apply(verification={**VERIFIED, "acknowledgedRevision": it.state.rejected.revision})
    it.until_stable("pinn:2")


def test_prices_that_turn_wrong_in_traffic_take_the_revision_out() -> None:
    turned = False

    def model(option: PriceOption, quote: Quote) -> Quote:
        return replace(quote, price=quote.price + 0.01 * option.strike) if turned else quote

    it = world(Behaviour(prices=model)).run_until(lambda it: it.weight == 10, at_most=60).run(20)
    turned = True
    it.oracle.forget()
    it.run_until(lambda it: it.weight == 0, at_most=30)
    assert it.state.rejected is not None
    assert it.state.rejected.reason == "PricesDiffer"
    assert "in traffic" in it.state.rejected.message


# --- errors and slowness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 1.0, 0.05])
def test_a_revision_that_fails_from_its_start_is_rejected_before_any_client_sees_it(share: float) -> None:
    it = world(Behaviour(errors=constant(share))).run_until(rolled_back, at_most=180).run(30)
    assert it.state.rejected is not None
    assert (it.state.rejected.reason, it.state.rejected.weight) == ("PriceErrors", 0)
    assert never_had_weight(it)
    assert it.failed_requests == 0


def test_a_revision_that_is_slow_one_time_in_ten_is_rejected_before_any_client_sees_it() -> None:
    it = world(Behaviour(slow=constant(0.1))).run_until(rolled_back, at_most=240).run(30)
    assert it.state.rejected is not None
    assert (it.state.rejected.reason, it.state.rejected.weight) == ("PricesSlow", 0)
    assert it.failed_requests == 0


def test_a_revision_of_which_half_the_answers_never_come_is_rejected_within_a_minute() -> None:
    it = world(Behaviour(slow=constant(0.5))).run_until(lambda it: it.state.phase == "RollingBack", at_most=60)
    assert it.state.rejected is not None
    assert it.state.rejected.reason == "PricesSlow"
    assert never_had_weight(it)


def test_errors_of_one_moment_are_asked_about_again_and_forgiven() -> None:
    """A second attempt five seconds later must confirm them."""
    begun: list[float] = []

    def once(seconds: float) -> float:
        begun.append(seconds)
        return 0.5 if seconds < begun[0] + 3 else 0.0

    it = world(Behaviour(errors=once)).run_until(lambda it: it.weight == 10, at_most=60)
    assert it.state.verification is not None
    assert it.state.verification.attempts == 2


def test_errors_of_both_revisions_alike_reject_neither() -> None:
    bad = Behaviour(errors=constant(0.2))
    it = world(bad, p1=bad).run(120)
    assert it.state.rejected is None


# --- what cannot be asked ---------------------------------------------------------------------------------------------


def test_a_server_without_an_interface_for_prices_is_rolled_out_and_it_is_said() -> None:
    bare = Behaviour(price_api=False)
    it = world(bare, p1=bare).run_until(lambda it: it.weight == 10, at_most=60)
    condition = it.state.condition("ModelVerified")
    assert condition is not None
    assert (condition.status, condition.reason) == ("Unknown", "NoPriceApi")
    assert verdict(it) is VerificationVerdict.NOT_APPLICABLE


def test_where_prices_are_required_a_server_without_an_interface_waits_and_says_so() -> None:
    bare = Behaviour(price_api=False)
    it = world(bare, verification={"mode": "Required"}, p1=bare).run(60)
    assert never_had_weight(it)
    assert it.state.rejected is None
    assert it.state.next is not None
    assert "spec.verification.mode is Required" in it.state.next.waiting_for


def test_a_revision_that_has_lost_the_interface_is_rejected() -> None:
    it = world(Behaviour(price_api=False)).run_until(rolled_back, at_most=60)
    assert it.state.rejected is not None
    assert it.state.rejected.reason == "PriceApiMissing"


def test_pods_that_cannot_be_reached_hold_and_stall_and_reject_nobody() -> None:
    it = world()
    it.oracle.reachable = False
    it.run(200)
    assert never_had_weight(it)
    assert it.state.rejected is None
    assert verdict(it) is VerificationVerdict.ERROR
    assert it.state.verification is not None
    assert it.state.verification.attempts < 15
    it.oracle.reachable = True
    it.until_stable("pinn:2")


def test_with_mode_disabled_nothing_is_asked() -> None:
    it = world(Behaviour(prices=off_by(0.1)), verification={"mode": "Disabled"})
    it.until_stable("pinn:2")
    assert it.oracle.questions == []


@pytest.mark.parametrize("weight", [10, 50, 100])
def test_a_verification_that_is_turned_on_in_mid_rollout_comes_before_any_more_weight(weight: int) -> None:
    it = world(verification={"mode": "Disabled"}).run_until(lambda it: it.weight == weight, at_most=300).run(5)
    it.apply(verification=VERIFIED)
    it.run_until(lambda it: it.weight == 0, at_most=5).run_until(lambda it: it.weight == weight, at_most=30)
    assert verdict(it) is VerificationVerdict.PASS
    assert it.said("PricesBeingCompared")
    it.until_stable("pinn:2")
    assert it.failed_requests == 0


def test_a_verification_that_is_turned_on_in_mid_rollout_finds_wrong_prices() -> None:
    it = world(Behaviour(prices=off_by(1e-3)), verification={"mode": "Disabled"})
    it.run_until(lambda it: it.weight == 10, at_most=60)
    it.apply(verification=VERIFIED)
    it.run_until(rolled_back, at_most=60)
    assert it.state.rejected is not None
    assert it.state.rejected.reason == "PricesDiffer"


@pytest.mark.parametrize("offset", [-5, -60, -7200])
def test_what_was_compared_is_not_forgotten_when_the_clock_is_set(offset: float) -> None:
    it = world().run_until(lambda it: it.weight == 10, at_most=60).run(40)
    it.clock_offset = offset
    it.run(20)
    assert (it.weight, verdict(it)) == (10, VerificationVerdict.PASS)
    assert not it.said("PricesBeingCompared")
    it.until_stable("pinn:2")


def test_a_pause_keeps_the_weight_also_when_a_verification_is_turned_on() -> None:
    it = world(verification={"mode": "Disabled"}).run_until(lambda it: it.weight == 10, at_most=60)
    it.apply(verification=VERIFIED, paused=True)
    it.run(60)
    assert it.weight == 10
    it.apply(paused=False)
    it.until_stable("pinn:2")
    assert verdict(it) is VerificationVerdict.PASS


def test_an_operator_that_is_killed_while_it_asks_asks_again() -> None:
    it = world(Behaviour(prices=off_by(1e-3))).run_until(lambda it: len(it.oracle.questions) > 1, at_most=60)
    it.oracle.forget()
    it.run_until(rolled_back, at_most=60)
    assert never_had_weight(it)


def test_rollback_mode_hold_keeps_a_revision_with_wrong_prices_at_0() -> None:
    it = serving(
        World(
            service(verification=VERIFIED, rollback={"mode": "Hold"}), images={"pinn:2": Behaviour(prices=off_by(1e-3))}
        )
    )
    it.apply(image="pinn:2")
    it.run(120)
    assert never_had_weight(it)
    assert it.state.phase == "Progressing"
    assert verdict(it) is VerificationVerdict.FAIL


def acknowledge(it: World, revision: str = "") -> World:
    """The team says that a revision, by default the canary, is meant to price as it does."""
    canary = it.state.canary.revision if it.state.canary else ""
    it.apply(verification={**VERIFIED, "acknowledgedRevision": revision or canary})
    return it


def stood_in(it: World) -> World:
    """The canary has all traffic because stable is dead, and its prices are wrong since then."""
    it.images["pinn:1"] = Behaviour(crashes_at=it.seconds)
    it.run_until(lambda it: it.weight == 100, at_most=120)
    it.images["pinn:2"] = Behaviour(prices=off_by(1e-3))
    it.run(10)
    it.images["pinn:1"] = Behaviour()
    return it


def test_rollback_mode_hold_gives_no_weight_back_to_a_revision_whose_prices_are_wrong() -> None:
    spec = service(verification=VERIFIED, rollback={"mode": "Hold"})
    it = serving(World(spec, images={"pinn:2": Behaviour()}))
    it.apply(image="pinn:2")
    it.run_until(lambda it: it.weight == 10, at_most=60).run(25)
    stood_in(it).run_until(lambda it: it.weight < 100, at_most=180)
    it.run(120)
    assert it.weight == 0, it.describe()
    assert verdict(it) is VerificationVerdict.FAIL
    assert it.state.phase == "Progressing"
    assert it.state.condition("Degraded") is not None


def test_a_revision_that_mode_hold_keeps_goes_on_once_it_is_said_that_its_prices_are_meant() -> None:
    spec = service(verification=VERIFIED, rollback={"mode": "Hold"})
    it = serving(World(spec, images={"pinn:2": Behaviour(prices=off_by(1e-3))}))
    it.apply(image="pinn:2")
    it.run(60)
    assert verdict(it) is VerificationVerdict.FAIL
    acknowledge(it).run_until(lambda it: it.weight == 10, at_most=60)
    assert it.said("PriceDifferenceAcknowledged")


def test_a_revision_in_traffic_that_mode_hold_keeps_goes_on_once_it_is_said_that_its_prices_are_meant() -> None:
    spec = service(verification=VERIFIED, rollback={"mode": "Hold"})
    it = serving(World(spec, images={"pinn:2": Behaviour()}))
    it.apply(image="pinn:2")
    it.run_until(lambda it: it.weight == 10, at_most=60)
    it.images["pinn:2"] = Behaviour(prices=off_by(1e-3))
    it.run(90)
    assert (it.weight, verdict(it)) == (10, VerificationVerdict.FAIL)
    acknowledge(it).until_stable("pinn:2")
    assert it.said("PriceDifferenceAcknowledged")


def tolerate(it: World, tolerance: float) -> World:
    """The team says that prices may differ by more."""
    it.apply(verification={**VERIFIED, "tolerance": f"{tolerance:f}"})
    return it


def test_a_revision_that_mode_hold_keeps_is_compared_again_once_prices_may_differ_by_more() -> None:
    spec = service(verification=VERIFIED, rollback={"mode": "Hold"})
    it = serving(World(spec, images={"pinn:2": Behaviour(prices=off_by(1e-3))}))
    it.apply(image="pinn:2")
    it.run(60)
    tolerate(it, 1e-5).run(60)
    assert (it.weight, verdict(it)) == (0, VerificationVerdict.FAIL)
    assert it.state.verification is not None
    assert it.state.verification.tolerance == 1e-5
    asked = len(it.oracle.questions)
    it.run(60)
    assert len(it.oracle.questions) == asked
    tolerate(it, 1e-2).until_stable("pinn:2")
    assert it.state.verification.verdict is VerificationVerdict.PASS


def test_a_revision_in_traffic_that_mode_hold_keeps_is_compared_without_weight_once_prices_may_differ_by_more() -> None:
    spec = service(verification=VERIFIED, rollback={"mode": "Hold"})
    it = serving(World(spec, images={"pinn:2": Behaviour()}))
    it.apply(image="pinn:2")
    it.run_until(lambda it: it.weight == 10, at_most=60)
    it.images["pinn:2"] = Behaviour(prices=off_by(1e-3))
    it.run(90)
    assert (it.weight, verdict(it)) == (10, VerificationVerdict.FAIL)
    tolerate(it, 1e-2).run_until(lambda it: it.weight == 0, at_most=30)
    it.until_stable("pinn:2")


def test_a_revision_that_fails_as_well_is_not_accepted_and_not_asked_again_and_again() -> None:
    spec = service(verification=VERIFIED, rollback={"mode": "Hold"})
    it = serving(World(spec, images={"pinn:2": Behaviour(prices=off_by(1e-3), errors=constant(0.3))}))
    it.apply(image="pinn:2")
    it.run(60)
    assert verdict(it) is VerificationVerdict.FAIL
    acknowledge(it).run(60)
    asked = len(it.oracle.questions)
    it.run(60)
    assert (it.weight, verdict(it)) == (0, VerificationVerdict.FAIL)
    assert it.state.verification is not None
    assert it.state.verification.reason == "PriceErrors"
    assert len(it.oracle.questions) == asked


@pytest.mark.parametrize(
    ("ill", "reason"), [({"errors": constant(0.3)}, "PriceErrors"), ({"slow": constant(0.3)}, "PricesSlow")]
)
def test_an_accepted_difference_in_price_accepts_neither_errors_nor_slow_answers(
    ill: dict[str, Any], reason: str
) -> None:
    it = world(Behaviour(prices=off_by(1e-3), **ill)).run_until(rolled_back, at_most=60)
    acknowledge(it, it.state.rejected.revision if it.state.rejected else "")
    it.run(5).run_until(rolled_back, at_most=120).run(60)
    assert never_had_weight(it)
    assert it.state.phase == "RolledBack", "it is not tried again by itself"
    assert it.state.rejected is not None
    assert it.state.rejected.reason == reason


def test_the_operators_own_samples_are_no_evidence_that_clients_are_served_well() -> None:
    """Silence never promotes: with no client at all the samples alone would count to `minSamples` some day."""
    it = world().run_until(lambda it: it.weight == 10, at_most=60)
    it.rate = 0.0
    it.run(1300, tick=10.0)
    assert it.weight == 10
    assert len(it.oracle.questions) > 100


def test_pods_that_cannot_be_reached_are_stalled_after_the_time_of_a_verification() -> None:
    it = world(verification={"mode": "Auto", "timeoutSeconds": 100})
    it.oracle.reachable = False
    it.run(120)
    condition = it.state.condition("Stalled")
    assert condition is not None
    assert condition.reason == "VerificationUnavailable"
    assert "could not be asked for prices" in condition.message
    it.oracle.reachable = True
    it.run_until(lambda it: it.weight == 10, at_most=60)
    assert it.state.condition("Stalled") is None


def test_when_stable_is_dead_its_fix_is_verified_by_itself_and_gets_all_traffic() -> None:
    it = world(Behaviour(), p1=Behaviour(crashes_at=30.0))
    it.run_until(lambda it: it.weight == 100, at_most=120)
    assert verdict(it) is VerificationVerdict.PASS


def test_a_fix_that_was_verified_by_itself_is_compared_with_stable_when_stable_is_back() -> None:
    it = world()
    it.images["pinn:1"] = Behaviour(crashes_at=it.seconds)
    it.run_until(lambda it: it.weight == 100, at_most=120)
    assert it.state.verification is not None
    assert (it.state.verification.reason, it.state.verification.stable) == ("PricesConsistent", "")
    it.images["pinn:1"] = Behaviour()
    it.run_until(lambda it: it.weight < 100, at_most=120)
    assert it.weight == 0
    it.run_until(lambda it: it.weight == 10, at_most=60)
    assert it.state.stable is not None
    assert it.state.verification is not None
    assert (it.state.verification.reason, it.state.verification.stable) == ("PricesMatch", it.state.stable.revision)


def test_a_revision_that_brings_the_interface_for_prices_is_verified_by_itself_and_rolled_out() -> None:
    it = world(p1=Behaviour(price_api=False)).run_until(lambda it: it.weight == 10, at_most=60)
    assert it.state.verification is not None
    assert "stable has no interface for prices" in it.state.verification.message
    it.until_stable("pinn:2")


def test_a_stable_revision_that_fails_each_request_does_not_keep_its_fix_waiting() -> None:
    it = world(p1=Behaviour(errors=constant(1.0))).run_until(lambda it: it.weight == 10, at_most=60)
    assert it.state.verification is not None
    assert "stable fails each request (status 500" in it.state.verification.message
    it.until_stable("pinn:2")


def test_a_moment_in_which_stable_fails_lets_no_other_price_pass() -> None:
    """A second attempt five seconds later must find stable failing too."""
    begun: list[float] = []

    def once(seconds: float) -> float:
        begun.append(seconds)
        return 1.0 if seconds < begun[0] + 3 else 0.0

    applied = world(Behaviour(prices=off_by(1e-3)))
    applied.images["pinn:1"] = Behaviour(errors=once)
    applied.run_until(rolled_back, at_most=60)
    assert never_had_weight(applied)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    shift=st.sampled_from([0.0, 0.0, 1e-9, 1e-3]), errors=st.sampled_from([0.0, 0.0, 0.5]),
    slow=st.sampled_from([0.0, 0.0, 0.3]), api=st.sampled_from([True, True, False]), reachable=st.booleans(),
    mode=st.sampled_from(["Auto", "Required"]), seed=st.integers(1, 1000),
)  # fmt: skip
def test_no_weight_is_written_before_a_verdict_and_a_good_revision_is_never_rejected(
    shift: float, errors: float, slow: float, api: bool, reachable: bool, mode: str, seed: int
) -> None:
    canary = Behaviour(prices=off_by(shift), errors=constant(errors), slow=constant(slow), price_api=api)
    spec = service(verification={"mode": mode})
    it = serving(World(spec, images={"pinn:2": canary, "pinn:1": Behaviour(price_api=api)}, seed=seed))
    it.oracle.reachable = reachable
    it.apply(image="pinn:2")
    for _ in range(100):  # a verdict within `timeoutSeconds`, and some more
        it.run(2)
        if it.state.rollout is not None and it.state.rollout.weight > 0:
            allowed = [VerificationVerdict.PASS, *([VerificationVerdict.NOT_APPLICABLE] if mode == "Auto" else [])]
            assert verdict(it) in allowed, it.describe()
    if not reachable or not api:
        assert it.state.rejected is None or it.state.rejected.weight > 0
    elif shift > 1e-6 or errors or slow:
        assert it.state.rejected is not None, it.describe()
        assert never_had_weight(it)
        assert it.failed_requests == 0
    else:
        assert it.state.rejected is None
        assert it.weight > 0
