"""OCI image archives written by hand (image-spec v1.1, image-layout): a static program, or parts of an image."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

_MEDIA = "application/vnd.oci.image"


def _tar(members: list[tuple[str, bytes, int]]) -> bytes:
    """A tar whose bytes depend on its members alone: owner root, time 0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, mode in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _descriptor(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": f"sha256:{_digest(data)}", "size": len(data), **more}


def program_image(program: bytes, *, name: str, tag: str, user: str) -> bytes:
    """An oci-archive for linux/amd64 that runs ``program`` as ``/name``; ``tag`` is its full reference."""
    layer = _tar([(name, program, 0o755)])
    packed = gzip.compress(layer, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{name}"], "User": user},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}"]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor("config.v1+json", config),
            "layers": [_descriptor("layer.v1.tar+gzip", packed)],
        }
    ).encode()
    names = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag}
    index = {"schemaVersion": 2, "manifests": [_descriptor("manifest.v1+json", manifest, annotations=names)]}
    members = [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}', 0o644)]
    members += [(f"blobs/sha256/{_digest(blob)}", blob, 0o644) for blob in (packed, config, manifest)]
    return _tar([*members, ("index.json", json.dumps(index).encode(), 0o644)])


def write_image_archive(archive: Path, *, folder: Path, tag: str, is_known: Callable[[str], bool]) -> int:
    """Packs an image that lies in ``folder`` (manifest.json, and blobs under their digests) into an oci-archive.

    Blobs whose digest (hex) ``is_known`` to the receiver stay out. Returns the number of bytes of those that went in.
    Raises ClusterError when the folder holds no image.
    """
    try:
        manifest = (folder / "manifest.json").read_bytes()
        parsed = json.loads(manifest)
        digests = [blob["digest"].removeprefix("sha256:") for blob in (parsed["config"], *parsed["layers"])]
        kind = str(parsed["mediaType"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"{folder} holds no image: {error}") from error
    names = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag}
    entry = {"mediaType": kind, "digest": f"sha256:{_digest(manifest)}", "size": len(manifest), "annotations": names}
    small = [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()),
        (f"blobs/sha256/{_digest(manifest)}", manifest),
    ]
    missing = [digest for digest in dict.fromkeys(digests) if not is_known(digest)]
    with tarfile.open(archive, "w") as tar:
        for name, data in small:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for digest in missing:
            tar.add(folder / digest, f"blobs/sha256/{digest}")
    return sum((folder / digest).stat().st_size for digest in missing)


def write_program_image(archive: Path, *, program: Path, tag: str, user: str) -> None:
    archive.write_bytes(program_image(program.read_bytes(), name=program.name, tag=tag, user=user))
