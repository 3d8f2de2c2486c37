"""One call of the API as data: what RBAC calls it, and its path."""

from collections.abc import Mapping
from dataclasses import dataclass

from backupagent.errors import KubeInvalid
from backupagent.kube.resources import Document, Resource


@dataclass(frozen=True)
class Call:
    """What is asked of which object.

    Attributes:
        verb: Verb in RBAC's words: get, list, watch, create, update, patch, delete.
        resource: The kind.
        namespace: Where; empty for all namespaces, and for kinds that have none.
        name: Which object; empty for all, and for one that is made.
        subresource: Part of the object, e.g. ``status``; or empty.
    """

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @classmethod
    def about(cls, verb: str, resource: Resource, document: Document, subresource: str = "") -> "Call":
        """Return the call for an object that is at hand."""
        metadata = document.get("metadata", {})
        return cls(verb, resource, metadata.get("namespace", ""), metadata.get("name", ""), subresource)

    @property
    def rule_resource(self) -> str:
        """What stands in ``resources`` of a role, e.g. ``shoots/binding``."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural

    @property
    def what(self) -> str:
        """The call for people, e.g. ``get shoots garden-dev/demo``."""
        names = [part for part in (self.namespace if self.resource.namespaced else "", self.name) if part]
        return " ".join([self.verb, self.rule_resource, "/".join(names)]).strip()

    @property
    def path(self) -> str:
        """Path of the URL.

        Raises:
            KubeInvalid: a name cannot be part of a path, or the name or namespace of a single object is empty; such
                a call would ask for something else.
        """
        kind = self.resource
        parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
        if kind.namespaced and (self.namespace or self.verb not in {"list", "watch"}):
            parts += ["namespaces", self._segment(self.namespace, "namespace")]
        parts.append(kind.plural)
        if self.name or self.subresource or self.verb in {"get", "update", "patch", "delete"}:
            parts.append(self._segment(self.name, "name"))
        if self.subresource:
            parts.append(self._segment(self.subresource, "subresource"))
        return "/" + "/".join(parts)

    def _segment(self, text: str, meaning: str) -> str:
        """Return a name that can be part of a path.

        Source:
            ``IsPathSegmentName`` of k8s.io/apimachinery v0.36.3, pkg/api/validate/content/path.go; further
            characters that mean something in a URL are in no valid name.
        """
        if text in {"", ".", ".."} or not text.isascii() or not text.isprintable() or set(text) & set("/%?# "):
            raise KubeInvalid(f"{text!r} is not a {meaning}", what=self.what)
        return text


def selectors(labels: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that choose objects by labels and fields that are equal to what is given."""
    chosen = {"labelSelector": labels, "fieldSelector": fields}
    return {name: ",".join(f"{key}={value}" for key, value in pairs.items()) for name, pairs in chosen.items() if pairs}
