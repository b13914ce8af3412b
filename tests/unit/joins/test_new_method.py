"""A new platform needs one new file and nothing else: the example of the contributing page, found by a fresh process."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]

PAGE: Final = (ROOT / "docs" / "contributing.md").read_text()

FORGE: Final = "\n".join(
    (
        '"""`forge`: the example of the contributing page."""',
        "from typing import Final",
        "from pydantic import Field",
        "from machinebot.joins.claims import Claim, HostName, Match, OIDCSettings, Platform, platform",
        *(text for text in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "platform(" in text),
    )
)
"""The page's example as a whole file."""

STEPS: Final = """
import asyncio
import base64
import json
import sys
from datetime import UTC, datetime

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from machinebot.joins import methods

methods.__path__.append(sys.argv[1])

from machinebot.cli.crds import all_crds
from machinebot.errors import Denied
from machinebot.joins.base import Asked, TokenProof
from machinebot.joins.keysets import parse_jwks
from machinebot.joins.registry import JOIN_METHODS, parse_join_token

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
crd = yaml.safe_load(all_crds()["machinebot.dev_machinejointokens.yaml"])
field = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["forge"]
rule = field["properties"]["allow"]["items"]
assert list(rule["properties"]) == ["projectID", "project", "isProtected"]
assert "a rule must have at least one of: projectID, project" in [each["message"] for each in rule["x-kubernetes-validations"]]

key = ec.generate_private_key(ec.SECP256R1())
public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "1"}


class Keys:
    async def keys(self, issuer, kid):
        assert issuer == "https://forge.test"
        return parse_jwks(json.dumps({"keys": [public]}).encode())


def token(**claims):
    at = int(NOW.timestamp())
    good = {"iss": "https://forge.test", "aud": "example.test", "sub": "job", "iat": at, "exp": at + 300, "job_id": "7"}
    return jwt.encode(good | claims, key, "ES256", {"kid": "1"})


def join(allow, **claims):
    body = {"metadata": {"name": "a", "namespace": "ci", "uid": "1"}, "spec": {"bot": "b", "forge": {"hostname": "forge.test", "allow": allow}}}
    found = parse_join_token(body)
    method = JOIN_METHODS["forge"]
    assert method.audience(found.settings, "example.test") == "example.test"
    proof = TokenProof(token=token(**claims))
    asked = Asked(cluster_name="example.test", challenge=None, now=NOW)
    try:
        return asyncio.run(method.verify(found.settings, proof, asked, Keys())), method.warnings(found.settings)
    except Denied as error:
        return error.reason, ()


proved, warned = join([{"projectID": "1", "isProtected": True}], project_id="1", ref_protected="true", new="x")
assert (proved.subject, proved.unknown, warned) == ("job", ("new",), ())
proved, (warning,) = join([{"project": "team/*"}], project_path="team/app", project_id="2")
assert proved.attributes["projectID"] == "2" and "projectID" in warning
assert join([{"projectID": "1"}], project_id="2")[0] == "RulesNotMatched"
print("done")
"""


def test_one_new_file_is_a_new_platform(tmp_path: Path) -> None:
    (tmp_path / "forge.py").write_text(FORGE)
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(tmp_path)],
        env={"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == "done", done.stderr
