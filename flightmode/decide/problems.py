"""What a node says of itself when a person is needed, code by code.

These are never raised: a decision carries one as text, `FM602: this node leads and …`,
and the node publishes it.  They are classes so that they have a place in the tree of
errors, a hint, and a line in docs/reference/errors.md.
"""

from flightmode.errors import AgentError, every_error


class NodeProblem(AgentError):
    """A person is needed.  Never raised: a node says these of itself, in `flightmode status`."""


class PostgresSilent(NodeProblem):
    """Postgres runs here and does not answer; the fence stops it if it may not lead any more."""

    code = "FM601"
    hint = "flightmode logs --postgres"


class DataGone(NodeProblem):
    """This node leads and its data directory is gone."""

    code = "FM602"
    hint = "flightmode status"


class PromotionStuck(NodeProblem):
    """The promotion takes too long and nobody else could lead."""

    code = "FM603"
    hint = "flightmode logs --postgres"


class PausedDown(NodeProblem):
    """Postgres is down here and the cluster is paused, so nothing is started."""

    code = "FM604"
    hint = "flightmode resume"


class DataUnseen(NodeProblem):
    """The data directory can't be read."""

    code = "FM605"
    hint = "flightmode check"


class DataForeign(NodeProblem):
    """The data directory belongs to another cluster."""

    code = "FM606"
    hint = "flightmode check"


class DataOfOtherVersion(NodeProblem):
    """The data directory is of another major version of PostgreSQL."""

    code = "FM607"
    hint = "flightmode check"


class DataUnfinished(NodeProblem):
    """A copy or a rewind of the data was begun here and not finished."""

    code = "FM608"
    hint = "flightmode why"


class PausedPrimary(NodeProblem):
    """A primary runs here although another node leads; the cluster is paused, so it stays."""

    code = "FM609"
    hint = "flightmode resume"


class LeaderUnready(NodeProblem):
    """This node can't follow the leader, although that is up."""

    code = "FM610"
    hint = "flightmode why"


class DataWithoutCluster(NodeProblem):
    """etcd holds no cluster, but nodes have data: nothing is created over them."""

    code = "FM611"
    hint = "flightmode status"


class StartedAndEnded(NodeProblem):
    """Postgres was started and ended before it came up: its log has the reason."""

    code = "FM612"
    hint = "flightmode logs --postgres"


class LedByAStranger(NodeProblem):
    """Who leads is no database node of this node's flightmode.toml: it is an old one."""

    code = "FM613"
    hint = "flightmode provision"


class TwoOfOneName(NodeProblem):
    """Two machines carry this node's name; who leads goes on, nobody else of that name does."""

    code = "FM614"
    hint = "flightmode node replace --help"


class NamesOverruled(NodeProblem):
    """Another setting of synchronous_standby_names overrules ours, so nobody can take over."""

    code = "FM631"
    hint = (
        "sudo -u postgres psql -c 'ALTER SYSTEM RESET synchronous_standby_names' "
        "-c 'SELECT pg_reload_conf()'"
    )


class StateSuperseded(NodeProblem):
    """etcd holds an older term than a fence has served, as from a backup: nobody goes by it."""

    code = "FM632"
    hint = "flightmode status"


class RuleBroken(NodeProblem):
    """A decision broke a rule of ours, so nothing is done: please report it, with the journal."""

    code = "FM698"
    hint = "flightmode why"


class BugOfOurs(NodeProblem):
    """Something that should never happen: please report it, with the journal."""

    code = "FM699"
    hint = "flightmode logs"


def hint_for(problem: str) -> str | None:
    """The command to type next, for a problem as a node tells it; None: the code is not known."""
    code = problem.partition(":")[0]
    return next((kind.hint for kind in every_error() if kind.code == code), None)
