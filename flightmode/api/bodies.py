"""What is sent to the API and what it sends back, apart from /status."""

from pydantic import BaseModel, ConfigDict, Field

from flightmode.api.status import Answer
from flightmode.api.wishes import Standing
from flightmode.errors import FlightmodeError


class Body(BaseModel):
    """What is sent: nothing that is not known, nothing guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Switchover(Body):
    """Hand the writes over to another node, without loss."""

    to: str | None = Field(None, description="The node that is to lead; null: the one in sync.")


class Failover(Body):
    """Promote a node although acknowledged commits may be missing there."""

    to: str
    accept_data_loss: bool = Field(False, description="Must be true.")


class Pause(Body):
    """No change of role and no fencing for so long; it ends by itself."""

    for_s: float = Field(gt=0, le=86400, description="At most a day.")


class OneNode(Body):
    """The node that it is about."""

    node: str


class Accepted(Answer):
    """It is written down; `GET /requests/{id}` tells how it ends."""

    id: str
    kind: str
    expires_wall_s: float


class OutcomeAnswer(Answer):
    """How a request stands."""

    id: str
    open: bool
    ok: bool | None = Field(description="null while it is open")
    why: str | None
    wall_s: float | None


class PrimaryAnswer(Answer):
    """200: this node holds the term and accepts writes; 503: it does not."""

    node: str
    term: int | None


class ReplicaAnswer(Answer):
    """200: this node is a standby that streams, and is near enough; 503: it is not."""

    node: str
    lag_bytes: int | None


class HealthAnswer(Answer):
    """200: the agent is alive and its Postgres is what it should be; 503: the reason why not."""

    node: str
    reason: str | None


class ErrorDetail(Answer):
    """An error: the same as the command line shows."""

    code: str
    message: str
    retry: bool = Field(description="Trying again may help.")
    hint: str = Field(description="A command to type next.")


class ErrorAnswer(Answer):
    """The body of every answer that is not what was asked for."""

    error: ErrorDetail


def error_of(failure: FlightmodeError) -> ErrorAnswer:
    """The body for an error."""
    return ErrorAnswer(
        error=ErrorDetail(
            code=failure.code,
            message=failure.message,
            retry=failure.retry,
            hint=failure.hint_text,
        )
    )


def outcome_of(standing: Standing) -> OutcomeAnswer:
    """The body for a request."""
    outcome = standing.outcome
    return OutcomeAnswer(
        id=standing.request_id,
        open=standing.open,
        ok=None if outcome is None else outcome.ok,
        why=None if outcome is None else outcome.why,
        wall_s=None if outcome is None else outcome.wall_s,
    )
