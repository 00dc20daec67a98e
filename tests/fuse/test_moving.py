"""Moving instances beside real mounts."""

from __future__ import annotations

from mounting import DOMAIN, sh


def test_an_export_beside_a_mount_has_what_was_written_and_an_import_is_refused(mounts, tmp_path):
    mount = mounts.start()
    sh('echo text > "$1/f"; mkdir "$1/d"; ln -s ../f "$1/d/link"', mount.path)
    archive = tmp_path / "a.tgz"
    mounts.cozyfs("instances", "export", DOMAIN, "-o", archive).check()
    assert sh('tar -xzOf "$1" Files/f', archive) == "text\n"
    sh('echo more > "$1/f"; cat "$1/f"', mount.path)

    refused = mounts.cozyfs("instances", "import", DOMAIN, archive)
    assert refused.code == 1
    assert "is mounted at" in refused.err


def test_an_imported_instance_can_be_mounted(mounts, tmp_path):
    with mounts.mounted() as mount:
        sh(
            'cd "$1"; mkdir -p a/b; echo one > a/b/f; chmod 640 a/b/f; touch -d @12345.678 a/b/f;'
            " ln a/b/f hard; ln -s nowhere soft",
            mount.path,
        )
    mounts.cozyfs("instances", "add", "bob.example.com").check()
    mounts.cozyfs("instances", "copy", DOMAIN, "bob.example.com").check()
    with mounts.mounted(domain="bob.example.com") as mount:
        seen = sh('cd "$1"; cat hard; stat -c "%a %h %.3Y" a/b/f; readlink soft', mount.path)
    assert seen == "one\n640 2 12345.678\nnowhere\n"
