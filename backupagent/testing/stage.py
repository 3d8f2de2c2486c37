"""The whole play: a Kubernetes, two buckets, druid, gardenlets, and a Shoot whose etcd is full and backed up.

::

    with MigrationStage(folder, objects=2000) as stage:
        stage.start_controller()
        stage.bind("seed-b")
        stage.gardenlet.join(120)
        assert stage.compare().equal

One API server stands for the garden cluster and both Seeds: the control plane's namespace has the same name on both,
and the source's is gone before the destination's is made.
"""

import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import yaml

from backupagent.cancel import Cancel
from backupagent.clock import SYSTEM_CLOCK, Clock
from backupagent.errors import KubeConflict
from backupagent.etcd.client import EtcdClient, HashKV
from backupagent.etcd.connection import EtcdAccess
from backupagent.kube.client import KubeClient
from backupagent.kube.manifests import timestamp
from backupagent.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ETCDS,
    PODS,
    SEEDS,
    SERVICE_ACCOUNTS,
    SHOOTS,
)
from backupagent.model.gardener import ETCD_MAIN, Shoot
from backupagent.model.migration import Step
from backupagent.testing import crds
from backupagent.testing.binding_proxy import BindingProxy
from backupagent.testing.control_plane import BackupPlan
from backupagent.testing.controller_process import ControllerProcess
from backupagent.testing.druid import Druid, Images, Readiness
from backupagent.testing.druid_etcd import MemberPorts
from backupagent.testing.garden import DESTINATION, GARDEN, PROJECT, SHOOT, SOURCE, TECHNICAL_ID, BucketAccess
from backupagent.testing.gardenlet import Gardenlet, Script
from backupagent.testing.keyspace import StoredKey, compare, read_everything
from backupagent.testing.kube_servers import KubeApiServer, KubeControllerManager
from backupagent.testing.kubelet import ApiAddress, Kubelet
from backupagent.testing.landscape import make_garden, make_shoot
from backupagent.testing.server_process import ServerFailed, http_get
from backupagent.testing.servers import MinioServer, require
from backupagent.testing.waiting import Patience
from backupagent.testing.workload import KubernetesLikeWriter
from backupagent.testing.wrapper import BINARY_VARIABLE, PAUSE_VARIABLE
