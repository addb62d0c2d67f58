"""The Open Inference Protocol's tensors: from the bytes of an infer request to columns, and from quotes to an answer.

Pure functions, so that they run wherever a body lies: beside the event loop, or on shared memory in another process.
The rules of values are those of `parsing.FIELDS`. Both forms of a tensor are read and written, `data` in the JSON and
binary after it (https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md):
little-endian, row-major, BYTES with a length of four bytes before each element. A binary FP64 tensor is not copied
where its place in the body allows it, and no loop in Python runs over the rows of a valid binary request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from pinn_inference.pricing.types import BoolArray, CodeArray, FallbackReason, FloatArray, Method, OptionBatch, Quotes
from pinn_inference.server.documents import Repeated, not_json, read_document
from pinn_inference.server.errors import BatchTooLarge, Fault, InvalidRequest, NonFiniteResult
from pinn_inference.server.parsing import FIELDS, OPTION_TYPES, REPEATED, NumberField, shown, shown_text

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""The HTTP header that tells where the JSON of a body ends and its binary tensors begin."""
EUROPEAN: Final = "european"
AMERICAN: Final = "american"
MODELS: Final = (EUROPEAN, AMERICAN)
"""One model for each exercise style, so that the metadata of each names exactly the tensors it takes and gives."""
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
    **{f"{kind}{8 * size}": np.dtype(f"<{kind[0].lower()}{size}") for kind in ("INT", "UINT") for size in (8, 4, 2, 1)},
}
NUMBER_TYPES: Final = tuple(_DTYPES)
"""Every whole number that an input may be, up to a thousand million, is exact in FP64."""
OPTION_TYPE_TYPES: Final = ("BYTES", "INT8", "BOOL")
INPUTS: Final = (*(field.name for field in FIELDS), "option_type")
NUMBER_OUTPUTS: Final = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")
OUTPUTS: Final = (*NUMBER_OUTPUTS, "method")
AMERICAN_OUTPUTS: Final = (*OUTPUTS, "exercise_boundary")

_BYTES_OF: Final = {**{name: dtype.itemsize for name, dtype in _DTYPES.items()}, "BOOL": 1}
_NUMBERS: Final = frozenset((int, float))
_REQUEST_FIELDS: Final = ("id", "model_name", "model_version", "parameters", "inputs", "outputs")
_INPUT_FIELDS: Final = ("name", "shape", "datatype", "parameters", "data")
_OUTPUT_FIELDS: Final = ("name", "parameters")
_NOT_OFFERED: Final = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification")
_FAULTS_AT_MOST: Final = 100
_ALIGNMENT: Final = 8
_CALL, _PUT = (len(kind).to_bytes(4, "little") + kind.encode() for kind in ("call", "put"))


class TensorFault(Fault):
    """A fault of a tensor or of another part of the request; `index` counts the elements of the tensor."""

    __slots__ = ()

    def __str__(self) -> str:
        where = self.field if self.index is None else f"{self.field}[{self.index}]"
        found = f" is {orjson.dumps(self.value).decode()}" if self.has_value else ""
        return f"{where}{found}: {self.message}"


@dataclass(frozen=True, slots=True)
class InferTarget:
    """What is known of an infer request beside its body: the model it is for, and the text of its length header.

    `model` is one of `MODELS`, which names the exercise style; `version` is that of the model in use when the request
    came, which is the only one that it may ask for, None where none is. `header_length` is None where the header is
    absent.
    """

    model: str
    version: str | None = None
    header_length: str | None = None

    @property
    def american(self) -> bool:
        return self.model == AMERICAN

    def parameters(self) -> dict[str, str]:
        """As texts, the way to another process; `InferTarget(**parameters)` is the way back."""
        named = {"model": self.model, "version": self.version, "header_length": self.header_length}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A tensor of the answer: binary after the JSON, or a list in it."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A valid request. Columns of `options` may be views of its body, which has to live until they are priced.

    `shape` is (n,) or (n, 1), as that of every input, and will be that of every output.
    """

    options: OptionBatch
    id: str | None
    shape: tuple[int, ...]
    outputs: tuple[RequestedOutput, ...]


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """The body of an answer in parts, which may be views of the quotes' columns; `size` is their length in bytes.

    `header_length` is None where all is JSON, else the value of the header of that name.
    """

    header_length: int | None
    parts: tuple[bytes | memoryview, ...]
    size: int

    @property
    def content_type(self) -> str:
        return "application/json" if self.header_length is None else "application/octet-stream"

    def join(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], bytes) else b"".join(self.parts)

    def write_into(self, target: memoryview) -> int:
        """Copy the body to the start of `target`, which has at least `size` bytes; returns `size`."""
        start = 0
        for part in self.parts:
            target[start : start + len(part)] = part
            start += len(part)
        return start


# --- requests ---------------------------------------------------------------------------------------------------------


def parse_infer_request(body: bytes | bytearray | memoryview, *, target: InferTarget, max_batch: int) -> InferRequest:
    """Parse the body of `POST /v2/models/{model}[/versions/{version}]/infer`.

    Raises InvalidRequest with every fault found, the first bad row of each tensor among them, and BatchTooLarge for
    more than `max_batch` rows. A body that names another model or version than `target` is refused.
    """
    view = memoryview(body).cast("B")
    start = _header_end(target.header_length, len(view))
    read = read_document(view[:start])
    document, complaint = read.content, read.complaint
    if read.repeated:
        raise InvalidRequest([TensorFault(_place(it), REPEATED, has_value=False) for it in read.repeated])
    if not isinstance(document, dict):
        raise InvalidRequest([TensorFault("body", "must be an object with a list of inputs", value=shown(document))])
    reader = _Reader(document, view[start:], has_header=target.header_length is not None, max_batch=max_batch)
    request = reader.read(target)
    if complaint is not None:
        raise InvalidRequest([not_json(complaint)])
    return request


def _header_end(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    if re.fullmatch(r"[0-9]{1,18}", header_length) is None or int(header_length) > size:
        message = f"must be the length of the JSON in bytes, at most the {size} of the whole body"
        raise InvalidRequest([TensorFault(HEADER_LENGTH, message, value=shown_text(header_length))])
    return int(header_length)


def _place(repeated: Repeated) -> str:
    """Such as `inputs[2].name`."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in (*repeated.path, repeated.key))
    return shown_text(steps.removeprefix(".")) or "body"


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One input: `data` from the JSON, or `raw`, its bytes; `rows` elements by its shape."""

    name: str
    datatype: str
    rows: int
    data: list[Any] | None
    raw: memoryview | None


class _Reader:
    """One pass over a request, which collects the faults it meets."""

    def __init__(self, document: dict[Any, Any], rest: memoryview, *, has_header: bool, max_batch: int) -> None:
        self._document = document
        self._rest = rest
        self._has_header = has_header
        self._max_batch = max_batch
        self._faults: list[Fault] = []
        self._shape: list[int] | None = None
        self._shape_of = ""
        self._position: int | None = 0
        """Where the next binary tensor starts; None once that cannot be known."""

    def read(self, target: InferTarget) -> InferRequest:
        self._unknown(self._document, _REQUEST_FIELDS, "", "an infer request")
        identity = self._document.get("id")
        if identity is not None and not isinstance(identity, str):
            self._fault("id", "must be a string", value=identity)
        for name, right in (("model_name", target.model), ("model_version", target.version)):
            if name in self._document and self._document[name] != right:
                expected = "must be absent" if right is None else f'must be "{right}" or absent'
                self._fault(name, expected, value=self._document[name])
        outputs = self._outputs(AMERICAN_OUTPUTS if target.american else OUTPUTS)
        tensors = self._inputs()
        columns = {name: self._column(tensor) for name, tensor in tensors.items()}
        if self._faults:
            raise InvalidRequest(self._faults)
        assert self._shape is not None
        rows = self._shape[0]
        for field in FIELDS:
            if field.name not in columns:
                columns[field.name] = np.full(rows, field.default)
        is_call = columns.pop("option_type", np.ones(rows, dtype=np.bool_))
        is_american = np.full(rows, target.american)
        options = OptionBatch(**columns, is_call=is_call, is_american=is_american)  # type: ignore[arg-type]
        return InferRequest(options, identity, tuple(self._shape), outputs)

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _outputs(self, known: tuple[str, ...]) -> tuple[RequestedOutput, ...]:
        binary = self._flag(self._parameters(self._document, ""), "binary_data_output", "")
        wished = self._document.get("outputs", [])
        if not isinstance(wished, list) or len(wished) > len(known):
            self._fault("outputs", f"must be a list of at most {len(known)} outputs, each once", value=wished)
            return ()
        chosen: list[RequestedOutput] = []
        for index, item in enumerate(wished):
            name = item.get("name") if isinstance(item, dict) else None
            if name not in known or any(name == output.name for output in chosen):
                where = f"outputs[{index}]" + (".name" if isinstance(item, dict) else "")
                message = "must be the name of an output, each once: " + ", ".join(known)
                self._fault(where, message, value=name if isinstance(item, dict) else item)
                continue
            self._unknown(item, _OUTPUT_FIELDS, f"outputs[{index}].", "a requested output")
            parameters = self._parameters(item, f"outputs[{index}].")
            chosen.append(RequestedOutput(name, self._flag(parameters, "binary_data", f"outputs[{index}].", binary)))
        if wished:
            return tuple(chosen)
        return tuple(RequestedOutput(name, binary) for name in known)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def _inputs(self) -> dict[str, _Tensor]:
        """The tensors whose frame is right, by name."""
        items = self._document.get("inputs")
        if not isinstance(items, list) or not 0 < len(items) <= len(INPUTS):
            found = {"value": items} if "inputs" in self._document else {"has_value": False}
            self._fault("inputs", f"must be a list of 1 to {len(INPUTS)} tensors of {', '.join(INPUTS)}", **found)
            return {}
        tensors: dict[str, _Tensor] = {}
        named: set[str] = set()
        for index, item in enumerate(items):
            name = item.get("name") if isinstance(item, dict) else None
            if name not in INPUTS or name in named:
                where = f"inputs[{index}]" + (".name" if isinstance(item, dict) else "")
                message = "must be the name of an input, each once: " + ", ".join(INPUTS)
                self._fault(where, message, value=name if isinstance(item, dict) else item)
                self._position = None  # how long its data would be is of no use to the tensors after it
                continue
            named.add(name)
            tensor = self._tensor(name, item)
            if tensor is not None:
                tensors[name] = tensor
        for field in FIELDS:
            if field.default is None and field.name not in named:
                self._fault(field.name, f"is required: it {field.expected}", has_value=False)
        if self._position is not None and self._position != len(self._rest):
            message = f"has {len(self._rest)} bytes after the JSON, of which its tensors claim {self._position}"
            self._fault("body", message, has_value=False)
        return tensors

    def _tensor(self, name: str, item: dict[Any, Any]) -> _Tensor | None:
        before = len(self._faults)
        self._unknown(item, _INPUT_FIELDS, f"{name}.", "an input")
        datatype = item.get("datatype")
        datatypes = OPTION_TYPE_TYPES if name == "option_type" else NUMBER_TYPES
        if datatype not in datatypes:
            self._fault(f"{name}.datatype", f"must be {_or(datatypes)}", value=datatype)
        rows = self._rows(name, item.get("shape"))
        size = self._parameters(item, f"{name}.").get("binary_data_size")
        if size is None:
            data = item.get("data")
            if not isinstance(data, list):
                message = "must be a list of the tensor's elements, or parameters.binary_data_size must be given"
                self._fault(f"{name}.data", message, value=data)
                return None
            return _Tensor(name, str(datatype), rows, data, None) if len(self._faults) == before else None
        raw = self._raw(name, size)
        if "data" in item:
            self._fault(f"{name}.data", "must be absent where parameters.binary_data_size is given", has_value=False)
        if raw is None or len(self._faults) != before:
            return None
        if datatype in _BYTES_OF and size != rows * _BYTES_OF[datatype]:
            message = f"must be {rows * _BYTES_OF[datatype]}: {rows} elements of {_BYTES_OF[datatype]} bytes"
            self._fault(f"{name}.parameters.binary_data_size", message, value=size)
            return None
        return _Tensor(name, str(datatype), rows, None, raw)

    def _rows(self, name: str, shape: Any) -> int:
        """The number of options by a tensor's shape, 0 if it is wrong."""
        right = isinstance(shape, list) and len(shape) in (1, 2) and all(type(length) is int for length in shape)
        if not right or not 1 <= shape[0] < 2**63 or shape[1:] not in ([], [1]):
            message = f"must be [n] or [n, 1] with n from 1 to {self._max_batch}"
            self._fault(f"{name}.shape", message, value=_shape_text(shape))
            return 0
        if self._shape is None:
            self._shape, self._shape_of = shape, name
        if shape != self._shape:
            message = f"must be {self._shape}, as that of {self._shape_of}: one row for each option"
            self._fault(f"{name}.shape", message, value=_shape_text(shape))
            return 0
        if shape[0] > self._max_batch:
            raise BatchTooLarge(size=shape[0], limit=self._max_batch)
        rows: int = shape[0]
        return rows

    def _raw(self, name: str, size: Any) -> memoryview | None:
        where = f"{name}.parameters.binary_data_size"
        if type(size) is not int or size < 0:
            self._fault(where, "must be a whole number of bytes", value=size)
            self._position = None
        elif not self._has_header:
            message = f"needs the header {HEADER_LENGTH}, which tells where the binary tensors begin"
            self._fault(where, message, value=size)
            self._position = None
        if self._position is None:
            return None
        start, end = self._position, self._position + size
        if end > len(self._rest):
            message = f"is more than the {len(self._rest) - start} bytes that are left of the body"
            self._fault(where, message, value=size)
            self._position = None
            return None
        self._position = end
        return self._rest[start:end]

    # --- values -------------------------------------------------------------------------------------------------------

    def _column(self, tensor: _Tensor) -> FloatArray | BoolArray | None:
        if tensor.name == "option_type":
            return self._kinds_of_list(tensor) if tensor.raw is None else self._kinds_of_bytes(tensor, tensor.raw)
        field = next(field for field in FIELDS if field.name == tensor.name)
        if tensor.raw is None:
            return self._numbers_of_list(tensor, field)
        column: NDArray[Any] = np.frombuffer(tensor.raw, dtype=_DTYPES[tensor.datatype])
        if column.dtype != np.float64 or not column.flags.aligned:
            column = column.astype(np.float64)
        # Both are false for NaN, which minimum and maximum hand on.
        if not (column.min() >= field.low and column.max() <= field.high):
            bad = ~((column >= field.low) & (column <= field.high))
            self._bad_rows(field.name, field.expected, bad, column)
            return None
        return column

    def _numbers_of_list(self, tensor: _Tensor, field: NumberField) -> FloatArray | None:
        data = self._flat(tensor)
        if data is None:
            return None
        is_whole = _DTYPES[tensor.datatype].kind != "f"
        field = _narrowed(field, tensor.datatype) if is_whole else field
        if set(map(type, data)) <= _NUMBERS:  # bool is a type of its own here
            try:
                column = np.fromiter(data, dtype=np.float64, count=len(data))
            except OverflowError:
                column = np.array([np.nan])
            right = column.min() >= field.low and column.max() <= field.high
            if right and not (is_whole and (column % 1.0).any()):
                return column
        bad = np.array([not _is_right(value, field, is_whole=is_whole) for value in data])
        self._bad_rows(field.name, field.expected + (f", whole as {tensor.datatype} is" if is_whole else ""), bad, data)
        return None

    def _kinds_of_list(self, tensor: _Tensor) -> BoolArray | None:
        data = self._flat(tensor)
        if data is None:
            return None
        types: dict[str, tuple[type, tuple[Any, ...]]] = {
            "BYTES": (str, OPTION_TYPES), "INT8": (int, (0, 1)), "BOOL": (bool, (False, True)),
        }  # fmt: skip
        wanted, values = types[tensor.datatype]
        if set(map(type, data)) == {wanted} and set(data) <= set(values):
            call = "call" if wanted is str else True
            return np.fromiter((value == call for value in data), dtype=np.bool_, count=len(data))
        bad = np.array([type(value) is not wanted or value not in values for value in data])
        self._bad_rows(tensor.name, _kind_expected(tensor.datatype), bad, data)
        return None

    def _kinds_of_bytes(self, tensor: _Tensor, raw: memoryview) -> BoolArray | None:
        if tensor.datatype != "BYTES":
            codes = np.frombuffer(raw, dtype=np.int8)
            if codes.min() >= 0 and codes.max() <= 1:
                return codes.view(np.bool_)
            self._bad_rows(tensor.name, _kind_expected(tensor.datatype), (codes < 0) | (codes > 1), codes)
            return None
        column = _read_kinds(raw, tensor.rows)
        if column is None:
            self._fault_in_bytes(tensor, raw)
        return column

    def _fault_in_bytes(self, tensor: _Tensor, raw: memoryview) -> None:
        """Walk over the elements to the first that is wrong."""
        expected, position = _kind_expected("BYTES"), 0
        for index in range(tensor.rows):
            length = int.from_bytes(raw[position : position + 4], "little")
            end = position + 4 + length
            if position + 4 > len(raw) or end > len(raw):
                message = f"its length and bytes must lie within the tensor's {len(raw)} bytes; {expected}"
                self._fault(tensor.name, message, index=index, has_value=False)
                return
            if bytes(raw[position:end]) not in (_CALL, _PUT):
                text = bytes(raw[position + 4 : min(end, position + 4 + 256)]).decode("utf-8", "replace")
                self._fault(tensor.name, expected, index=index, value=text)
                return
            position = end
        message = f"must be {position}: that is where its {tensor.rows} elements end"
        self._fault(f"{tensor.name}.parameters.binary_data_size", message, value=len(raw))

    def _flat(self, tensor: _Tensor) -> list[Any] | None:
        """The elements in row-major order; those of shape [n, 1] may come as n lists of one, or flat."""
        data = tensor.data
        assert data is not None
        assert self._shape is not None
        if len(self._shape) > 1 and all(type(row) is list and len(row) == 1 for row in data):
            data = [row[0] for row in data]
        if len(data) != tensor.rows:
            message = f"must be a list of {tensor.rows} elements, as its shape says"
            self._fault(f"{tensor.name}.data", message, value=data)
            return None
        return data

    def _bad_rows(self, name: str, expected: str, bad: BoolArray, values: Sequence[Any] | NDArray[Any]) -> None:
        index, count = int(np.argmax(bad)), int(np.count_nonzero(bad))
        value = values[index]
        more = f"; so must {count - 1} more of its {len(bad)} elements" if count > 1 else ""
        self._fault(name, expected + more, index=index, value=value.item() if isinstance(value, np.generic) else value)

    # --- frames -------------------------------------------------------------------------------------------------------

    def _parameters(self, item: dict[Any, Any], prefix: str) -> dict[Any, Any]:
        parameters = item.get("parameters", {})
        if not isinstance(parameters, dict):
            self._fault(f"{prefix}parameters", "must be an object", value=parameters)
            return {}
        for name in _NOT_OFFERED:
            if name in parameters:
                message = "is not offered: tensors come and go in the body, as they are"
                self._fault(f"{prefix}parameters.{name}", message, value=parameters[name])
        return parameters

    def _flag(self, parameters: dict[Any, Any], name: str, prefix: str, default: bool = False) -> bool:
        value = parameters.get(name, default)
        if not isinstance(value, bool):
            self._fault(f"{prefix}parameters.{name}", "must be true or false", value=value)
            return default
        return value

    def _unknown(self, item: dict[Any, Any], known: Iterable[str], prefix: str, what: str) -> None:
        for name in item:
            if name not in known and len(self._faults) < _FAULTS_AT_MOST:
                message = f"is not a field of {what}: known are {', '.join(known)}"
                self._fault(prefix + shown_text(name), message, value=item[name])

    def _fault(
        self, field: str, message: str, *, index: int | None = None, value: Any = None, has_value: bool = True
    ) -> None:
        self._faults.append(TensorFault(field, message, index=index, value=shown(value), has_value=has_value))


def _is_right(value: Any, field: NumberField, *, is_whole: bool) -> bool:
    return type(value) in _NUMBERS and field.low <= value <= field.high and not (is_whole and value % 1)


def _narrowed(field: NumberField, datatype: str) -> NumberField:
    """The field within what a datatype of whole numbers can hold."""
    limits = np.iinfo(_DTYPES[datatype])
    return replace(field, low=max(field.low, limits.min), high=min(field.high, limits.max))


def _kind_expected(datatype: str) -> str:
    return {"BYTES": 'must be "call" or "put"', "INT8": "must be 1 (call) or 0 (put)"}.get(
        datatype, "must be true (call) or false (put)"
    )


def _shape_text(shape: Any) -> Any:
    return str(shape) if isinstance(shape, list) and all(type(length) is int for length in shape[:9]) else shape


def _or(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " or " + words[-1]


def _read_kinds(raw: memoryview, rows: int) -> BoolArray | None:
    """Which of the BYTES elements are "call", None unless each of the `rows` elements is "call" or "put".

    In a valid tensor the values 3 and 4 occur only as the first byte of a length, so they show where elements start.
    """
    values = np.frombuffer(raw, dtype=np.uint8)
    starts = np.flatnonzero((values == _PUT[0]) | (values == _CALL[0]))
    if len(starts) != rows or starts[0] != 0 or len(values) < len(_PUT):
        return None
    ends = np.append(starts[1:], len(values))
    lengths = values[starts]
    if not np.array_equal(ends - starts, lengths + 4):
        return None
    # Each element's first and last four bytes, which cover the whole of it: a window of four at every byte.
    windows: NDArray[np.uint32] = np.ndarray((len(values) - 3,), "<u4", raw, strides=(1,))
    is_call: BoolArray = lengths == _CALL[0]
    tails = np.where(is_call, *(np.uint32(int.from_bytes(word[-4:], "little")) for word in (_CALL, _PUT)))
    right = np.array_equal(windows[starts], lengths) and np.array_equal(windows[ends - 4], tails)
    return is_call if right else None


# --- answers ----------------------------------------------------------------------------------------------------------

_LABELS: Final = {int(method): method.label for method in Method}
_ELEMENTS: Final = {code: len(label).to_bytes(4, "little") + label.encode() for code, label in _LABELS.items()}


def render_infer_answer(
    request: InferRequest, quotes: Quotes, *, target: InferTarget, version: str | None
) -> InferAnswer:
    """The answer to `request`, of one row of `quotes` for each of its options.

    `version` is that of the model in use, None where none is. The answer has it unless the quotes say that they were
    made while there was none.
    Raises NonFiniteResult, as every other answer does: no NaN goes out in binary either. Only an `exercise_boundary`
    may be 0 (a put that is never exercised early) or infinite (such a call), for both of which JSON has null.
    """
    _demand_finite(quotes, american=target.american)
    header: dict[str, Any] = {"model_name": target.model}
    if version is not None and not (quotes.reason == FallbackReason.MODEL_UNAVAILABLE).any():
        header["model_version"] = version
    if request.id is not None:
        header["id"] = request.id
    tensors: list[dict[str, Any]] = []
    parts: list[bytes | memoryview] = []
    for output in request.outputs:
        is_method = output.name == "method"
        tensor: dict[str, Any] = {
            "name": output.name, "datatype": "BYTES" if is_method else "FP64", "shape": list(request.shape),
        }  # fmt: skip
        if output.binary:
            part = _method_bytes(quotes.method) if is_method else _column_bytes(getattr(quotes, output.name))
            tensor["parameters"] = {"binary_data_size": len(part)}
            parts.append(part)
        elif is_method:
            tensor["data"] = [_LABELS[code] for code in quotes.method.tolist()]
        else:
            column = getattr(quotes, output.name)
            if output.name == "exercise_boundary":  # orjson writes null for a NaN
                column = np.where((column > 0.0) & (column < np.inf), column, np.nan)
            tensor["data"] = np.ascontiguousarray(column)
        tensors.append(tensor)
    header["outputs"] = tensors
    text = orjson.dumps(header, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return InferAnswer(None, (text,), len(text))
    # Blanks after the JSON let the numbers start at a multiple of their size, so that nobody has to copy them.
    text += b" " * (-len(text) % _ALIGNMENT)
    return InferAnswer(len(text), (text, *parts), len(text) + sum(map(len, parts)))


def _demand_finite(quotes: Quotes, *, american: bool) -> None:
    for name in NUMBER_OUTPUTS:
        finite = np.isfinite(getattr(quotes, name))
        if not finite.all():
            raise NonFiniteResult(int(np.argmin(finite)))
    if american:
        absent = np.isnan(quotes.exercise_boundary)
        if absent.any():
            raise NonFiniteResult(int(np.argmax(absent)))


def _column_bytes(column: FloatArray) -> memoryview:
    return np.ascontiguousarray(column, dtype="<f8").data.cast("B")


def _method_bytes(methods: CodeArray) -> bytes:
    """The names of the methods as BYTES elements."""
    first = int(methods[0])
    if (methods == first).all():
        return _ELEMENTS[first] * len(methods)
    return b"".join([_ELEMENTS[code] for code in methods.tolist()])
