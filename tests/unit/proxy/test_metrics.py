"""The proxy's metrics, and their page."""

import re

from flightmode.proxy.metrics import reference


def test_the_page_has_each_metric_with_its_labels():
    page = reference()
    names = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert len(names) == len(set(names))
    assert "| `flightmode_proxy_clients` | gauge | database, state, user |" in page
    assert "| `flightmode_proxy_transactions_total` | counter | database, user |" in page
    assert "| `flightmode_proxy_wait_seconds` | histogram | database, user |" in page
    assert "| `flightmode_proxy_logins_refused_total` | counter | sqlstate |" in page
