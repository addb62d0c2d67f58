"""What is read of the host, and files that are whole or absent."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.components import answers
from cluster.errors import ClusterError
from cluster.files import locked, write_atomic
from cluster.host import (
    Link,
    bound_sockets,
    ensure_packages,
    owner_of_bridges,
    parse_links,
    parse_mountinfo,
    remove_tree,
)
from cluster.local import LocalCluster
from cluster.oci import program_image, write_image_archive
from cluster.progress import Progress
from cluster.settings import Mode, parse_settings
from cluster.shell import run, run_into, succeeds


def test_a_mount_point_with_a_space_is_read_as_it_is() -> None:
    line = r"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
    [mount] = parse_mountinfo(line + "\nnot a mount\n")
    assert mount.point == Path("/mnt two")
    assert mount.filesystem == "ext3"


def test_this_host_s_own_mounts_are_read() -> None:
    assert any(mount.filesystem == "proc" for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()))


def test_the_owner_of_the_bridges_is_the_state_folder_in_their_alias() -> None:
    text = json.dumps([{"ifname": "lo"}, {"ifname": "pinn-node0", "ifalias": "pinn-cluster /var/s"}])
    assert owner_of_bridges(parse_links(text)) == "/var/s"


def test_bridges_without_an_alias_belong_to_somebody_unknown_and_no_bridge_to_nobody() -> None:
    assert owner_of_bridges([Link(name="pinn-node0", alias="", master="")]) == "unknown"
    assert owner_of_bridges([Link(name="lo", alias="", master="")]) is None


def test_interfaces_know_the_bridge_they_hang_on() -> None:
    [link] = parse_links('[{"ifname": "veth1", "master": "pinn-cni0"}]')
    assert link.master == "pinn-cni0"


def test_sockets_that_somebody_holds_are_told_from_the_rest() -> None:
    text = (
        "Num RefCount Protocol Flags Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 19531 /run/containerd/s/a b\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 17373\n"
    )
    assert bound_sockets(text) == {"/run/containerd/s/a b"}


def test_a_file_is_replaced_only_when_its_content_changes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert write_atomic(path, "a")
    first = path.stat()
    assert not write_atomic(path, "a")
    assert path.stat().st_ino == first.st_ino
    assert write_atomic(path, "b")
    assert path.read_text() == "b"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"], "no temporary file is left"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_holder_waits_and_says_so_once(tmp_path: Path) -> None:
    path, said, order = tmp_path / "lock", [], []

    def second() -> None:
        with locked(path, waiting=said.append):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        while not said:
            pass
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert len(said) == 1


def test_a_lock_whose_file_was_deleted_by_its_holder_still_excludes(tmp_path: Path) -> None:
    path, waiting = tmp_path / "lock", threading.Event()
    held_inode: list[int] = []

    def second() -> None:
        with locked(path, waiting=lambda _: waiting.set()) as held:
            held_inode.append(held.stat().st_ino)

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        path.unlink()
    thread.join(timeout=10)
    assert held_inode == [path.stat().st_ino], "the lock that is held is the one that others will find"


def test_a_failed_command_says_what_it_said_itself() -> None:
    with pytest.raises(ClusterError, match="exit status 3: no such luck"):
        run([sys.executable, "-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"], timeout=30)


def test_a_hanging_command_is_ended() -> None:
    with pytest.raises(ClusterError, match="no answer within"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
    assert not succeeds(["/nonexistent"], timeout=1)


def test_what_a_long_command_says_is_in_a_file_that_its_error_names_with_the_end_of_it(tmp_path: Path) -> None:
    log = tmp_path / "builds" / "a.log"
    run_into(log, [sys.executable, "-c", "print('STEP 1')"], timeout=30)
    assert log.read_text() == "STEP 1\n"
    failing = "import sys; print('STEP 1'); print('no space left', file=sys.stderr); sys.exit(4)"
    with pytest.raises(ClusterError, match=r"exit status 4, all of its words are in .*a\.log:\n(.*\n)*no space left"):
        run_into(log, [sys.executable, "-c", failing], timeout=30)
    with pytest.raises(ClusterError, match=r"not done within 0 s, see .*a\.log"):
        run_into(log, [sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
    with pytest.raises(ClusterError, match="no such command"):
        run_into(log, ["/nonexistent"], timeout=1)


def test_missing_programs_are_named_where_nothing_can_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.host.find_program", lambda _: None)
    with pytest.raises(ClusterError, match="missing runc, and no apt-get to install runc with"):
        ensure_packages({"runc": "runc"}, Progress())


def test_nothing_answers_on_a_closed_port() -> None:
    assert not answers("http://127.0.0.1:1/", timeout=1)
    assert not answers("not an address", timeout=1)


def test_a_folder_that_is_no_state_folder_is_neither_taken_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    settings = parse_settings(os.environ, state=str(tmp_path), name="x")
    cluster = LocalCluster(settings=settings, progress=Progress())
    with pytest.raises(ClusterError, match="was not made here"):
        cluster.down()
    with pytest.raises(ClusterError, match="is not empty and was not made here"):
        cluster._claim(Mode.CONTROL_PLANE)
    assert (tmp_path / "thesis.txt").exists()


def test_down_without_a_cluster_does_nothing(tmp_path: Path) -> None:
    settings = parse_settings(os.environ, state=str(tmp_path / "none"), name="x")
    LocalCluster(settings=settings, progress=Progress()).down()
    assert list(tmp_path.iterdir()) == []


def test_a_half_deleted_state_folder_is_deleted_by_the_next_down(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "etcd").mkdir(parents=True)
    (state / "cluster.json").write_text('{"mode": "control-plane"}')
    settings = parse_settings(os.environ, state=str(state), name="x")
    LocalCluster(settings=settings, progress=Progress()).down()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_mark_is_said(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    settings = parse_settings(os.environ, state=str(tmp_path), name="x")
    with pytest.raises(ClusterError, match="is damaged"):
        LocalCluster(settings=settings, progress=Progress()).mode()


def test_a_tree_is_deleted_whole(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "file").touch()
    (tree / "link").symlink_to(tmp_path)
    (tree / "mark").touch()
    remove_tree(tree, last="mark")
    assert not tree.exists()


@given(program=st.binary(min_size=1, max_size=5000))
def test_an_image_archive_holds_what_its_digests_say(program: bytes) -> None:
    import gzip
    import hashlib

    archive = program_image(program, name="p", tag="localhost/p:1", user="65535")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    [entry] = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/p:1"
    manifest = json.loads(files["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
    config = json.loads(files["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")])
    layer = gzip.decompress(files["blobs/sha256/" + manifest["layers"][0]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.extractfile("p").read() == program  # type: ignore[union-attr]
    assert archive == program_image(program, name="p", tag="localhost/p:1", user="65535"), "bytes depend on input alone"


def test_an_image_is_sent_without_the_layers_that_the_receiver_has(tmp_path: Path) -> None:
    folder, archive = tmp_path / "image", tmp_path / "image.tar"
    folder.mkdir()
    blobs = {"c": b"{}", "1": b"known layer", "2": b"new layer"}
    for digest, data in blobs.items():
        (folder / digest).write_bytes(data)
    manifest = {
        "mediaType": "m",
        "config": {"digest": "sha256:c"},
        "layers": [{"digest": "sha256:1"}, {"digest": "sha256:2"}, {"digest": "sha256:2"}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    size = write_image_archive(archive, folder=folder, tag="localhost/i:1", is_known=lambda digest: digest == "1")
    assert size == len(blobs["c"]) + len(blobs["2"])
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        [entry] = json.loads(tar.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
    assert "blobs/sha256/" + entry["digest"].removeprefix("sha256:") in names
    assert names.count("blobs/sha256/2") == 1
    assert "blobs/sha256/1" not in names
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/i:1"


def test_a_folder_without_an_image_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="holds no image"):
        write_image_archive(tmp_path / "a", folder=tmp_path, tag="localhost/i:1", is_known=lambda _: False)


def test_long_steps_tell_how_far_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    progress, told = Progress(heartbeat=0.01), threading.Event()

    def detail() -> str:
        told.set()
        return "3 packages"

    with progress.step("compile", detail=detail):
        assert told.wait(10)
    words = capsys.readouterr().err
    assert "compile … 0 s, 3 packages" in words
    assert words.splitlines()[-1].split("] ")[1].startswith("compile: ")


def test_a_failed_step_is_said_and_its_error_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClusterError), Progress().step("compile"):
        raise ClusterError("no")
    assert "compile: failed after" in capsys.readouterr().err


def test_the_cluster_package_runs_on_the_standard_library_alone() -> None:
    root = Path(__file__).parents[3]
    words = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(root)!r}); import cluster.__main__",
    ]
    subprocess.run(words, check=True, timeout=60)
