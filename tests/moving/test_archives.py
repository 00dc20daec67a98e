"""Archives of ours: what is in them, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moving_world import (
    entries,
    export_file,
    fill,
    import_file,
    keys,
    rewritten,
    writing,
)

from cozyfs import instances
from cozyfs.errors import ArchiveError, InstanceError
from cozyfs.moving import archive
from cozyfs.moving.archive import Range
from cozyfs.moving.contents import BytesContent
from cozyfs.threads import Caller
from cozyfs.values import ROOT_INO


@pytest.fixture
async def exported(local_store, prefix, tmp_path):
    made = instances.create(local_store, prefix, "alice.example.com")
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, made, tmp_path / "a")
        await export_file(local_store, made, tmp_path / "a", path)
    return path


def documents(path, folder="io.cozy.files/"):
    return [json.loads(data) for name, data in entries(path) if name.startswith(folder)]


# ---- what is in them


async def test_each_content_follows_its_document_and_directories_their_parents(exported):
    names = [name for name, _ in entries(exported)]
    found = entries(exported)
    seen = set()
    for (name, data), following in zip(found, names[1:], strict=False):
        if not name.startswith("io.cozy.files/"):
            continue
        document = json.loads(data)
        if document["type"] == "file":
            assert following.startswith("Files/")
            assert following.endswith("/" + document["name"])
        assert document["_id"] == "io.cozy.files.root-dir" or document["dir_id"] in seen
        seen.add(document["_id"])
    assert names[-1] == "end.json"


async def test_a_document_is_one_that_a_cozy_can_read(exported):
    (report,) = (each for each in documents(exported) if each.get("name") == "report.odt")
    assert report["type"] == "file"
    assert report["size"] == "5"
    assert report["class"] == "files"
    assert report["tags"] == ["work", "été"]
    assert report["metadata"]["width"] == 3
    assert report["metadata"]["cozyfs"]["mode"] == "100644"
    assert "internal_vfs_id" not in report
    (trashed,) = (each for each in documents(exported) if each.get("name") == "old things")
    assert trashed["restore_path"] == "/Photos"


async def test_any_tar_unpacks_the_files(exported):
    found = dict(entries(exported))
    assert found["Files/Photos/report.odt"] == b"three"
    assert found["Files/Photos/été/deep/a.txt"] == b"hello !"
    with gzip.open(exported) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
        assert all(member.isreg() and member.mode == 0o640 for member in tar)


@pytest.mark.parametrize("seed", range(5))
async def test_every_file_and_version_is_listed_exactly_once(local_store, prefix, tmp_path, seed):
    """Scenario 49 of the Cozy server: a random tree, overwritten at random."""
    source = random.Random(seed)
    wanted, versions = set(), set()

    def grow(filler):
        folders = [ROOT_INO]
        for number in range(source.randrange(20, 100)):
            parent = source.choice(folders)
            if source.random() < 0.3:
                folders.append(filler.directory(parent, f"d{number}".encode()))
                continue
            ino = filler.file(parent, f"f{number}".encode(), source.randbytes(number % 25 + 1))
            for _ in range(source.randrange(3)):
                filler.write(ino, source.randbytes(source.randrange(1, 26)), keep=True)
            doc_id = filler.index.get(ino).doc_id
            wanted.add(doc_id)
            versions.update(
                f"{doc_id}/{each.internal_id}" for each in filler.index.versions_of(doc_id)
            )

    made = instances.create(local_store, prefix, "alice.example.com")
    path = tmp_path / "a.tgz"
    with trio.fail_after(60):
        await fill(local_store, made, tmp_path / "a", grow)
        await export_file(local_store, made, tmp_path / "a", path)

    listed = [each["_id"] for each in documents(path) if each["type"] == "file"]
    assert sorted(listed) == sorted(wanted)
    listed = [each["_id"] for each in documents(path, "io.cozy.files.versions/")]
    assert sorted(listed) == sorted(versions)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(0, 3000), max_size=12),
    skipped=st.integers(0, 8),
    member=st.sampled_from([512, 1000, 4096]),
)
def test_what_goes_on_is_what_would_have_been_written(sizes, skipped, member):
    contents = [random.Random(size).randbytes(size) for size in sizes]

    async def pieces():
        for content in contents:
            yield content[: len(content) // 3]
            if content[len(content) // 3 :]:
                rest = content[len(content) // 3 :]
                yield Range(BytesContent(rest), 0, len(rest))

    async def write(skip):
        made = []

        async def sink(data, offset):
            made.append((data, offset))

        await archive.packed(pieces(), sink, Caller(), skip=skip)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "MEMBER", member)
        whole = trio.run(write, 0)
        skipped = min(skipped, len(whole))
        rest = trio.run(write, whole[skipped - 1][1] if skipped else 0)

    assert rest == whole[skipped:]
    assert b"".join(gzip.decompress(data) for data, _ in whole) == b"".join(contents)


# ---- what is refused


async def refused(exported, other_store, carol, tmp_path, change, match):
    path = rewritten(exported, tmp_path / "changed.tgz", change)
    with trio.fail_after(60), pytest.raises(ArchiveError, match=match):
        await import_file(other_store, carol, tmp_path / "c", path)


def before_the_end(*new):
    return lambda found: [*found[:-1], *new, found[-1]]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "Files/../x", "Files/./x", ".."]
)
async def test_an_entry_that_leads_out_is_refused(exported, other_store, carol, tmp_path, name):
    change = before_the_end((name, b"x"))
    await refused(exported, other_store, carol, tmp_path, change, "not safe")


async def test_a_link_in_an_archive_is_refused(exported, other_store, carol, tmp_path):
    path = tmp_path / "link.tgz"
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        info = tarfile.TarInfo("instance.json")
        info.type = tarfile.SYMTYPE
        info.linkname = "/etc/passwd"
        tar.addfile(info)
    with trio.fail_after(60), pytest.raises(ArchiveError, match="not safe"):
        await import_file(other_store, carol, tmp_path / "c", path)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "damaged or cut short"),
        (b"no archive at all", "damaged or cut short"),
        (gzip.compress(b"no tar", mtime=0), "damaged or cut short"),
    ],
)
async def test_what_is_no_archive_is_refused(other_store, carol, tmp_path, data, match):
    path = tmp_path / "x.tgz"
    path.write_bytes(data)
    with trio.fail_after(60), pytest.raises(ArchiveError, match=match):
        await import_file(other_store, carol, tmp_path / "c", path)
    assert keys(other_store, carol) == set()


async def test_an_archive_of_tomorrow_is_refused(exported, other_store, carol, tmp_path):
    def change(found):
        document = json.loads(found[0][1]) | {"format": 2}
        return [("instance.json", json.dumps(document).encode()), *found[1:]]

    await refused(exported, other_store, carol, tmp_path, change, "has format 2")


async def test_something_else_that_is_a_tar_is_refused(exported, other_store, carol, tmp_path):
    await refused(exported, other_store, carol, tmp_path, lambda found: found[1:], "no export")


async def test_a_content_that_was_changed_stays_out(exported, other_store, carol, tmp_path):
    def change(found):
        return [
            (name, b"THREE" if name == "Files/Photos/report.odt" else data) for name, data in found
        ]

    path = rewritten(exported, tmp_path / "changed.tgz", change)
    with trio.fail_after(60):
        report = await import_file(other_store, carol, tmp_path / "c", path)
        assert report.problems[0] == "Photos/report.odt is not what its checksum says"
        # The right archive completes it.
        report = await import_file(other_store, carol, tmp_path / "c", exported)
        assert report.problems == []


async def test_a_content_that_is_missing_takes_no_other_ones(
    exported, other_store, carol, tmp_path
):
    path = rewritten(
        exported,
        tmp_path / "changed.tgz",
        lambda found: [each for each in found if each[0] != "Files/Photos/report.odt"],
    )
    with trio.fail_after(60):
        report = await import_file(other_store, carol, tmp_path / "c", path)
    assert "report.odt: its content is not in the archive" in report.problems


@pytest.mark.parametrize(
    "field",
    [
        {"mode": "x"},
        {"uid": -1},
        {"uid": 2**33},
        {"mtime": "never"},
        {"mtime": str(2**70)},
        {"links": [["io.cozy.files.root-dir", "a/b"]]},
        {"links": [["nowhere", "b"]]},
        {"xattrs": {"user.a": "no base64!"}},
        {"extents": [[3, 4], [0, 1]]},
        {"extents": [[0, 10**9]]},
        {"trash": {}},
    ],
    ids=str,
)
async def test_a_document_with_nonsense_stays_out(exported, other_store, carol, tmp_path, field):
    def change(found):
        return [(name, _with(data, field)) for name, data in found]

    def _with(data, field):
        if b'"run.sh"' not in data:
            return data
        document = json.loads(data)
        document["metadata"]["cozyfs"] |= field
        return json.dumps(document).encode()

    path = rewritten(exported, tmp_path / "changed.tgz", change)
    with trio.fail_after(60):
        report = await import_file(other_store, carol, tmp_path / "c", path)
    assert len(report.problems) == 1
    assert report.files == 9


async def test_an_instance_with_files_is_not_poured_over(exported, other_store, carol, tmp_path):
    def one(filler):
        filler.file(ROOT_INO, b"mine", b"mine")

    with trio.fail_after(60):
        await fill(other_store, carol, tmp_path / "c", one)
        before = keys(other_store, carol)
        with pytest.raises(InstanceError, match="is not empty"):
            await import_file(other_store, carol, tmp_path / "c", exported)
        async with writing(other_store, carol, tmp_path / "c") as index:
            names = [name for name, _ in index.children(ROOT_INO, b"", 10)]
    assert names == [b".cozy_trash", b"mine"]
    assert keys(other_store, carol) == before


async def test_an_archive_that_does_not_fit_the_quota_changes_nothing(
    exported, other_store, prefix, tmp_path
):
    small = instances.create(other_store, prefix, "small.example.com", quota=1000)
    with trio.fail_after(60), pytest.raises(InstanceError, match="may hold 1000 bytes"):
        await import_file(other_store, small, tmp_path / "c", exported)
    assert keys(other_store, small) == set()


def test_headers_are_the_same_every_time():
    assert archive.end() == archive.end()
    with tarfile.open(fileobj=io.BytesIO(archive.end())) as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.mtime, member.uid) == ("end.json", 0, 0)
