"""Objects are cut into parts that tile them and that the store accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupagent.errors import ConfigError
from backupagent.stores import azure, gcs, s3
from backupagent.stores.base import StoreLimits
from backupagent.transfer.plan import Part, fitting_part_size, plan_parts
from backupagent.units import MiB


@given(size=st.integers(0, 5000), part_size=st.integers(1, 700))
def test_parts_tile_the_object(size: int, part_size: int) -> None:
    parts = plan_parts(size, part_size)

    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.offset for part in parts] == [(part.number - 1) * part_size for part in parts]
    assert sum(part.size for part in parts) == size
    assert all(part.size == part_size for part in parts[:-1])
    assert parts[-1].size > 0 or (size == 0 and len(parts) == 1)


@pytest.mark.parametrize(
    ("size", "sizes"), [(0, [0]), (1, [1]), (9, [9]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (21, [10, 10, 1])]
)
def test_edges_of_the_part_size(size: int, sizes: list[int]) -> None:
    assert [part.size for part in plan_parts(size, 10)] == sizes


def test_an_empty_object_has_one_empty_part() -> None:
    assert plan_parts(0, 8 * MiB) == (Part(1, 0, 0),)


@pytest.mark.parametrize(
    ("size", "wanted", "fitting"),
    [
        (0, 8 * MiB, 8 * MiB),
        (0, 1, 5 * MiB),  # a stream obeys the smallest part too
        (100 * MiB, 1 * MiB, 5 * MiB),
        (10_000 * 8 * MiB, 8 * MiB, 8 * MiB),
        (10_000 * 8 * MiB + 1, 8 * MiB, 8 * MiB + 1),  # as many parts as there may be
        (0, 6 * 1024 * MiB, 5 * 1024 * MiB),
        (10_000 * 5 * 1024 * MiB, 8 * MiB, 5 * 1024 * MiB),  # the largest object there is
    ],
)
def test_part_sizes_fit_the_limits_of_s3(size: int, wanted: int, fitting: int) -> None:
    assert fitting_part_size(size, part_size=wanted, limits=StoreLimits(min_part=5 * MiB)) == fitting


@pytest.mark.parametrize("limits", [azure.LIMITS, gcs.LIMITS, s3.LIMITS], ids=["azure", "gcs", "s3"])
@pytest.mark.parametrize("size", [5 * 10**12, 5 * 1024**4])
def test_the_largest_objects_fit_every_provider(size: int, limits: StoreLimits) -> None:
    """5 TiB is the most that S3 and Google hold."""
    part_size = fitting_part_size(size, part_size=8 * MiB, limits=limits)
    parts = plan_parts(size, part_size)
    assert len(parts) <= limits.max_parts
    assert limits.min_part <= part_size <= limits.max_part
    assert sum(part.size for part in parts) == size


def test_the_limits_are_those_of_the_services() -> None:
    assert (azure.LIMITS.max_parts, azure.LIMITS.max_part) == (50_000, 4000 * MiB)
    assert (gcs.COMPOSE_LIMIT, gcs.LIMITS.max_parts) == (32, 10_000)


def test_an_object_that_the_store_cannot_hold_is_refused() -> None:
    limits = StoreLimits(max_part=10, max_parts=3)
    assert fitting_part_size(30, part_size=1, limits=limits) == 10
    with pytest.raises(ConfigError, match="31 bytes does not fit into 3 parts of 10 bytes"):
        fitting_part_size(31, part_size=1, limits=limits)


@given(
    size=st.integers(0, 10_000),
    wanted=st.integers(1, 2000),
    min_part=st.integers(1, 50),
    max_part=st.integers(50, 200),
    max_parts=st.integers(50, 200),
)
def test_planned_parts_keep_to_any_limits(size: int, wanted: int, min_part: int, max_part: int, max_parts: int) -> None:
    limits = StoreLimits(min_part, max_part, max_parts)
    if size > max_part * max_parts:
        with pytest.raises(ConfigError):
            fitting_part_size(size, part_size=wanted, limits=limits)
        return
    part_size = fitting_part_size(size, part_size=wanted, limits=limits)
    assert min_part <= part_size <= max_part
    assert len(plan_parts(size, part_size)) <= max_parts
