"""The base image of builds where no registry is reached: a minimal Debian with Python, by debootstrap.

It stands in for the public ``python:3.13-slim`` that the Dockerfiles use by default.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from cluster.buildah import Buildah
from cluster.errors import ClusterError
from cluster.files import locked
from cluster.progress import Progress
from cluster.shell import run

# Debian 13 has Python 3.13, as the public default base has; Debian 12 has 3.11, the oldest that the packages take.
SUITES = ("trixie", "bookworm")
_PACKAGES = "python3,python3-venv,ca-certificates"
# Raise it when what is in the image changes: it is part of the tag.
_REVISION = 1
_NOT_WANTED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


def base_tag(suite: str) -> str:
    return f"localhost/pinn-base:{suite}-{_REVISION}"


def parse_apt_mirror(texts: Iterable[str]) -> str | None:
    """The first Debian archive (an address that ends with ``/debian``) in apt's sources, of either format."""
    for text in texts:
        for line in text.splitlines():
            words = line.split()
            if words and words[0] in {"deb", "URIs:"}:
                for word in words[1:]:
                    if re.fullmatch(r"https?://\S+/debian/?", word):
                        return word.rstrip("/")
    return None


def _mirror(override: str | None) -> str:
    if override:
        return override
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    mirror = parse_apt_mirror(file.read_text(errors="replace") for file in files if file.is_file())
    if mirror is None:
        raise ClusterError("no Debian mirror in apt's sources: name one in DEBIAN_MIRROR")
    return mirror


def ensure_base(buildah: Buildah, *, cache: Path, mirror: str | None, progress: Progress) -> str:
    """Name of the base image, made once per cache folder. Raises ClusterError when no suite can be fetched."""
    for suite in SUITES:
        if buildah.image_id(base_tag(suite)) is not None:
            return base_tag(suite)
    with locked(cache / "base.lock", waiting=progress.say):
        failures = []
        for suite in SUITES:
            if buildah.image_id(base_tag(suite)) is not None:
                return base_tag(suite)
            try:
                _make(buildah, suite=suite, folder=cache / "base", mirror=_mirror(mirror), progress=progress)
            except ClusterError as error:
                progress.say(f"no base of Debian {suite}: {str(error)[-300:]}")
                failures.append(f"{suite}: {error}")
            else:
                return base_tag(suite)
    raise ClusterError("debootstrap made no base image:\n" + "\n".join(failures))


def _make(buildah: Buildah, *, suite: str, folder: Path, mirror: str, progress: Progress) -> None:
    root = folder / "rootfs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with progress.step(f"debootstrap {suite} with Python"):
            words: list[str | Path] = [
                "debootstrap",
                "--variant=minbase",
                f"--include={_PACKAGES}",
                suite,
                root,
                mirror,
            ]
            run(words, timeout=900)
        for name in _NOT_WANTED:
            for child in (root / name).iterdir() if (root / name).is_dir() else ():
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        # A build mounts the host's pip settings here; without the file buildah would leave an empty one in a layer.
        (root / "etc/pip.conf").touch()
        dockerfile = folder / "Dockerfile"
        dockerfile.write_text(
            "FROM scratch\nADD rootfs /\n"
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
            'CMD ["python3"]\n'
        )
        with progress.step(f"image {base_tag(suite)}"):
            buildah.build_plain(dockerfile=dockerfile, tag=base_tag(suite), context=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
