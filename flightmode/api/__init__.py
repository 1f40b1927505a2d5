"""The agent's HTTPS API: what the node sees, and how people ask the cluster for something.

Nothing here changes the cluster: a wish becomes a record in the store, and the node it
concerns decides.  So an answer of 202 means "written down", and the outcome is asked for.
"""

from flightmode.api.app import Access, make_app
from flightmode.api.face import AgentFace, Told, told
from flightmode.api.serve import ApiServer, bind

__all__ = ["Access", "AgentFace", "ApiServer", "Told", "bind", "make_app", "told"]
