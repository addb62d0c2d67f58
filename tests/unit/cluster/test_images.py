"""Programs and images: what is built, from what, and under which name."""

import configparser
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.__main__ import choose, main
from cluster.base import base_tag, parse_apt_mirror
from cluster.buildah import declares_base, pip_settings, render_pip_config
from cluster.errors import ClusterError
from cluster.images import parse_build_args, parse_containerd_images
from cluster.toolchain import (
    GO_TOOLS,
    GoTool,
    Toolchain,
    cache_entry,
    cache_key,
    default_program_name,
    parse_go_version,
    remove_scratch,
)


@pytest.mark.parametrize(
    ("text", "mirror"),
    [
        ("Types: deb\nURIs: http://m.example/debian\nSuites: x\n", "http://m.example/debian"),
        ("deb [signed-by=/k] https://m.example/debian/ bookworm main\n", "https://m.example/debian"),
        ("# deb http://old.example/debian x main\ndeb http://m.example/debian x main\n", "http://m.example/debian"),
        ("URIs: http://m.example/debian-security\n", None),
        ("", None),
    ],
)
def test_the_debian_mirror_is_the_one_that_apt_uses(text: str, mirror: str | None) -> None:
    assert parse_apt_mirror([text]) == mirror


def test_the_base_image_says_its_suite() -> None:
    assert base_tag("trixie").startswith("localhost/pinn-base:trixie-")


@pytest.mark.parametrize(
    ("dockerfile", "takes"),
    [
        ("ARG BASE\nFROM $BASE", True),
        ("ARG BASE=x\n", True),
        ("  ARG  BASE=x", True),
        ("ARG BASEMENT\n", False),
        ("", False),
    ],
)
def test_our_base_is_given_only_to_dockerfiles_that_take_one(dockerfile: str, takes: bool) -> None:
    assert declares_base(dockerfile) is takes


def test_pip_s_variables_win_over_its_files_and_nothing_else_of_the_host_is_lent() -> None:
    configured = (
        "global.index-url='https://a.example/simple'\nglobal.timeout='15'\nglobal.user='true'\nlist.format='x'\n"
    )
    found = pip_settings(configured, {"PIP_TIMEOUT": "180", "PIP_USER": "1", "PATH": "/bin"})
    assert found == {"index-url": "https://a.example/simple", "timeout": "180"}


def test_an_index_with_a_percent_sign_in_its_password_survives() -> None:
    address = "https://u:p%40ss@m.example/simple"
    parser = configparser.RawConfigParser()
    parser.read_string(render_pip_config({"index-url": address}))
    assert parser["global"]["index-url"] == address


def test_build_arguments_are_names_and_values() -> None:
    assert parse_build_args(["A=b=c", "D="]) == {"A": "b=c", "D": ""}
    for wrong in ("A", "=b"):
        with pytest.raises(ClusterError, match="want NAME=VALUE"):
            parse_build_args([wrong])


def test_images_of_containerd_are_known_by_reference_and_digest() -> None:
    text = "REF TYPE DIGEST SIZE PLATFORMS LABELS\nlocalhost/a:1 t sha256:1 3 MiB linux/amd64 -\n"
    assert parse_containerd_images(text) == {"localhost/a:1": "sha256:1"}


@pytest.mark.parametrize(
    ("package", "name"),
    [("go.etcd.io/etcd/server/v3", "server"), ("helm.sh/helm/v3/cmd/helm", "helm"), ("sigs.k8s.io/kind", "kind")],
)
def test_go_names_a_program_after_its_package(package: str, name: str) -> None:
    assert default_program_name(package) == name


def test_go_versions_are_read_and_nonsense_is_refused() -> None:
    assert parse_go_version("go1.26.8\n") == (1, 26)
    with pytest.raises(ClusterError, match="cannot read a Go version"):
        parse_go_version("devel")


@pytest.mark.parametrize("tool", GO_TOOLS.values(), ids=lambda tool: tool.name)
def test_every_go_tool_has_its_module_and_checksums_in_the_repository(tool: GoTool) -> None:
    module = (tool.source / "go.mod").read_text()
    for package in tool.programs.values():
        assert any(package == line.split()[-1] for line in module.splitlines() if line.strip()), f"{package} in go.mod"
    if "require" in module:
        assert (tool.source / "go.sum").stat().st_size > 0


def test_what_decides_a_program_decides_where_it_is_cached() -> None:
    helm = GO_TOOLS["helm"]
    assert cache_key(helm) == cache_key(helm)
    assert cache_key(replace(helm, tags="x")) != cache_key(helm)
    assert cache_key(replace(helm, ldflags="")) != cache_key(helm)


def test_a_program_that_no_tool_makes_is_refused_with_those_that_exist() -> None:
    assert Toolchain.tool_of("kubectl") == "kubernetes"
    assert Toolchain.tool_of("promtool") == "prometheus"
    with pytest.raises(ClusterError, match=r"no program 'kubeadm'; there are: .*kubectl"):
        Toolchain.tool_of("kubeadm")


def test_a_cache_entry_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "bin" / "x-1"

    def killed() -> None:
        with cache_entry(target) as scratch:
            (scratch / "half").touch()
            raise ClusterError("killed")

    with pytest.raises(ClusterError, match="killed"):
        killed()
    assert list(target.parent.iterdir()) == []
    with cache_entry(target) as scratch:
        (scratch / "whole").touch()
        assert not target.exists()
    assert [entry.name for entry in target.iterdir()] == ["whole"]


def chosen(wanted: str, *, docker: bool = False, own: bool = False, root: bool = True, linux: bool = True) -> str:
    return choose(wanted, docker=docker, own=own, needs_root=True, root=root, linux=linux)


def test_what_killed_makers_left_is_deleted_and_what_is_whole_stays(tmp_path: Path) -> None:
    (tmp_path / ".helm-1.abc").mkdir()
    (tmp_path / ".helm-1.abc" / "helm").touch()
    (tmp_path / "helm-1").mkdir()
    remove_scratch(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["helm-1"]


def test_auto_takes_kind_where_docker_answers_and_host_processes_else() -> None:
    assert chosen("auto", docker=True, root=False) == "kind"
    assert chosen("auto") == "local"


def test_a_state_folder_of_one_s_own_is_that_of_a_local_cluster() -> None:
    assert chosen("auto", docker=True, own=True) == "local"


def test_a_control_plane_needs_no_root() -> None:
    assert choose("auto", docker=False, own=True, needs_root=False, root=False, linux=True) == "local"


@pytest.mark.parametrize("wanted", ["kind", "current", "local"])
def test_what_is_named_is_taken(wanted: str) -> None:
    assert chosen(wanted, docker=True) == wanted


def test_the_current_context_is_never_chosen_by_itself() -> None:
    assert "current" not in {chosen("auto", docker=docker) for docker in (True, False)}


@pytest.mark.parametrize(
    ("wanted", "root", "linux", "words"),
    [
        ("auto", False, True, "needs root"),
        ("auto", True, False, "needs Linux"),
        ("local", False, True, "needs root"),
        ("minikube", True, True, "want one of auto, kind, local, current"),
    ],
)
def test_a_machine_that_can_have_no_cluster_is_told_why(wanted: str, root: bool, linux: bool, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        chosen(wanted, root=root, linux=linux)


def test_a_wrong_cluster_variable_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "error: CLUSTER='minikube': want one of auto, kind, local, current\n"


def test_the_current_context_is_never_taken_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cluster", "current", "down"]) == 1
    assert "not made here" in capsys.readouterr().err
