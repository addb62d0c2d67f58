"""What the batch process needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pinn_inference.server.batch.arena import ArenaLayout
from pinn_inference.server.config import ServerConfig

_MEBIBYTE: Final = 1024 * 1024
_ANSWER_BYTES_PER_OPTION: Final = 1024
"""The longest row has eight numbers of 24 characters, 150 of names, and the model's own name."""
_MAX_BATCH: Final = 65_536
_JOB_SECONDS: Final = 30.0
_ANSWER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """Settings of the batch process and of its supervision. Times are in seconds."""

    factory: str = "pinn_inference.server.batch.pricers:model_pricer"
    """`module:function` that makes the child's pricer of `options` and of the models; see `child.PricerFactory`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    max_body_bytes: int = 32 * _MEBIBYTE
    max_batch: int = _MAX_BATCH
    tf_threads: int = 1
    slots: int = 64
    """Batches that may be arriving, waiting, priced or on their way back at one time; one more is refused."""
    memory_bytes: int = 256 * _MEBIBYTE
    """What their bodies may take together; at least two of the largest always may."""
    arrival_seconds: float = 1.0
    """After so long a body that arrives slowly makes room where places or memory run short."""
    start_seconds: float = 120.0
    """A child that has not started by then is replaced."""
    job_seconds: float = _JOB_SECONDS
    """A child that has not answered a batch by then, nor priced a piece of a slow one, hangs, and is replaced."""
    rest_seconds: float = 5.0
    """How long the memory of a large batch is kept for the next."""
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 30.0
    """Between the end of a child and the start of the next: doubled each time, from the first to the longest."""
    steady_seconds: float = 60.0
    """A child that has lived so long makes the next pause the first again."""
    log_level: str = "info"
    revision: str = ""
    service: str = ""

    @classmethod
    def from_config(cls, config: ServerConfig) -> Self:
        return cls(
            max_body_bytes=config.max_body_bytes,
            max_batch=config.max_batch,
            # The largest batch takes a second, and ten where others need the processor.
            job_seconds=_JOB_SECONDS * max(1.0, config.max_batch / _MAX_BATCH),
            tf_threads=config.tf_threads,
            log_level=config.log_level,
            revision=config.revision,
            service=config.service,
        )

    @property
    def layout(self) -> ArenaLayout:
        return ArenaLayout.of(
            slots=self.slots,
            request_bytes=self.max_body_bytes,
            answer_bytes=self.max_batch * _ANSWER_BYTES_PER_OPTION + _ANSWER_BYTES,
        )

    @property
    def memory_limit(self) -> int:
        return max(self.memory_bytes, 2 * self.max_body_bytes)
