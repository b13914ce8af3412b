"""A new type of output needs one new file and nothing else: the example of the contributing page, found by a fresh process."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
SOURCE: Final = ROOT / "operator" / "machinebot" / "outputs" / "types"

PAGE: Final = (ROOT / "docs" / "contributing.md").read_text()

PLAIN: Final = "\n".join(
    (
        '"""`plain`: the example of the contributing page."""',
        *re.findall(r"^(?:import|from) .+$", (SOURCE / "identity.py").read_text(), re.MULTILINE),
        *re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[:1],
    )
)
"""The page's example as a whole file; its imports are those that a type beside it has."""

BOUNDED: Final = '''
"""`bounded`: the same, with everything that a type may say of itself beyond that."""

from dataclasses import replace

from machinebot.outputs.types.plain import OUTPUT as PLAIN

OUTPUT = replace(
    PLAIN,
    name="bounded",
    algorithms=frozenset({"ECDSA-P256", "RSA-2048"}),
    x509=False,
    labels=lambda settings: {"example.test/note": settings.note},
)
'''

START: Final = """
import sys

import yaml

from machinebot.outputs import types

types.__path__.append(sys.argv[1])

from machinebot.cli.crds import all_crds
from machinebot.errors import Invalid
from machinebot.outputs import inspect, packing
from machinebot.outputs.registry import OUTPUT_TYPES, parse_output
from machinebot.reconcile.holding import labels
from unit.outputs.builders import body, material, output


def refused(spec, words):
    try:
        parse_output(body(spec))
    except Invalid as error:
        assert words in error.message, error
    else:
        raise AssertionError(spec)


crd = yaml.safe_load(all_crds()["machinebot.dev_machineoutputs.yaml"])
spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
messages = [rule["message"] for rule in spec["x-kubernetes-validations"]]
"""
"""The types are found once, when the registry is first imported: hence a process of its own."""

STEPS: Final = {
    "the page's example is found and stands in the CRD": """
assert "plain" in OUTPUT_TYPES
assert spec["properties"]["plain"]["description"] == "A certificate and its key."
assert spec["properties"]["plain"]["properties"]["note"]["maxLength"] == 100
(types_message,) = [each for each in messages if each.startswith("exactly one type of output must be set: ")]
assert "plain" in types_message
""",
    "it is asked for, signed, rendered, packed with what all types share, and read back": """
wanted = output({"plain": {"note": "x"}}, secret={"keys": {"note": "NOTE"}}, keystores={"pkcs12": {}})
made = material(wanted)
data = packing.pack(wanted, made, password=None)
assert data.keys() == packing.keys(wanted)
assert data["NOTE"] == b"x"
assert {"cert.pem", "key.pem", "keystore.p12", "truststore.p12", "keystore.password"} < data.keys()
assert inspect.inspect(wanted, data).serial == made.issued.serial
""",
    "damage of it is told": """
wanted = output({"plain": {}})
data = packing.pack(wanted, material(wanted), password=None)
for key in ("cert.pem", "key.pem"):
    try:
        inspect.inspect(wanted, {**data, key: b""})
    except Invalid as error:
        assert error.reason == "SecretDamaged", error
    else:
        raise AssertionError(key)
""",
    "it is refused like any other": """
refused({"plain": {"note": "x" * 101}}, "note: ")
refused({"plain": {}, "identity": {}}, "exactly one type of output must be set: ")
""",
    "what a type has no room for is a rule of the CRD": """
assert "privateKey.algorithm of an output of the type bounded must be one of: ECDSA-P256, RSA-2048" in messages, messages
assert "an output of the type bounded holds no X.509 certificate: leave keystores out" in messages, messages
refused({"bounded": {}, "privateKey": {"algorithm": "Ed25519"}}, "must be one of: ECDSA-P256, RSA-2048")
refused({"bounded": {}, "keystores": {"pkcs12": {}}}, "leave keystores out")
""",
    "the labels of a type stand on its Secret": """
wanted = output({"bounded": {"note": "here"}}, secret={"labels": {"example.test/note": "other", "team": "blue"}})
assert {"example.test/note": "here", "team": "blue"}.items() <= labels(wanted).items()
""",
}


def test_one_new_file_is_a_new_type(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "bounded.py").write_text(BOUNDED)
    steps = "".join(f"step = {name!r}\n{lines}" for name, lines in STEPS.items())
    done = subprocess.run(
        [sys.executable, "-c", f"{START}{steps}\nprint(step)", str(tmp_path)],
        env={"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == list(STEPS)[-1], done.stderr
