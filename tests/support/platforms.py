"""One good token of each platform, as its documentation shows it, and a rule that names every field. Read as tables by tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machinebot.joins.registry import JOIN_METHODS, MachineJoinToken, parse_join_token
from support.issuing import CLUSTER, SECONDS, Json

ORGANIZATION = "5d9c6f6e-6a0d-4c58-9a5b-7a1c3f3b8a10"


@dataclass(frozen=True)
class Sample:
    """One platform.

    Attributes:
        issuer: `iss` of the token.
        audience: `aud` of the token.
        claims: What else the token has: everything that the platform is known to send.
        rule: Every field of a rule, each fitting those claims.
        settings: What stands beside `allow`.
        asked: Audience that a client is told to ask for.
        fits: More values that fit, by field.
        misses: Values that nearly fit, by field.
    """

    issuer: str
    audience: str
    claims: Json
    rule: Json
    settings: Json = field(default_factory=dict)
    asked: str | None = CLUSTER
    fits: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    misses: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def token(self, **changes: Any) -> Json:
        """All claims of a good token, some changed; `...` takes one away."""
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": SECONDS - 5,
            "exp": SECONDS + 300,
            "jti": "0f4a",
            **self.claims,
        }
        return {name: value for name, value in (claims | changes).items() if value is not ...}


def join_token(name: str, settings: Mapping[str, Any]) -> MachineJoinToken:
    body = {"metadata": {"name": "t", "namespace": "ci", "uid": "u"}, "spec": {"bot": "deployer", name: dict(settings)}}
    return parse_join_token(body)


def with_rules(name: str, *rules: Mapping[str, Any], **settings: Any) -> MachineJoinToken:
    """A join token of that platform, as its sample has it, with these rules."""
    return join_token(name, {**SAMPLES[name].settings, "allow": [dict(rule) for rule in rules], **settings})


SAMPLES: dict[str, Sample] = {
    "github": Sample(
        issuer="https://token.actions.githubusercontent.com",
        audience=CLUSTER,
        claims={
            "sub": "repo:acme/web:environment:production",
            "repository": "acme/web",
            "repository_id": "1296269",
            "repository_owner": "acme",
            "repository_owner_id": "583231",
            "repository_visibility": "private",
            "workflow": "Deploy",
            "workflow_ref": "acme/web/.github/workflows/deploy.yml@refs/heads/main",
            "workflow_sha": "c2b0f1a",
            "job_workflow_ref": "acme/ci/.github/workflows/shared.yml@refs/tags/v1",
            "job_workflow_sha": "9d1f",
            "environment": "production",
            "environment_node_id": "EN_kwDO",
            "actor": "octocat",
            "actor_id": "583231",
            "ref": "refs/heads/main",
            "ref_type": "branch",
            "ref_protected": "true",
            "base_ref": "",
            "head_ref": "",
            "event_name": "push",
            "enterprise": "acme",
            "enterprise_id": "77",
            "check_run_id": "4711",
            "run_id": "30433642",
            "run_attempt": "1",
            "run_number": "12",
            "runner_environment": "github-hosted",
            "sha": "c2b0f1a",
        },
        rule={
            "repositoryID": "1296269",
            "repositoryOwnerID": "583231",
            "sub": "repo:acme/*",
            "repository": "acme/w?b",
            "repositoryOwner": "acme",
            "workflow": "Deploy",
            "jobWorkflowRef": "acme/ci/.github/workflows/shared.yml@refs/tags/*",
            "environment": "prod*",
            "actor": "octocat",
            "ref": "refs/heads/*",
            "refType": "branch",
            "eventName": "push",
        },
        fits={"sub": ("repo:acme/web:environment:production",), "repository": ("acme/*", "*/web")},
        misses={
            "repository": ("acme/we", "ACME/web", "evil-acme/web", "acme/web/"),
            "repositoryID": ("129626", "1296269 ", "12*"),
            "sub": ("repo:acme/web", "repo:acme/web:environment:productio"),
            "refType": ("bra*",),
            "eventName": ("pull_request_target", "*"),
        },
    ),
    "gitlab": Sample(
        issuer="https://gitlab.com",
        audience=CLUSTER,
        claims={
            "sub": "project_path:acme/shop/web:ref_type:branch:ref:main",
            "namespace_id": "72",
            "namespace_path": "acme/shop",
            "project_id": "20",
            "project_path": "acme/shop/web",
            "project_visibility": "private",
            "job_namespace_id": "72",
            "job_namespace_path": "acme/shop",
            "job_project_id": "20",
            "job_project_path": "acme/shop/web",
            "user_id": "1",
            "user_login": "sample-user",
            "user_email": "sample-user@example.test",
            "user_access_level": "developer",
            "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}],
            "groups_direct": ["acme", "acme/shop"],
            "pipeline_id": "574",
            "pipeline_source": "push",
            "job_id": "302",
            "ref": "main",
            "ref_type": "branch",
            "ref_path": "refs/heads/main",
            "ref_protected": "true",
            "environment": "production",
            "environment_protected": "false",
            "environment_action": "start",
            "deployment_tier": "production",
            "deployment_action": "start",
            "runner_id": 1,
            "runner_environment": "gitlab-hosted",
            "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "ci_config_ref_uri": "gitlab.com/acme/shop/web//.gitlab-ci.yml@refs/heads/main",
            "ci_config_sha": "714a629c",
            "nbf": SECONDS - 5,
        },
        rule={
            "projectID": "20",
            "namespaceID": "72",
            "projectPath": "acme/*/web",
            "namespacePath": "acme/*",
            "sub": "project_path:acme/shop/web:*",
            "ref": "ma*",
            "refType": "branch",
            "refProtected": True,
            "environment": "production",
            "environmentProtected": False,
            "deploymentTier": "production",
            "pipelineSource": "push",
            "userID": "1",
            "userLogin": "sample-user",
            "userEmail": "sample-user@example.test",
            "ciConfigRefURI": "gitlab.com/acme/shop/web//.gitlab-ci.yml@refs/heads/main",
            "ciConfigSHA": "714a629c",
            "projectVisibility": "private",
        },
        misses={"environment": ("prod*",), "projectID": ("2", "020"), "projectPath": ("acme/shop", "acme/shop/webs")},
    ),
    "circleci": Sample(
        issuer=f"https://oidc.circleci.com/org/{ORGANIZATION}",
        audience=ORGANIZATION,
        asked=None,
        settings={"organizationID": ORGANIZATION},
        claims={
            "sub": f"org/{ORGANIZATION}/project/0f5d/user/1b2c",
            "oidc.circleci.com/org-id": ORGANIZATION,
            "oidc.circleci.com/project-id": "2f2d3b0c-9c5c-4f3e-8b1d-000000000001",
            "oidc.circleci.com/context-ids": ["3f2d3b0c-0000-4f3e-8b1d-000000000002", "3f2d3b0c-0000-4f3e-8b1d-000000000003"],
            "oidc.circleci.com/job-id": "j",
            "oidc.circleci.com/pipeline-id": "p",
            "oidc.circleci.com/pipeline-definition-id": "d",
            "oidc.circleci.com/workflow-id": "w",
            "oidc.circleci.com/vcs-origin": "github.com/acme/web",
            "oidc.circleci.com/vcs-ref": "refs/heads/main",
            "oidc.circleci.com/ssh-rerun": False,
        },
        rule={"projectID": "2f2d3b0c-9c5c-4f3e-8b1d-000000000001", "contextID": "3f2d3b0c-0000-4f3e-8b1d-000000000003"},
        fits={"contextID": ("3f2d3b0c-0000-4f3e-8b1d-000000000002",)},
        misses={"contextID": ("3f2d3b0c", "*")},
    ),
    "spacelift": Sample(
        issuer="https://acme.app.spacelift.io",
        audience="acme.app.spacelift.io",
        asked=None,
        settings={"hostname": "acme.app.spacelift.io"},
        claims={
            "sub": "space:production-01HE:stack:network:run_type:TRACKED:scope:write",
            "spaceId": "production-01HE",
            "spacePath": "/root/production-01HE",
            "callerType": "stack",
            "callerId": "network",
            "runType": "TRACKED",
            "runId": "01HF",
            "scope": "write",
        },
        rule={"spaceID": "production-01HE", "callerID": "net*", "callerType": "stack", "scope": "write"},
        fits={"spaceID": ("production-*",), "callerID": ("network",)},
        misses={"callerType": ("stac?",), "callerID": ("net", "networks")},
    ),
    "terraformCloud": Sample(
        issuer="https://app.terraform.io",
        audience=CLUSTER,
        claims={
            "sub": "organization:acme:project:shop:workspace:web:run_phase:apply",
            "terraform_organization_id": "org-GRNbCjYNpBB6NEBk",
            "terraform_organization_name": "acme",
            "terraform_project_id": "prj-vegSA59s1XPwMr2t",
            "terraform_project_name": "shop",
            "terraform_workspace_id": "ws-mbsd5E3Ktt5Rg2Xm",
            "terraform_workspace_name": "web",
            "terraform_full_workspace": "organization:acme:project:shop:workspace:web",
            "terraform_run_id": "run-X3n1AUXNGWbfECsJ",
            "terraform_run_phase": "apply",
            "nbf": SECONDS - 5,
        },
        rule={
            "organizationID": "org-GRNbCjYNpBB6NEBk",
            "organizationName": "acme",
            "projectID": "prj-vegSA59s1XPwMr2t",
            "projectName": "shop",
            "workspaceID": "ws-mbsd5E3Ktt5Rg2Xm",
            "workspaceName": "web",
            "runPhase": "apply",
        },
        misses={"organizationName": ("acm*", "Acme")},
    ),
    "bitbucket": Sample(
        issuer="https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
        audience="ari:cloud:bitbucket::workspace/0f5d3b0c-9c5c-4f3e-8b1d-000000000001",
        asked=None,
        settings={
            "identityProviderURL": "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
            "audience": "ari:cloud:bitbucket::workspace/0f5d3b0c-9c5c-4f3e-8b1d-000000000001",
        },
        claims={
            "sub": "{9d1f3b0c-9c5c-4f3e-8b1d-000000000002}:{7e1f3b0c-9c5c-4f3e-8b1d-000000000003}",
            "workspaceUuid": "{0f5d3b0c-9c5c-4f3e-8b1d-000000000001}",
            "repositoryUuid": "{9d1f3b0c-9c5c-4f3e-8b1d-000000000002}",
            "stepUuid": "{7e1f3b0c-9c5c-4f3e-8b1d-000000000003}",
            "pipelineUuid": "{6e1f3b0c-9c5c-4f3e-8b1d-000000000004}",
            "deploymentEnvironmentUuid": "{5e1f3b0c-9c5c-4f3e-8b1d-000000000005}",
            "branchName": "main",
            "pullRequestId": 7,
        },
        rule={
            "workspaceUUID": "{0f5d3b0c-9c5c-4f3e-8b1d-000000000001}",
            "repositoryUUID": "{9d1f3b0c-9c5c-4f3e-8b1d-000000000002}",
            "deploymentEnvironmentUUID": "{5e1f3b0c-9c5c-4f3e-8b1d-000000000005}",
            "branchName": "main",
        },
        misses={"repositoryUUID": ("9d1f3b0c-9c5c-4f3e-8b1d-000000000002",)},
    ),
    "azureDevOps": Sample(
        issuer=f"https://vstoken.dev.azure.com/{ORGANIZATION}",
        audience="api://AzureADTokenExchange",
        asked=None,
        settings={"organizationID": ORGANIZATION},
        claims={
            "sub": "p://acme/shop/web deploy",
            "org_id": ORGANIZATION,
            "prj_id": "7f5d3b0c-9c5c-4f3e-8b1d-000000000001",
            "def_id": "12",
            "rpo_id": "6f5d3b0c-9c5c-4f3e-8b1d-000000000009",
            "rpo_uri": "https://dev.azure.com/acme/shop/_git/web",
            "rpo_ver": "714a629c",
            "rpo_ref": "refs/heads/main",
            "run_id": "44",
            "nbf": SECONDS - 5,
        },
        rule={
            "projectID": "7f5d3b0c-9c5c-4f3e-8b1d-000000000001",
            "projectName": "shop",
            "pipelineName": "web deploy",
            "definitionID": "12",
            "sub": "p://acme/shop/web deploy",
            "repositoryURI": "https://dev.azure.com/acme/shop/_git/web",
            "repositoryVersion": "714a629c",
            "repositoryRef": "refs/heads/main",
        },
        misses={"sub": ("p://acme/shop/web", "p://acme/*"), "projectName": ("sho?", "acme", "web deploy")},
    ),
    "gcp": Sample(
        issuer="https://accounts.google.com",
        audience=CLUSTER,
        claims={
            "sub": "117479586261244650000",
            "azp": "117479586261244650000",
            "email": "deployer@acme-web.iam.gserviceaccount.com",
            "email_verified": True,
            "hd": "example.test",
            "google": {
                "compute_engine": {
                    "instance_creation_timestamp": 1752900000,
                    "instance_id": "152986662232938449",
                    "instance_name": "web-1",
                    "project_id": "acme-web",
                    "project_number": 739419398126,
                    "zone": "us-west1-a",
                    "license_id": ["1000204"],
                    "instance_confidentiality": 1,
                }
            },
        },
        rule={
            "projectIDs": ["other-web", "acme-web"],
            "serviceAccounts": ["deployer@acme-web.iam.gserviceaccount.com"],
            "locations": ["us-west1-a"],
        },
        fits={"locations": (["us-west1"], ["europe-west1", "us-west1"])},
        misses={"locations": (["us-west"], ["us"], ["us-west1-b"], ["us-west1-*"]), "projectIDs": (["acme-*"], ["acme"])},
    ),
}
"""By the field of MachineJoinToken."""

GENERIC = Sample(
    issuer="https://login.example.test/realms/ci",
    audience=CLUSTER,
    claims={
        "sub": "0d6f4a3e-7f43-4f26-8f3c-2f5f0a4f3f11",
        "email": "deployer@example.test",
        "email_verified": True,
        "tenant": 4711,
        "groups": ["ci", "deploy"],
        "kubernetes.io": {"namespace": "ci", "pod": {"name": "web-1"}},
        "a\\b": "backslash",
    },
    rule={},
)
"""The token of some issuer, for the method `oidc`."""

MUST_MATCH = {
    "sub": "0d6f4a3e-7f43-4f26-8f3c-2f5f0a4f3f11",
    "email": "deployer@example.test",
    "email_verified": "true",
    "tenant": "4711",
    "groups": "deploy",
    "kubernetes\\.io.namespace": "ci",
    "kubernetes\\.io.pod.name": "web-1",
    "a\\\\b": "backslash",
}
"""Every kind of claim that `mustMatch` can name."""


def generic(must_match: Mapping[str, str] | None = None, **settings: Any) -> MachineJoinToken:
    body = {"issuer": GENERIC.issuer, "audience": CLUSTER, "mustMatch": dict(must_match or MUST_MATCH), **settings}
    return join_token("oidc", body)


def method_names() -> list[str]:
    """Names of the methods that samples are of, as tbot spells them."""
    return [JOIN_METHODS[each].name for each in (*SAMPLES, "oidc")]


# --- settings that the models and the CRD refuse alike ---------------------------------------------------------------------

HOSTS = {"github": "enterpriseServerHost", "gitlab": "domain", "spacelift": "hostname", "terraformCloud": "hostname"}
BAD_HOSTS = {
    "an IPv4 address": "127.0.0.1",
    "a short IPv4 address": "127.1",
    "a number": "2130706433",
    "a hexadecimal address": "0x7f.0.0.1",
    "an IPv6 address": "[::1]",
    "a scheme": "https://gitlab.example.test",
    "a port": "gitlab.example.test:8443",
    "a path": "gitlab.example.test/x",
    "a user": "x@gitlab.example.test",
    "a fragment": "gitlab.example.test#",
    "a question mark": "gitlab.example.test?",
    "a backslash": "gitlab.example.test\\",
    "capital letters": "GitLab.example.test",
    "a dot at the end": "gitlab.example.test.",
    "a name without a dot": "localhost",
    "a blank": "gitlab.example.test ",
    "a line break": "gitlab.example.test\n",
    "an empty one": "",
    "a long one": "a." * 130 + "test",
    "another alphabet": "gitl\u0430b.example.test",
}

NO_RULES: dict[str, list[Any]] = {
    "no rules": [],
    "an empty rule": [{}],
    "an empty rule behind a good one": [..., {}],
    "too many rules": [...] * 33,
}
"""`...` stands for a good rule."""

GLOB_FIELDS = {
    "github": ("sub", "repository", "repositoryOwner", "workflow", "jobWorkflowRef", "environment", "actor", "ref"),
    "gitlab": ("projectPath", "namespacePath", "sub", "ref"),
    "spacelift": ("spaceID", "callerID"),
}

BAD_GLOBS = ["*", "**", "?", "*?*", "", "a\n*", "\x00*", "a" * 513]

BAD_ORGANIZATIONS = ["", "acme", ORGANIZATION.upper(), ORGANIZATION + "/x", f"{{{ORGANIZATION}}}"]

BAD_PATHS = {
    "empty": "",
    "a dot": ".",
    "a dot before": ".sub",
    "a dot behind": "sub.",
    "two dots": "a..b",
    "a backslash alone": "\\",
    "a backslash behind": "sub\\",
    "a backslash before a letter": "su\\b",
    "a line break": "sub\n",
    "a zero byte": "su\x00b",
    "too long": "a" * 201,
    "iss": "iss",
    "aud": "aud",
    "exp": "exp",
    "iat": "iat",
    "nbf": "nbf",
    "jti": "jti",
}

BAD_GENERIC: dict[str, Json] = {
    "no claims": {"mustMatch": {}},
    "null claims": {"mustMatch": None},
    "an empty value": {"mustMatch": {"sub": ""}},
    "a long value": {"mustMatch": {"sub": "a" * 513}},
    "many claims": {"mustMatch": {f"a{number}": "x" for number in range(17)}},
    "no audience": {"audience": ""},
    "no issuer": {"issuer": ""},
    "http": {"issuer": "http://login.example.test"},
    "an address": {"issuer": "https://127.0.0.1"},
    "an IPv6 address": {"issuer": "https://[::1]"},
    "no full name": {"issuer": "https://localhost"},
    "a user": {"issuer": "https://a@login.example.test"},
    "a query": {"issuer": "https://login.example.test?x"},
    "a query behind a path": {"issuer": "https://login.example.test/?x"},
    "a fragment": {"issuer": "https://login.example.test#x"},
    "dots": {"issuer": "https://login.example.test/../x"},
    "escapes": {"issuer": "https://login.example.test/%2e%2e/x"},
    "a backslash": {"issuer": "https://login.example.test\\x"},
    "a line break": {"issuer": "https://login.example.test\n"},
    "a port that is none": {"issuer": "https://login.example.test:port"},
}

GOOD_ISSUERS = [
    "https://login.example.test",
    "https://login.example.test/",
    "https://login.example.test:8443/realms/ci",
    "https://kubernetes.default.svc.cluster.local",
    "https://login.example.test/a-1_b.c~d/",
    "https://xn--bcher-kva.example.test",
]


def refused_settings() -> dict[str, tuple[str, Json]]:
    """Every one of these: what it is called, the field of the method, and the settings."""
    full = {name: {**sample.settings, "allow": [sample.rule]} for name, sample in SAMPLES.items()}
    rows: dict[str, tuple[str, Json]] = {}
    for name, sample in SAMPLES.items():
        for what, rules in NO_RULES.items():
            rows[f"{name}: {what}"] = (name, full[name] | {"allow": [sample.rule if rule is ... else rule for rule in rules]})
        for each in GLOB_FIELDS.get(name, ()):
            for glob in BAD_GLOBS:
                rows[f"{name}: {each} {glob[:8]!r}"] = (name, full[name] | {"allow": [sample.rule | {each: glob}]})
    for name, host_field in HOSTS.items():
        rows |= {f"{name}: {what}": (name, full[name] | {host_field: host}) for what, host in BAD_HOSTS.items()}
    for name in ("circleci", "azureDevOps"):
        rows |= {f"{name}: {each!r}": (name, full[name] | {"organizationID": each}) for each in BAD_ORGANIZATIONS}
    body: Json = {"issuer": GENERIC.issuer, "audience": CLUSTER, "mustMatch": {"sub": "x"}}
    rows |= {f"oidc: claim {what}": ("oidc", body | {"mustMatch": {"sub": "x", path: "x"}}) for what, path in BAD_PATHS.items()}
    return rows | {f"oidc: {what}": ("oidc", body | settings) for what, settings in BAD_GENERIC.items()}
