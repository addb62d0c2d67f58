"""The real Triton client against a real server process: JSON and binary, both models, health, metadata, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import OptionBatch
from pinn_inference.server.oip_codec import AMERICAN_OUTPUTS, INPUTS, NUMBER_OUTPUTS, OUTPUTS
from tests.support.oip import random_columns
from tests.support.process import Process, serving

Columns = dict[str, np.ndarray[Any, Any]]
Client = triton.InferenceServerClient


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving() as process:
        process.wait_until_ready()
        yield process


@pytest.fixture(scope="module")
def client(server: Process) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.port}", network_timeout=60) as client:
        yield client


def option_columns(rows: int, seed: int = 1) -> Columns:
    """Columns as a client has them; the option types are bytes."""
    columns: Columns = {**random_columns(rows, seed)}
    columns["option_type"] = np.random.default_rng(seed).choice([b"call", b"put"], rows).astype(object)
    return columns


def tensors(columns: Columns, *, binary: bool, datatypes: dict[str, str] | None = None) -> list[triton.InferInput]:
    inputs = []
    for name, column in columns.items():
        datatype = (datatypes or {}).get(name, "BYTES" if name == "option_type" else "FP64")
        tensor = triton.InferInput(name, list(column.shape), datatype)
        tensor.set_data_from_numpy(column, binary_data=binary)
        inputs.append(tensor)
    return inputs


def exact(columns: Columns) -> Any:
    numbers = {
        name: np.asarray(column, dtype=np.float64).reshape(-1)
        for name, column in columns.items()
        if name != "option_type"
    }
    return closed_form.price(OptionBatch(**numbers, is_call=columns["option_type"].reshape(-1) == b"call"))


def test_server_and_models_are_alive_ready_and_described(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("european")
    assert [tensor["name"] for tensor in metadata["inputs"]] == list(INPUTS)
    assert [tensor["name"] for tensor in metadata["outputs"]] == list(OUTPUTS)
    version = metadata["versions"][0]
    assert client.is_model_ready("european")
    assert client.is_model_ready("european", version)
    assert client.get_model_metadata("european", version) == metadata


@pytest.mark.parametrize("rows", [1, 3, 1000, 65_536])
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_prices_and_greeks_come_as_numpy_arrays_and_are_right(client: Client, rows: int, binary: bool) -> None:
    columns = option_columns(rows)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
    result = client.infer("european", tensors(columns, binary=binary), outputs=outputs, request_id="desk-7")
    response = result.get_response()
    assert (response["model_name"], response["id"]) == ("european", "desk-7")
    expected = exact(columns)
    bound = result.as_numpy("error_bound")
    assert np.all(np.abs(result.as_numpy("price") - expected.price) <= bound + expected.error_bound)
    scales = {"delta": 1.0, "gamma": expected.gamma.max(), "vega": 100.0, "theta": 100.0, "rho": 100.0}
    for name, scale in scales.items():
        assert np.abs(result.as_numpy(name) - getattr(expected, name)).max() <= 1e-4 * scale, name
    methods = result.as_numpy("method")
    assert set(methods.tolist()) <= ({"pinn", "closed_form"} if not binary else {b"pinn", b"closed_form"})


def test_json_and_binary_answers_are_the_same_to_the_last_digit(client: Client) -> None:
    columns = option_columns(500)
    answers = [
        client.infer(
            "european",
            tensors(columns, binary=binary),
            outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in NUMBER_OUTPUTS],
        )
        for binary in (False, True)
    ]
    for name in NUMBER_OUTPUTS:
        assert np.array_equal(*(answer.as_numpy(name) for answer in answers)), name


def test_without_outputs_the_client_asks_for_all_in_binary_and_gets_them(client: Client) -> None:
    result = client.infer("european", tensors(option_columns(10), binary=True))
    assert [output["name"] for output in result.get_response()["outputs"]] == list(OUTPUTS)
    assert all("binary_data_size" in output["parameters"] for output in result.get_response()["outputs"])
    assert result.as_numpy("price").shape == (10,)


def test_a_column_of_shape_n_1_is_answered_in_that_shape(client: Client) -> None:
    columns = {name: column.reshape(-1, 1) for name, column in option_columns(7).items()}
    result = client.infer("european", tensors(columns, binary=True))
    assert result.as_numpy("price").shape == (7, 1)
    assert np.abs(result.as_numpy("price").reshape(-1) - exact(columns).price).max() < 0.01


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_single_precision_and_flags_are_taken_too(client: Client, binary: bool) -> None:
    columns = option_columns(50)
    narrow = {name: column.astype(np.float32) for name, column in columns.items() if name != "option_type"}
    flags = {"option_type": columns["option_type"] == b"call"}
    datatypes = {**dict.fromkeys(narrow, "FP32"), "option_type": "BOOL"}
    result = client.infer("european", tensors({**narrow, **flags}, binary=binary, datatypes=datatypes))
    expected = exact({**narrow, "option_type": columns["option_type"]})
    assert np.abs(result.as_numpy("price") - expected.price).max() < 0.01


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("rows", [5, 5000])
def test_compressed_requests_are_taken(client: Client, algorithm: str, rows: int) -> None:
    columns = option_columns(rows)
    result = client.infer(
        "european",
        tensors(columns, binary=True),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.abs(result.as_numpy("price") - exact(columns).price).max() < 0.01


def test_many_requests_in_flight_are_each_answered_with_their_own_prices(server: Process) -> None:
    with Client(f"127.0.0.1:{server.port}", concurrency=8, network_timeout=60) as client:
        asked = [option_columns(40, seed) for seed in range(60)]
        waiting = [
            client.async_infer("european", tensors(columns, binary=True), request_id=str(seed))
            for seed, columns in enumerate(asked)
        ]
        for seed, (columns, handle) in enumerate(zip(asked, waiting, strict=True)):
            result = handle.get_result()
            assert result.get_response()["id"] == str(seed)
            assert np.abs(result.as_numpy("price") - exact(columns).price).max() < 0.01


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("rows", [20, 20_000])
def test_a_bad_row_raises_in_the_client_with_its_name_its_place_and_its_value(
    client: Client, binary: bool, rows: int
) -> None:
    columns = option_columns(rows)
    columns["volatility"][17] = -0.2
    with pytest.raises(
        InferenceServerException, match=r"volatility\[17\] is -0.2: must be a number from 0 to 10"
    ) as caught:
        client.infer("european", tensors(columns, binary=binary))
    assert caught.value.status() == "400"


def test_unknown_models_versions_and_outputs_raise_in_the_client(client: Client) -> None:
    inputs = tensors(option_columns(2), binary=True)
    with pytest.raises(InferenceServerException, match="must be european or american"):
        client.infer("bermudan", inputs)
    with pytest.raises(InferenceServerException, match='version of model european is "1"'):
        client.infer("european", inputs, model_version="1")
    with pytest.raises(InferenceServerException, match="must be the name of an output"):
        client.infer("european", inputs, outputs=[triton.InferRequestedOutput("vanna")])
    assert not client.is_model_ready("bermudan")


def test_american_options_come_with_their_boundary_and_are_worth_no_less(client: Client) -> None:
    assert client.is_model_ready("american")
    columns = option_columns(200)
    american = client.infer("american", tensors(columns, binary=True))
    european = client.infer("european", tensors(columns, binary=True))
    assert [output["name"] for output in american.get_response()["outputs"]] == list(AMERICAN_OUTPUTS)
    slack = american.as_numpy("error_bound") + european.as_numpy("error_bound")
    assert np.all(american.as_numpy("price") >= european.as_numpy("price") - slack)
    assert not np.isnan(american.as_numpy("exercise_boundary")).any()
