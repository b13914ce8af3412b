"""Platforms that bots join from, on this machine: their issuers and metadata services as processes and servers, their variables."""

import contextlib
import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from controlplane.cluster import ControlPlane
from controlplane.ports import LOOPBACK
from machinebot.issuers.fetching import Issuers
from machinebot.kube.tokens import TokenReviews
from support.azure import Issued, issue
from support.clouds import AWS, AWS_HOSTS, AZURE_HOSTS, Cloud, serving_aws, today, written
from support.issuing import public_jwk, rsa_key, signed
from support.joining import pod_token
from support.local_http import serve
from support.platforms import SAMPLES
from workbench.chart import CLUSTER_NAME
from workbench.openid import OpenIDProvider

NAMESPACE: Final = "ci"
ACCOUNT: Final = "deployer"
PASSWORD: Final = "the-jobs-own"
"""What a platform gives to a job so that it may ask for an ID token."""

BUILDKITE: Final = "https://agent.buildkite.com"
BUILDKITE_SUBJECT: Final = "organization:acme:pipeline:web:ref:refs/heads/main:commit:714a629c:step:"
BUILDKITE_JOB: Final = {
    "sub": BUILDKITE_SUBJECT,
    "organization_slug": "acme",
    "pipeline_slug": "web",
    "organization_id": "01890d3c-0000-4f3e-8b1d-00000000000a",
    "pipeline_id": "01890d3c-0000-4f3e-8b1d-00000000000b",
    "build_branch": "main",
}
GKE_SUBJECT: Final = "117479586261244650001"
GKE_POD: Final = {"sub": GKE_SUBJECT, "email": "deployer@acme-web.iam.gserviceaccount.com", "email_verified": True}
EKS: Final = "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"

Variables = Callable[[], Mapping[str, str]]


@dataclass
class World:
    """All platforms.

    Attributes:
        plane: The cluster that pods are of.
        web: The authority of every server's certificate.
        trusted: Its certificate as a file, PEM.
        provider: The OpenID issuers.
        aws: AWS.
        azure: Azure.
        connect: From host names to where they are.
        tokens: Address of the service that gives ID tokens to jobs of GitHub and Azure DevOps.
        metadata: Address of the metadata services of all clouds: their paths differ.
    """

    plane: ControlPlane
    web: Issued
    trusted: Path
    provider: OpenIDProvider
    aws: AWS
    azure: Cloud
    connect: Mapping[str, tuple[str, int]]
    tokens: str = ""
    metadata: str = ""

    def outside(self, reviews: TokenReviews) -> Issuers:
        """What an operator asks."""
        tls = ssl.create_default_context(cafile=self.trusted)
        return Issuers(review=reviews.review, ssl_context=tls, connect=self.connect)

    def id_token(self, platform: str, audience: str | None = None) -> str:
        """An ID token of the job, machine or pod that the sample of the platform is."""
        sample = SAMPLES[platform]
        return self.provider.token(sample.issuer, audience or sample.audience, sample.claims["sub"])

    def pod_token(self) -> str:
        """A token of a pod as the kubelet mounts it."""
        return pod_token(self.plane, NAMESPACE, ACCOUNT, audience=CLUSTER_NAME)

    def eks_token(self) -> str:
        """The same, of a cluster of EKS."""
        now = int(datetime.now(UTC).timestamp())
        inside = {"namespace": NAMESPACE, "serviceaccount": {"name": ACCOUNT}, "pod": {"name": "deployer-1"}}
        subject = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
        claims = {"iss": EKS, "aud": [CLUSTER_NAME], "sub": subject, "iat": now, "nbf": now, "exp": now + 600}
        return signed({**claims, "kubernetes.io": inside}, rsa_key("eks"), kid="eks-1")

    # --- what the servers answer ---------------------------------------------------------------------------------------

    def give_token(self, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """The services that give ID tokens to jobs."""
        if headers.get("Authorization") != f"Bearer {PASSWORD}":
            return 401, b"{}"
        if path == "/github/token" and query["api-version"] == ["2.0"]:
            return 200, json.dumps({"count": 1, "value": self.id_token("github", query["audience"][0])}).encode()
        if path == "/azure-devops/oidctoken" and query["api-version"] == ["7.1"]:
            return 200, json.dumps({"oidcToken": self.id_token("azureDevOps")}).encode()
        return 404, b"{}"

    def tell_machine(self, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """The metadata services."""
        if path.startswith("/metadata/"):
            return self.azure.metadata(path, query, headers)
        if path.startswith("/latest/"):
            return self._tell_ec2(path, headers)
        account = path.removeprefix("/computeMetadata/v1/instance/service-accounts/").removesuffix("/identity")
        if headers.get("Metadata-Flavor") != "Google" or query.get("format") != ["full"]:
            return 403, b""
        if account == "default":
            return 200, self.id_token("gcp", query["audience"][0]).encode()
        if account == "pod":
            return 200, self.provider.token(SAMPLES["gcp"].issuer, query["audience"][0], GKE_SUBJECT).encode()
        return 404, b""

    def _tell_ec2(self, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if path == "/latest/api/token" and headers.get("x-aws-ec2-metadata-token-ttl-seconds"):
            return 200, PASSWORD.encode()
        if headers.get("x-aws-ec2-metadata-token") != PASSWORD:
            return 401, b""
        place = "/latest/meta-data/iam/security-credentials/"
        if path == place:
            return 200, b"deployer"
        if path != f"{place}deployer":
            return 404, b""
        role = self.aws.role
        body = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": role["AccessKeyId"],
            "SecretAccessKey": role["SecretAccessKey"],
            "Token": role["SessionToken"],
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        return 200, json.dumps(body).encode()

    # --- what a job or a machine finds ----------------------------------------------------------------------------------

    def variables(self, platform: str, files: Path) -> Mapping[str, str]:
        """The environment that the platform makes for a job.

        Args:
            platform: Folder of the example.
            files: Where it puts files.
        """
        made: Mapping[str, Variables] = {
            "github": lambda: {
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.tokens}/github/token?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": PASSWORD,
            },
            "azure-devops": lambda: {"SYSTEM_OIDCREQUESTURI": f"{self.tokens}/azure-devops/oidctoken"},
            "circleci": lambda: {
                "CIRCLE_OIDC_TOKEN": "of an older form",
                "CIRCLE_OIDC_TOKEN_V2": self.id_token("circleci"),
            },
            "bitbucket": lambda: {"BITBUCKET_STEP_OIDC_TOKEN": self.id_token("bitbucket")},
            "spacelift": lambda: {"SPACELIFT_OIDC_TOKEN": self.id_token("spacelift")},
            "terraform-cloud": lambda: {"TFC_WORKLOAD_IDENTITY_TOKEN": self.id_token("terraformCloud", CLUSTER_NAME)},
            "ec2": lambda: {
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata,
                "AWS_CONFIG_FILE": str(files / "none"),
                "AWS_SHARED_CREDENTIALS_FILE": str(files / "none"),
            },
            "eks": lambda: _mounted(files, self.eks_token()),
            "kubernetes": lambda: _mounted(files, self.pod_token()),
            "in-cluster": lambda: _mounted(files, self.pod_token()),
        }
        return made[platform]() if platform in made else {}

    def filled_in(self, variables: Mapping[str, str]) -> dict[str, str]:
        """What the variables of one step amount to, which the platform fills in."""
        found = {}
        for name, value in variables.items():
            if value == "$(System.AccessToken)":
                found[name] = PASSWORD
            else:  # the audience of an `id_tokens` of GitLab
                found[name] = self.id_token("gitlab", value)
        return found


def _mounted(files: Path, token: str) -> dict[str, str]:
    """The token of a pod, where the kubelet has put it."""
    path = files / "token"
    path.write_text(token)
    return {"KUBERNETES_TOKEN_PATH": str(path)}


@contextlib.contextmanager
def serving_platforms(plane: ControlPlane, directory: Path) -> Iterator[World]:
    """Every platform for the length of the block.

    Args:
        plane: The cluster that pods are of.
        directory: For their files; must exist.
    """
    web = issue("Web Root", is_ca=True, **today())
    trusted, _ = written(directory, "web", web)
    users: dict[str, list[dict[str, Any]]] = {
        sample.issuer: [{name: value for name, value in sample.claims.items() if name != "nbf"}] for sample in SAMPLES.values()
    }
    users[SAMPLES["gcp"].issuer].append(dict(GKE_POD))
    users[BUILDKITE] = [dict(BUILDKITE_JOB)]
    issuers = {str(urlsplit(issuer).hostname) for issuer in users}
    names = ("localhost", *sorted(issuers | {str(urlsplit(EKS).hostname), *AZURE_HOSTS}))
    certificate, key = written(directory, "platforms", issue("platforms", web, names=names, **today()))
    for part in ("azure", "moto"):
        (directory / part).mkdir()
    azure = Cloud(directory / "azure")
    jwks = json.dumps({"keys": [public_jwk(rsa_key("eks"), kid="eks-1")]}).encode()

    def eks(path: str, _query: Mapping[str, list[str]], _headers: Mapping[str, str]) -> tuple[int, bytes]:
        configuration = json.dumps({"issuer": EKS, "jwks_uri": f"{EKS}/keys"}).encode()
        place = urlsplit(EKS).path
        return {f"{place}/.well-known/openid-configuration": (200, configuration), f"{place}/keys": (200, jwks)}.get(
            path, (404, b"")
        )

    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(
            OpenIDProvider(directory, certificate=certificate, key=key, authorities=trusted, users=users)
        )
        aws = stack.enter_context(serving_aws(web, directory / "moto"))
        ports = {
            **dict.fromkeys(issuers, provider.port),
            **dict.fromkeys(AWS_HOSTS, aws.server.port),
            **dict.fromkeys(AZURE_HOSTS, stack.enter_context(serve(azure.services, certificate=certificate, key=key))),
            str(urlsplit(EKS).hostname): stack.enter_context(serve(eks, certificate=certificate, key=key)),
        }
        connect = {host: (LOOPBACK, port) for host, port in ports.items()}
        world = World(plane, web, trusted, provider, aws, azure, connect)
        world.tokens = f"https://localhost:{stack.enter_context(serve(world.give_token, certificate=certificate, key=key))}"
        world.metadata = f"http://{LOOPBACK}:{stack.enter_context(serve(world.tell_machine))}"
        yield world


def base_environment() -> dict[str, str]:
    """What every shell has."""
    return {"LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
