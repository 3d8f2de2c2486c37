"""The page about stores is what the tables in the code say."""

from pathlib import Path

from backupagent.cli.stores_page import FORMS, OPTION_MEANINGS, OTHER_FIELDS, page
from backupagent.stores.location import CHOICES, OPTIONS, parse_location
from backupagent.stores.opening import SERVICES
from backupagent.stores.opening_s3 import FIELDS
from backupagent.stores.peer import SCHEMES, peer_uri
from backupagent.stores.peer import SERVICES as SERVICE_OPTIONS

ROOT = Path(__file__).parents[3]
STORES = ROOT / "backupagent" / "stores"


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "stores.md").read_text() == page(), (
        "run: python -m backupagent.cli.stores_page > docs/stores.md"
    )


def test_every_scheme_and_option_is_described() -> None:
    assert set(FORMS) == set(OPTIONS) - {"memory"}
    assert set(OPTION_MEANINGS) == {name for names in OPTIONS.values() for name in names}
    assert set(CHOICES) <= set(OPTION_MEANINGS)
    for scheme, uri in FORMS.items():
        assert parse_location(uri).provider == scheme


def test_every_field_is_one_that_is_read() -> None:
    sources = {scheme: (STORES / f"opening_{name}.py").read_text() for scheme, name in (("az", "azure"), ("gs", "gcs"))}
    missing = [name for scheme, fields in OTHER_FIELDS.items() for name in fields if f'"{name}"' not in sources[scheme]]
    assert missing == []
    text = (STORES / "opening_s3.py").read_text()
    assert [name for name in FIELDS if text.count(f'"{name}"') < 2] == []  # once in the table, once where it is read


def test_every_name_of_a_provider_leads_to_a_store() -> None:
    for provider in SCHEMES:
        location = parse_location(peer_uri(provider, "bucket", "p"))
        assert location.options.get("service", location.provider) in {*SERVICES, "file"}
        assert provider in page()
    assert set(SERVICE_OPTIONS.values()) == set(CHOICES["service"]) - {"s3"}
