"""The agent against the product's own join API: joins, files, renewal by the certificate's dates, outages, locks."""

from unit.agent.api import Rig
from unit.authority.builders import NOW


def test_one_round_joins_and_writes_every_output(rig: Rig) -> None:
    rig.output("ssh")
    rig.output("db", database={"user": "app"})
    rig.output("token", jwtSVID={"audiences": ["vault"]})
    agent = rig.agent()
    agent.round(NOW)
    state = agent.state(NOW)
    assert [(output.name, output.ready, output.reason) for output in state.outputs] == [
        ("ssh", True, ""),
        ("db", True, ""),
        ("token", True, ""),
    ]
    assert state.ready
    assert state.joins == {("kubernetes", "success"): 1}
    assert state.issues == {
        ("identity", "FilesMissing", "success"): 1,
        ("database", "FilesMissing", "success"): 1,
        ("jwtSVID", "FilesMissing", "success"): 1,
    }
    assert set(rig.files("token")) == {"jwt_svid", ".machinebot.json"}
    assert len(rig.api.world.ledger.visits) == 1, "one request joins and gets all"
