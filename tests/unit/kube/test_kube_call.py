"""Paths and words of calls."""

import pytest

from backupagent.errors import KubeInvalid
from backupagent.kube.call import Call, selectors
from backupagent.kube.resources import CONFIG_MAPS, PODS, SEEDS, SERVICE_ACCOUNTS, SHOOTS


@pytest.mark.parametrize(
    ("call", "path", "what"),
    [
        (Call("get", CONFIG_MAPS, "n", "a"), "/api/v1/namespaces/n/configmaps/a", "get configmaps n/a"),
        (Call("list", CONFIG_MAPS, "n"), "/api/v1/namespaces/n/configmaps", "list configmaps n"),
        (Call("list", SHOOTS), "/apis/core.gardener.cloud/v1beta1/shoots", "list shoots"),
        (Call("get", SEEDS, "ignored", "s"), "/apis/core.gardener.cloud/v1beta1/seeds/s", "get seeds s"),
        (Call("create", PODS, "n"), "/api/v1/namespaces/n/pods", "create pods n"),
        (
            Call("create", SERVICE_ACCOUNTS, "n", "a", "token"),
            "/api/v1/namespaces/n/serviceaccounts/a/token",
            "create serviceaccounts/token n/a",
        ),
        (
            Call.about("update", SHOOTS, SHOOTS.stub("demo", "p"), "binding"),
            "/apis/core.gardener.cloud/v1beta1/namespaces/p/shoots/demo/binding",
            "update shoots/binding p/demo",
        ),
    ],
)
def test_path_and_words(call: Call, path: str, what: str) -> None:
    assert (call.path, call.what) == (path, what)


@pytest.mark.parametrize("verb", ["get", "update", "patch", "delete"])
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a%2fb", "a?b", "a#b", "a b", "a\nb", "ä"])
def test_a_name_that_would_ask_for_something_else_is_refused(verb: str, name: str) -> None:
    with pytest.raises(KubeInvalid, match="is not a name"):
        _ = Call(verb, CONFIG_MAPS, "n", name).path
    with pytest.raises(KubeInvalid, match="is not a namespace"):
        _ = Call(verb, CONFIG_MAPS, name, "a").path


def test_selectors_are_equalities() -> None:
    assert selectors({"a": "1", "b": ""}, {"metadata.name": "x"}) == {
        "labelSelector": "a=1,b=",
        "fieldSelector": "metadata.name=x",
    }
    assert selectors({}, {}) == {}
