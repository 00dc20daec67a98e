"""Which rules of versions hold: option, instance, context, file, a Cozy's own, in this order."""

import pytest

from cozyfs.errors import UsageError
from cozyfs.values import Instance, VersionRules
from cozyfs.versioning import go_duration, version_rules

FILE = {
    "versioning": {
        "max_number_of_versions_to_keep": 5,
        "min_delay_between_two_versions": "1h",
    },
    "contexts": {"work": {"max_number_of_versions_to_keep": 7}},
}


def instance(**fields):
    return Instance("alice", "", "p", "b", **fields)


def test_by_default_they_are_a_cozys():
    assert version_rules({}, instance()) == VersionRules(20, 900.0)


def test_the_file_says_what_nothing_else_says():
    assert version_rules(FILE, instance(context="home")) == VersionRules(5, 3600.0)


def test_each_value_of_a_context_overrides_on_its_own():
    assert version_rules(FILE, instance(context="work")) == VersionRules(7, 3600.0)


def test_the_instance_overrides_its_context():
    found = version_rules(FILE, instance(context="work", max_versions=0))
    assert found == VersionRules(0, 3600.0)


def test_the_option_overrides_all():
    found = version_rules(
        FILE, instance(max_versions=9, version_delay_s=9.0), max_number=3, min_delay_s=0.0
    )
    assert found == VersionRules(3, 0.0)


@pytest.mark.parametrize("value", ["5", -1, True, 1.5, ["5"]])
def test_a_wrong_value_of_a_context_is_passed_over(value):
    section = {"contexts": {"work": {"max_number_of_versions_to_keep": value}}}
    assert version_rules(section, instance(context="work")).max_number == 20


def test_a_wrong_value_for_all_is_an_error_that_names_the_key():
    section = {"versioning": {"min_delay_between_two_versions": "soon"}}
    with pytest.raises(UsageError, match=r"fs\.versioning\.min_delay_between_two_versions"):
        version_rules(section, instance())


@pytest.mark.parametrize(
    "section", [{"versioning": 5}, {"contexts": ["work"]}, {"contexts": None}]
)
def test_what_is_no_section_says_nothing(section):
    assert version_rules(section, instance(context="work")) == VersionRules()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15m", 900),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("0", 0),
        (0, 0),
        ("90s", 90),
    ],
)
def test_durations_are_gos(text, seconds):
    assert go_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "15 m", "m", "-1m", "1d", 15, None])
def test_what_go_does_not_read_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        go_duration(text)
