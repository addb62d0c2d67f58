"""The cluster of host processes: brought up, repaired, looked at, and taken down without a trace."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster import host, oci, render
from cluster.backend import Access, ComponentStatus
from cluster.components import Component, components
from cluster.errors import ClusterError
from cluster.files import locked, write_atomic
from cluster.images import Build, LocalImages
from cluster.pki import ensure_pki
from cluster.process import ProcessTable, boot_id, fingerprint, terminate
from cluster.progress import Progress
from cluster.settings import NODE_IP, NODE_NAME, STATE_PARENT, Mode, Settings
from cluster.shell import find_program, run
from cluster.toolchain import CONTROL_PLANE_TOOLS, FULL_TOOLS, Toolchain

_LOG_LIMIT = 64 * 1024 * 1024
_SHIM = "containerd-shim"
_READERS = ("contour", "prometheus", "coredns", "proxy", "kubelet", "scheduler", "kcm", "apiserver")
"""What watches the objects that etcd keeps, in the order in which it is stopped."""
_NODE_READY = ("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=2s")
# The controller manager answers before its controllers run; this one makes what every pod needs.
_CONTROLLERS_WORK = ("get", "serviceaccount", "default", "--namespace=default")
_APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=pinn-cluster")


class LocalCluster:
    """One cluster of a state folder. Commands that change something hold its lock."""

    def __init__(self, *, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._toolchain = Toolchain(cache=settings.cache, progress=progress)
        self._images = LocalImages(settings=settings, mirror=os.environ.get("DEBIAN_MIRROR"), progress=progress)
        self._table = ProcessTable(records=settings.records, logs=settings.logs, state=settings.state)

    @property
    def _mark(self) -> Path:
        """The file that says that a folder is a state folder, and of which mode."""
        return self._settings.state / "cluster.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Path]:
        state = self._settings.state
        with locked(state.parent / f"{state.name}.lock", waiting=self._progress.say) as path:
            yield path

    def mode(self) -> Mode | None:
        """What was last brought up here and not taken down; None when nothing was."""
        try:
            return Mode(json.loads(self._mark.read_text())["mode"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{self._mark} is damaged: take this cluster down and bring it up again") from error

    def _is_control_plane(self) -> bool:
        """Whether it is certain that no node was ever started here."""
        try:
            return self.mode() is Mode.CONTROL_PLANE
        except ClusterError:
            return False

    def _components(self, mode: Mode) -> list[Component]:
        return components(self._settings, self._toolchain.program, mode)

    def _component(self, name: str) -> Component:
        mode = self.mode()
        if mode is None:
            raise ClusterError(f"no cluster is up in {self._settings.state}")
        known = {component.name: component for component in self._components(mode)}
        if name not in known:
            raise ClusterError(f"no component {name!r}; there are: {', '.join(known)}")
        return known[name]

    # ---------------------------------------------------------------- up

    def up(self, mode: Mode) -> None:
        """Makes the cluster be up and ready, whatever there is of it already.

        Raises ClusterError with the end of a component's log when it does not serve.
        """
        if mode is Mode.FULL:
            self._settings.check_socket_paths()
            host.ensure_packages(host.LOCAL_PACKAGES, self._progress)
        else:
            host.ensure_packages({"openssl": "openssl", "ss": "iproute2"}, self._progress)
        tools = FULL_TOOLS if mode is Mode.FULL else CONTROL_PLANE_TOOLS
        self._toolchain.ensure((*tools, "envoy") if mode is Mode.FULL else tools)
        with self._locked():
            self._claim(mode)
            self._sweep_strays(mode)
            self._prepare(mode)
            self._start_all(mode)

    def _claim(self, mode: Mode) -> None:
        """Takes the state folder, and throws away what a boot since then has made meaningless."""
        state = self._settings.state
        if state.is_dir() and not self._mark.exists() and any(state.iterdir()):
            raise ClusterError(f"{state} is not empty and was not made here: name another folder with --state")
        now = self.mode() if self._mark.exists() else None
        if now is Mode.FULL and mode is Mode.CONTROL_PLANE:
            raise ClusterError(f"{state} holds a full cluster: take it down first, or name another folder with --state")
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        boot = boot_id()
        if now is not None and json.loads(self._mark.read_text()).get("boot") != boot:
            for name in ("containerd-run", "runc", "run", "cni-addresses"):
                shutil.rmtree(state / name, ignore_errors=True)
        write_atomic(self._mark, json.dumps({"mode": mode, "name": self._settings.name, "boot": boot}))

    def _sweep_strays(self, mode: Mode) -> None:
        """Ends processes of ours that no record knows; shims stay, containerd takes them up again."""
        known = {record.identity for name in self._table.names() if (record := self._table.find(name))}
        strays = [
            identity
            for identity in self._table.strays()
            if identity not in known and not _command(identity.pid).startswith((_SHIM, "runc"))
        ]
        wanted = {component.name for component in self._components(mode)}
        strays += [
            record.identity
            for name in self._table.names()
            if name not in wanted and (record := self._table.find(name)) is not None
        ]
        if strays:
            self._progress.say(f"end {len(strays)} processes left over by an earlier run")
            terminate(strays, grace=5.0)

    def _prepare(self, mode: Mode) -> None:
        """Certificates, configuration files, and what is needed of the host."""
        settings = self._settings
        with self._progress.step("certificates and configuration"):
            ensure_pki(settings)
            write_atomic(settings.kubeconfig, (settings.pki / "admin.conf").read_text())
            if mode is Mode.CONTROL_PLANE:
                return
            host.ensure_network(settings)
            host.ensure_cgroup(settings)
            config = settings.config
            write_atomic(config / "containerd.toml", render.containerd_config(settings))
            write_atomic(config / "registries" / "_default" / "hosts.toml", render.registries_config())
            write_atomic(config / "cni" / "10-bridge.conflist", render.cni_config(settings))
            write_atomic(config / "kubelet.yaml", render.kubelet_config(settings))
            write_atomic(config / "proxy.yaml", render.proxy_config(settings))
            write_atomic(config / "Corefile", render.corefile(settings))
            write_atomic(config / "contour.yaml", render.contour_config())
            prometheus = render.prometheus_config(
                kubeconfig=settings.pki / "admin.conf",
                envoy=f"127.0.0.1:{settings.ports.envoy_stats}",
                interval=settings.scrape_interval,
            )
            write_atomic(config / "prometheus.yaml", prometheus)
            self._prepare_router()

    def _prepare_router(self) -> None:
        """Certificates between Contour and Envoy, and Envoy's bootstrap, both written by Contour itself."""
        settings, contour = self._settings, self._toolchain.program("contour")
        router = settings.state / "router"
        certs = router / "certs"
        env = {"CONTOUR_NAMESPACE": "projectcontour"}
        router.mkdir(exist_ok=True)
        if not certs.is_dir():
            with tempfile.TemporaryDirectory(dir=router) as scratch:
                made = Path(scratch) / "certs"
                made.mkdir()
                # It wants a kubeconfig although it writes files only.
                run([contour, "certgen", "--pem", f"--kubeconfig={settings.pki}/admin.conf", made], timeout=60, env=env)
                made.rename(certs)
        bootstrap = router / "bootstrap.json"
        words: list[str | Path] = [
            contour,
            "bootstrap",
            bootstrap,
            "--xds-address=127.0.0.1",
            f"--xds-port={settings.ports.contour_xds}",
        ]
        words += [f"--admin-address={router}/admin.sock", f"--resources-dir={router}/resources"]
        words += [f"--envoy-cafile={certs}/cacert.pem", f"--envoy-cert-file={certs}/envoycert.pem"]
        run([*words, f"--envoy-key-file={certs}/envoykey.pem"], timeout=60, env=env)
        write_atomic(settings.config / "envoy.json", render.envoy_bootstrap(bootstrap.read_text()))

    def _start_all(self, mode: Mode) -> None:
        by_name = {component.name: component for component in self._components(mode)}
        with self._progress.step("control plane"):
            self._ensure_etcd(by_name["etcd"], readers=[by_name[name] for name in _READERS if name in by_name])
            early = [by_name[name] for name in ("apiserver", "containerd") if name in by_name]
            self._ensure(early)
            self._ensure([by_name["kcm"]])
        if mode is Mode.CONTROL_PLANE:
            with self._progress.step("controllers"):
                self._wait_for(_CONTROLLERS_WORK)
            return
        with self._progress.step("node, DNS, Prometheus"):
            self._ensure_pause_image()
            self._ensure([by_name[name] for name in ("scheduler", "kubelet", "proxy", "coredns", "prometheus")])
        with self._progress.step("router"):
            self._apply_objects()
            self._ensure([by_name["contour"], by_name["envoy"]])
        with self._progress.step("node Ready"):
            self._wait_for(_NODE_READY, _CONTROLLERS_WORK)

    def _ensure(self, wanted: list[Component]) -> None:
        """Starts what does not run as it should, then waits for all; one that ends or hangs is started once more."""
        started = {component.name for component in wanted if self._start_if_needed(component)}
        for component in wanted:
            # One that was running before has had its time to become ready.
            patience = component.patience if component.name in started else 5.0
            if self._becomes_ready(component, patience):
                continue
            self._progress.say(f"{component.name} does not serve: starting it once more")
            self._table.stop(component.name, grace=component.grace)
            self._start_if_needed(component)
            if not self._becomes_ready(component, component.patience):
                raise ClusterError(
                    f"{component.name} does not become ready; its log ends:\n{self._log_tail(component)}"
                )

    def _start_if_needed(self, component: Component) -> bool:
        """True when it was started now; a running one with another command line or configuration is replaced."""
        log = self._table.log(component.name)
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            # The process appends, so it goes on at the new end.
            with log.open("r+") as file:
                file.truncate()
        wanted = fingerprint(component.argv, component.env, component.reads)
        record = self._table.find(component.name)
        if record is not None and record.fingerprint == wanted:
            return False
        if record is not None:
            self._progress.say(f"{component.name} is to run differently: restarting it")
            self._table.stop(component.name, grace=component.grace)
        for port in component.ports:
            if (listener := host.listener_of(port)) is not None:
                raise ClusterError(f"{component.name} needs port {port}, on which {listener} listens already")
        self._table.start(
            component.name,
            component.argv,
            env=component.env,
            fingerprint=wanted,
            directory=self._settings.state,
        )
        return True

    def _becomes_ready(self, component: Component, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._table.find(component.name) is None:
                return False
            if component.ready():
                return True
            time.sleep(0.1)
        return False

    def _log_tail(self, component: Component) -> str:
        log = self._table.log(component.name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no log)"

    def _ensure_etcd(self, etcd: Component, *, readers: Sequence[Component]) -> None:
        """Starts etcd; data that it cannot read (it runs without fsync, so a power cut breaks it) is given up.

        An empty one counts its versions from 1 again. `readers` wait for higher ones, so they are started anew as well.
        """
        data = self._settings.state / "etcd"
        try:
            self._ensure([etcd])
        except ClusterError:
            if self._table.find("etcd") is not None or not data.exists():
                raise
            self._progress.say("etcd cannot read its data: beginning with an empty one")
            for reader in readers:
                self._table.stop(reader.name, grace=reader.grace)
            shutil.rmtree(data)
            self._ensure([etcd])

    def _ensure_pause_image(self) -> None:
        """The sandbox image under its own name before any pod: CRI keeps the first name that it sees an image under."""
        ctr = [find_program("ctr") or "ctr", "--address", self._settings.containerd_socket, "--namespace", "k8s.io"]
        if render.PAUSE_IMAGE in run([*ctr, "images", "list", "--quiet"], timeout=30).split():
            return
        archive = self._settings.state / "pause.tar"
        oci.write_program_image(archive, program=self._toolchain.program("pause"), tag=render.PAUSE_IMAGE, user="65535")
        run([*ctr, "images", "import", archive], timeout=60)
        archive.unlink()

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout: float = 60.0) -> str:
        """kubectl as this cluster's administrator, whatever KUBECONFIG says."""
        program = self._toolchain.program("kubectl")
        return run([program, f"--kubeconfig={self._settings.kubeconfig}", *words], timeout=timeout, stdin=stdin)

    def _apply_objects(self) -> None:
        """CRDs and objects by server-side apply; the CRDs, which take seconds, only where they are not in place."""
        contour = self._toolchain.folder("contour")
        applied = self._settings.state / "crds-applied"
        version = f"{contour.name} {self._identity_of_cluster()}"
        if not applied.exists() or applied.read_text() != version or not self._has_gateway_api():
            crds = contour / "gateway-crds"
            self.kubectl(*_APPLY, "-f", crds, "-f", contour / "contour-crds.yaml")
            names = [
                contour / "contour-crds.yaml",
                *sorted(crds.glob("*_gateway*.yaml")),
                *crds.glob("*_httproutes.yaml"),
            ]
            for name in names:
                self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", name)
            write_atomic(applied, version)
        self.kubectl(*_APPLY, "-f", "-", stdin=render.cluster_objects(self._settings))

    def _identity_of_cluster(self) -> str:
        """Uid of kube-system: another one means that etcd began anew."""
        return self.kubectl("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}").strip()

    def _has_gateway_api(self) -> bool:
        try:
            self.kubectl("get", "gateways,httproutes,gatewayclasses,contourconfigurations", "--all-namespaces")
        except ClusterError:
            return False
        return True

    def _wait_for(self, *conditions: tuple[str, ...]) -> None:
        """Repeats kubectl commands until each succeeds. Raises ClusterError when one has not after 90 s."""
        deadline = time.monotonic() + 90.0
        for words in conditions:
            while True:
                try:
                    self.kubectl(*words, timeout=20)
                    break
                except ClusterError as error:
                    if time.monotonic() > deadline:
                        raise ClusterError(f"the cluster does not become ready: {error}") from error
                    time.sleep(0.2)

    # ---------------------------------------------------------------- single components

    def status(self) -> list[ComponentStatus]:
        """Every component of the mode that was brought up; empty when nothing was."""
        mode = self.mode()
        if mode is None:
            return []
        found = []
        for component in self._components(mode):
            record = self._table.find(component.name)
            found.append(
                ComponentStatus(
                    name=component.name,
                    pid=record.identity.pid if record else None,
                    ready=record is not None and component.ready(),
                    log=self._table.log(component.name),
                )
            )
        return found

    def start(self, name: str) -> None:
        """Starts one component and waits until it serves, and with it those that ended by themselves meanwhile.

        The controller manager does when the API server goes away while it initialises.
        """
        with self._locked():
            self._ensure([self._component(name)])
            ended = [other for other in self._table.names() if self._table.find(other) is None]
            self._ensure([self._component(other) for other in ended])

    def stop(self, name: str, *, kill: bool) -> None:
        """Ends one component, with SIGKILL at once when ``kill``; it stays down until ``start`` or ``up``."""
        with self._locked():
            component = self._component(name)
            if not self._table.stop(name, grace=0.0 if kill else component.grace):
                self._progress.say(f"{name} was not running")

    # ---------------------------------------------------------------- down

    def down(self) -> None:
        """Ends every process and takes back every change on the host; says nothing when there is nothing."""
        settings, state = self._settings, self._settings.state
        if not state.exists():
            return
        if not self._mark.exists() and any(state.iterdir()):
            raise ClusterError(f"{state} was not made here (it holds no {self._mark.name}): not touched")
        with self._locked() as lock:
            with self._progress.step("end the pods and processes"):
                # kubelet first: it would start again what is killed.
                for name in ("kubelet", "kcm", "scheduler"):
                    self._table.stop(name, grace=3.0)
                host.kill_pods(settings)
                terminate(self._table.strays(), grace=3.0)
                host.kill_pods(settings)
            if not self._is_control_plane():
                with self._progress.step("take back what was changed on the host"):
                    host.unmount_below(state)
                    host.remove_shim_sockets()
                    host.remove_network(settings)
                    host.remove_kubelet_traces(settings)
                    host.remove_cgroup(settings)
                    host.restore_sysctls(settings)
                    self._images.release()
            # The mark goes last: without it the rest of a folder would not be known as ours.
            host.remove_tree(state, last=self._mark.name)
            lock.unlink()
        if state.parent.name == STATE_PARENT:
            host.remove_if_empty(state.parent)

    # ---------------------------------------------------------------- how it is reached, images

    def access(self) -> Access:
        """Addresses by settings alone: it says nothing about whether the cluster is up."""
        settings, kubectl = self._settings, self._toolchain.program("kubectl")
        if self.mode() is not Mode.FULL:
            return Access(context=settings.context, kubeconfig=settings.kubeconfig, kubectl=kubectl)
        return Access(
            context=settings.context,
            kubeconfig=settings.kubeconfig,
            kubectl=kubectl,
            gateway_url=f"http://{NODE_IP}:{settings.ports.envoy_http}",
            gateway_url_in_pods="http://envoy.edge",
            prometheus_url=f"http://127.0.0.1:{settings.ports.prometheus}",
            prometheus_url_in_pods="http://prometheus.monitoring:9090",
        )

    def base(self) -> str:
        return self._images.base()

    def build(self, wanted: Build) -> None:
        self._images.build(wanted)

    def load(self, tag: str) -> bool:
        return self._images.load(tag)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
