"""Service plans: the names and the unit that follow from a plan."""

import pytest

from claude_proxy.server.service.plan import Scope, ServiceKind, ServicePlan, Unit


@pytest.mark.parametrize(("activated", "unit"), [(False, "service"), (True, "socket")])
def test_the_unit_to_start_is_the_socket_where_systemd_listens(activated: bool, unit: str) -> None:  # noqa: FBT001 - a case
    plan = ServicePlan(ServiceKind.GATEWAY, Scope.USER, ("claude-proxy",), activated=activated)

    assert plan.unit == f"claude-proxy-gateway.{unit}"


def test_a_proxy_and_a_gateway_share_no_name() -> None:
    proxy, gateway = (
        ServicePlan(kind, Scope.SYSTEM, ("claude-proxy",)).names for kind in ServiceKind
    )

    assert not {proxy.user, proxy.state, proxy.runtime, proxy.firewall, proxy.table} & {
        gateway.user,
        gateway.state,
        gateway.runtime,
        gateway.firewall,
        gateway.table,
    }


def test_a_unit_is_called_by_the_last_part_of_its_path() -> None:
    assert Unit("/etc/systemd/system/claude-proxy.service", "").name == "claude-proxy.service"
