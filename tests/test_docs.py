"""The documents say what the program does: no command, option or variable is missing from the
manual, none is made up."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from cozyfs.cli import cli, fstab

PROJECT = Path(__file__).parent.parent
PAGES = sorted((PROJECT / "man").glob("*.[1-8]"))


def plain(page):
    """The page's text, roff's marks taken out of words."""
    text = (PROJECT / "man" / page).read_text("utf-8")
    text = re.sub(r"\\f[BIRP]", "", text)
    return text.replace("\\-", "-").replace("\\(aq", "'")


def commands(group=cli, path=("cozyfs",)):
    context = click.Context(group, info_name=path[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def options(command):
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


COMMANDS = dict(commands())
ALL_OPTIONS = {
    name
    for command in COMMANDS.values()
    for option in options(command)
    for name in (*option.opts, *option.secondary_opts)
}


def sections():
    """Command -> the text of its section of cozyfs(1)."""
    parts = re.split(r"^\.S[SH] (.*)$", plain("cozyfs.1"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_section(path):
    assert any((title + " ").startswith(" ".join(path) + " ") for title in sections())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_in_the_section_of_its_command_or_common(path):
    found = sections()
    (own,) = (text for title, text in found.items() if title.startswith(" ".join(path) + " "))
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", own + found["COMMON OPTIONS"]))
    missing = {name for option in options(COMMANDS[path]) for name in option.opts} - documented
    assert missing == set()


def test_no_option_of_the_manual_is_made_up():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", plain("cozyfs.1")))
    elsewhere = {"--help", "--version"}
    assert named - ALL_OPTIONS - elsewhere == set()


def test_no_section_is_about_a_command_that_is_not_there():
    titles = [title for title in sections() if title.startswith("cozyfs ")]
    known = [" ".join(path) for path in COMMANDS]
    for title in titles:
        assert any((title + " ").startswith(name + " ") for name in known), title


def test_every_environment_variable_is_documented():
    text = sections()["ENVIRONMENT"]
    for command in COMMANDS.values():
        for option in options(command):
            if option.envvar:
                assert option.envvar in text


def test_every_mount_option_is_documented():
    text = sections()["MOUNT OPTIONS"]
    for name in fstab.PASSED_ON | set(fstab.OF_COZYFS):
        assert re.search(rf"\b{name}\b", text), name


def test_defaults_of_the_manual_are_the_programs():
    text = sections()["cozyfs mount [OPTIONS] INSTANCE MOUNTPOINT"]
    for option in options(COMMANDS["cozyfs", "mount"]):
        if option.show_default:
            entry = re.split(rf"^--{option.name.replace('_', '-')}\b", text, flags=re.MULTILINE)
            if len(entry) == 2:
                default = re.search(r"Default: (\S+)\.$", entry[1], flags=re.MULTILINE)
                assert default[1] == str(option.default)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_says_more_than_the_options(path):
    assert len(COMMANDS[path].help) > 30
    for option in options(COMMANDS[path]):
        assert option.help, option.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_no_roff_errors(page):
    assert shutil.which("groff"), "groff is needed (packaging/test.sh installs it)"
    done = subprocess.run(
        ["groff", "-t", "-man", "-Tutf8", "-ww", "-z", page],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (PROJECT / "README.md").read_text("utf-8"))
    for link in links:
        assert link.startswith("https://") or (PROJECT / link).exists(), link


def test_commands_named_in_readme_exist():
    text = (PROJECT / "README.md").read_text("utf-8")
    for line in re.findall(r"^ {4}(cozyfs .*|packaging/\S+)", text, flags=re.MULTILINE):
        if line.startswith("packaging/"):
            assert (PROJECT / line.split()[0]).exists()
        else:
            assert any(
                line.startswith(" ".join(path) + " ") or line == " ".join(path)
                for path in COMMANDS
            ), line
