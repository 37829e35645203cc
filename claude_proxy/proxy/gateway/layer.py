"""First layer of a gateway's connection: a relay may say for whom it connects, then HTTP/1.1."""

from mitmproxy.proxy.context import Context

from claude_proxy.policy.reason import Reason
from claude_proxy.proxy.dialer import Dialer
from claude_proxy.proxy.gateway.responses import api_error, reason_field
from claude_proxy.proxy.gateway.role import GatewayRole
from claude_proxy.proxy.gateway.state import GatewayState
from claude_proxy.proxy.layers.http1 import Http1Lane
from claude_proxy.proxy.layers.protocol_detection import ProtocolDetection
from claude_proxy.proxy.layers.session import Session

# What a user gets that a Unix socket does not admit, and a machine that may not connect.
UNKNOWN_CALLER = api_error(
    401,
    "claude-proxy: This gateway does not admit this user or this machine.",
    reason_field(Reason.CLIENT_NOT_ALLOWED.value),
).http1(close=True)


def gateway_layer(
    context: Context,
    session: Session,
    dialer: Dialer,
    state: GatewayState,
    token: str | None,
) -> ProtocolDetection:
    """Return the first layer of a gateway's connection."""

    def lane(context: Context, session: Session) -> Http1Lane:
        role = GatewayRole(context.client, session, state, token)
        return Http1Lane(context, session, role)

    return ProtocolDetection(context, session, dialer, lane)
