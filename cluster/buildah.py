"""Images built by buildah: no daemon, storage in the cache folder, the host's pip settings lent to builds only."""

import configparser
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from cluster.errors import ClusterError
from cluster.host import unmount_below
from cluster.progress import Progress
from cluster.shell import find_program, run, run_into

_BUILD_LIMIT = 3600.0
HOST_CERTIFICATES = Path("/etc/ssl/certs")
_BUNDLE = HOST_CERTIFICATES / "ca-certificates.crt"
# Settings of pip that say where packages come from and how; nothing else of the host's belongs into a build.
_PIP_SETTINGS = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "cert",
    "timeout",
    "retries",
    "no-index",
    "find-links",
)


def pip_settings(configured: str, environ: Mapping[str, str]) -> dict[str, str]:
    """pip's settings on this host: what ``pip config list`` says, overridden by ``PIP_*`` variables as in pip."""
    found: dict[str, str] = {}
    for line in configured.splitlines():
        matched = re.fullmatch(r"(?:global|install|:env:)\.([a-z-]+)='(.*)'", line.strip())
        if matched and matched[1] in _PIP_SETTINGS:
            found[matched[1]] = matched[2]
    for name in _PIP_SETTINGS:
        value = environ.get("PIP_" + name.upper().replace("-", "_"))
        if value:
            found[name] = value
    return found


def render_pip_config(settings: Mapping[str, str]) -> str:
    """A pip.conf whose values may hold ``%`` (percent-encoded passwords): pip reads it without interpolation."""
    parser = configparser.RawConfigParser()
    parser["global"] = dict(settings)
    text = StringIO()
    parser.write(text)
    return text.getvalue()


def declares_base(dockerfile: str) -> bool:
    """Whether a Dockerfile takes its base image from the build argument ``BASE``."""
    return re.search(r"^\s*ARG\s+BASE(\s|=|$)", dockerfile, re.MULTILINE) is not None


def is_named(process: Path, name: str) -> bool:
    """Whether a folder of /proc is that of a program of this name."""
    try:
        return (process / "comm").read_text().strip() == name
    except (FileNotFoundError, ProcessLookupError):
        return False


class Buildah:
    """buildah with its own storage. Builds are serialised by buildah's own storage lock."""

    def __init__(self, *, cache: Path, progress: Progress) -> None:
        self._root = cache / "images"
        self._run_root = cache / "images-run"
        self._progress = progress

    def _words(self) -> list[str]:
        program = find_program("buildah")
        if program is None:
            raise ClusterError("buildah is not installed")
        return [str(program), "--root", str(self._root), "--runroot", str(self._run_root)]

    def image_id(self, tag: str) -> str | None:
        """Hex digest of an image's configuration, its id for containerd too; None when there is no such image."""
        if not self._root.is_dir():
            return None
        words = ["images", "--no-trunc", "--quiet", "--filter", f"reference={tag}"]
        lines = run([*self._words(), *words], timeout=60).split()
        return lines[0].removeprefix("sha256:") if lines else None

    def build_plain(self, *, dockerfile: Path, tag: str, context: Path) -> None:
        """A build that runs nothing and needs nothing from outside."""
        words: list[str | Path] = [
            "bud",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "--quiet",
            "-t",
            tag,
            "-f",
            dockerfile,
            context,
        ]
        run([*self._words(), *words], timeout=_BUILD_LIMIT)

    def build(
        self,
        *,
        dockerfile: Path,
        tag: str,
        context: Path,
        build_args: Mapping[str, str],
        target: str | None,
        log: Path,
    ) -> None:
        """A build with the network, certificates and pip settings of the host; its output goes to a file.

        Raises ClusterError when it fails.
        """
        # Docker's format: OCI's has no HEALTHCHECK.
        words = ["bud", "--isolation", "chroot", "--network", "host", "--layers", "--format", "docker", "--tag", tag]
        words += ["--pull-never"] if build_args.get("BASE", "").startswith("localhost/") else []
        for name, value in build_args.items():
            words += ["--build-arg", f"{name}={value}"]
        if target is not None:
            words += ["--target", target]
        with tempfile.TemporaryDirectory(prefix="pinn-build-") as scratch:
            words += self._lend_host(Path(scratch))
            run_into(log, [*self._words(), *words, "--file", str(dockerfile), str(context)], timeout=_BUILD_LIMIT)

    @staticmethod
    def _lend_host(scratch: Path) -> list[str]:
        configured = subprocess.run(
            ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
        settings = pip_settings(configured, os.environ)
        words: list[str] = []
        if _BUNDLE.exists():
            words += ["--volume", f"{HOST_CERTIFICATES}:{HOST_CERTIFICATES}:ro"]
            settings["cert"] = str(_BUNDLE)
        else:
            settings.pop("cert", None)
        links = [Path(word) for word in settings.get("find-links", "").split() if word.startswith("/")]
        for folder in links:
            if folder.is_dir():
                words += ["--volume", f"{folder}:{folder}:ro"]
        if links and not all(folder.is_dir() for folder in links):
            settings.pop("find-links")
        if settings:
            config = scratch / "pip.conf"
            config.write_text(render_pip_config(settings))
            words += ["--volume", f"{config}:/etc/pip.conf:ro"]
        return words

    def export(self, tag: str, folder: Path) -> None:
        """Writes an image's manifest, configuration and uncompressed layers into ``folder``, each under its digest."""
        words = ["push", "--quiet", "--disable-compression", "--format", "v2s2", tag, f"dir:{folder}"]
        run([*self._words(), *words], timeout=900)

    def release(self) -> None:
        """Unmounts what buildah leaves mounted in its storage, unless a build is running; the images stay."""
        if any(is_named(entry, "buildah") for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            self._progress.say("a build is running: its mounts stay until the next `down`")
            return
        for folder in (self._root, self._run_root):
            unmount_below(folder)
