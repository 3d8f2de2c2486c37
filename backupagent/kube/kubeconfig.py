"""Which API server, and as whom: a kubeconfig file, or the Pod's service account."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from lightkube import ConfigError as LightkubeConfigError
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import User

from backupagent.errors import ConfigError

DEFAULT_FILE = "~/.kube/config"
IN_CLUSTER = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")

EXEC_VERSIONS = ("client.authentication.k8s.io/v1alpha1", "client.authentication.k8s.io/v1beta1")
"""Versions of credential plugins that lightkube 1.0 speaks (``ExecAuth._prepare``)."""

HINT = "name a kubeconfig file with --kubeconfig, or in KUBECONFIG"


def find_config(
    kubeconfig: Path | None, environment: Mapping[str, str] = os.environ, service_account: Path = Path(SERVICE_ACCOUNT)
) -> SingleConfig:
    """Return the API server's address, its CA and the credentials; nothing is sent.

    Looked for in this order: ``kubeconfig``, the file that KUBECONFIG names, the Pod's service account,
    ``~/.kube/config``. A service account's token is read again when the server does not accept it (401), as it is
    when the kubelet rotates it.

    Args:
        kubeconfig: A kubeconfig file, or None.
        environment: The environment's variables.
        service_account: Folder of a Pod's service account.

    Raises:
        ConfigError: there is none, or it cannot be used; no content is quoted.
    """
    named = environment.get("KUBECONFIG", "")
    if kubeconfig is None and os.pathsep in named:
        raise ConfigError("KUBECONFIG names several files", hint="name one of them with --kubeconfig")
    if kubeconfig is None and not named and (service_account / "token").exists() and IN_CLUSTER[0] in environment:
        return _of_service_account(service_account, environment)
    path = kubeconfig or Path(named or DEFAULT_FILE)
    return _of_file(path.expanduser())


def _of_service_account(folder: Path, environment: Mapping[str, str]) -> SingleConfig:
    host, port = (environment.get(name, "") for name in IN_CLUSTER)
    host = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{host}:{port}", "certificate-authority": str(folder / "ca.crt")}
    document = {
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": str(folder / "token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "cluster", "user": "pod"}}],
        "current-context": "pod",
    }
    return _chosen(document, folder / "kubeconfig", f"service account {folder}")


def _of_file(path: Path) -> SingleConfig:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"kubeconfig {path} cannot be read: {reason}", hint=HINT) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        # Without its cause, which quotes the line: it may hold a token.
        raise ConfigError(f"kubeconfig {path} is not YAML{where}", hint=HINT) from None
    return _chosen(document, path, f"kubeconfig {path}")


def _chosen(document: Any, path: Path, source: str) -> SingleConfig:  # noqa: ANN401 - whatever the file holds
    """Return the current context of a kubeconfig."""
    try:
        config = KubeConfig.from_dict(document, fname=path).get()
    except LightkubeConfigError as error:
        raise ConfigError(f"{source}: {error}", hint=HINT) from error
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        # msgspec's errors name types and places, never values.
        raise ConfigError(f"{source} is not a kubeconfig: {type(error).__name__}: {error}", hint=HINT) from error
    if config is None:
        raise ConfigError(f"{source} has no current context", hint=HINT)
    user = config.user or User()
    _check_user(user, source)
    _check_data(config.cluster.certificate_auth_data, source)
    _check_data(user.client_cert_data, source)
    _check_data(user.client_key_data, source)
    if user.token_file is not None:
        user.token_file = str(config.abs_file(user.token_file))
    return config._replace(user=user)


def _check_user(user: User, source: str) -> None:
    if user.exec is not None and user.exec.apiVersion not in EXEC_VERSIONS:
        hint = "use a kubeconfig with a token or a client certificate"
        message = f"{source}: credential plugins of {user.exec.apiVersion} are not supported"
        raise ConfigError(message, hint=hint)
    token = user.token or ""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{source}: the token is not one word of printable ASCII", hint=HINT)


def _check_data(data: str | None, source: str) -> None:
    """Refuse what is no base64 here: lightkube leaves a temporary file open when it meets it."""
    try:
        base64.b64decode(data or "")
    except ValueError:
        raise ConfigError(f"{source}: a certificate or key is not base64", hint=HINT) from None
