"""Each OpenID Connect platform: its good token, each field of a rule, what a rule must have, and every claim accounted for."""

from typing import Any

import pytest

from machinebot.errors import Denied, Invalid
from machinebot.joins.base import Proved, TokenProof
from machinebot.joins.claims import REGISTERED, Match, Platform
from machinebot.joins.registry import JOIN_METHODS, MachineJoinToken
from support.issuing import ASKED, CLUSTER, KnownKeys, jwks, keys_of, public_jwk, rsa_key, signed
from support.platforms import (
    BAD_GLOBS,
    BAD_HOSTS,
    BAD_ORGANIZATIONS,
    GLOB_FIELDS,
    HOSTS,
    NO_RULES,
    ORGANIZATION,
    SAMPLES,
    with_rules,
)

KEY = rsa_key("platform")
FIELDS = [pytest.param(name, field, id=f"{name}-{field}") for name, sample in SAMPLES.items() for field in sample.rule]
FITS = [
    pytest.param(name, field, value, id=f"{name}-{field}-{value}")
    for name, sample in SAMPLES.items()
    for field, values in sample.fits.items()
    for value in values
]
MISSES = [
    pytest.param(name, field, value, id=f"{name}-{field}-{value}")
    for name, sample in SAMPLES.items()
    for field, values in sample.misses.items()
    for value in values
]


def platform_of(name: str) -> Platform[Any]:
    found = getattr(JOIN_METHODS[name].verify, "__self__", None)
    assert isinstance(found, Platform)
    return found


def claim_of(name: str, field: str) -> Any:
    return next(claim for claim in platform_of(name).claims if claim.name == field)


def needed(name: str, field: str) -> dict[str, Any]:
    """The fewest fields of the sample's rule that may stand beside a field: one of each group."""
    rule, known = SAMPLES[name].rule, {claim.field: claim.name for claim in platform_of(name).claims}
    names = [[known[each] for each in group] for group in platform_of(name).one_of]
    return {group[0]: rule[group[0]] for group in names if field not in group}


def changed(value: Any) -> Any:
    """A value of the same kind that does not fit."""
    match value:
        case bool():
            return not value
        case list():
            return ["something-else"]
        case _:
            return "something-else"


async def verified(join_token: MachineJoinToken, claims: dict[str, Any]) -> Proved:
    outside = KnownKeys(keys_of(KEY))
    proof = TokenProof.model_validate({"token": signed(claims, KEY)})
    return await join_token.method.verify(join_token.settings, proof, ASKED, outside)


async def reason_of(join_token: MachineJoinToken, claims: dict[str, Any]) -> str:
    with pytest.raises(Denied) as caught:
        await verified(join_token, claims)
    return caught.value.reason


@pytest.mark.parametrize("name", SAMPLES)
async def test_good_token_is_let_in_and_every_claim_is_known(name: str) -> None:
    sample = SAMPLES[name]
    proved = await verified(with_rules(name, sample.rule), sample.token())
    assert proved.subject == sample.claims["sub"]
    assert proved.unknown == ()
    assert set(proved.attributes) == set(sample.rule)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_has_every_claim_that_the_platform_is_known_to_send(name: str) -> None:
    platform = platform_of(name)
    known = {claim.path[0] for claim in platform.claims} | platform.ignored
    assert known <= set(SAMPLES[name].token()) | REGISTERED
    assert not {claim.path[0] for claim in platform.claims} & platform.ignored


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_has_every_field(name: str) -> None:
    assert set(SAMPLES[name].rule) == {claim.name for claim in platform_of(name).claims}


@pytest.mark.parametrize("name", SAMPLES)
async def test_keys_are_asked_of_the_issuer_of_the_settings(name: str) -> None:
    sample, outside = SAMPLES[name], KnownKeys(keys_of(KEY))
    join_token = with_rules(name, sample.rule)
    proof = TokenProof.model_validate({"token": signed(sample.token(), KEY)})
    await join_token.method.verify(join_token.settings, proof, ASKED, outside)
    assert outside.asked == [(sample.issuer, "a")]


@pytest.mark.parametrize("name", SAMPLES)
def test_audience_that_clients_ask_for(name: str) -> None:
    join_token = with_rules(name, SAMPLES[name].rule)
    assert join_token.method.audience(join_token.settings, CLUSTER) == SAMPLES[name].asked


@pytest.mark.parametrize(("name", "field"), FIELDS)
async def test_each_field_lets_in_what_fits(name: str, field: str) -> None:
    sample = SAMPLES[name]
    join_token = with_rules(name, needed(name, field) | {field: sample.rule[field]})
    assert (await verified(join_token, sample.token())).subject == sample.claims["sub"]


@pytest.mark.parametrize(("name", "field"), FIELDS)
async def test_each_field_keeps_out_what_does_not_fit(name: str, field: str) -> None:
    sample = SAMPLES[name]
    join_token = with_rules(name, sample.rule | {field: changed(sample.rule[field])})
    assert await reason_of(join_token, sample.token()) == "RulesNotMatched"


@pytest.mark.parametrize(("name", "field", "value"), FITS)
async def test_more_values_that_fit(name: str, field: str, value: Any) -> None:
    assert await verified(with_rules(name, SAMPLES[name].rule | {field: value}), SAMPLES[name].token())


@pytest.mark.parametrize(("name", "field", "value"), MISSES)
async def test_values_that_nearly_fit(name: str, field: str, value: Any) -> None:
    assert await reason_of(with_rules(name, SAMPLES[name].rule | {field: value}), SAMPLES[name].token()) == "RulesNotMatched"


ODD = {"absent": ..., "null": None, "empty": "", "a list": ["x"], "an object": {"x": 1}, "a fraction": 1.5}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize(("name", "field"), FIELDS)
async def test_claim_that_is_absent_or_of_another_type_fits_no_field(name: str, field: str, odd: Any) -> None:
    sample, (first, *_) = SAMPLES[name], claim_of(name, field).path
    join_token = with_rules(name, needed(name, field) | {field: sample.rule[field]})
    changes = {first: odd} | ({"email": ...} if name == "gcp" and field == "projectIDs" else {})
    assert await reason_of(join_token, sample.token(**changes)) in {"RulesNotMatched", "NotAPipeline"}


@pytest.mark.parametrize("name", SAMPLES)
async def test_second_rule_is_enough_and_rules_are_not_mixed(name: str) -> None:
    sample = SAMPLES[name]
    wrong = {field: changed(value) for field, value in sample.rule.items()}
    assert await verified(with_rules(name, wrong, sample.rule), sample.token())
    *fields, last = sample.rule
    halves = (sample.rule | {last: wrong[last]}, sample.rule | {fields[0]: wrong[fields[0]]})
    assert await reason_of(with_rules(name, *halves), sample.token()) == "RulesNotMatched"


@pytest.mark.parametrize("name", SAMPLES)
async def test_unknown_claims_are_told(name: str) -> None:
    strange = {"zz_new": 1, "a" * 100: 2}
    proved = await verified(with_rules(name, SAMPLES[name].rule), SAMPLES[name].token(**strange))
    assert proved.unknown == ("a" * 64, "zz_new")


# --- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", NO_RULES.values(), ids=NO_RULES.keys())
@pytest.mark.parametrize("name", SAMPLES)
def test_rules_that_restrict_nothing_are_refused(name: str, rules: list[Any]) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        with_rules(name, *(SAMPLES[name].rule if rule is ... else rule for rule in rules))


@pytest.mark.parametrize("name", SAMPLES)
def test_one_of_each_group_is_required(name: str) -> None:
    known = {claim.field: claim.name for claim in platform_of(name).claims}
    for group in platform_of(name).one_of:
        names = {known[field] for field in group}
        with pytest.raises(Invalid, match="a rule must have"):
            with_rules(name, {field: value for field, value in SAMPLES[name].rule.items() if field not in names})


GLOBS = [pytest.param(name, field, id=f"{name}-{field}") for name, fields in GLOB_FIELDS.items() for field in fields]


def test_tables_of_globs_are_whole() -> None:
    for name in SAMPLES:
        wanted = {claim.name for claim in platform_of(name).claims if claim.match is Match.GLOB}
        assert set(GLOB_FIELDS.get(name, ())) == wanted


@pytest.mark.parametrize("value", BAD_GLOBS)
@pytest.mark.parametrize(("name", "field"), GLOBS)
def test_globs_that_are_all_wildcards_or_no_text_are_refused(name: str, field: str, value: str) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        with_rules(name, SAMPLES[name].rule | {field: value})


@pytest.mark.parametrize("host", BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
@pytest.mark.parametrize(("name", "field"), HOSTS.items())
def test_hosts_that_are_none(name: str, field: str, host: str) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        with_rules(name, SAMPLES[name].rule, **{field: host})


@pytest.mark.parametrize(
    ("name", "settings", "issuer"),
    [
        ("github", {"enterpriseServerHost": "github.example.test"}, "https://github.example.test/_services/token"),
        ("github", {"enterpriseSlug": "acme"}, "https://token.actions.githubusercontent.com/acme"),
        ("gitlab", {"domain": "gitlab.example.test"}, "https://gitlab.example.test"),
        ("terraformCloud", {"hostname": "tfe.example.test"}, "https://tfe.example.test"),
    ],
)
async def test_issuers_of_people_s_own(name: str, settings: dict[str, str], issuer: str) -> None:
    join_token = with_rules(name, SAMPLES[name].rule, **settings)
    assert await verified(join_token, SAMPLES[name].token(iss=issuer))
    assert await reason_of(join_token, SAMPLES[name].token()) == "WrongIssuer"


@pytest.mark.parametrize("name", ["github", "gitlab", "terraformCloud"])
async def test_audience_of_the_settings(name: str) -> None:
    join_token = with_rules(name, SAMPLES[name].rule, audience="https://machinebot.example.test")
    assert join_token.method.audience(join_token.settings, CLUSTER) == "https://machinebot.example.test"
    assert await verified(join_token, SAMPLES[name].token(aud="https://machinebot.example.test"))
    assert await reason_of(join_token, SAMPLES[name].token()) == "WrongAudience"


@pytest.mark.parametrize("name", ["github", "gitlab"])
async def test_keys_of_the_settings_are_used_and_none_are_fetched(name: str) -> None:
    join_token = with_rules(name, SAMPLES[name].rule, staticJWKS=jwks(public_jwk(KEY)))
    outside = KnownKeys({})
    proof = TokenProof.model_validate({"token": signed(SAMPLES[name].token(), KEY)})
    assert await join_token.method.verify(join_token.settings, proof, ASKED, outside)
    forged = TokenProof.model_validate({"token": signed(SAMPLES[name].token(), rsa_key("another"))})
    with pytest.raises(Denied, match="SignatureInvalid"):
        await join_token.method.verify(join_token.settings, forged, ASKED, outside)
    assert outside.asked == []


async def test_key_set_of_the_settings_that_is_none_is_said() -> None:
    with pytest.raises(Invalid, match="InvalidKeySet"):
        await verified(with_rules("github", SAMPLES["github"].rule, staticJWKS="{}"), SAMPLES["github"].token())


@pytest.mark.parametrize("organization", BAD_ORGANIZATIONS)
@pytest.mark.parametrize("name", ["circleci", "azureDevOps"])
def test_organizations_that_are_no_uuid(name: str, organization: str) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        with_rules(name, SAMPLES[name].rule, organizationID=organization)


# --- what single platforms have of their own ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subject",
    [
        "sc://acme/shop/web",
        "p://acme/shop",
        "p://acme/shop/web/x",
        "p:///shop/web",
        "p://acme//web",
        "p://acme/shop/",
        "",
        "P://a/b/c",
    ],
)
async def test_azure_devops_takes_pipelines_alone(subject: str) -> None:
    join_token = with_rules("azureDevOps", {"projectID": SAMPLES["azureDevOps"].rule["projectID"]})
    assert await reason_of(join_token, SAMPLES["azureDevOps"].token(sub=subject)) == "NotAPipeline"


@pytest.mark.parametrize("organization", [..., "", None, "0" * 8 + ORGANIZATION[8:], ORGANIZATION.upper(), [ORGANIZATION]])
async def test_azure_devops_holds_the_organization_against_its_claim(organization: Any) -> None:
    sample = SAMPLES["azureDevOps"]
    assert await reason_of(with_rules("azureDevOps", sample.rule), sample.token(org_id=organization)) == "WrongOrganization"


@pytest.mark.parametrize(
    ("email", "project"),
    [
        pytest.param("deployer@acme-web.iam.gserviceaccount.com", "acme-web", id="GKE's workload identity"),
        pytest.param("739419398126-compute@developer.gserviceaccount.com", None, id="default account"),
        pytest.param("acme-web@appspot.gserviceaccount.com", None, id="App Engine's account"),
        pytest.param("acme-web.iam.gserviceaccount.com", None, id="no name"),
        pytest.param("x@acme-web.iam.gserviceaccount.com.example.test", None, id="domain behind it"),
        pytest.param("x@y@acme-web.iam.gserviceaccount.com", None, id="two names"),
        pytest.param("x@sub.acme-web.iam.gserviceaccount.com", None, id="domain before it"),
        pytest.param("x@acme-web.iam.gserviceaccount.com\n", None, id="line break"),
    ],
)
async def test_gcp_project_of_a_service_account_without_a_machine(email: str, project: str | None) -> None:
    join_token = with_rules("gcp", {"projectIDs": ["acme-web"]})
    claims = SAMPLES["gcp"].token(google=..., email=email)
    if project is None:
        assert await reason_of(join_token, claims) == "RulesNotMatched"
    else:
        assert (await verified(join_token, claims)).attributes == {"projectIDs": project, "serviceAccounts": email}


@pytest.mark.parametrize("odd", [..., False, "true", 1, None])
async def test_gcp_address_that_google_has_not_verified_is_nobody_s(odd: Any) -> None:
    account = with_rules("gcp", SAMPLES["gcp"].rule)
    assert await reason_of(account, SAMPLES["gcp"].token(email_verified=odd)) == "RulesNotMatched"
    project = with_rules("gcp", {"projectIDs": ["acme-web"]})
    assert await reason_of(project, SAMPLES["gcp"].token(email_verified=odd, google=...)) == "RulesNotMatched"


async def test_gcp_machine_s_project_counts_and_not_the_account_s() -> None:
    machine = {"compute_engine": {"project_id": "other-web", "zone": "us-west1-a"}}
    assert (
        await reason_of(with_rules("gcp", {"projectIDs": ["acme-web"]}), SAMPLES["gcp"].token(google=machine))
        == "RulesNotMatched"
    )


async def test_gcp_machine_without_a_project_is_in_none() -> None:
    join_token = with_rules("gcp", {"projectIDs": ["acme-web"]})
    assert await reason_of(join_token, SAMPLES["gcp"].token(google={"compute_engine": {}})) == "RulesNotMatched"


# --- warnings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_full_rule_has_no_warning(name: str) -> None:
    join_token = with_rules(name, SAMPLES[name].rule)
    assert join_token.method.warnings(join_token.settings) == ()


@pytest.mark.parametrize(
    ("name", "rule", "warning"),
    [
        ("github", {"repository": "acme/web"}, "allow[0].repository is trusted alone"),
        ("github", {"repositoryOwner": "acme"}, "add repositoryOwnerID"),
        ("github", {"sub": "repo:acme/web:*"}, "allow[0].sub is trusted alone"),
        ("github", {"sub": "repo:*"}, "allow[0].sub has a wildcard before its first '/'"),
        ("github", {"repository": "*/web"}, "allow[0].repository has a wildcard before its first '/'"),
        ("github", {"repositoryOwner": "acme-?"}, "names of strangers fit"),
        ("github", {"repository": "*/web", "repositoryOwner": "acme"}, "allow[0].repository is trusted alone"),
        ("gitlab", {"projectPath": "acme/web"}, "add projectID"),
        ("gitlab", {"namespacePath": "acme"}, "add namespaceID"),
        ("gitlab", {"ciConfigRefURI": "gitlab.com/acme/web//.gitlab-ci.yml@refs/heads/main"}, "add projectID"),
        ("terraformCloud", {"organizationName": "acme", "workspaceName": "web"}, "add organizationID"),
        ("azureDevOps", {"projectName": "shop"}, "add projectID"),
        ("azureDevOps", {"sub": "p://acme/shop/web"}, "add projectID"),
    ],
)
def test_rules_that_trust_names(name: str, rule: dict[str, Any], warning: str) -> None:
    join_token = with_rules(name, rule)
    (told,) = join_token.method.warnings(join_token.settings)
    assert warning in told


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("github", {"repository": "*/web", "repositoryOwnerID": "583231"}),
        ("gitlab", {"projectPath": "acme/web", "projectID": "20"}),
        ("terraformCloud", {"organizationName": "acme", "workspaceID": "ws-1"}),
        ("gcp", {"projectIDs": ["acme-web"]}),
        ("spacelift", {"spaceID": "production-01HE"}),
    ],
)
def test_rules_that_do_not(name: str, rule: dict[str, Any]) -> None:
    join_token = with_rules(name, rule)
    assert join_token.method.warnings(join_token.settings) == ()


def test_warnings_are_few() -> None:
    join_token = with_rules("github", *[{"repository": f"acme/{number}"} for number in range(32)])
    assert len(join_token.method.warnings(join_token.settings)) == 16
