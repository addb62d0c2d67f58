"""The Open Inference Protocol's tensors: what is read, what is refused and how it is told, and what is answered."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.errors import BatchTooLarge, InvalidRequest, NonFiniteResult
from pinn_inference.server.oip_codec import (
    AMERICAN_OUTPUTS,
    OUTPUTS,
    InferAnswer,
    InferRequest,
    InferTarget,
    parse_infer_request,
    render_infer_answer,
)
from pinn_inference.server.parsing import FIELDS
from tests.support.oip import (
    PUT_COLUMNS,
    binary_request,
    bytes_elements,
    json_request,
    random_columns,
    tensor,
    with_input,
)

EUROPEAN = InferTarget("european", "7f")
AMERICAN = InferTarget("american", "7f")
NAMES = [field.name for field in FIELDS]


def parse(
    document: Any, header: str | None = None, *, target: InferTarget = EUROPEAN, max_batch: int = 1000
) -> InferRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_infer_request(body, target=replace(target, header_length=header), max_batch=max_batch)


def faults(document: Any, header: str | None = None, **how: Any) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRequest) as caught:
        parse(document, header, **how)
    found = caught.value.details()["faults"]
    assert isinstance(found, list)
    return found


def fault(document: Any, header: str | None = None, **how: Any) -> dict[str, Any]:
    """The only fault of a request."""
    found = faults(document, header, **how)
    assert len(found) == 1, found
    return found[0]


def raw_columns(rows: int = 1) -> dict[str, bytes]:
    columns = {name: np.full(rows, value).tobytes() for name, value in PUT_COLUMNS.items()}
    return {**columns, "option_type": bytes_elements(["put"] * rows)}


# --- what is read -----------------------------------------------------------------------------------------------------


def test_tensors_in_the_json_become_columns() -> None:
    request = parse(json_request(3, option_type=["put", "call", "put"], id="42"))
    assert (request.id, request.shape) == ("42", (3,))
    assert {name: getattr(request.options, name).tolist() for name in PUT_COLUMNS} == {
        name: [value] * 3 for name, value in PUT_COLUMNS.items()
    }
    assert request.options.is_call.tolist() == [False, True, False]
    assert not request.options.is_american.any()


def test_binary_tensors_become_the_same_columns_as_those_in_the_json() -> None:
    columns = random_columns(257, seed=4)
    kinds = np.random.default_rng(4).choice(["call", "put"], 257).tolist()
    binary, header = binary_request(
        {**{name: column.tobytes() for name, column in columns.items()}, "option_type": bytes_elements(kinds)},
        shape=[257],
    )
    written = {"inputs": [tensor(name, column.tolist()) for name, column in columns.items()]}
    written["inputs"].append(tensor("option_type", kinds, "BYTES"))
    one, other = parse(binary, header), parse(written)
    for name in (*NAMES, "is_call", "is_american"):
        assert np.array_equal(getattr(one.options, name), getattr(other.options, name)), name


@pytest.mark.parametrize("offset", range(8))
def test_a_binary_column_is_a_view_where_its_place_allows_it_and_right_everywhere(offset: int) -> None:
    body, header = binary_request(raw_columns(), id="x" * offset)
    options = parse(body, header).options
    assert {name: getattr(options, name)[0] for name in PUT_COLUMNS} == dict(PUT_COLUMNS)
    assert all(getattr(options, name).flags.aligned for name in PUT_COLUMNS)


def test_the_columns_of_a_batch_lie_in_the_body_itself() -> None:
    body, header = binary_request(raw_columns(50), shape=[50])
    padded = body[: int(header)] + b" " * (-int(header) % 8) + body[int(header) :]
    store = np.zeros(len(padded) // 8 + 1)  # float64, so that the body starts at a multiple of eight
    memoryview(store).cast("B")[: len(padded)] = padded
    view = memoryview(store).cast("B")[: len(padded)]
    header_length = str(int(header) + (-int(header) % 8))
    options = parse_infer_request(view, target=replace(EUROPEAN, header_length=header_length), max_batch=50).options
    assert all(np.shares_memory(getattr(options, name), store) for name in PUT_COLUMNS)


def test_dividend_and_option_type_may_be_absent() -> None:
    request = json_request(2)
    request["inputs"] = [item for item in request["inputs"] if item["name"] not in ("dividend", "option_type")]
    options = parse(request).options
    assert (options.dividend.tolist(), options.is_call.tolist()) == ([0.0, 0.0], [True, True])


def test_the_american_model_reads_american_options_and_knows_their_boundary() -> None:
    request = parse(json_request(2), target=AMERICAN)
    assert request.options.is_american.tolist() == [True, True]
    assert [output.name for output in request.outputs] == list(AMERICAN_OUTPUTS)


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_numbers_of_both_widths_are_read_and_none_is_rounded(datatype: str) -> None:
    dtype = np.float32 if datatype == "FP32" else np.float64
    columns = {**raw_columns(), "volatility": np.array([0.22], dtype=dtype).tobytes()}
    body, header = binary_request(columns, datatypes={"volatility": datatype})
    assert parse(body, header).options.volatility[0] == float(dtype(0.22))
    assert parse(with_input(json_request(), "volatility", datatype=datatype)).options.volatility[0] == 0.22


WHOLE = [f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("datatype", WHOLE)
def test_a_whole_number_may_be_written_with_a_point(datatype: str) -> None:
    assert parse(with_input(json_request(), "spot", datatype=datatype, data=[100.0])).options.spot[0] == 100.0


@pytest.mark.parametrize("datatype", WHOLE)
def test_whole_numbers_of_every_width_are_read_exactly(datatype: str) -> None:
    dtype = np.dtype(datatype.lower())
    most = min(int(np.iinfo(dtype).max), 10**9)
    body, header = binary_request(
        {**raw_columns(), "spot": np.array([most], dtype).tobytes()}, datatypes={"spot": datatype}
    )
    assert parse(body, header).options.spot[0] == most
    assert parse(with_input(json_request(), "spot", datatype=datatype, data=[most])).options.spot[0] == most


@pytest.mark.parametrize("datatype", WHOLE)
@pytest.mark.parametrize("wrong", [99.5, True, "100", None])
def test_in_a_tensor_of_whole_numbers_nothing_else_may_stand(datatype: str, wrong: Any) -> None:
    request = with_input(json_request(2), "spot", datatype=datatype, data=[100, wrong])
    with pytest.raises(InvalidRequest) as caught:
        parse(request)
    [fault] = caught.value.faults
    assert (fault.field, fault.index, fault.value) == ("spot", 1, wrong)
    assert fault.message.endswith(f"whole as {datatype} is")


@pytest.mark.parametrize(("datatype", "data"), [("INT8", 128), ("UINT8", 256), ("INT16", 40_000), ("UINT32", -1)])
def test_what_its_datatype_cannot_hold_is_refused_and_the_range_is_named(datatype: str, data: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(with_input(json_request(), "spot", datatype=datatype, data=[data]))
    assert str(min(int(np.iinfo(datatype.lower()).max), 10**9)) in str(caught.value)


def test_a_whole_number_beyond_what_an_option_may_be_is_refused_in_binary_too() -> None:
    huge = np.array([2**63 + 1], np.uint64).tobytes()
    body, header = binary_request({**raw_columns(), "spot": huge}, datatypes={"spot": "UINT64"})
    with pytest.raises(InvalidRequest, match="spot"):
        parse(body, header)


@pytest.mark.parametrize(
    ("datatype", "data", "raw"),
    [
        ("BYTES", ["call", "put", "put"], bytes_elements(["call", "put", "put"])),
        ("INT8", [1, 0, 0], b"\1\0\0"),
        ("BOOL", [True, False, False], b"\1\0\0"),
    ],
)
def test_the_type_of_an_option_is_a_word_or_a_flag(datatype: str, data: list[Any], raw: bytes) -> None:
    written = with_input(json_request(3), "option_type", datatype=datatype, data=data)
    assert parse(written).options.is_call.tolist() == [True, False, False]
    body, header = binary_request(
        {**raw_columns(3), "option_type": raw}, datatypes={"option_type": datatype}, shape=[3]
    )
    assert parse(body, header).options.is_call.tolist() == [True, False, False]


@pytest.mark.parametrize("nested", [False, True])
def test_a_column_of_shape_n_1_may_be_nested_or_flat_and_shapes_the_answer(nested: bool) -> None:
    request = json_request(2)
    for item in request["inputs"]:
        item["shape"] = [2, 1]
        item["data"] = [[value] for value in item["data"]] if nested else item["data"]
    parsed = parse(request)
    assert parsed.options.spot.tolist() == [100.0, 100.0]
    assert parsed.options.is_call.tolist() == [False, False]
    answer = orjson.loads(answered(parsed).join())
    assert [output["shape"] for output in answer["outputs"]] == [[2, 1]] * len(OUTPUTS)


def test_tensors_may_be_binary_or_not_one_by_one() -> None:
    spot = np.array([100.0]).tobytes()
    request = with_input(json_request(), "spot", data=..., parameters={"binary_data_size": 8})
    header = json.dumps(request).encode()
    assert parse(header + spot, str(len(header))).options.spot.tolist() == [100.0]


def test_parameters_that_change_nothing_are_let_pass() -> None:
    hints = {"priority": 1, "timeout": 1000, "sequence_id": 7, "sequence_start": True, "desk": "eu"}
    assert len(parse(json_request(parameters=hints)).options) == 1


def test_model_and_version_may_be_named_again() -> None:
    assert len(parse(json_request(model_name="european", model_version="7f")).options) == 1
    assert fault(json_request(model_name="bermudan"))["field"] == "model_name"
    assert fault(json_request(model_version="8"))["message"] == 'must be "7f" or absent'


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), "100", True, None, [], {}, -1e300, 10**400])
def test_an_element_that_is_no_usable_number_is_named_with_its_place(name: str, bad: Any) -> None:
    request = json_request(4)
    data = [PUT_COLUMNS[name], PUT_COLUMNS[name], bad, PUT_COLUMNS[name]]
    found = fault(with_input(request, name, data=data))
    assert (found["field"], found["index"]) == (name, 2)
    assert found["message"].startswith("must be a number from")


def test_an_american_option_with_two_exercise_boundaries_is_an_option_like_others() -> None:
    request = with_input(json_request(3), "rate", data=[-0.01, -0.01, -0.01])
    request = with_input(request, "dividend", data=[0.0, -0.02, 0.0])
    assert parse(request, target=AMERICAN).options.is_american.all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -1e300, 1e300])
def test_a_bad_binary_element_is_named_with_its_place_and_the_others_are_counted(name: str, bad: float) -> None:
    column = np.full(5, PUT_COLUMNS[name])
    column[3:] = bad
    body, header = binary_request({**raw_columns(5), name: column.tobytes()}, shape=[5])
    found = fault(body, header)
    assert (found["field"], found["index"]) == (name, 3)
    assert found["message"].endswith("; so must 1 more of its 5 elements")


def test_the_message_names_tensor_element_value_and_what_would_be_right() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(with_input(json_request(2), "volatility", data=[0.2, -0.2]))
    expected = "volatility[1] is -0.2: must be a number from 0 to 10 (decimal per year: 0.2 is 20 %)"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("datatype", "data", "index", "shown"),
    [
        ("BYTES", ["put", "Put"], 1, "Put"),
        ("BYTES", [1, "put"], 0, 1),
        ("INT8", [0, 2], 1, 2),
        ("INT8", [0, -1], 1, -1),
        ("INT8", [0, True], 1, True),
        ("INT8", [0.0, 1], 0, 0.0),
        ("BOOL", [True, 1], 1, 1),
        ("BOOL", [True, []], 1, "a list of 0"),
    ],
)
def test_a_type_that_is_none_is_shown(datatype: str, data: list[Any], index: int, shown: Any) -> None:
    found = fault(with_input(json_request(2), "option_type", datatype=datatype, data=data))
    assert (found["field"], found["index"], found["value"]) == ("option_type", index, shown)


@pytest.mark.parametrize(
    ("raw", "index", "shown"),
    [
        (bytes_elements(["put", "Call"]), 1, "Call"),
        (bytes_elements(["put", b"\xff\xfe"]), 1, "��"),
        (bytes_elements(["", "put"]), 0, ""),
        (bytes_elements(["callput", "put"]), 0, "callput"),
        (bytes_elements(["put"]), 1, None),
        (bytes_elements(["put"]) + b"\3\0\0\0pu", 1, None),
        (bytes_elements(["put"]) + b"\xff\xff\xff\xffput", 1, None),
        (b"\4\0\0", 0, None),
        (b"", 0, None),
        (b"\3\1\0\0put\3\0\0\0put", 0, None),
        (b"\3\0\0\1put\3\0\0\0put", 0, None),
        (b"\4\0\0\0cal\3\3\0\0\0put", 0, "cal\3"),
    ],
)
def test_broken_bytes_are_named_by_their_element(raw: bytes, index: int, shown: str | None) -> None:
    body, header = binary_request({**raw_columns(2), "option_type": raw}, shape=[2])
    found = fault(body, header)
    assert (found["field"], found["index"]) == ("option_type", index)
    assert found.get("value") == shown


def test_bytes_after_the_last_element_are_a_fault_too() -> None:
    body, header = binary_request({**raw_columns(2), "option_type": bytes_elements(["put"] * 3)}, shape=[2])
    found = fault(body, header)
    assert (found["field"], found["value"]) == ("option_type.parameters.binary_data_size", 21)
    assert found["message"] == "must be 14: that is where its 2 elements end"


_words = st.lists(st.sampled_from([b"call", b"put"]), min_size=1, max_size=20)


@given(words=_words, spoil=st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 255)))
def test_bytes_are_accepted_exactly_if_each_element_is_a_type(
    words: list[bytes], spoil: tuple[int, int] | None
) -> None:
    raw = bytearray(bytes_elements(words))
    if spoil is not None:
        raw[spoil[0] % len(raw)] = spoil[1]
    body, header = binary_request({**raw_columns(len(words)), "option_type": bytes(raw)}, shape=[len(words)])
    if raw == bytes_elements(words):
        assert parse(body, header).options.is_call.tolist() == [word == b"call" for word in words]
    else:
        assert fault(body, header)["field"] == "option_type"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dividend"])
def test_an_absent_input_is_named_as_required(name: str) -> None:
    request = json_request()
    request["inputs"] = [item for item in request["inputs"] if item["name"] != name]
    found = fault(request)
    assert found["field"] == name
    assert found["message"].startswith("is required")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "tau"}, "inputs[0].name"),
        ({"name": ...}, "inputs[0].name"),
        ({"name": ["spot"]}, "inputs[0].name"),
        ({"name": "strike"}, "inputs[1].name"),
        ({"shape": ...}, "spot.shape"),
        ({"shape": []}, "spot.shape"),
        ({"shape": [0]}, "spot.shape"),
        ({"shape": [-1]}, "spot.shape"),
        ({"shape": [True]}, "spot.shape"),
        ({"shape": [1.0]}, "spot.shape"),
        ({"shape": [1, 2]}, "spot.shape"),
        ({"shape": [1, 1, 1]}, "spot.shape"),
        ({"shape": "1"}, "spot.shape"),
        ({"shape": [10**300]}, "spot.shape"),
        ({"datatype": ...}, "spot.datatype"),
        ({"datatype": "INT128"}, "spot.datatype"),
        ({"datatype": []}, "spot.datatype"),
        ({"data": ...}, "spot.data"),
        ({"data": []}, "spot.data"),
        ({"data": 100.0}, "spot.data"),
        ({"data": [100.0, 100.0]}, "spot.data"),
        ({"parameters": []}, "spot.parameters"),
        ({"parameters": {"shared_memory_region": "r"}}, "spot.parameters.shared_memory_region"),
        ({"parameters": {"binary_data_size": 8}, "data": ...}, "spot.parameters.binary_data_size"),
        ({"contents": [100.0]}, "spot.contents"),
    ],
)
def test_a_wrong_frame_of_a_tensor_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in [found["field"] for found in faults(with_input(json_request(), "spot", **changes))]


def test_every_input_has_as_many_rows() -> None:
    found = faults(with_input(json_request(2), "strike", shape=[3], data=[95.0] * 3))
    assert [(each["field"], each["message"]) for each in found] == [
        ("strike.shape", "must be [2], as that of spot: one row for each option")
    ]


@pytest.mark.parametrize(
    ("name", "bad"),
    [("id", 42), ("parameters", 7), ("outputs", {}), ("outputs", ["price"]), ("outputs", [{}]), ("inputs", None),
     ("inputs", []), ("inputs", {}), ("inputs", [7]), ("inputs", [{}] * 100), ("outputs", [{"name": "price"}] * 100),
     ("requests", [])],
)  # fmt: skip
def test_a_wrong_field_of_a_request_is_named(name: str, bad: Any) -> None:
    assert name in faults({**json_request(), name: bad})[0]["field"]


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ([{"name": "vanna"}], "outputs[0].name"),
        ([{"name": "price"}, {"name": "price"}], "outputs[1].name"),
        ([{"name": "exercise_boundary"}], "outputs[0].name"),
        ([{"name": "price", "parameters": {"binary_data": 1}}], "outputs[0].parameters.binary_data"),
        ([{"name": "price", "parameters": {"classification": 3}}], "outputs[0].parameters.classification"),
        ([{"name": "price", "datatype": "FP32"}], "outputs[0].datatype"),
    ],
)
def test_a_wrong_output_is_named(outputs: list[Any], field: str) -> None:
    assert fault(json_request(outputs=outputs))["field"] == field


def test_more_rows_than_the_limit_are_too_many_whatever_else_is_wrong() -> None:
    with pytest.raises(BatchTooLarge, match="holds 3 options: at most 2"):
        parse(json_request(3), max_batch=2)


@pytest.mark.parametrize("header", ["", "x", "-1", "1.0", "+3", " 3", "³", "9" * 30])
def test_a_length_header_must_be_a_length_within_the_body(header: str) -> None:
    body, _ = binary_request(raw_columns())
    assert fault(body, header)["field"] == "Inference-Header-Content-Length"


def test_a_truncated_body_is_told_by_the_tensor_that_lacks_bytes() -> None:
    body, header = binary_request(raw_columns(4), shape=[4])
    found = fault(body[:-40], header)
    assert found["field"].endswith("binary_data_size")
    assert found["message"].endswith("that are left of the body")


def test_bytes_that_no_tensor_claims_are_a_fault() -> None:
    body, header = binary_request(raw_columns())
    assert fault(body + b"\0\0", header)["message"] == "has 57 bytes after the JSON, of which its tensors claim 55"


def test_a_size_that_is_not_that_of_the_shape_is_a_fault() -> None:
    body, header = binary_request({**raw_columns(), "spot": b"\0" * 16})
    found = faults(body, header)[0]
    assert (found["field"], found["message"]) == (
        "spot.parameters.binary_data_size",
        "must be 8: 1 elements of 8 bytes",
    )


@pytest.mark.parametrize("size", [-8, 8.0, "8", True, [], 10**400])
def test_a_size_that_is_no_length_is_a_fault(size: Any) -> None:
    body, header = binary_request(raw_columns())
    document = json.loads(body[: int(header)])
    document["inputs"][0]["parameters"]["binary_data_size"] = "SIZE"
    text = json.dumps(document).replace('"SIZE"', "1" + "0" * 400 if size == 10**400 else json.dumps(size)).encode()
    assert faults(text + body[int(header) :], str(len(text)))[0]["field"] == "spot.parameters.binary_data_size"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b"1" * 5000, '{"id": "\\ud800"}'.encode("utf-16")]
)
def test_what_is_not_a_json_object_is_said_to_be_so(body: bytes) -> None:
    assert faults(body)[0]["field"] == "body"


@pytest.mark.parametrize("identity", ['"\\ud800"', '"\x01"'])
def test_a_document_that_only_a_lax_reader_accepts_is_never_priced(identity: str) -> None:
    body = json.dumps(json_request(id="ID")).replace('"ID"', identity).encode()
    found = fault(body)
    assert found["field"] == "body"
    assert found["message"].startswith("is not valid JSON")


def test_every_tensor_s_first_fault_is_reported() -> None:
    request = with_input(json_request(2), "spot", data=[-1, "x"])
    request = with_input(request, "rate", data=[0.01, 2])
    request = with_input(request, "option_type", data=["put", "straddle"])
    assert [(found["field"], found["index"]) for found in faults(request)] == [
        ("spot", 0), ("rate", 1), ("option_type", 1),
    ]  # fmt: skip


# --- what is answered -------------------------------------------------------------------------------------------------


def american_quotes(options: OptionBatch, boundary: float) -> Quotes:
    european = replace(options, is_american=np.zeros(len(options), dtype=bool))
    return replace(closed_form.price(european), exercise_boundary=np.full(len(options), boundary))


def answered(
    request: InferRequest, *, target: InferTarget = EUROPEAN, boundary: float = 80.0, version: str | None = "7f"
) -> InferAnswer:
    quotes = american_quotes(request.options, boundary)
    return render_infer_answer(request, quotes, target=target, version=version)


def decoded(answer: InferAnswer) -> dict[str, Any]:
    """The tensors of an answer by name, read as the extension's text says."""
    body = answer.join()
    assert len(body) == answer.size
    end = answer.header_length if answer.header_length is not None else len(body)
    document, position, tensors = json.loads(body[:end]), end, {}
    for output in document["outputs"]:
        if "data" in output:
            tensors[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        raw, position = body[position : position + size], position + size
        if output["datatype"] == "FP64":
            tensors[output["name"]] = np.frombuffer(raw, "<f8").tolist()
        else:
            words = []
            while raw:
                length = int.from_bytes(raw[:4], "little")
                words.append(raw[4 : 4 + length].decode())
                raw = raw[4 + length :]
            tensors[output["name"]] = words
    assert position == len(body)
    return tensors


@pytest.mark.parametrize("binary", [False, True])
def test_all_outputs_come_in_their_order_as_the_request_says(binary: bool) -> None:
    request = parse(json_request(3, parameters={"binary_data_output": binary}, id="é"))
    quotes = closed_form.price(request.options)
    answer = render_infer_answer(request, quotes, target=EUROPEAN, version="7f")
    header = json.loads(answer.join()[: answer.header_length])
    assert (header["model_name"], header["model_version"], header["id"]) == ("european", "7f", "é")
    assert [output["name"] for output in header["outputs"]] == list(OUTPUTS)
    assert answer.content_type == ("application/octet-stream" if binary else "application/json")
    tensors = decoded(answer)
    assert tensors.pop("method") == ["closed_form"] * 3
    assert tensors == {name: getattr(quotes, name).tolist() for name in OUTPUTS if name != "method"}


def test_only_the_outputs_asked_for_come_each_in_its_form() -> None:
    outputs = [{"name": "vega", "parameters": {"binary_data": True}}, {"name": "price"}]
    answer = answered(parse(json_request(outputs=outputs)))
    header = json.loads(answer.join()[: answer.header_length])
    assert [(output["name"], "data" in output) for output in header["outputs"]] == [("vega", False), ("price", True)]
    assert list(decoded(answer)) == ["vega", "price"]


def test_an_output_may_be_left_in_the_json_though_all_others_are_binary() -> None:
    outputs = [{"name": "price"}, {"name": "method", "parameters": {"binary_data": False}}]
    request = parse(json_request(outputs=outputs, parameters={"binary_data_output": True}))
    assert [output.binary for output in request.outputs] == [True, False]


def test_methods_in_a_mixed_batch_are_told_row_by_row() -> None:
    request = parse(json_request(4, parameters={"binary_data_output": True}))
    methods = np.array([Method.PINN, Method.CLOSED_FORM, Method.PINN, Method.INTEGRAL_EQUATION], dtype=np.int8)
    quotes = replace(closed_form.price(request.options), method=methods)
    tensors = decoded(render_infer_answer(request, quotes, target=EUROPEAN, version="7f"))
    assert tensors["method"] == ["pinn", "closed_form", "pinn", "integral_equation"]


def test_an_answer_without_id_and_version_has_none() -> None:
    request = parse(json_request())
    header = json.loads(answered(request, version=None).join())
    assert set(header) == {"model_name", "outputs"}


def test_quotes_made_while_there_was_no_model_do_not_name_the_one_that_came_meanwhile() -> None:
    request = parse(json_request())
    quotes = closed_form.price(request.options, reason=FallbackReason.MODEL_UNAVAILABLE)
    header = json.loads(render_infer_answer(request, quotes, target=EUROPEAN, version="7f").join())
    assert "model_version" not in header


def test_binary_numbers_start_at_a_multiple_of_their_size() -> None:
    for length in range(8):
        request = parse(json_request(id="x" * length, parameters={"binary_data_output": True}))
        assert (answered(request).header_length or 1) % 8 == 0


@pytest.mark.parametrize(("boundary", "in_json"), [(np.inf, None), (0.0, None), (81.5, 81.5)])
def test_a_boundary_at_which_nobody_exercises_is_a_null_in_json_and_itself_in_binary(
    boundary: float, in_json: float | None
) -> None:
    for binary, expected in ((False, in_json), (True, boundary)):
        request = parse(json_request(parameters={"binary_data_output": binary}), target=AMERICAN)
        assert decoded(answered(request, target=AMERICAN, boundary=boundary))["exercise_boundary"] == [expected]


@pytest.mark.parametrize("name", ["price", "gamma", "error_bound"])
def test_a_number_that_is_not_finite_is_never_sent(name: str) -> None:
    request = parse(json_request(3))
    quotes = closed_form.price(request.options)
    getattr(quotes, name)[1] = np.nan
    with pytest.raises(NonFiniteResult, match=r"options\[1\]"):
        render_infer_answer(request, quotes, target=EUROPEAN, version="7f")


def test_an_american_option_without_a_boundary_is_never_sent() -> None:
    request = parse(json_request(), target=AMERICAN)
    with pytest.raises(NonFiniteResult):
        answered(request, target=AMERICAN, boundary=np.nan)


def test_an_answer_can_be_written_into_memory_that_is_there() -> None:
    answer = answered(parse(json_request(3, parameters={"binary_data_output": True})))
    target = bytearray(answer.size + 5)
    assert answer.write_into(memoryview(target)) == answer.size
    assert target == answer.join() + bytes(5)


@pytest.mark.parametrize("target", [InferTarget("european"), InferTarget("american", "1", "300")])
def test_a_target_travels_as_texts(target: InferTarget) -> None:
    assert InferTarget(**target.parameters()) == target


# --- keys that stand more than once -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("once", "twice", "field"),
    [
        ('"inputs": [', '"inputs": [], "inputs": [', "inputs"),
        ('"name": "strike"', '"name": "spot", "name": "strike"', "inputs[1].name"),
        ('"datatype": "FP64"', '"datatype": "FP64", "datatype": "FP64"', "inputs[0].datatype"),
        ('{"inputs"', '{"id": "a", "\\u0069d": "b", "inputs"', "id"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_place(once: str, twice: str, field: str) -> None:
    text = json.dumps(json_request(1))
    assert once in text
    found = faults(text.replace(once, twice, 1).encode())[0]
    assert found["field"] == field
    assert found["message"] == "must not have a key more than once: which of its values is meant?"


def test_a_colon_in_an_id_is_no_key() -> None:
    assert parse({**json_request(1), "id": "desk:eu:7"}).id == "desk:eu:7"
