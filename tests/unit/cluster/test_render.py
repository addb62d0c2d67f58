"""Configuration files of the local and the kind cluster."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import kind_objects, render
from cluster.components import components
from cluster.pki import render_kubeconfig
from cluster.settings import (
    API_SERVICE_IP,
    DNS_SERVICE_IP,
    NODE_IP,
    NODE_POD_NETWORK,
    POD_NETWORK,
    SERVICE_NETWORK,
    Mode,
    Settings,
    parse_settings,
)


@pytest.fixture
def settings() -> Settings:
    return parse_settings({"HOME": "/home/u"}, state="/var/s")


def test_every_address_lies_in_the_benchmark_range_and_no_two_networks_overlap() -> None:
    import ipaddress

    whole = ipaddress.ip_network("198.18.0.0/15")
    pods, services = ipaddress.ip_network(POD_NETWORK), ipaddress.ip_network(SERVICE_NETWORK)
    node = ipaddress.ip_address(NODE_IP)
    assert pods.subnet_of(whole)
    assert services.subnet_of(whole)
    assert node in whole
    assert not pods.overlaps(services)
    assert node not in pods
    assert node not in services
    assert ipaddress.ip_network(NODE_POD_NETWORK).subnet_of(pods)
    assert ipaddress.ip_address(API_SERVICE_IP) in services
    assert ipaddress.ip_address(DNS_SERVICE_IP) in services


def test_containerd_keeps_everything_it_can_in_the_state_folder(settings: Settings) -> None:
    config = tomllib.loads(render.containerd_config(settings))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    options = cri["containerd"]["runtimes"]["runc"]["options"]
    for path in (config["root"], config["state"], config["grpc"]["address"], cri["cni"]["conf_dir"], options["Root"]):
        assert path.startswith("/var/s/")
    assert cri["netns_mounts_under_state_dir"] is True


def test_no_registry_is_reached(settings: Settings) -> None:
    hosts = tomllib.loads(render.registries_config())
    assert hosts["server"] == "http://127.0.0.1:1"
    assert list(hosts["host"]) == ["http://127.0.0.1:1"]


def test_the_pod_network_writes_no_iptables_rules(settings: Settings) -> None:
    [bridge] = json.loads(render.cni_config(settings))["plugins"]
    assert bridge["type"] == "bridge"
    assert "ipMasq" not in bridge
    assert bridge["ipam"]["dataDir"].startswith("/var/s/")


def test_kubelet_puts_pods_below_our_cgroup_and_never_collects_images(settings: Settings) -> None:
    config = json.loads(render.kubelet_config(settings))
    assert config["cgroupRoot"] == "/pinn-local"
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["serializeImagePulls"] is False
    assert config["podLogsDir"].startswith("/var/s/")


def test_kube_proxy_leaves_the_connection_limits_of_the_host(settings: Settings) -> None:
    config = json.loads(render.proxy_config(settings))
    assert config["mode"] == "nftables"
    assert config["conntrack"]["maxPerCore"] == 0
    assert config["conntrack"]["min"] == 0


def test_envoy_flushes_its_counters_each_second_and_keeps_the_rest_of_its_bootstrap() -> None:
    assert json.loads(render.envoy_bootstrap('{"admin": {"a": 1}}')) == {
        "admin": {"a": 1},
        "stats_flush_interval": "1s",
    }


def objects_of(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = yaml.safe_load(text)["items"]
    named = {(item["kind"], item["metadata"]["name"]): item for item in found}
    assert len(named) == len(found), "two objects of one kind and name"
    return named


def test_the_host_processes_are_services_of_the_cluster(settings: Settings) -> None:
    objects = objects_of(render.cluster_objects(settings))
    assert objects["Service", "kube-dns"]["spec"]["clusterIP"] == DNS_SERVICE_IP
    for service in ("kube-dns", "envoy", "prometheus"):
        endpoints = objects["EndpointSlice", f"{service}-host"]
        assert "selector" not in objects["Service", service]["spec"]
        assert endpoints["metadata"]["labels"]["kubernetes.io/service-name"] == service
        assert endpoints["endpoints"][0]["addresses"] == [NODE_IP]
        targets = {port["targetPort"] for port in objects["Service", service]["spec"]["ports"]}
        assert {port["port"] for port in endpoints["ports"]} == targets


def test_both_clusters_offer_gateway_and_metrics_under_the_same_names(settings: Settings) -> None:
    local, kind = objects_of(render.cluster_objects(settings)), objects_of(kind_objects.cluster_objects())
    for name in (("Gateway", "edge"), ("GatewayClass", "contour"), ("Namespace", "monitoring")):
        assert local[name] == kind[name]
    for service, port in (("prometheus", 9090),):
        for objects in (local, kind):
            assert [p["port"] for p in objects["Service", service]["spec"]["ports"]] == [port]


def relabel(labels: dict[str, str]) -> dict[str, str] | None:
    """The relabelling of the job ``pods``, step by step as Prometheus does it; None when the target is dropped."""
    found = dict(labels)
    config = json.loads(render.prometheus_config(kubeconfig=None, envoy="e:1"))
    for step in config["scrape_configs"][0]["relabel_configs"]:
        joined = ";".join(found.get(name, "") for name in step.get("source_labels", []))
        regex = re.compile(f"^(?:{step.get('regex', '(.*)')})$", re.DOTALL)
        match step.get("action", "replace"):
            case "keep":
                if not regex.match(joined):
                    return None
            case "drop":
                if regex.match(joined):
                    return None
            case "keepequal":
                if joined != found.get(step["target_label"], ""):
                    return None
            case "labelmap":
                found.update({m[1]: v for k, v in list(found.items()) if (m := regex.match(k))})
            case _:
                if matched := regex.match(joined):
                    found[step["target_label"]] = matched[1]
    return {name: value for name, value in found.items() if not name.startswith("__meta")}


POD = "__meta_kubernetes_pod"
ANNOTATED = {
    "__meta_kubernetes_namespace": "pricing",
    f"{POD}_name": "p-0",
    f"{POD}_node_name": "node0",
    f"{POD}_phase": "Running",
    f"{POD}_container_name": "server",
    f"{POD}_container_init": "false",
    f"{POD}_container_port_number": "8000",
    f"{POD}_annotation_prometheus_io_scrape": "true",
    f"{POD}_annotation_prometheus_io_port": "8000",
    f"{POD}_annotation_prometheus_io_path": "/m",
    f"{POD}_label_pinn_dev_revision": "r1",
    f"{POD}_label_app": "x",
}


def test_an_annotated_pod_is_scraped_with_the_labels_that_the_gates_use() -> None:
    assert relabel(ANNOTATED) == {
        "namespace": "pricing",
        "pod": "p-0",
        "node": "node0",
        "container": "server",
        "pinn_dev_revision": "r1",
        "__metrics_path__": "/m",
    }


def test_only_the_annotated_port_of_a_pod_is_scraped() -> None:
    assert relabel(ANNOTATED | {f"{POD}_container_port_number": "9000"}) is None


def test_without_a_port_annotation_every_declared_port_is_scraped() -> None:
    without = {name: value for name, value in ANNOTATED.items() if not name.endswith("io_port")}
    assert relabel(without) is not None
    assert relabel(without | {f"{POD}_container_port_number": "9000"}) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("annotation_prometheus_io_scrape", "false"),
        ("phase", "Succeeded"),
        ("phase", "Failed"),
        ("container_init", "true"),
    ],
)
def test_pods_that_ended_or_did_not_ask_are_not_scraped(name: str, value: str) -> None:
    assert relabel(ANNOTATED | {f"{POD}_{name}": value}) is None


def test_a_pod_of_prometheus_finds_targets_by_its_service_account() -> None:
    config = json.loads(render.prometheus_config(kubeconfig=None, envoy="e:1"))
    assert config["scrape_configs"][0]["kubernetes_sd_configs"] == [{"role": "pod"}]
    outside = json.loads(render.prometheus_config(kubeconfig=Path("/k"), envoy="e:1"))
    assert outside["scrape_configs"][0]["kubernetes_sd_configs"] == [{"role": "pod", "kubeconfig_file": "/k"}]


def test_the_scrape_interval_can_be_set() -> None:
    default = json.loads(render.prometheus_config(kubeconfig=None, envoy="e:1"))["global"]
    slow = json.loads(render.prometheus_config(kubeconfig=None, envoy="e:1", interval="15s"))["global"]
    assert (default["scrape_interval"], slow["scrape_interval"]) == ("1s", "15s")


def test_a_control_plane_alone_listens_on_the_loopback_address_only(settings: Settings) -> None:
    parts = {part.name: part for part in components(settings, Path, Mode.CONTROL_PLANE)}
    assert list(parts) == ["etcd", "apiserver", "kcm"]
    assert "--bind-address=127.0.0.1" in parts["apiserver"].argv
    assert not any(NODE_IP in word for part in parts.values() for word in part.argv)


def test_a_whole_cluster_starts_what_others_need_first(settings: Settings) -> None:
    names = [part.name for part in components(settings, Path, Mode.FULL)]
    assert names.index("etcd") < names.index("apiserver") < names.index("kcm")
    assert names.index("containerd") < names.index("kubelet")
    assert names.index("contour") < names.index("envoy")
    assert len(names) == len(set(names)) == 11


def test_a_kubeconfig_names_its_context_everywhere() -> None:
    parsed = yaml.safe_load(
        render_kubeconfig(context="pinn-x", server="https://h:1", ca=b"a", certificate=b"b", key=b"c")
    )
    assert parsed["current-context"] == "pinn-x"
    assert [entry["name"] for kind in ("clusters", "users", "contexts") for entry in parsed[kind]] == ["pinn-x"] * 3


def test_kind_maps_only_loopback_ports() -> None:
    [node] = json.loads(kind_objects.kind_config())["nodes"]
    assert {mapping["listenAddress"] for mapping in node["extraPortMappings"]} == {"127.0.0.1"}


def test_another_patch_of_contour_is_another_installed_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kind_objects.installed_version()
    monkeypatch.setattr(kind_objects, "contour_patch", lambda: "[]")
    assert kind_objects.installed_version() != before
    assert kind_objects.installed_version() in kind_objects.version_marker()
