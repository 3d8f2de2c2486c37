"""Which API server and credentials are used, and that nothing in them is shown."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backupagent.errors import ConfigError
from backupagent.kube.client import KubeClient
from backupagent.kube.kubeconfig import find_config


def config(server: str, **user: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def written(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    """The folder of a Pod's service account."""
    written(tmp_path / "pod" / "token", "t")
    return tmp_path / "pod"


IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_the_order(tmp_path: Path, pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    explicit = written(tmp_path / "explicit", config("https://explicit"))
    named = written(tmp_path / "named", config("https://named"))
    written(tmp_path / "home" / ".kube" / "config", config("https://home"))
    by_name = {"KUBECONFIG": str(named)}
    assert find_config(explicit, by_name | IN_POD, pod).cluster.server == "https://explicit"
    assert find_config(None, by_name | IN_POD, pod).cluster.server == "https://named"
    assert find_config(None, IN_POD, pod).cluster.server == "https://10.0.0.1:443"
    assert find_config(None, {}, pod).cluster.server == "https://home"
    assert find_config(None, IN_POD, tmp_path / "nothing").cluster.server == "https://home"


def test_a_pod_uses_its_token_file_and_ca(pod: Path) -> None:
    found = find_config(None, IN_POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, pod)
    assert found.cluster.server == "https://[fd00::1]:443"
    assert found.cluster.certificate_auth == str(pod / "ca.crt")
    assert found.user is not None
    assert (found.user.token, found.user.token_file) == (None, str(pod / "token"))


def test_a_relative_token_file_lies_beside_the_kubeconfig(tmp_path: Path) -> None:
    found = find_config(written(tmp_path / "k", config("https://a", tokenFile="t")), {})
    assert found.user is not None
    assert found.user.token_file == str(tmp_path / "t")


def test_a_context_without_a_user_has_no_credentials(tmp_path: Path) -> None:
    document = config("https://a")
    del document["contexts"][0]["context"]["user"]
    with KubeClient.open(written(tmp_path / "k", document)) as kube:
        assert repr(kube) == "KubeClient(https://a)"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "is not a kubeconfig"),
        ("[]", "is not a kubeconfig"),
        ("{}", "is not a kubeconfig"),
        ("a: [", "is not YAML in line 1"),
        ("token: s3cr3t: x", "is not YAML in line 1"),
        ({**config("https://a"), "current-context": "other"}, "other"),
        ({**config("https://a"), "current-context": None}, "No current context"),
        ({**config("https://a"), "clusters": []}, "is not a kubeconfig"),
        ({**config("https://a"), "users": []}, "is not a kubeconfig"),
        ({**config("https://a"), "users": 5}, "is not a kubeconfig"),
        (config("https://a", token=["s3cr3t"]), "Expected `str"),
        (config("https://a", token="s3cr3t\n"), "printable"),
        (config("https://a", token="s3cr3t 2"), "printable"),
        (config("https://a", token="s3cr3tä"), "printable"),
        (
            config("https://a", exec={"apiVersion": "client.authentication.k8s.io/v1", "command": "gardenlogin"}),
            "credential plugins of client.authentication.k8s.io/v1 are not supported",
        ),
        (config("https://a", **{"client-certificate-data": "s3cr3t", "client-key-data": "eA=="}), "not base64"),
        (config("https://a", **{"client-certificate-data": "eA==", "client-key-data": "eA=="}), "cannot be used"),
        (config("https://a", **{"auth-provider": {"name": "gcp"}}), "cannot be used"),
    ],
)
def test_what_is_wrong_is_named_without_a_secret(tmp_path: Path, document: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KubeClient.open(written(tmp_path / "k", document))
    error = caught.value
    assert reason in error.message
    assert error.hint
    assert "s3cr3t" not in f"{error}{error.hint}{error.__cause__}"


def test_a_missing_file_and_a_list_of_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kubeconfig .*/gone cannot be read: No such file"):
        find_config(tmp_path / "gone", {})
    with pytest.raises(ConfigError, match="several files"):
        find_config(None, {"KUBECONFIG": os.pathsep.join(["a", "b"])})


def test_a_missing_ca_is_told(tmp_path: Path) -> None:
    document = config("https://a", token="t")
    document["clusters"][0]["cluster"]["certificate-authority"] = "gone.crt"
    with pytest.raises(ConfigError, match="https://a cannot be used"):
        KubeClient.open(written(tmp_path / "k", document))


def test_the_client_is_imported_without_its_libraries() -> None:
    program = (
        "import sys, backupagent.kube.client, backupagent.kube.manifests;"
        "sys.exit(str({'lightkube', 'httpx2', 'yaml', 'ssl'} & set(sys.modules) or ''))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).stderr.strip() == b""
