"""Who may change something: whoever shows a certificate of the cluster, or knows its token."""

import hmac
from dataclasses import dataclass

from starlette.requests import Request

from flightmode.errors import NotAllowed


@dataclass(frozen=True, slots=True)
class Access:
    """The token, from the secrets directory; None: certificates only."""

    token: str | None

    def caller(self, request: Request) -> str:
        """Who asks, in words.  Raises NotAllowed.

        A certificate has been verified against the cluster's authority by the TLS layer, which
        puts its name into the ASGI scope (ASGI's TLS extension); no header can pretend to it.
        """
        name = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_name")
        if name:
            return str(name)
        if self._knows_token(request.headers.get("authorization", "")):
            host = request.client.host if request.client else "somewhere"
            return f"token from {host}"
        raise NotAllowed("this needs a client certificate of the cluster, or its token")

    def _knows_token(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        if self.token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self.token.encode())
