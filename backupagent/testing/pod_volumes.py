"""A Pod's volumes as folders of the machine, and where a container sees them."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backupagent.errors import KubeNotFound
from backupagent.kube.client import Kube
from backupagent.kube.resources import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, Document, Resource
from backupagent.testing.container import Mount
from backupagent.testing.pod_spec import (
    KUBECONFIG_NAME,
    TOKEN_FOLDER,
    is_token_volume,
    service_account,
)

WIDEST_MODE = 0o640
"""Modes asked for are cut down to this: others are the machine's other users."""

TOKEN_MODE = 0o600
TOKEN_LIFETIME_S = 3600


@dataclass(frozen=True)
class ApiAddress:
    """Where Pods reach the API server.

    Attributes:
        url: ``https://host:port``, or the binding proxy's ``http://host:port``.
        ca: PEM of the certificate authority that signed the server's certificate; empty for http.
    """

    url: str
    ca: bytes = b""

    def kubeconfig(self, namespace: str, token: str) -> str:
        """Return a kubeconfig file that uses a token."""
        cluster: dict[str, Any] = {"server": self.url}
        if self.ca:
            cluster["certificate-authority-data"] = base64.b64encode(self.ca).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "pod", "user": {"token": token}}],
            "contexts": [{"name": "pod", "context": {"cluster": "cluster", "user": "pod", "namespace": namespace}}],
            "current-context": "pod",
        }
        return json.dumps(document)  # JSON is YAML


class PodVolumes:
    """The volumes of one Pod.

    Secrets and ConfigMaps are read once, when the Pod starts: changes to them reach a new Pod only.

    Args:
        kube: Where Secrets, ConfigMaps and tokens come from.
        pod: The Pod.
        folder: Where the volumes are made.
        api: What the Pod's kubeconfig names.
    """

    def __init__(self, kube: Kube, pod: Document, folder: Path, api: ApiAddress) -> None:
        self._kube = kube
        self._pod = pod
        self._namespace: str = pod["metadata"]["namespace"]
        self._folder = folder
        self._api = api
        self._volumes: dict[str, tuple[Path, bool]] = {}

    def prepare(self) -> None:
        """Make all volumes; may be called again after it failed.

        Raises:
            KubeNotFound: a Secret, ConfigMap or service account does not exist (yet).
            KubeError: the API server refuses or cannot be reached.
        """
        for volume in self._pod["spec"].get("volumes", ()):
            if not is_token_volume(volume):
                self._volumes[volume["name"]] = self._prepared(volume)
        if service_account(self._pod):
            self._write_token(service_account(self._pod))

    def mounts(self, container: Mapping[str, Any]) -> list[Mount]:
        """Return what a container sees, after ``prepare``."""
        mounts = [Mount(self._token_folder, TOKEN_FOLDER, read_only=True)] if service_account(self._pod) else []
        for wanted in container.get("volumeMounts", ()):
            if wanted["name"] in self._volumes:
                source, read_only = self._volumes[wanted["name"]]
                source /= wanted.get("subPath", "")
                mounts.append(Mount(source, wanted["mountPath"], read_only or wanted.get("readOnly", False)))
        return mounts

    @property
    def _token_folder(self) -> Path:
        return self._folder / "token"

    def _prepared(self, volume: Mapping[str, Any]) -> tuple[Path, bool]:
        """Make a volume; return its folder and whether it is read-only by its nature."""
        place = self._folder / "volumes" / volume["name"]
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"]), False
        place.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            return place, False
        for name, content, mode in self._contents(volume):
            write_private(place / name, content, mode)
        return place, True

    def _host_path(self, wanted: Mapping[str, Any]) -> Path:
        place = Path(wanted["path"])
        if wanted.get("type") == "DirectoryOrCreate":
            place.mkdir(parents=True, exist_ok=True)
        return place

    def _contents(self, volume: Mapping[str, Any]) -> list[tuple[str, bytes, int]]:
        """Return name, content and mode of every file of a Secret or ConfigMap volume."""
        if "secret" in volume:
            wanted, name = volume["secret"], volume["secret"]["secretName"]
            found = self._found(SECRETS, name, optional=wanted.get("optional", False))
            data = {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
        else:
            wanted, name = volume["configMap"], volume["configMap"]["name"]
            found = self._found(CONFIG_MAPS, name, optional=wanted.get("optional", False))
            data = {key: value.encode() for key, value in found.get("data", {}).items()}
        mode = wanted.get("defaultMode", WIDEST_MODE)
        items = wanted.get("items") or [{"key": key, "path": key} for key in data]
        wanted_items = [item for item in items if item["key"] in data]
        return [(item["path"], data[item["key"]], item.get("mode", mode) & WIDEST_MODE) for item in wanted_items]

    def _found(self, resource: Resource, name: str, *, optional: bool) -> Document:
        try:
            return self._kube.get(resource, name, self._namespace)
        except KubeNotFound:
            if optional:
                return {}
            raise

    def _write_token(self, account: str) -> None:
        token = self._token(account)
        self._token_folder.mkdir(parents=True, exist_ok=True)
        files = {
            "token": token,
            "namespace": self._namespace,
            KUBECONFIG_NAME: self._api.kubeconfig(self._namespace, token),
        }
        for name, content in files.items():
            write_private(self._token_folder / name, content.encode(), TOKEN_MODE)
        if self._api.ca:
            write_private(self._token_folder / "ca.crt", self._api.ca, TOKEN_MODE)

    def _token(self, account: str) -> str:
        """Ask for a token that is void as soon as the Pod is gone, as the kubelet does."""
        metadata = self._pod["metadata"]
        bound_to = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": self._namespace},
            "spec": {"expirationSeconds": TOKEN_LIFETIME_S, "boundObjectRef": bound_to},
        }
        answer = self._kube.create(SERVICE_ACCOUNTS, request, subresource="token", parent=account)
        token: str = answer["status"]["token"]
        return token


def write_private(place: Path, content: bytes, mode: int) -> None:
    """Write a file that never was readable for more than ``mode`` says."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.touch(mode=mode & 0o600)
    place.write_bytes(content)
    place.chmod(mode)
