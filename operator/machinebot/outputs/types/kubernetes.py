"""`kubernetes`: access to an API server by a client certificate, as a kubeconfig or as a cluster Secret of Argo CD."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import yaml
from cryptography import x509
from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import override

from machinebot.outputs.base import Material, OutputType, Parts
from machinebot.outputs.trust import certificates
from machinebot.policy.credential import Purpose, Usage, Wish
from machinebot.policy.names import MAX_SUBJECT_PART, NAME_RULES, NameKind
from machinebot.resources.meta import MAX_NAME, Model, ObjectName, Rule, rules, written_as

KUBECONFIG: Final = "kubeconfig.yaml"
CA: Final = "ca.crt"
"""The CAs that sign the client certificate: what an API server is given as its client CA."""

ARGOCD_KEYS: Final = frozenset({"name", "server", "config"})
"""What every cluster of Argo CD has (Argo CD, "Declarative Setup", Clusters)."""
ARGOCD_LABEL: Final = "argocd.argoproj.io/secret-type"

MAX_NAMESPACES: Final = 256
"""Most namespaces that Argo CD is told to keep to."""

MAX_CA: Final = 32 * 1024
"""Longest bundle of an API server's CA certificates, characters."""

_SERVER: Final = written_as(
    r"^https://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$",
    "must be the https address of an API server, such as https://api.staging.example.test:6443",
)
_CONTEXT: Final = written_as(r"^[A-Za-z0-9][A-Za-z0-9._@:/-]*$", "must be a name such as staging, without blanks")
_PEM: Final = r"^-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s-]*$"
_PEM_MESSAGE: Final = (
    "must be CA certificates in PEM, as they are (not base64 of them), such as those in a kubeconfig's certificate-authority file"
)
_USER: Final = written_as(NAME_RULES[NameKind.KUBERNETES_USERS].whole, "must be a Kubernetes user such as deployer, in full")

_RULES: Final = rules(
    Rule(
        "(has(self.argoCD) && self.argoCD) || !(has(self.project) || has(self.namespaces) || has(self.clusterResources))",
        "project, namespaces and clusterResources are for Argo CD: set argoCD: true, or leave them out",
        ".argoCD",
    ),
    Rule(
        "!(has(self.argoCD) && self.argoCD) || !has(self.namespace)",
        "namespace is for kubectl; those that Argo CD keeps to are listed in namespaces: leave namespace out",
        ".namespace",
    ),
    Rule(
        "!has(self.clusterResources) || (has(self.namespaces) && size(self.namespaces) > 0)",
        "clusterResources counts only beside namespaces, without which Argo CD manages everything: leave it out, or set them",
        ".clusterResources",
    ),
)


def _read(bundle: str) -> str:
    """Refuses certificates that no client could read, before a credential is minted that could not be used.

    Raises:
        ValueError: One is cut off or no certificate.
    """
    try:
        x509.load_pem_x509_certificates(bundle.encode())
    except ValueError as error:
        raise ValueError(f"{_PEM_MESSAGE}; one of them cannot be read: is it cut off?") from error
    return bundle


class KubernetesSettings(Model):
    """Settings of a `kubernetes` output."""

    model_config = ConfigDict(json_schema_extra=_RULES)

    server: Annotated[str, _SERVER, Field(max_length=MAX_NAME)] | None = Field(
        default=None, description="Address of the API server. Default: the cluster that Machinebot runs in."
    )
    certificate_authority: (
        Annotated[
            str,
            Field(
                pattern=_PEM,
                max_length=MAX_CA,
                json_schema_extra=rules(Rule("self.startsWith('-----BEGIN CERTIFICATE-----')", _PEM_MESSAGE)),
            ),
            AfterValidator(_read),
        ]
        | None
    ) = Field(
        default=None,
        description="CA certificates of that API server, PEM. Default: those of the cluster that Machinebot runs in.",
    )
    context: Annotated[str, _CONTEXT, Field(max_length=MAX_NAME)] | None = Field(
        default=None,
        description="Name of the context and cluster in the kubeconfig, and of the cluster in Argo CD. Default: the clusterName.",
    )
    namespace: ObjectName | None = Field(
        default=None, description="Namespace that kubectl uses where none is named. Default: default."
    )
    user: Annotated[str, _USER, Field(max_length=MAX_SUBJECT_PART)] | None = Field(
        default=None,
        description=(
            "Which of `allow.kubernetesUsers` the certificate names. Needed where the roles allow several; where they allow "
            "none, it names the bot: bot:NAMESPACE:NAME."
        ),
    )
    argo_cd: bool = Field(
        default=False,
        alias="argoCD",
        description=(
            "Write the Secret in the form of an Argo CD cluster instead of a kubeconfig: the keys name, server and config, and "
            "the label argocd.argoproj.io/secret-type. The output belongs into Argo CD's namespace."
        ),
    )
    project: ObjectName | None = Field(
        default=None, description="With argoCD: the one AppProject that may use the cluster. Default: every project."
    )
    namespaces: Annotated[tuple[ObjectName, ...], Field(max_length=MAX_NAMESPACES)] = Field(
        default=(),
        description=(
            "With argoCD: the namespaces that Argo CD keeps to there, so that it needs no right to list the whole cluster. "
            "Default: all of them, and what has no namespace."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    cluster_resources: bool | None = Field(
        default=None, description="With argoCD and namespaces: whether Argo CD manages what has no namespace too. Default: false."
    )


def ask(settings: KubernetesSettings, /) -> Wish:
    """A client certificate with the users and groups of the roles."""
    users = () if settings.user is None else (settings.user,)
    return Wish(usages=frozenset({Usage.KUBERNETES}), names={NameKind.KUBERNETES_USERS: users})


def render(settings: KubernetesSettings, material: Material, /) -> Mapping[str, bytes]:
    """A kubeconfig with everything in it, or the form of Argo CD."""
    server = settings.server or material.cluster.server
    authority = (settings.certificate_authority or "").encode() or material.cluster.certificate_authority
    name = settings.context or material.trust.cluster_name
    certificate, key = material.issued.x509_certificate or b"", material.key.pkcs8
    if settings.argo_cd:
        tls = {"insecure": False, "caData": _base64(authority), "certData": _base64(certificate), "keyData": _base64(key)}
        config = json.dumps({"tlsClientConfig": tls}, indent=2)
        cluster = {"name": name, "server": server, "config": config, **_argo_cd_scope(settings)}
        return {key: text.encode() for key, text in cluster.items()}
    user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": settings.namespace or "default"}}],
        "current-context": name,
        "users": [{"name": name, "user": user}],
    }
    return {
        KUBECONFIG: yaml.safe_dump(kubeconfig, sort_keys=False, width=2**20).encode(),
        CA: certificates(material.trust.of(Purpose.KUBERNETES)),
    }


def keys(settings: KubernetesSettings, /) -> frozenset[str]:
    """Those of Argo CD, or a kubeconfig and our CAs."""
    return ARGOCD_KEYS | _argo_cd_scope(settings).keys() if settings.argo_cd else frozenset({KUBECONFIG, CA})


def parts(settings: KubernetesSettings, data: Mapping[str, bytes], /) -> Parts:
    """The key and the certificate that are embedded."""
    try:
        if settings.argo_cd:
            tls = json.loads(data["config"])["tlsClientConfig"]
            key, certificate = tls["keyData"], tls["certData"]
        else:
            user = yaml.load(data[KUBECONFIG], Loader=_Loader)["users"][0]["user"]  # noqa: S506 - a safe loader
            key, certificate = user["client-key-data"], user["client-certificate-data"]
        return Parts(
            private_key=base64.b64decode(key, validate=True),
            certificates={"the client certificate": base64.b64decode(certificate, validate=True)},
        )
    except (yaml.YAMLError, binascii.Error, LookupError, TypeError, RecursionError) as error:
        raise ValueError("no kubeconfig") from error


def labels(settings: KubernetesSettings, /) -> Mapping[str, str]:
    """By which Argo CD finds its clusters."""
    return {ARGOCD_LABEL: "cluster"} if settings.argo_cd else {}


class _Loader(yaml.SafeLoader):
    """Reads plain YAML, without aliases, by which a small text could become a large one."""

    @override
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _argo_cd_scope(settings: KubernetesSettings) -> Mapping[str, str]:
    """What Argo CD shall do there, in its keys; those that are not set are absent."""
    scope: dict[str, str] = {}
    if settings.project is not None:
        scope["project"] = settings.project
    if settings.namespaces:
        scope["namespaces"] = ",".join(settings.namespaces)
    if settings.cluster_resources is not None:
        scope["clusterResources"] = "true" if settings.cluster_resources else "false"
    return scope


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


OUTPUT: Final = OutputType(
    name="kubernetes",
    description="Access to an API server by a client certificate: kubeconfig.yaml, ca.crt; or a cluster Secret of Argo CD.",
    settings=KubernetesSettings,
    ask=ask,
    render=render,
    keys=keys,
    parts=parts,
    labels=labels,
)
