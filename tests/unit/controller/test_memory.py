"""The ConfigMap: what is written is read, what others wrote into it is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_kube import NAMESPACE, SHOOT, landscape, put_report, report, shoot

from backupagent.controller.memory import (
    MAX_SNAPSHOTS,
    SOURCE_KEY,
    config_map,
    decode_source,
    encode_source,
    remember,
)
from backupagent.kube.resources import CONFIG_MAPS, SHOOTS
from backupagent.model.gardener import Shoot
from backupagent.model.migration import Phase
from backupagent.operations.arrival import SourceSnapshot

NAMES = st.from_regex(r"(Full|Incr)-[0-9]{8}-[0-9]{8}-[0-9]{10}(\.gz)?", fullmatch=True)
FOUND = SourceSnapshot("Full-00000000-00000005-1760000000.gz", 42, '"etag with %20 space"')


@given(st.lists(st.builds(SourceSnapshot, NAMES, st.integers(0, 10**18 - 1), st.text(max_size=40)), min_size=1))
def test_what_the_source_held_is_read_back(snapshots: list[SourceSnapshot]) -> None:
    assert decode_source(encode_source(snapshots)) == tuple(snapshots)


@pytest.mark.parametrize("text", ["", "name", "name x", "name 1\n x", "name -1", "name ٣", "name " + "9" * 19])
def test_a_list_that_others_wrote_is_no_list(text: str) -> None:
    assert decode_source(text) is None


def test_lines_of_name_and_size_are_enough() -> None:
    assert decode_source("a 1\nb 2\n") == (SourceSnapshot("a", 1), SourceSnapshot("b", 2))


def bound() -> Shoot:
    return Shoot.read(shoot(spec="seed-b"))


def test_a_report_is_remembered_with_its_list() -> None:
    kube = landscape()
    kube.put(SHOOTS, shoot(spec="seed-b"))
    known = report(Phase.PREPARING)
    kube.put(CONFIG_MAPS, config_map(bound(), known, [FOUND]))
    memory = remember(kube, bound())
    assert (memory.report, memory.source) == (known, (FOUND,))


def test_a_list_that_would_not_fit_is_left_out() -> None:
    many = [SourceSnapshot(f"Full-00000000-{n:08d}-1760000000", 1, "e" * 32) for n in range(MAX_SNAPSHOTS)]
    fits = config_map(bound(), report(Phase.PREPARING), many)["data"]
    assert sum(len(value) for value in fits.values()) < 1024 * 1024
    assert SOURCE_KEY not in config_map(bound(), report(Phase.PREPARING), [*many, FOUND])["data"]


def test_it_goes_when_its_shoot_goes() -> None:
    (owner,) = config_map(bound(), report(Phase.PREPARING), None)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Shoot", SHOOT, "shoot-uid")


def test_there_is_none() -> None:
    assert remember(landscape(), bound()) == remember(landscape(), bound())
    assert remember(landscape(), bound()).data is None


def test_a_report_that_cannot_be_read_is_none() -> None:
    kube = landscape()
    put_report(kube, '{"format": "x"}')
    memory = remember(kube, bound())
    assert (memory.report, memory.source) == (None, None)
    assert memory.data == {"report.json": '{"format": "x"}'}


def test_the_list_of_an_earlier_migration_is_not_taken_over() -> None:
    kube = landscape()
    earlier = report(Phase.SUCCEEDED, destination="seed-c")
    kube.put(CONFIG_MAPS, config_map(bound(), earlier, [FOUND]))
    memory = remember(kube, bound())
    assert (memory.report, memory.source) == (None, None)


def test_a_config_map_without_data() -> None:
    kube = landscape()
    kube.put(CONFIG_MAPS, {**CONFIG_MAPS.stub("demo.backupagent-migration", NAMESPACE), "data": None})
    assert remember(kube, bound()).data == {}
