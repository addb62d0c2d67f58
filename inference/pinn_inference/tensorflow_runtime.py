"""The one place where TensorFlow is imported: late, quietly and with a fixed number of threads.

`import tensorflow` takes seconds and half a gigabyte, so nothing imports it before it is needed.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from types import ModuleType
from typing import Any, Final, TypeAlias, cast

Tensor: TypeAlias = Any  # TensorFlow ships no types

_DEFAULTS: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_FLAGS": "--xla_cpu_prefer_vector_width=512",
}


@cache
def load_tensorflow(*, threads: int | None = None) -> ModuleType:
    """TensorFlow, imported once per process.

    `threads` is how many threads one operation may use; None leaves it to `TF_NUM_INTRAOP_THREADS`, 1 if that is unset:
    the network is small, so one thread per call is fastest, and parallel callers do run in parallel because calls
    release the interpreter's lock. Unless the environment says otherwise `TF_CPP_MIN_LOG_LEVEL` is 2 (errors only) and
    `TF_ENABLE_ONEDNN_OPTS` is 0: oneDNN has nothing for float64, and it writes to stderr whatever the log level; memory
    of a GPU is taken as it is needed; and XLA uses the whole width of AVX-512 where the processor has it (8 % faster).
    Raises ImportError where TensorFlow is not installed.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    if threads is not None:
        # Too late when somebody used TensorFlow before us: its thread pools exist already.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    return cast("ModuleType", tf)
