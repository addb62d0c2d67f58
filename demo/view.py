"""One terminal: a rollout as the operator tells it, beside the traffic as the clients see it.

On a terminal the picture is repainted in place and a line stays for each change; in a file it is printed on every
change and every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from lab.kube import Manifest
from lab.service import Service, revision_of
from lab.traffic import Traffic, now

BOLD, DIM, RED, GREEN, YELLOW, CYAN, PLAIN = (
    "\x1b[1m",
    "\x1b[2m",
    "\x1b[31m",
    "\x1b[32m",
    "\x1b[33m",
    "\x1b[36m",
    "\x1b[0m",
)
_VERDICT_COLOURS = {"Pass": GREEN, "Fail": RED, "Error": RED, "NoData": YELLOW, "Collecting": YELLOW}
_BAR = 40


class Screen:
    """Where lines go. `paint` may be repainted by the next `paint`; `say` stays."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self.interactive = out.isatty()
        self._painted = 0

    def say(self, text: str = "", *, colour: str = "") -> None:
        """A line that stays."""
        self._wipe()
        self._out.write(self._coloured(text, colour) + "\n")
        self._out.flush()

    def title(self, text: str) -> None:
        """A heading."""
        self.say()
        self.say(f"━━ {text} ".ljust(110, "━"), colour=BOLD)

    def paint(self, lines: list[tuple[str, str]]) -> None:
        """A picture of (text, colour) lines in place of the last one."""
        self._wipe()
        for text, colour in lines:
            self._out.write(self._coloured(text[:140], colour) + "\n")
        self._out.flush()
        self._painted = len(lines) if self.interactive else 0

    def keep(self) -> None:
        """Let the last picture stand."""
        self._painted = 0

    def _wipe(self) -> None:
        if self._painted:
            self._out.write(f"\x1b[{self._painted}F\x1b[J")
            self._painted = 0

    def _coloured(self, text: str, colour: str) -> str:
        return f"{colour}{text}{PLAIN}" if colour and self.interactive else text


class View:
    """Follows one PINNService and its traffic until a rollout has ended."""

    def __init__(self, screen: Screen, service: Service, traffic: Traffic) -> None:
        self._screen, self._service, self._traffic = screen, service, traffic
        self._began = time.monotonic()
        self._told: set[tuple[str, str]] = set()

    def skip_events(self) -> None:
        """Forget what was told before this rollout."""
        self._told.update(self._service.events())

    def follow(self, ended: Callable[[Manifest], bool], *, seconds: float, every: float = 4.0) -> Manifest:
        """Show until `ended(status)`; the last status. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        before: tuple[Any, ...] = ()
        painted = 0.0
        while True:
            resource = self._service.read()
            status: Manifest = resource.get("status", {})
            seen = status.get("observedGeneration") == resource["metadata"]["generation"]
            self._tell_events()
            picture = (status.get("phase"), status.get("step"), (status.get("rollout") or {}).get("weight"))
            moment = time.monotonic()
            if self._screen.interactive or picture != before or moment - painted >= every:
                self._screen.paint(self._picture(status))
                before, painted = picture, moment
            if seen and ended(status):
                self._tell_events()
                self._screen.keep()
                return status
            if moment > deadline:
                raise TimeoutError(f"not within {seconds:g} s; {self._service.line()}")
            time.sleep(0.25)

    def _tell_events(self) -> None:
        for event in self._service.events():
            if event not in self._told:
                self._told.add(event)
                reason, message = event
                bad = "rolled back" in message or "refused" in message
                self._screen.say(f"{self._clock()}  ▸ {reason}: {message}", colour=RED if bad else CYAN)

    def _picture(self, status: Manifest) -> list[tuple[str, str]]:
        rollout: Manifest = status.get("rollout") or {}
        recent = self._traffic.summary(now() - 4)
        total = self._traffic.summary()
        lines = [(f"{self._clock()}  {_headline(status, rollout)}", BOLD)]
        stable, canary = revision_of(status, "stable"), revision_of(status, "canary")
        share = recent.share(canary) if canary else 0.0
        filled = round(_BAR * share / 100)
        bar = "█" * (_BAR - filled) + "░" * filled
        parts = f"{recent.share(stable):5.1f} % / {share:.1f} % of {recent.requests} in the last 4 s"
        lines.append((f"        clients    {stable or '-':8} {bar} {canary or '-':8}  {parts}", ""))
        if status.get("phase") in ("Progressing", "Baking", "RollingBack"):
            lines.extend(_gate_line(gate) for gate in rollout.get("gates", []))
        p99 = recent.latency.get("p99", 0.0)
        recently = f"now: {recent.failed} failed, p99 {p99 * 1e3:.0f} ms"
        counts = f"        requests   {total.requests} in all, {total.failed} failed   {recently}"
        lines.append((counts, RED if recent.failed else ""))
        following: Manifest = status.get("next") or {}
        if following:
            waiting = f", waiting for {following['waitingFor']}" if following.get("waitingFor") else ""
            lines.append((f"        next       {following.get('action', '')}{waiting}", DIM))
        return lines

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:6.1f}s"


def _headline(status: Manifest, rollout: Manifest) -> str:
    weight = rollout.get("weight", 0)
    observed = rollout.get("observedShare")
    served = f", {observed:.1f} % measured" if isinstance(observed, (int, float)) else ""
    return (
        f"{status.get('phase', 'Pending'):12} step {status.get('step', '-'):4} canary weight {weight} % wanted{served}"
        f"   {status.get('verdict', '-')}   {status.get('reason', '')}"
    )


def _gate_line(gate: Manifest) -> tuple[str, str]:
    name, verdict = gate["name"], gate["verdict"]
    shown = [_value(name, gate.get("canary")), _value(name, gate.get("stable"))]
    text = (
        f"        {name:14} canary {shown[0]:>9}  stable {shown[1]:>9}  limit {gate.get('limit') or '-':16}"
        f" {gate.get('samples', 0):5} requests  {verdict}"
    )
    return text, _VERDICT_COLOURS.get(verdict, "")


def _value(gate: str, value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    if gate == "error-rate":
        return f"{100 * value:.2f} %"
    return f"{1000 * value:.1f} ms" if gate.startswith("latency") else f"{value:.4g}"
