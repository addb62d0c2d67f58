"""What can go wrong with a model, for callers that report a reason.

ModelError
├── ModelNotFoundError      the directory or one of its files is missing
├── ModelChecksumError      the weights are not the ones that were asked for
├── ModelFormatError        the files cannot be read as a model of this version
├── ModelSelfCheckError     a loaded model does not give the golden prices
└── ModelRuntimeError       the device could not evaluate the network (out of memory, lost, …)
"""

from __future__ import annotations

from typing import ClassVar


class ModelError(Exception):
    """A model cannot be used; `reason` is a stable CamelCase word for conditions, events and metrics."""

    reason: ClassVar[str] = "ModelError"


class ModelNotFoundError(ModelError):
    reason = "ModelNotFound"


class ModelChecksumError(ModelError):
    reason = "ModelChecksumMismatch"


class ModelFormatError(ModelError):
    reason = "ModelFormatInvalid"


class ModelSelfCheckError(ModelError):
    reason = "ModelSelfCheckFailed"


class ModelRuntimeError(ModelError):
    reason = "ModelRuntimeFailed"
