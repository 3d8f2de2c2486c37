"""Druid's etcd configuration, read for one member."""

import pytest
import yaml

from backupagent.errors import ConfigError
from backupagent.server import etcd_config
from backupagent.server.etcd_config import MemberConfig, read_config

DRUID = """
name: etcd-config
data-dir: /var/etcd/data/new.etcd
metrics: basic
snapshot-count: 10000
initial-cluster: main-0=https://main-0.peer:2380,main-1=https://main-1.peer:2380
initial-cluster-token: token-1
initial-cluster-state: existing
initial-advertise-peer-urls:
  main-0:
  - https://main-0.peer:2380
  - https://other.peer:2380
  main-1:
  - http://main-1.peer:2380
advertise-client-urls:
  main-0:
  - https://main-0.client:2379
  main-1:
  - http://main-1.client:2379
"""


def read(text: str = DRUID, pod: str = "main-0") -> MemberConfig:
    return read_config(text, pod=pod, where="etcd.conf.yaml")


def test_what_etcd_starts_with() -> None:
    answer = yaml.safe_load(read().for_etcd())
    assert answer["name"] == "main-0"
    assert answer["initial-advertise-peer-urls"] == "https://main-0.peer:2380,https://other.peer:2380"
    assert answer["advertise-client-urls"] == "https://main-0.client:2379"
    assert answer["initial-cluster-state"] == "new"
    before = yaml.safe_load(DRUID)
    changed = {"name", "initial-advertise-peer-urls", "advertise-client-urls", "initial-cluster-state"}
    assert {name: answer[name] for name in before.keys() - changed} == {
        name: before[name] for name in before.keys() - changed
    }


def test_what_a_restore_needs() -> None:
    config = read()
    assert config.initial_cluster == "main-0=https://main-0.peer:2380,main-1=https://main-1.peer:2380"
    assert config.initial_cluster_token == "token-1"
    assert config.peer_urls == ("https://main-0.peer:2380", "https://other.peer:2380")
    assert config.tls_peers
    assert not read(pod="main-1").tls_peers


def test_a_member_may_have_a_prefix() -> None:
    text = DRUID.replace("main-0", "west-main-0") + "member-name-prefix: west\n"
    assert read(text).name == "west-main-0"
    with pytest.raises(ConfigError, match="needs the Pod's name"):
        read(text, pod="")


def test_an_ordinary_configuration() -> None:
    text = "name: solo\ninitial-cluster: solo=http://a:1\ninitial-advertise-peer-urls: http://a:1 , http://b:1\n"
    config = read(text, pod="")
    assert (config.name, config.peer_urls, config.client_urls) == ("solo", ("http://a:1", "http://b:1"), ())
    assert config.initial_cluster_token == "etcd-cluster"
    assert not config.tls_peers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("- a list", "initial-cluster is missing"),
        ("initial-cluster: 3", "initial-cluster is missing"),
        ("initial-cluster: a=b\nadvertise-client-urls: {other: [x]}", "advertise-client-urls does not name member"),
        ("initial-cluster: a=b\nadvertise-client-urls: 3", "neither a map"),
        ("initial-cluster: a=b\nadvertise-client-urls: [3]", "neither a map"),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read(text)
    assert "etcd.conf.yaml" in str(raised.value)


def test_one_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_config, "MAX_SIZE", 100)
    with pytest.raises(ConfigError, match="too many"):
        read()
