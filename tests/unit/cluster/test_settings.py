"""Names, folders and ports of a local cluster, from the command line and the environment."""

from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.settings import MAX_SOCKET_PATH, Ports, parse_settings


def test_the_default_cluster_lies_in_the_xdg_folders() -> None:
    settings = parse_settings({"HOME": "/home/u", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"})
    assert settings.state == Path("/s/pinn-operator/cluster")
    assert settings.cache == Path("/c/pinn-operator")
    assert settings.context == "pinn-local"


def test_without_xdg_folders_the_home_folder_is_used() -> None:
    settings = parse_settings({"HOME": "/home/u"})
    assert settings.state == Path("/home/u/.local/state/pinn-operator/cluster")
    assert settings.cache == Path("/home/u/.cache/pinn-operator")


def test_another_name_has_another_folder_and_context() -> None:
    settings = parse_settings({"HOME": "/home/u"}, name="it")
    assert settings.state.name == "cluster-it"
    assert settings.context == "pinn-it"


@pytest.mark.parametrize("name", ["", "It", "a_b", "-a", "a-", "9", "x" * 21])
def test_a_name_that_is_no_label_is_refused_by_name(name: str) -> None:
    with pytest.raises(ClusterError, match="--name"):
        parse_settings({}, name=name)


@pytest.mark.parametrize("offset", [-1, 40001])
def test_an_offset_that_leaves_the_port_range_is_refused(offset: int) -> None:
    with pytest.raises(ClusterError, match="--ports-offset"):
        parse_settings({}, ports_offset=offset)


def test_a_state_folder_too_deep_for_unix_sockets_is_refused_before_anything_is_started() -> None:
    with pytest.raises(ClusterError, match="bytes too deep"):
        parse_settings({}, state="/" + "x" * MAX_SOCKET_PATH).check_socket_paths()


def test_no_two_ports_are_the_same_and_the_offset_moves_all_that_a_control_plane_uses() -> None:
    names = [name for name in vars(Ports) if isinstance(vars(Ports)[name], property)]
    plain, moved = Ports(), Ports(offset=1000)
    assert len({getattr(plain, name) for name in names}) == len(names)
    for name in ("apiserver", "etcd_client", "etcd_peer", "controller_manager"):
        assert getattr(moved, name) == getattr(plain, name) + 1000


def test_the_scrape_interval_is_a_second_unless_told_otherwise() -> None:
    assert parse_settings({}).scrape_interval == "1s"
    assert parse_settings({"CLUSTER_SCRAPE_INTERVAL": "15s"}).scrape_interval == "15s"
    with pytest.raises(ClusterError, match="CLUSTER_SCRAPE_INTERVAL='1m'"):
        parse_settings({"CLUSTER_SCRAPE_INTERVAL": "1m"})
