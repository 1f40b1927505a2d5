"""Every endpoint: what it is for, what it takes, what it answers.  The only list of them."""

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from flightmode.api import bodies
from flightmode.api.status import ClusterStatus


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table; `name` is also the name of its handler."""

    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, str]
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    queries: tuple[tuple[str, str], ...] = ()
    verdict: bool = False
    """200 is yes and 503 is no, both with the same body."""

    @property
    def changes(self) -> bool:
        """It needs a certificate that may, or the token."""
        return self.method == "POST"


_ASKED: Final = {
    202: "Written down. The outcome is at `Location`.",
    400: "The request names no such node, or lacks something.",
    403: "Neither the certificate of a node or of the operator, nor the token.",
    409: "Another request of that kind is open.",
    503: "etcd did not answer: it may have been written down or not. Look before asking again.",
}


def _ask(path: str, summary: str, body: type[BaseModel] | None) -> Endpoint:
    return Endpoint("POST", path, path[1:], summary, _ASKED, bodies.Accepted, body)


_YES_NO: Final = {200: "Yes.", 503: "No; or, with an error, the agent does not know."}
_UNSEEN: Final = "The agent has not looked yet."
_SILENT: Final = "etcd does not answer."

ENDPOINTS: Final = (
    Endpoint("GET", "/", "index", "This page.", {200: "HTML"}),
    Endpoint("GET", "/openapi.json", "openapi", "This API, for programs.", {200: "OpenAPI 3.1"}),
    Endpoint(
        "GET",
        "/status",
        "status",
        "The whole cluster, as this node sees it.",
        {200: "What it sees.", 503: _UNSEEN},
        ClusterStatus,
    ),
    Endpoint(
        "GET",
        "/primary",
        "primary",
        "For load balancers: does this node accept writes?",
        _YES_NO,
        bodies.PrimaryAnswer,
        verdict=True,
    ),
    Endpoint(
        "GET",
        "/replica",
        "replica",
        "For load balancers: is this node a standby to read from?",
        _YES_NO,
        bodies.ReplicaAnswer,
        queries=(("lag", "At most so many bytes behind in replay."),),
        verdict=True,
    ),
    Endpoint(
        "GET",
        "/health",
        "health",
        "Does this node do its part, whichever that is?",
        _YES_NO,
        bodies.HealthAnswer,
        verdict=True,
    ),
    Endpoint("GET", "/metrics", "metrics", "For Prometheus.", {200: "Text format 0.0.4."}),
    Endpoint(
        "GET",
        "/history",
        "history",
        "The last changes of leader, oldest first.",
        {200: "A list.", 503: _SILENT},
        queries=(("count", "At most so many; 20."),),
    ),
    Endpoint(
        "GET",
        "/why",
        "why",
        "The last decisions of this node in words, oldest first.",
        {200: "A list."},
        queries=(("count", "At most so many; 20."),),
    ),
    Endpoint(
        "GET",
        "/requests/{id}",
        "outcome",
        "How a request stands.",
        {200: "How it stands.", 404: "It is unknown, or too old.", 503: _SILENT},
        bodies.OutcomeAnswer,
    ),
    _ask("/switchover", "Let another node lead, without loss.", bodies.Switchover),
    _ask("/failover", "Promote a node although it may lack commits.", bodies.Failover),
    _ask("/pause", "No change of role and no fencing for a while.", bodies.Pause),
    _ask("/resume", "End a pause.", None),
    _ask("/restart", "Restart Postgres on a node.", bodies.OneNode),
    _ask("/reload", "Render the settings of a node again and reload.", bodies.OneNode),
    _ask("/reinit", "Copy the leader's data to a node again.", bodies.OneNode),
)
