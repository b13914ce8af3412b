"""What an output's Secret holds, told from status or from the Secret alone, whatever was done to either by hand."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType, load_ssh_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.kube.secrets import StoredSecret
from machinebot.outputs import inspect
from machinebot.outputs.keys import generate
from machinebot.outputs.registry import MachineOutput
from machinebot.policy.decision import Credential, Snapshot, is_good, why_issue
from machinebot.reconcile.holding import (
    AUTHORITIES,
    DIGEST,
    INPUTS,
    MAX_ANNOTATION,
    NOTHING,
    OUTPUT_LABEL,
    REASON,
    RENEWED_FOR,
    TEMPLATE,
    Holding,
    annotations,
    from_secret,
    from_status,
    inputs_digest,
    labels,
    renew_at,
    templated,
)
from machinebot.resources.output import MachineOutputStatus, SecretStatus
from unit.policy.builders import DAY, HOUR, MINUTE, NOW, SECOND
from unit.reconcile.builders import parsed

SIGNED_BY = {"ssh-host": "0a1b2c"}
CONTENT = "the content of the Secret was changed by hand"


def host_output(**fields: Any) -> MachineOutput:
    """An output of type sshHost: the smallest Secret."""
    return parsed(spec={"identity": None, "sshHost": {"principals": ["web"]}, **fields.pop("spec", {})}, **fields)


OUTPUT = host_output()


@lru_cache
def content(valid_before: int | None = None) -> Mapping[str, bytes]:
    """What stands in the Secret: a host key and a certificate of it, by some CA."""
    pair = generate("ECDSA-P256")
    key: Any = load_ssh_private_key(pair.openssh, password=None)
    end = int((NOW + DAY - MINUTE).timestamp()) if valid_before is None else valid_before
    certificate = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .serial(42)
        .type(SSHCertificateType.HOST)
        .key_id(b"bot:ci:deployer")
        .valid_principals([b"web"])
        .valid_after(int((NOW - MINUTE).timestamp()))
        .valid_before(end)
        .sign(ec.generate_private_key(ec.SECP256R1()))
    )
    return {
        "ssh_host": pair.openssh,
        "ssh_host.pub": pair.authorized_key + b"\n",
        "ssh_host-cert.pub": certificate.public_bytes() + b"\n",
        "ssh_host-user-ca.pub": b"",
    }


def notes(output: MachineOutput = OUTPUT, **changed: str | None) -> dict[str, str]:
    """The annotations as they are written; changed or taken off by the name of the constant."""
    written = annotations(
        output,
        inputs="inputs-1",
        digest=inspect.digest(content()),
        authorities=SIGNED_BY,
        reason="SecretMissing",
        fulfilled="once",
    )
    for name, text in changed.items():
        constant = f"machinebot.dev/{name.replace('_', '-')}"
        assert constant in written
        if text is None:
            del written[constant]
        else:
            written[constant] = text
    return written


def stored(*, data: Mapping[str, bytes] | None = None, written: Mapping[str, str] | None = None, **fields: Any) -> StoredSecret:
    return StoredSecret(
        namespace="ci",
        name="out",
        uid="secret-1",
        resource_version="7",
        owner_uid=OUTPUT.metadata.uid,
        managed=True,
        deleting=False,
        type="Opaque",
        labels=fields.get("labels", {}),
        annotations=notes() if written is None else written,
        data=content() if data is None else data,
    )


def reason_of(held: Holding, inputs: str = "inputs-1") -> str | None:
    """Why an issue would follow, one hour after the credential was made."""
    now = NOW + HOUR
    cause = why_issue(
        Snapshot(
            credential=held.credential,
            inputs=inputs,
            trusted={purpose: frozenset({generation}) for purpose, generation in SIGNED_BY.items()},
            renew_at=None if held.credential is None else renew_at(OUTPUT, held.credential),
            requested="once",
            fulfilled=held.fulfilled,
            now=now,
        )
    )
    return None if cause is None else str(cause.reason)


def as_status_holds_it(held: Holding) -> MachineOutputStatus:
    """What is read from a Secret must fit into status."""
    return MachineOutputStatus(renew_token=held.fulfilled, issue_reason=held.reason, serial=held.serial)


# --- the Secret alone ----------------------------------------------------------------------------------------------


def test_everything_comes_back_from_the_secret_alone() -> None:
    held = from_secret(OUTPUT, stored())
    assert held.certain == Credential(
        damage=None, inputs="inputs-1", authorities=SIGNED_BY, not_before=NOW - MINUTE, not_after=NOW + DAY - MINUTE
    )
    assert (held.version, held.uid, held.serial) == ("7", "secret-1", "42")
    assert (held.fulfilled, held.reason) == ("once", "SecretMissing")
    assert held.digest == inspect.digest(content())
    assert reason_of(held) is None
    assert is_good(held.credential, NOW)
    as_status_holds_it(held)


def test_where_there_is_no_secret_there_is_no_credential() -> None:
    assert reason_of(NOTHING) == "SecretMissing"
    with pytest.raises(ValueError, match="no Secret"):
        _ = NOTHING.certain


def test_its_text_form_shows_no_key() -> None:
    held = from_secret(OUTPUT, stored())
    assert "PRIVATE KEY" not in repr(held)
    assert "ssh_host" not in repr(held)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"inputs": "inputs-2"}, "GrantChanged", id="other inputs"),
        pytest.param({"inputs": None}, "GrantChanged", id="no inputs"),
        pytest.param({"inputs": "inputs-1" + " " * MAX_ANNOTATION}, "GrantChanged", id="endless inputs"),
        pytest.param({"digest": None}, "SecretChanged", id="no digest"),
        pytest.param({"digest": "0" * 64}, "SecretChanged", id="another digest"),
        pytest.param({"digest": ""}, "SecretChanged", id="an empty digest"),
        pytest.param({"authorities": None}, "SecretChanged", id="no authorities"),
        pytest.param({"authorities": ""}, "SecretChanged", id="empty authorities"),
        pytest.param({"authorities": "ssh-host"}, "SecretChanged", id="an authority without a generation"),
        pytest.param({"authorities": "ssh-host="}, "SecretChanged", id="an empty generation"),
        pytest.param({"authorities": "=0a1b2c"}, "SecretChanged", id="an empty purpose"),
        pytest.param({"authorities": "ssh-host=0a1b2c,"}, "SecretChanged", id="a comma too many"),
        pytest.param({"authorities": "ssh-host=" + "0" * MAX_ANNOTATION}, "SecretChanged", id="endless authorities"),
        pytest.param({"authorities": "ssh-host=other"}, "CARotated", id="another generation"),
        pytest.param({"authorities": "ssh-host=0a1b2c,x=y"}, "CARotated", id="an unknown purpose"),
        pytest.param({"authorities": "ssh-host=0a1b2c=x"}, "CARotated", id="an equals sign too many"),
        pytest.param({"renewed_for": None}, "Requested", id="no wish"),
        pytest.param({"renewed_for": "never"}, "Requested", id="another wish"),
        pytest.param({"renewed_for": "x" * 257}, "Requested", id="a wish longer than one can be"),
        pytest.param({"renewed_for": "x" * (MAX_ANNOTATION + 1)}, "Requested", id="an endless wish"),
        pytest.param({"reason": None}, None, id="no reason"),
        pytest.param({"reason": "x" * 65}, None, id="a reason longer than one can be"),
        pytest.param({"template": "nonsense"}, None, id="no template"),
    ],
)
def test_annotations_that_were_changed_by_hand(changed: dict[str, str | None], reason: str | None) -> None:
    held = from_secret(OUTPUT, stored(written=notes(OUTPUT, **changed)))
    assert reason_of(held) == reason
    as_status_holds_it(held)


def test_a_secret_without_our_annotations_is_made_anew() -> None:
    held = from_secret(OUTPUT, stored(written={}))
    assert reason_of(held) == "SecretChanged"
    assert not is_good(held.credential, NOW)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="empty"),
        pytest.param({**content(), "extra": b""}, id="a key more"),
        pytest.param({name: value for name, value in content().items() if name != "ssh_host.pub"}, id="a key less"),
        pytest.param({**content(), "ssh_host": b""}, id="no private key"),
        pytest.param({**content(), "ssh_host": generate("ECDSA-P256").openssh}, id="another private key"),
        pytest.param({**content(), "ssh_host-cert.pub": b"\xff\x00"}, id="no certificate"),
        pytest.param({**content(), "ssh_host-cert.pub": content()["ssh_host.pub"]}, id="a plain key"),
        pytest.param({**content(), "ssh_host-user-ca.pub": b"x" * 70_000}, id="a large piece"),
        pytest.param(content(2**64 - 1), id="a certificate without an end"),
        pytest.param(content(2**63), id="a certificate that ends beyond counting"),
        pytest.param(content(10**12), id="a certificate that ends beyond the calendar"),
    ],
)
def test_content_that_was_changed_by_hand_is_damage(data: Mapping[str, bytes]) -> None:
    held = from_secret(OUTPUT, stored(data=data, written={**notes(), DIGEST: inspect.digest(data)}))
    assert reason_of(held) == "SecretChanged"
    assert not is_good(held.credential, NOW)
    assert held.fulfilled == "once", "so that the wish is not fulfilled a second time"
    assert held.reason == "SecretMissing"
    assert "PRIVATE" not in str(held.certain.damage)
    as_status_holds_it(held)


@pytest.mark.parametrize("keys", [{"ssh_host": "key"}, {"nonsense": "key"}, {"ssh_host": "ssh_host.pub"}])
def test_keys_that_the_output_wants_under_other_names_are_damage(keys: dict[str, str]) -> None:
    """A wish that cannot be, too: the output is refused for it, and what is in the Secret is not good."""
    held = from_secret(host_output(spec={"secret": {"keys": keys}}), stored())
    assert held.certain.damage is not None
    assert reason_of(held) == "SecretChanged"


def test_a_changed_byte_that_hurts_nothing_is_damage_all_the_same() -> None:
    held = from_secret(OUTPUT, stored(data={**content(), "ssh_host-user-ca.pub": b"@cert-authority\n"}))
    assert held.certain.damage == CONTENT


# --- annotations and labels ----------------------------------------------------------------------------------------


def test_our_annotations_win_over_those_of_the_output() -> None:
    output = host_output(
        spec={"secret": {"annotations": {DIGEST: "forged", "reloader": "yes"}, "labels": {OUTPUT_LABEL: "forged"}}}
    )
    assert notes(output)[DIGEST] == inspect.digest(content())
    assert notes(output)["reloader"] == "yes"
    assert labels(output) == {OUTPUT_LABEL: output.metadata.uid}


def test_the_labels_of_a_type_win_over_those_of_the_output_and_are_known_again() -> None:
    label = "argocd.argoproj.io/secret-type"
    spec = {"identity": None, "kubernetes": {"argoCD": True}, "secret": {"labels": {label: "repository", "team": "blue"}}}
    output = parsed(spec=spec)
    assert labels(output) == {label: "cluster", "team": "blue", OUTPUT_LABEL: output.metadata.uid}
    assert templated(stored(written=notes(output))) == (frozenset({label, "team"}), frozenset())
    plain = parsed(spec={**spec, "kubernetes": {}, "secret": {}})
    assert labels(plain) == {OUTPUT_LABEL: plain.metadata.uid}


def test_without_a_wish_there_is_no_word_of_one() -> None:
    written = annotations(OUTPUT, inputs="i", digest="d", authorities=SIGNED_BY, reason="SecretMissing", fulfilled=None)
    assert RENEWED_FOR not in written
    assert {INPUTS, DIGEST, AUTHORITIES, REASON, TEMPLATE} <= set(written)


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-./", min_size=1, max_size=317)


@settings(max_examples=60, deadline=None)
@given(st.sets(NAMES, max_size=32), st.sets(NAMES, max_size=32))
def test_what_the_output_put_on_the_secret_is_known_again(label_names: set[str], annotation_names: set[str]) -> None:
    template = OUTPUT.spec.secret.model_copy(
        update={"labels": dict.fromkeys(label_names, "x"), "annotations": dict.fromkeys(annotation_names, "x")}
    )
    output = replace(OUTPUT, spec=OUTPUT.spec.model_copy(update={"secret": template}))
    assert templated(stored(written=notes(output))) == (frozenset(label_names), frozenset(annotation_names))


def test_the_most_and_longest_names_are_known_again() -> None:
    """64 names of 317 characters: more than other annotations may hold."""
    names = {f"{number:0317}": "x" for number in range(32)}
    template = OUTPUT.spec.secret.model_copy(update={"labels": names, "annotations": names})
    output = replace(OUTPUT, spec=OUTPUT.spec.model_copy(update={"secret": template}))
    assert templated(stored(written=notes(output))) == (frozenset(names), frozenset(names))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "3",
        '"text"',
        "[]",
        "[1]",
        "{",
        '{"labels": 3}',
        '{"labels": null}',
        '{"annotations": true}',
        '{"labels": [',
        "[" * 30_000,
        '{"a":' * 6_000,
        "\ud800",
        "x" * 100_000,
    ],
)
def test_a_template_that_was_changed_by_hand_names_nothing(text: str) -> None:
    assert templated(stored(written=notes(template=text))) == (frozenset(), frozenset())


def test_a_template_of_another_release_is_read_as_far_as_it_goes() -> None:
    assert templated(stored(written=notes(template="{}"))) == (frozenset(), frozenset())
    assert templated(stored(written={})) == (frozenset(), frozenset())
    assert templated(stored(written=notes(template='{"labels":["a",3],"more":1}'))) == (frozenset({"a", "3"}), frozenset())


# --- status --------------------------------------------------------------------------------------------------------

STATUS = {
    "secret": {"name": "out", "resourceVersion": "7", "digest": "d"},
    "serial": "42",
    "inputs": "inputs-1",
    "authorities": SIGNED_BY,
    "notBefore": "2027-01-01T11:59:00Z",
    "notAfter": "2027-01-02T11:59:00Z",
    "renewToken": "once",
    "issueReason": "SecretMissing",
}


def test_status_tells_the_same_as_the_secret() -> None:
    told = from_status(host_output(status=STATUS), "7", "secret-1")
    assert told is not None
    read = from_secret(OUTPUT, stored())
    assert told == replace(read, secret=None, digest="d")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"secret": None}, id="no Secret"),
        pytest.param({"secret": {**STATUS["secret"], "name": "other"}}, id="another name"),  # type: ignore[dict-item]
        pytest.param({"secret": {**STATUS["secret"], "resourceVersion": "8"}}, id="another version"),  # type: ignore[dict-item]
        pytest.param({"serial": None}, id="no serial"),
        pytest.param({"inputs": None}, id="no inputs"),
        pytest.param({"notBefore": None}, id="no begin"),
        pytest.param({"notAfter": None}, id="no end"),
        pytest.param({"notAfter": "2027-01-02T11:59:01Z"}, id="longer than anything lives"),
        pytest.param({"notAfter": "2027-01-01T11:59:00Z"}, id="no life at all"),
        pytest.param({"notBefore": "yesterday"}, id="no time"),
        pytest.param({"notAfter": "2027-01-02T11:59:00"}, id="no zone"),
        pytest.param({"notBefore": "0001-01-01T00:00:00+14:00"}, id="before all times"),
        pytest.param({"notAfter": "9999-12-31T23:59:59-14:00"}, id="after all times"),
    ],
)
def test_status_that_is_not_about_this_secret_tells_nothing(changed: dict[str, Any]) -> None:
    status = {name: value for name, value in {**STATUS, **changed}.items() if value is not None}
    assert from_status(host_output(status=status), "7", "secret-1") is None


def test_the_name_of_the_secret_is_the_one_wished() -> None:
    output = host_output(status=STATUS, spec={"secret": {"name": "web"}})
    assert from_status(output, "7", "secret-1") is None
    moved = output.status.model_copy(update={"secret": SecretStatus(name="web", resource_version="7", digest="d")})
    assert from_status(replace(output, status=moved), "7", "secret-1") is not None


# --- the rest ------------------------------------------------------------------------------------------------------


def test_renewal_follows_the_wish_of_the_output() -> None:
    credential = from_secret(OUTPUT, stored()).certain
    for spec, least in (({}, 12 * HOUR), ({"renewBefore": "6h"}, 6 * HOUR), ({"renewBeforePercentage": 75}, 18 * HOUR)):
        left = credential.not_after - renew_at(host_output(spec=spec), credential)
        assert least <= left <= least + DAY * 0.1 + SECOND


def test_dates_that_make_no_sense_have_a_time_too() -> None:
    """Whatever the order of the dates, the answer is a time, and what follows is an issue."""
    backwards = Credential(damage=None, inputs="", authorities={}, not_before=NOW + 3000 * DAY, not_after=NOW - 3000 * DAY)
    assert isinstance(renew_at(OUTPUT, backwards) - NOW, timedelta)


def test_the_digest_of_the_inputs_knows_no_order() -> None:
    assert inputs_digest({"a": 1, "b": [1, 2]}) == inputs_digest({"b": [1, 2], "a": 1})
    assert inputs_digest({"b": (1, 2)}) == inputs_digest({"b": [1, 2]})
    assert len({inputs_digest(parts) for parts in ({}, {"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, {"a": None})}) == 6
