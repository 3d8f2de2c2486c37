import pytest

from backupagent import codecs
from backupagent.codecs import CODECS, codec_for_suffix, codec_named
from backupagent.errors import ConfigError, MalformedContent

KEY = "v2/Full-00000000-00000042-1795400591.lz4"


def test_names_and_suffixes_are_those_of_the_peer_and_zstd() -> None:
    assert {name: codec.suffix for name, codec in CODECS.items()} == {
        "none": "", "gzip": ".gz", "zlib": ".zlib", "lzw": ".Z", "zstd": ".zst",
    }  # fmt: skip


def test_every_row_is_found_by_name_and_suffix() -> None:
    for name, codec in CODECS.items():
        assert codec_named(name) is codec
        assert codec_for_suffix(codec.suffix, KEY) is codec


def test_the_peer_reads_all_but_zstd_and_only_lzw_is_slow_and_not_written() -> None:
    assert [codec.name for codec in CODECS.values() if not codec.peer_reads] == ["zstd"]
    assert [codec.name for codec in CODECS.values() if codec.slow] == ["lzw"]
    assert [codec.name for codec in CODECS.values() if codec.encoder is None] == ["lzw"]


def test_an_unknown_name_is_a_wrong_option() -> None:
    with pytest.raises(ConfigError, match="unknown compression 'lz4'") as raised:
        codec_named("lz4")
    assert raised.value.hint == "one of none, gzip, zlib, lzw, zstd"


def test_an_unknown_suffix_names_the_object_and_what_can_be_read() -> None:
    with pytest.raises(MalformedContent, match=r"unsupported compression suffix '\.lz4'") as raised:
        codec_for_suffix(".lz4", KEY)
    assert raised.value.key == KEY
    assert ".gz, .zlib, .Z, .zst" in raised.value.hint


def test_no_two_rows_share_a_suffix() -> None:
    assert len(codecs._BY_SUFFIX) == len(codecs._ROWS) == len(CODECS)
