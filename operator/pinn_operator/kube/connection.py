"""Where the API server is and how to log in: a kubeconfig that was named, or the pod's service account. Never a guess.

The default kubeconfig of the user (`~/.kube/config`) is not read: an operator started by accident would act on whatever
cluster somebody last looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from pinn_operator.kube.errors import CredentialsError

POOL_SIZE = 32
"""Connections to the API server at the same time; more passes than this wait for one."""


@dataclass(frozen=True, slots=True)
class Login:
    """What kopf needs for its own connection. Paths and the proxy are None where not used."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    private_key_path: str | None
    token: str | None
    insecure: bool
    proxy: str | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """A kubeconfig (and a context of it), or the service account when `kubeconfig` is None."""

    kubeconfig: Path | None = None
    context: str | None = None
    token_path: Path = Path(SERVICE_TOKEN_FILENAME)
    ca_path: Path = Path(SERVICE_CERT_FILENAME)

    @classmethod
    def find(
        cls, *, kubeconfig: Path | None, context: str | None, environ: Mapping[str, str] = os.environ
    ) -> Credentials:
        """Raises CredentialsError when no kubeconfig was named and this is not a pod."""
        if kubeconfig is not None:
            return cls(kubeconfig=kubeconfig, context=context)
        if environ.get(SERVICE_HOST_ENV_NAME):
            return cls()
        raise CredentialsError(
            "no cluster: give --kubeconfig (or set KUBECONFIG), or run in a pod with a service account; "
            "~/.kube/config is not used unless it is named"
        )

    async def load(self) -> Configuration:
        """Read it all anew. Raises CredentialsError that names the file."""
        configuration = Configuration()
        try:
            if self.kubeconfig is not None:
                await load_kube_config(
                    str(self.kubeconfig), self.context, client_configuration=configuration, persist_config=False
                )
            else:
                loader = InClusterConfigLoader(str(self.token_path), str(self.ca_path))
                await asyncio.to_thread(loader.load_and_set, configuration)
        except (ConfigException, OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise CredentialsError(
                f"{self.kubeconfig or self.token_path}: cannot be used to log in: {error}"
            ) from error
        configuration.connection_pool_maxsize = POOL_SIZE
        # A proxy is used when the kubeconfig names one, not because the shell that started us had one.
        configuration.client_session_kwargs = {"trust_env": False}
        # Python 3.13 also asks for what RFC 5280 says certificates should carry. The authorities of many clusters are
        # older than that; chain, dates and host name are verified all the same, as kubectl does it.
        configuration.disable_strict_ssl_verification = True
        return configuration

    async def login(self) -> Login:
        """The same, for kopf."""
        configuration = await self.load()
        bearer = configuration.api_key.get("BearerToken")
        return Login(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            # The loaders disagree about the scheme's case; kopf writes its own.
            token=bearer.split(" ", 1)[-1].strip() if bearer else None,
            insecure=not configuration.verify_ssl,
            proxy=configuration.proxy,
        )
