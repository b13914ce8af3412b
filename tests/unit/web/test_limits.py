"""Token buckets: a burst, then a rate; each key alone; bounded in number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinebot.web.limits import MAX_BUCKETS, Limiter, Rate, source


class Time:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    time = Time()
    limiter = Limiter(Rate(per_second=2, burst=3), time)
    assert [limiter.refused_for("a") for _ in range(5)] == [0, 0, 0, 1, 1]
    time.now += 0.5
    assert [limiter.refused_for("a") for _ in range(2)] == [0, 1]
    time.now += 3600
    assert [limiter.refused_for("a") for _ in range(4)] == [0, 0, 0, 1]


def test_who_is_refused_is_told_when_it_is_let_through() -> None:
    time = Time()
    limiter = Limiter(Rate(per_second=0.1, burst=1), time)
    assert limiter.refused_for("a") == 0
    seconds = limiter.refused_for("a")
    assert seconds == 10
    time.now += seconds
    assert limiter.refused_for("a") == 0


def test_one_key_costs_another_nothing() -> None:
    limiter = Limiter(Rate(per_second=1, burst=1), Time())
    assert [limiter.refused_for(key) for key in ("a", "a", "b", None)] == [0, 1, 0, 0]


def test_what_is_remembered_is_bounded() -> None:
    limiter = Limiter(Rate(per_second=1, burst=1), Time())
    for key in range(MAX_BUCKETS + 10):
        assert limiter.refused_for(key) == 0
    assert len(limiter._buckets) == MAX_BUCKETS
    assert limiter.refused_for(MAX_BUCKETS + 9) == 1
    assert limiter.refused_for(0) == 0


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.1, 50), st.integers(1, 20))
def test_nobody_below_the_rate_is_refused_and_nobody_gets_more_than_it(pauses: list[float], rate: float, burst: int) -> None:
    time = Time()
    limiter = Limiter(Rate(rate, burst), time)
    begun, let_through = time.now, 0
    for pause in pauses:
        time.now += pause
        let_through += limiter.refused_for("a") == 0
    assert let_through <= burst + (time.now - begun) * rate + 1e-6
    calm = Limiter(Rate(rate, burst), time)
    for _ in range(30):
        assert calm.refused_for("a") == 0
        time.now += 1.001 / rate


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("no address", "no address"),
        ("", ""),
        (None, ""),
    ],
)
def test_whom_an_address_counts_for(address: str | None, expected: str) -> None:
    assert source(address) == expected
