"""Progress on the terminal: what is being done, and how long it has taken."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Writes one line when a step ends, and, while it runs for long, one every ``heartbeat`` seconds."""

    def __init__(self, *, heartbeat: float = 15.0) -> None:
        self._began = time.monotonic()
        self._heartbeat = heartbeat
        self._write_lock = threading.Lock()

    def say(self, text: str) -> None:
        """One line, with the seconds since the command began."""
        with self._write_lock:
            print(f"[{time.monotonic() - self._began:6.1f}s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, title: str, *, detail: Callable[[], str] | None = None) -> Iterator[None]:
        """Times a step; ``detail`` is asked at each heartbeat for what there is to tell."""
        began = time.monotonic()
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self._heartbeat):
                more = f", {detail()}" if detail else ""
                self.say(f"{title} … {time.monotonic() - began:.0f} s{more}")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self.say(f"{title}: failed after {time.monotonic() - began:.1f} s")
            raise
        finally:
            ended.set()
            thread.join()
        self.say(f"{title}: {time.monotonic() - began:.1f} s")
