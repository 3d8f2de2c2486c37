"""What etcd and Kubernetes answer."""

from backupagent.errors.base import BackupAgentError


class EtcdError(BackupAgentError):
    """A call to an etcd server failed.

    Args:
        message: The reason.
        endpoint: ``host:port`` of the server, or the data directory.
        hint: What the operator can do about it.
    """

    exit_code = 30
    default_hint = "check the endpoint, its certificates and the user's permissions"

    def __init__(self, message: str, *, endpoint: str = "", hint: str | None = None) -> None:
        super().__init__(f"etcd {endpoint}: {message}" if endpoint else f"etcd: {message}", hint=hint)
        self.endpoint = endpoint
        self.cause = message


class EtcdUnavailable(EtcdError):
    """The server cannot be reached, has no leader, or closed the stream."""

    exit_code = 31
    http_status = 503
    retryable = True
    default_hint = "check that etcd runs and that the endpoint is right, then run the command again"


class RevisionCompacted(EtcdError):
    """The revisions asked for are gone from the server's history."""

    exit_code = 32
    http_status = 409
    default_hint = "take a new full snapshot"


class DataDirInvalid(EtcdError):
    """A data directory is not one that etcd can start from."""

    exit_code = 33
    default_hint = "restore it again from a snapshot"


class KubeError(BackupAgentError):
    """A request to a Kubernetes API server failed.

    Args:
        message: The reason, as the API server gave it.
        what: What was asked of which object, e.g. ``get shoots garden-dev/demo``.
        hint: What the operator can do about it.
    """

    exit_code = 50
    default_hint = "check the kubeconfig and the API server's logs"

    def __init__(self, message: str, *, what: str, hint: str | None = None) -> None:
        super().__init__(f"{what}: {message}", hint=hint)
        self.what = what
        self.cause = message


class KubeUnavailable(KubeError):
    """The API server cannot be reached, is overloaded, or closed the connection."""

    exit_code = 51
    http_status = 503
    retryable = True
    default_hint = "check that the API server runs and that the kubeconfig's address is right"


class KubeForbidden(KubeError):
    """The API server refuses: not known, or not allowed by RBAC."""

    exit_code = 52
    http_status = 403
    default_hint = "ask for a role with the rule that is missing"


class KubeNotFound(KubeError):
    """There is no such object, or no such kind of object."""

    exit_code = 53
    http_status = 404
    default_hint = "check name and namespace, and that the cluster is the right one"


class KubeConflict(KubeError):
    """Somebody changed the object in between, or it exists already."""

    exit_code = 54
    http_status = 409
    retryable = True
    default_hint = "run the command again"


class KubeInvalid(KubeError):
    """Validation or admission refused the object."""

    exit_code = 55
    http_status = 422
    default_hint = "the API server's message says what it does not accept"
