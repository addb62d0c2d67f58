"""The kopf shell: its settings, who it wakes, and how it logs in. kopf itself runs in the integration tests."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

from pinn_operator.handlers import EndlessBackoffs, WatchThread, _Login, make_registry, make_settings
from pinn_operator.kube.connection import Credentials
from pinn_operator.kube.errors import CredentialsError


def kubeconfig(folder: Path, *, token: str = "first") -> Path:
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "pinn-x",
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "pinn-x", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


def test_kopf_writes_nothing_and_watches_no_definitions() -> None:
    settings = make_settings()
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone


def test_the_api_server_is_tried_for_ever_and_with_jitter() -> None:
    backoffs = EndlessBackoffs(first=1.0, longest=5.0)
    first, second = list(itertools.islice(backoffs, 200)), list(itertools.islice(backoffs, 200))
    assert len(first) == 200
    assert max(first) <= 5.0
    assert min(first[5:]) >= 2.5
    assert first != second
    assert not hasattr(backoffs, "__len__"), "kopf would count its attempts"


def handlers_of(registry: kopf.OperatorRegistry) -> list[Any]:
    return list(registry._watching.get_all_handlers())


async def test_news_of_a_resource_say_whether_a_rollout_is_in_flight(tmp_path: Path) -> None:
    heard: list[tuple[Any, ...]] = []
    credentials = Credentials(kubeconfig=kubeconfig(tmp_path))
    registry = make_registry(credentials=credentials, heard=lambda *news: heard.append(news))
    [handler] = handlers_of(registry)
    await handler.fn(namespace="pricing", name="eu", status={})
    await handler.fn(namespace="pricing", name="eu", status={"rollout": {"weight": 10}})
    assert heard == [("pricing", "eu", False), ("pricing", "eu", True)]


def test_no_handler_makes_kopf_patch_an_object(tmp_path: Path) -> None:
    registry = make_registry(credentials=Credentials(kubeconfig=kubeconfig(tmp_path)), heard=lambda *_: None)
    assert not list(registry._changing.get_all_handlers())
    assert not list(registry._spawning.get_all_handlers())


async def test_each_login_reads_the_credentials_anew(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    login = _Login(Credentials(kubeconfig=path))
    login._delays = iter([0.0, 0.0])
    first = await login()
    assert (first.server, first.token) == ("https://127.0.0.1:6443", "first")
    kubeconfig(tmp_path, token="second")
    assert (await login()).token == "second"


async def test_a_token_that_was_refused_may_be_tried_again(tmp_path: Path) -> None:
    login = _Login(Credentials(kubeconfig=kubeconfig(tmp_path)))
    login._delays = iter([0.0, 0.0])
    assert await login() != await login(), "kopf ends for good when it gets what was refused before"


async def test_credentials_that_cannot_be_read_are_waited_for(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    path.write_text("nonsense: [")
    with pytest.raises(kopf.TemporaryError, match=str(path)):
        await _Login(Credentials(kubeconfig=path))()


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_kubeconfig_is_never_guessed() -> None:
    with pytest.raises(CredentialsError, match="--kubeconfig"):
        Credentials.find(kubeconfig=None, context=None, environ={"HOME": "/root"})


def test_in_a_pod_the_service_account_is_used() -> None:
    found = Credentials.find(kubeconfig=None, context=None, environ={"KUBERNETES_SERVICE_HOST": "198.18.128.1"})
    assert found.kubeconfig is None


def test_a_kubeconfig_that_was_named_goes_before_the_service_account(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    found = Credentials.find(kubeconfig=path, context="pinn-x", environ={"KUBERNETES_SERVICE_HOST": "198.18.128.1"})
    assert (found.kubeconfig, found.context) == (path, "pinn-x")


async def test_the_token_of_a_service_account_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "ca.crt").write_text("certificate")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "198.18.128.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    login = await Credentials(token_path=tmp_path / "token", ca_path=tmp_path / "ca.crt").login()
    assert (login.server, login.token) == ("https://198.18.128.1:443", "abc")
    assert login.ca_path == str(tmp_path / "ca.crt")


@pytest.mark.parametrize("context", ["absent", None])
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, context: str | None) -> None:
    path = kubeconfig(tmp_path)
    if context is None:
        path.write_text("{}")
    with pytest.raises(CredentialsError, match="config"):
        await Credentials(kubeconfig=path, context=context).load()


async def test_a_watch_that_cannot_log_in_can_be_stopped(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    path.write_text("{}")
    thread = WatchThread((), credentials=Credentials(kubeconfig=path), heard=lambda *_: None)
    thread.start()
    await thread.stop(patience=20)
    assert thread.ended.done()
