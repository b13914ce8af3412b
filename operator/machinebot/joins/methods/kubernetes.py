"""`kubernetes`: a pod, by the token of its ServiceAccount, of this cluster or of another one.

Only tokens bound to a pod are taken: they end with it. One that was made for people to keep is refused. The one exception is
written into a rule (`unbound`), for the operator of another cluster that joins for its bots: it asks for their tokens by
TokenRequest, and Kubernetes binds no token to a pod of another ServiceAccount.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from machinebot.errors import Denied, Invalid
from machinebot.joins import jwts
from machinebot.joins.base import Asked, JoinMethod, NotMatched, Outside, Proved, TokenProof
from machinebot.joins.jwts import Expected, VerifiedClaims
from machinebot.joins.keysets import MAX_JWKS, static_keys
from machinebot.joins.reviews import pod_of, verify_review
from machinebot.resources.meta import Model, Rule, rules, written_as

MAX_LIFE: Final = timedelta(minutes=30)
"""Longest life of a token of another cluster: nobody there tells us that its pod is gone. Kubernetes gives no less than ten."""

_ACCOUNT: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?:[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


class KubernetesRule(Model):
    """One rule: the ServiceAccount that is let in."""

    service_account: Annotated[
        str,
        written_as(_ACCOUNT, "must be namespace:name of one ServiceAccount, such as ci:deployer; no wildcards"),
        Field(max_length=317),
    ] = Field(description="Namespace and name of the ServiceAccount, with a colon between them.")
    unbound: bool = Field(
        default=False,
        description=(
            "Also lets in tokens that are bound to no pod, of 30 minutes at most, as the Machinebot operator of another cluster "
            "asks for to join for its bots (spec.remote of MachineAuthority there). Whoever may ask for tokens of this "
            "ServiceAccount in that cluster joins by it: the operator, and whom RBAC gives create on serviceaccounts/token."
        ),
    )


class StaticKeySet(Model):
    """Keys that are given here."""

    jwks: Annotated[str, Field(min_length=2, max_length=MAX_JWKS)] = Field(
        description="The JSON Web Key Set of the other cluster: what `kubectl get --raw /openid/v1/jwks` prints there."
    )


class Issuer(Model):
    """Keys that are fetched."""

    issuer: Annotated[
        str,
        written_as(
            r"^https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$",
            "must be the https address of the cluster's issuer: kubectl get --raw /.well-known/openid-configuration shows it",
        ),
        Field(max_length=512),
    ] = Field(description="The issuer of the other cluster's tokens, from which its keys are fetched.")


class KubernetesSettings(Model):
    """Settings of `kubernetes`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.staticJWKS) == (has(self.type) && self.type == 'static_jwks')",
                "staticJWKS goes with type: static_jwks, and only with it",
            ),
            Rule(
                "has(self.oidc) == (has(self.type) && self.type == 'oidc')",
                "oidc goes with type: oidc, and only with it",
            ),
            Rule(
                "!self.allow.exists(rule, has(rule.unbound) && rule.unbound) || (has(self.type) && self.type != 'in_cluster')",
                "unbound goes with type: static_jwks or oidc: bots of the operator's own cluster need no join token",
                ".allow",
            ),
        )
    )

    type: Literal["in_cluster", "static_jwks", "oidc"] = Field(
        default="in_cluster",
        description=(
            "`in_cluster`: pods of the operator's own cluster, asked by TokenReview. `static_jwks`: pods of another cluster, its "
            "keys in staticJWKS. `oidc`: pods of another cluster whose keys are fetched from its issuer."
        ),
    )
    allow: Annotated[tuple[KubernetesRule, ...], Field(min_length=1, max_length=32)] = Field(
        description="Who is let in: one that fits is enough."
    )
    static_jwks: StaticKeySet | None = Field(
        default=None, alias="staticJWKS", description="Keys of another cluster, for type: static_jwks."
    )
    oidc: Issuer | None = Field(default=None, description="Issuer of another cluster, for type: oidc.")


async def verify(settings: KubernetesSettings, proof: TokenProof, asked: Asked, outside: Outside, /) -> Proved:
    """Holds the token against the cluster that it is of, and its ServiceAccount against the rules."""
    token = proof.token.get_secret_value()
    if settings.type == "in_cluster":
        account, pod = await _reviewed(token, asked, outside)
    else:
        account, pod = _claimed(await _verified(settings, token, asked, outside))
    attributes = {"serviceAccount": account, **({"pod": pod[:253]} if pod else {})}
    proved = Proved(subject=f"system:serviceaccount:{account}", attributes=attributes)
    rules_of_account = [rule for rule in settings.allow if rule.service_account == account]
    if not rules_of_account:
        raise NotMatched(proved)
    # Nothing bounds the life of a token of our own cluster that is bound to no pod, so that no rule takes one.
    unbound = settings.type != "in_cluster" and any(rule.unbound for rule in rules_of_account)
    if not pod and not unbound:
        raise Denied(
            "TokenNotBound",
            "the token is not bound to a pod: mount it as a projected volume, or make it by kubectl create token with "
            "--bound-object-kind Pod; where the operator of another cluster joins, its rule needs unbound: true",
        )
    return proved


def warnings(settings: KubernetesSettings, /) -> tuple[str, ...]:
    """Which ServiceAccounts join without a pod."""
    return tuple(
        f"the rule for {rule.service_account} lets in tokens that are bound to no pod: whoever may ask for tokens of that "
        "ServiceAccount in the other cluster joins by it; see docs/remote.md"
        for rule in settings.allow
        if rule.unbound
    )


async def _reviewed(token: str, asked: Asked, outside: Outside) -> tuple[str, str]:
    """ServiceAccount and pod of a token of our own cluster."""
    if not 0 < len(token) <= jwts.MAX_TOKEN:
        raise Denied("TokenUnreadable", f"a token has 1 to {jwts.MAX_TOKEN} characters: send the one that is mounted")
    status = await outside.review(token, asked.cluster_name)
    account = verify_review(status, audience=asked.cluster_name)
    return f"{account.namespace}:{account.name}", pod_of(status)


async def _verified(settings: KubernetesSettings, token: str, asked: Asked, outside: Outside) -> VerifiedClaims:
    """Claims of a token of another cluster."""
    unverified_token = jwts.take_apart(token)
    if settings.static_jwks is not None:
        keys, issuer = static_keys(settings.static_jwks.jwks), None  # these keys are that cluster's alone
    elif settings.oidc is not None:
        issuer = settings.oidc.issuer
        keys = await outside.keys(issuer, unverified_token.kid)
    else:
        raise Invalid("InvalidSpec", f"type: {settings.type} needs its keys: write staticJWKS or oidc")
    expected = Expected(issuer=issuer, audience=asked.cluster_name, now=asked.now, longest=MAX_LIFE)
    return jwts.verified_claims(unverified_token, keys, expected)


def _claimed(verified: VerifiedClaims) -> tuple[str, str]:
    """ServiceAccount and pod of a token of another cluster (Kubernetes, ServiceAccount token volume projection)."""
    inside = verified.at("kubernetes.io")
    if not isinstance(inside, Mapping):
        raise Denied(
            "NotAServiceAccount", "the token is not one of a ServiceAccount: join with a token that is mounted into a pod"
        )
    namespace, name, pod = verified.text("kubernetes.io", "namespace"), _name(inside, "serviceaccount"), _name(inside, "pod")
    if not namespace or not name or verified.text("sub") != f"system:serviceaccount:{namespace}:{name}":
        raise Denied(
            "NotAServiceAccount", "the token does not name one ServiceAccount: join with a token that is mounted into a pod"
        )
    return f"{namespace}:{name}", pod


def _name(inside: Mapping[str, Any], kind: str) -> str:
    entry = inside.get(kind)
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else ""


METHOD: Final = JoinMethod(
    name="kubernetes",
    field="kubernetes",
    description="A pod of this cluster or of another one, by the token of its ServiceAccount.",
    settings=KubernetesSettings,
    proof=TokenProof,
    verify=verify,
    audience=lambda _settings, cluster_name: cluster_name,
    warnings=warnings,
)
