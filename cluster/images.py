"""Images of this repository: built, and made known to the local cluster's containerd."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import host
from cluster.base import ensure_base
from cluster.buildah import Buildah, declares_base
from cluster.errors import ClusterError
from cluster.files import locked
from cluster.oci import write_image_archive
from cluster.progress import Progress
from cluster.settings import Settings
from cluster.shell import find_program, run, succeeds


@dataclass(frozen=True, kw_only=True)
class Build:
    """What is to be built. Paths are those of the command line, relative to the working folder."""

    dockerfile: Path
    tag: str
    context: Path
    build_args: Mapping[str, str]
    target: str | None = None


def parse_build_args(words: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping. Raises ClusterError for a word without a name or ``=``."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ClusterError(f"--build-arg {word!r}: want NAME=VALUE")
        found[name] = value
    return found


def build_log(cache: Path, tag: str) -> Path:
    """Where the words of the newest build of an image are: `localhost/pinn-operator:1` → `builds/pinn-operator.log`."""
    return cache / "builds" / f"{tag.rpartition('/')[2].partition(':')[0]}.log"


def parse_containerd_images(text: str) -> dict[str, str]:
    """Reference → digest of what it points at, from ``ctr images list``."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {row[0]: row[2] for row in rows if len(row) > 2}


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder that is empty at the start, whatever a killed command left in it, and gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class LocalImages:
    """Builds with buildah and loads into the containerd of the local cluster."""

    def __init__(self, *, settings: Settings, mirror: str | None, progress: Progress) -> None:
        self._settings = settings
        self._mirror = mirror
        self._progress = progress
        self._buildah = Buildah(cache=settings.cache, progress=progress)

    def base(self) -> str:
        """Name of the base image, made when it is not there."""
        host.ensure_packages(host.IMAGE_PACKAGES, self._progress)
        return ensure_base(self._buildah, cache=self._settings.cache, mirror=self._mirror, progress=self._progress)

    def build(self, wanted: Build) -> None:
        """Builds an image; one that takes ``ARG BASE`` and is given none stands on our own base.

        Raises ClusterError when the name is none of this machine, or the build fails.
        """
        if not wanted.tag.startswith("localhost/"):
            raise ClusterError(f"--tag {wanted.tag}: want a name that begins with localhost/, which no registry serves")
        if not wanted.dockerfile.is_file():
            raise ClusterError(f"--file {wanted.dockerfile}: no such file")
        host.ensure_packages(host.IMAGE_PACKAGES, self._progress)
        arguments = dict(wanted.build_args)
        if "BASE" not in arguments and declares_base(wanted.dockerfile.read_text()):
            arguments["BASE"] = self.base()
        log = build_log(self._settings.cache, wanted.tag)
        with self._progress.step(f"build {wanted.tag} (log: {log})"):
            self._buildah.build(
                log=log,
                dockerfile=wanted.dockerfile,
                tag=wanted.tag,
                context=wanted.context,
                build_args=arguments,
                target=wanted.target,
            )

    def load(self, tag: str) -> bool:
        """Makes an image known to the cluster; False when the very same is known already.

        Raises ClusterError when it was never built, or no cluster runs.
        """
        image = self._buildah.image_id(tag)
        if image is None:
            raise ClusterError(f"{tag} was not built: `python3 -m cluster image build --tag {tag} --file …` does that")
        if not self._settings.containerd_socket.exists():
            raise ClusterError("no local cluster is up: `python3 -m cluster up` first")
        ctr = [find_program("ctr") or "ctr", "--address", self._settings.containerd_socket, "--namespace", "k8s.io"]
        known = parse_containerd_images(run([*ctr, "images", "list"], timeout=60))
        # CRI adds a reference by image id beside the name; both lead to the same manifest.
        if tag in known and known.get(f"sha256:{image}") == known[tag]:
            return False
        loads = self._settings.cache / "loads"
        with (
            locked(self._settings.cache / "load.lock", waiting=self._progress.say),
            self._progress.step(f"load {tag}"),
            _emptied(loads),
        ):
            folder, archive = loads / "image", loads / "image.tar"
            self._buildah.export(tag, folder)
            blobs = self._settings.state / "containerd/io.containerd.content.v1.content/blobs/sha256"
            for is_known in (lambda digest: (blobs / digest).is_file(), lambda _: False):
                size = write_image_archive(archive, folder=folder, tag=tag, is_known=is_known)
                self._progress.say(f"{tag}: {size / 1e6:.1f} MB that the cluster does not have yet")
                if succeeds([*ctr, "images", "import", archive], timeout=900):
                    return True
                # A layer that was there may have been collected as garbage meanwhile: all of them, then.
        raise ClusterError(f"containerd does not take {tag}: see {self._settings.logs}/containerd.log")

    def release(self) -> None:
        self._buildah.release()
