"""fs URLs and where they come from. A key never appears in a message."""

from __future__ import annotations

import os
import stat

import pytest

from cozyfs.config import data_dir, load_settings, parse_fs_url, state_dir, trashed_after
from cozyfs.errors import UsageError

S3 = "s3://s3.example.com:9000?access_key=AK&secret_key=SK"


@pytest.fixture
def environ(tmp_path):
    return {"HOME": str(tmp_path)}


# ---- S3


def test_an_s3_url_has_the_cozy_servers_form():
    url = parse_fs_url(f"{S3}&region=eu-west-3&bucket_prefix=Cozy_Prod&use_ssl=false")

    assert (url.host, url.access_key, url.secret_key) == ("s3.example.com:9000", "AK", "SK")
    assert (url.region, url.bucket_prefix, url.use_ssl) == ("eu-west-3", "cozy-prod", False)


def test_the_defaults_are_the_prefix_cozy_and_tls():
    url = parse_fs_url("s3://s3.example.com")

    assert (url.bucket_prefix, url.use_ssl, url.region) == ("cozy", True, "")
    assert (url.access_key, url.secret_key, url.path) == ("", "", "")


@pytest.mark.parametrize("value", ["", "0", "no", "False", "FALSE", "true"])
def test_only_the_word_false_turns_tls_off(value):
    assert parse_fs_url(f"{S3}&use_ssl={value}").use_ssl is True


def test_values_are_decoded_as_in_a_query():
    url = parse_fs_url("s3://h?access_key=a+b&secret_key=%2F%2B%26%25")

    assert (url.access_key, url.secret_key) == ("a b", "/+&%")


def test_path_and_user_are_ignored_as_the_cozy_server_does():
    assert parse_fs_url("s3://user@s3.example.com/path?region=x").host == "s3.example.com"


def test_an_empty_prefix_is_the_default():
    assert parse_fs_url(f"{S3}&bucket_prefix=").bucket_prefix == "cozy"


@pytest.mark.parametrize("host", ["[::1]:9000", "10.0.0.1", "localhost:1", "a-b.c_d.example"])
def test_hosts_may_be_names_and_addresses(host):
    assert parse_fs_url(f"s3://{host}").host == host


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///path",
        "s3://?region=x",
        "s3://host:0",
        "s3://host:99999",
        "s3://host:port",
        "s3://ho st",
        "s3://[::1",
        "s3://-host",
        "s3://host?secret=SECRET",
        "s3://host?access_key=A&secret_key=SEC&RET=x",
        "s3://host?access_key=SECRET",
        "s3://host?secret_key=SECRET",
        "s3://host?access_key=SECRET&secret_key=SECRET&bucket_prefix=___",
        f"s3://host?bucket_prefix={'p' * 48}",
        "s3://host?region=a/b",
        "mem://test",
        "swift://host/path?UserName=SECRET",
        "swift+https://host",
        "http://host",
        "relative/path",
        "",
        "/",
        "file:///",
        "file://relative",
    ],
)
def test_a_url_that_cannot_work_is_refused_in_one_line_without_its_keys(text):
    with pytest.raises(UsageError) as caught:
        parse_fs_url(text)

    message = str(caught.value)
    assert message.startswith("fs.url: ")
    assert "\n" not in message
    assert not any(secret in message for secret in ("SECRET", "SEC", "RET"))


def test_a_url_never_shows_its_keys():
    url = parse_fs_url("s3://host?access_key=VERY&secret_key=HIDDEN&use_ssl=false")

    for text in (str(url), repr(url)):
        assert "VERY" not in text
        assert "HIDDEN" not in text
    assert str(url) == "s3://host?bucket_prefix=cozy&use_ssl=false"


# ---- local folders


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/srv/cozy", "/srv/cozy"),
        ("file:///srv/cozy", "/srv/cozy"),
        ("file://localhost/srv/cozy/", "/srv/cozy"),
        ("file:///srv/my%20cozy", "/srv/my cozy"),
        ("/srv/100%25", "/srv/100%25"),
    ],
)
def test_a_local_store_is_an_absolute_path(text, path):
    assert parse_fs_url(text).path == path


# ---- which one counts


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_explicit_url_wins_then_the_environment_then_the_file(environ, tmp_path):
    config = write(tmp_path / "cozy.yaml", "fs:\n  url: file:///from-file\n")

    assert load_settings(None, config, environ=environ).url.path == "/from-file"
    environ["COZYFS_FS_URL"] = "file:///from-environment"
    assert load_settings(None, config, environ=environ).url.path == "/from-environment"
    assert load_settings("/explicit", config, environ=environ).url.path == "/explicit"


def test_the_file_is_named_or_in_the_environment_or_in_the_home(environ, tmp_path):
    write(tmp_path / ".config/cozyfs/cozyfs.yaml", "fs: {url: /from-home}")
    assert load_settings(environ=environ).url.path == "/from-home"

    environ["COZYFS_CONFIG"] = str(write(tmp_path / "other.yaml", "fs: {url: /from-variable}"))
    assert load_settings(environ=environ).url.path == "/from-variable"

    named = write(tmp_path / "named.yaml", "fs: {url: /from-name}")
    assert load_settings(None, named, environ=environ).url.path == "/from-name"


def test_without_any_the_store_is_a_folder_of_ours(environ):
    assert load_settings(environ=environ).url.path == str(data_dir(environ) / "storage")


@pytest.mark.parametrize(
    ("uid", "variables", "expected"),
    [
        (0, {}, "/var/lib/cozyfs"),
        (1000, {}, "/home/alice/.local/share/cozyfs"),
        (1000, {"XDG_DATA_HOME": "/data"}, "/data/cozyfs"),
        (1000, {"XDG_DATA_HOME": "relative"}, "/home/alice/.local/share/cozyfs"),
    ],
)
def test_the_data_directory_is_the_systems_or_the_users(monkeypatch, uid, variables, expected):
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert str(data_dir({"HOME": "/home/alice", **variables})) == expected


def test_a_cozy_servers_own_file_works_unchanged(environ, tmp_path):
    config = write(
        tmp_path / "cozy.yaml",
        """
host: localhost
couchdb:
  url: http://user:password@localhost:5984/
fs:
  url: s3://minio:9000?access_key=a&secret_key=s&use_ssl=false
  root_ca: /etc/ca.pem
  insecure_skip_validation: true
  default_layout: 2
  versioning:
    max_number_of_versions_to_keep: 10
  auto_clean_trashed_after:
    beta: 30D
""",
    )

    settings = load_settings(None, config, environ=environ)

    assert settings.url.host == "minio:9000"
    assert settings.root_ca == "/etc/ca.pem"
    assert settings.insecure_skip_validation is True
    assert settings.section["versioning"] == {"max_number_of_versions_to_keep": 10}
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("text", ["", "host: x\n", "fs:\n", "- a list\n"])
def test_a_file_without_an_fs_section_is_as_good_as_none(environ, tmp_path, text):
    config = write(tmp_path / "cozy.yaml", text)

    assert load_settings("/explicit", config, environ=environ).url.path == "/explicit"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fs: [", "not valid YAML, line 1"),
        ("fs:\n  url: {{.Env.URL}}\n", "not valid YAML|must be a text"),
        ("fs: text", "'fs' must be a section"),
        ("fs: {url: 5}", r"fs\.url must be a text"),
        ("fs: {insecure_skip_validation: 'yes please'}", "must be true or false"),
        ("fs: {pinned_key: abc}", "pinned_key is not supported"),
    ],
)
def test_a_bad_file_is_told_in_one_line(environ, tmp_path, text, expected):
    config = write(tmp_path / "cozy.yaml", text)

    with pytest.raises(UsageError, match=expected) as caught:
        load_settings(None, config, environ=environ)

    assert "\n" not in str(caught.value)


def test_a_named_file_that_is_missing_is_bad_input(environ, tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_settings(None, tmp_path / "missing.yaml", environ=environ)


# ---- the state directory


def test_the_state_directory_is_named_or_in_the_environment(environ, tmp_path):
    environ["COZYFS_STATE_DIR"] = str(tmp_path / "from-environment")

    assert state_dir(environ=environ) == tmp_path / "from-environment"
    assert state_dir(tmp_path / "named", environ=environ) == tmp_path / "named"


def test_the_state_directory_is_for_its_owner_alone(environ, tmp_path):
    made = state_dir(tmp_path / "deep" / "state", environ=environ)

    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_users_state_directory_is_in_the_xdg_state_home(monkeypatch, environ, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state_dir(environ=environ) == tmp_path / ".local/state/cozyfs"

    environ["XDG_STATE_HOME"] = str(tmp_path / "xdg")
    assert state_dir(environ=environ) == tmp_path / "xdg/cozyfs"


def test_a_state_directory_that_cannot_be_made_is_bad_input(environ, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="state directory"):
        state_dir(tmp_path / "file" / "state", environ=environ)


@pytest.mark.parametrize(
    ("context", "seconds"),
    [("beta", 30 * 86400), ("gamma", 90 * 86400), ("other", None), ("", None)],
)
def test_the_age_of_the_trash_is_that_of_the_context(context, seconds):
    section = {"auto_clean_trashed_after": {"beta": "30D", "gamma": "3M"}}
    assert trashed_after(section, context) == seconds
    assert trashed_after({}, context) is None


@pytest.mark.parametrize("value", ["30D", ["a"], {"beta": "soon"}, {"beta": "1X"}])
def test_an_age_of_the_trash_that_makes_no_sense_is_refused(value):
    with pytest.raises(UsageError, match="auto_clean_trashed_after"):
        trashed_after({"auto_clean_trashed_after": value}, "beta")
