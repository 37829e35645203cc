"""Kubernetes manifests: an agent whose only way out is the proxy; pure.

A sidecar shares the network namespace of its pod, and a NetworkPolicy selects whole pods, so a
sidecar alone is no wall. There are two walls. Two pods: the proxy is a pod of its own, and a
NetworkPolicy leaves the agent's pod nothing but that. One pod: an init container with NET_ADMIN
loads packet filter rules by which only the proxy's user may send, and is gone before anything else
starts. Either way an init container tries to get out, and the pod does not start if it can: many
clusters take a NetworkPolicy and enforce none.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from claude_proxy.sandbox.container.files import walls
from claude_proxy.sandbox.container.files.model import (
    FileRequest,
    FileSet,
    PodLayout,
    RenderedFile,
    head_of,
)
from claude_proxy.sandbox.container.files.yaml_text import document, documents
from claude_proxy.sandbox.plan.environment import HTTP_PORT, INSIDE, SOCKS_PORT
from claude_proxy.server.service.plan import HTTPS_PORT, Firewall
from claude_proxy.server.service.systemd import pod_firewall_of

_DIRECTORY: Final = PurePosixPath("kubernetes")
_DEFAULT_IMAGE: Final = "localhost/agent:latest"
_PROXY_USER: Final = 9051  # the packet filter's rules name it, so it is fixed
_PORT, _CANARY_PORT = 9051, 9052
_ANYWHERE: Final = (
    ("0.0.0.0/0", ("169.254.0.0/16", "127.0.0.0/8")),
    ("::/0", ("fe80::/10", "fd00:ec2::/32")),
)
# Where pods are. The password decides who may use the proxy; this keeps all others out before it.
_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
_FILE: Final = "allowlist.yaml"
_TABLE: Final = "claude_proxy_pod"
# The proxy refuses a CA that others could replace. A volume is writable by everybody; in memory it
# is sticky, as /tmp is, so a directory of the proxy's own is safe in it.
_CA_VOLUME, _STATE_VOLUME = "/run/claude-proxy-ca", "/var/lib/claude-proxy"
_CADIR, _STATE = f"{_CA_VOLUME}/own", f"{_STATE_VOLUME}/own"
_POLICY: Final = "/etc/claude-proxy"

_ALLOWLIST: Final = """\
# What the agent may reach; `claude-proxy check --allowlist THIS-FILE URL` says what it decides.
allow:
  - preset: claude

# The key stays with the proxy: put it into the secret (see kustomization.yaml), take away the
# comment signs, and the agent has only the placeholder in ANTHROPIC_API_KEY.
# credentials:
#   - host: api.anthropic.com
#     inject: x-api-key
#     from: {env: ANTHROPIC_API_KEY}
"""

_CONTAINERFILE: Final = """\
# The image of the proxy, the rules and the check. Put the wheel of claude-proxy beside this file.
ARG PYTHON=docker.io/library/python:3.13-slim
FROM ${PYTHON}
RUN apt-get update && apt-get install -y --no-install-recommends nftables \\
    && rm -rf /var/lib/apt/lists/*
COPY claude_proxy-*.whl /tmp/
RUN pip install --no-cache-dir /tmp/claude_proxy-*.whl && rm /tmp/claude_proxy-*.whl
USER 9051:9051
ENTRYPOINT ["claude-proxy"]
"""


def render(request: FileRequest) -> FileSet:
    """Return the manifests of one layout, and what makes them run."""
    pod = _Pods(request.name, request.image or _DEFAULT_IMAGE)
    two = request.pods is PodLayout.TWO
    resources = pod.two() if two else pod.one()
    files = {
        "kustomization.yaml": head_of(request, _comment(request.name, two=two))
        + document(_kustomization(request.name, list(resources), two=two)),
        **{
            name: head_of(request, comment) + documents(parts)
            for name, (comment, parts) in resources.items()
        },
    }
    if not two:
        files["egress.nft"] = pod_firewall_of(Firewall(), user=_PROXY_USER, table=_TABLE)
    own = {_FILE: _ALLOWLIST, "proxy/Containerfile": _CONTAINERFILE}
    return FileSet(
        tuple(
            RenderedFile(_DIRECTORY / name, text, own=name in own)
            for name, text in {**files, **own}.items()
        ),
        _steps(request.name, two=two),
    )


def _comment(name: str, *, two: bool) -> str:
    login = f"  kubectl -n {name} create secret generic {name}-login \\\n"
    login += '    --from-literal=password="$(openssl rand -hex 24)"\n'
    return (
        "What is secret is not in these files. Once, before `kubectl apply -k .`:\n"
        f"  kubectl create namespace {name}\n"
        f"  claude-proxy ca bundle --confdir ./{name}-ca     (keep it out of the repository)\n"
        f"  kubectl -n {name} create secret generic {name}-ca \\\n"
        f"    --from-file=./{name}-ca/mitmproxy-ca.pem\n"
        f"  kubectl -n {name} create configmap {name}-trust \\\n"
        f"    --from-file=ca.pem=./{name}-ca/mitmproxy-ca-cert.pem \\\n"
        f"    --from-file=bundle.pem=./{name}-ca/ca-bundle.pem\n"
        + (login if two else "")
        + "If the policy names a key:\n"
        f"  kubectl -n {name} create secret generic {name}-keys \\\n"
        "    --from-file=ANTHROPIC_API_KEY=FILE\n"
    )


def _steps(name: str, *, two: bool) -> tuple[str, ...]:
    start = f"kubectl -n {name} attach -it deploy/{name}"
    wall = (
        "the network plug-in of the cluster has to enforce NetworkPolicy; the pod does not start "
        "if it does not"
        if two
        else "the namespace has to permit NET_ADMIN for one init container"
    )
    return (
        f"build the image of the proxy from {_DIRECTORY}/proxy, and name it in kustomization.yaml",
        f"create the secrets as the head of {_DIRECTORY}/kustomization.yaml says",
        f"kubectl apply -k {_DIRECTORY}, then: {start}",
        wall,
    )


def _kustomization(name: str, resources: list[str], *, two: bool) -> dict[str, Any]:
    generated = [{"name": f"{name}-policy", "files": [_FILE]}]
    if not two:
        generated.append({"name": f"{name}-rules", "files": ["egress.nft"]})
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": name,
        "resources": resources,
        "configMapGenerator": generated,
        "images": [
            {"name": "claude-proxy", "newName": "localhost/claude-proxy", "newTag": "latest"}
        ],
    }


class _Pods:
    """The resources of one agent."""

    def __init__(self, name: str, image: str) -> None:
        self._name = name
        self._image = image
        # Not NAME-proxy: for an agent named claude, Kubernetes would set CLAUDE_PROXY_PORT.
        self._service = f"{name}-egress"

    def two(self) -> dict[str, tuple[str, list[dict[str, Any]]]]:
        """Return the files of two pods: what each is for, and its documents."""
        return {
            "namespace.yaml": (
                "Every pod of this namespace keeps to the restricted Pod Security Standard.",
                [self._namespace("restricted")],
            ),
            "network-policy.yaml": (
                (
                    "The wall: the agent reaches the proxy on one port, and nothing else; no DNS.\n"
                    f"On port {_CANARY_PORT} the proxy listens too, and nobody may reach it: if\n"
                    "the agent can, no policy is in force, and its pod does not start."
                ),
                [self._deny_all(), self._agent_policy(), self._proxy_policy()],
            ),
            "proxy.yaml": (
                "The proxy. Its audit log is printed as JSON, for the log of the cluster.",
                [self._proxy_service(), self._proxy_deployment()],
            ),
            "agent.yaml": ("The agent.", [self._agent_deployment(two=True)]),
        }

    def one(self) -> dict[str, tuple[str, list[dict[str, Any]]]]:
        """Return the files of one pod."""
        return {
            "namespace.yaml": (
                (
                    "No standard permits NET_ADMIN, which the init container of the rules needs;\n"
                    "what else is against the restricted one is shown as a warning."
                ),
                [self._namespace("privileged")],
            ),
            "network-policy.yaml": (
                "A second wall, where policies are enforced: of the whole pod.",
                [self._deny_all(), self._pod_policy()],
            ),
            "agent.yaml": (
                (
                    "In this order: the rules are loaded, the proxy starts, the check tries to\n"
                    "get out, the agent starts. The container of the rules has ended before."
                ),
                [self._agent_deployment(two=False)],
            ),
        }

    # Names

    def _labels(self, component: str) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": self._name,
            "app.kubernetes.io/component": component,
        }

    def _meta(self, name: str, component: str) -> dict[str, Any]:
        return {"name": name, "labels": self._labels(component)}

    def _namespace(self, level: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self._name,
                "labels": {
                    "pod-security.kubernetes.io/enforce": level,
                    "pod-security.kubernetes.io/warn": "restricted",
                    "pod-security.kubernetes.io/audit": "restricted",
                },
            },
        }

    # Policies

    def _policy(self, name: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name},
            "spec": {**spec, "policyTypes": ["Ingress", "Egress"]},
        }

    def _selected(self, component: str) -> dict[str, Any]:
        return {"matchLabels": self._labels(component)}

    def _deny_all(self) -> dict[str, Any]:
        return self._policy(f"{self._name}-deny", podSelector={}, ingress=[], egress=[])

    def _agent_policy(self) -> dict[str, Any]:
        to_proxy = {
            "to": [{"podSelector": self._selected("proxy")}],
            "ports": [{"protocol": "TCP", "port": _PORT}],
        }
        return self._policy(
            self._name, podSelector=self._selected("agent"), ingress=[], egress=[to_proxy]
        )

    def _proxy_policy(self) -> dict[str, Any]:
        from_agent = {
            "from": [{"podSelector": self._selected("agent")}],
            "ports": [{"protocol": "TCP", "port": _PORT}],
        }
        return self._policy(
            self._service,
            podSelector=self._selected("proxy"),
            ingress=[from_agent],
            egress=_upstreams(),
        )

    def _pod_policy(self) -> dict[str, Any]:
        return self._policy(
            self._name, podSelector=self._selected("agent"), ingress=[], egress=_upstreams()
        )

    # The proxy

    def _proxy_service(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._meta(self._service, "proxy"),
            "spec": {
                "selector": self._labels("proxy"),
                "ports": [
                    {"name": "proxy", "protocol": "TCP", "port": _PORT},
                    {"name": "canary", "protocol": "TCP", "port": _CANARY_PORT},
                ],
            },
        }

    def _proxy_deployment(self) -> dict[str, Any]:
        listen = [f"--listen=0.0.0.0:{port}" for port in (_PORT, _CANARY_PORT)]
        clients = [f"--client={network}" for network in _PRIVATE]
        container = self._proxy_container([*listen, "--allow-remote", *clients])
        login = {"name": f"{self._name}-login", "key": "password"}
        container["env"] = [
            {"name": "PROXY_PASSWORD", "valueFrom": {"secretKeyRef": login}},
            {"name": "CLAUDE_PROXY_AUTH", "value": "agent:$(PROXY_PASSWORD)"},
            *container["env"],
        ]
        container["ports"] = [{"name": "proxy", "containerPort": _PORT}]
        # The canary's port: the agent's check means something only if somebody listens there.
        container["readinessProbe"] = {"tcpSocket": {"port": _CANARY_PORT}, "periodSeconds": 5}
        spec = {
            **self._pod_spec(_PROXY_USER),
            # The variables of services begin with their names, as the proxy's own do.
            "enableServiceLinks": False,
            "initContainers": [self._ca_container()],
            "containers": [container],
            "volumes": self._proxy_volumes(),
        }
        return self._deployment(self._service, "proxy", spec)

    def _proxy_container(self, words: list[str]) -> dict[str, Any]:
        key = {"name": f"{self._name}-keys", "key": "ANTHROPIC_API_KEY", "optional": True}
        return {
            "name": "proxy",
            "image": "claude-proxy",
            "args": [
                *("serve", *words),
                *(f"--confdir={_POLICY}", f"--cadir={_CADIR}", f"--statedir={_STATE}"),
                *("--audit-size=128M", "--jsonl=-", "--quiet"),
            ],
            "env": [
                {"name": "HOME", "value": _STATE_VOLUME},
                {"name": "ANTHROPIC_API_KEY", "valueFrom": {"secretKeyRef": key}},
            ],
            "resources": _resources(memory="1Gi", cpu="1"),
            "securityContext": _confined(_PROXY_USER),
            "volumeMounts": [
                # The file alone: the directory of a volume could be changed by others.
                {**_mount("policy", f"{_POLICY}/{_FILE}", read_only=True), "subPath": _FILE},
                _mount("ca", _CA_VOLUME),
                _mount("state", _STATE_VOLUME),
                _mount("proxy-tmp", "/tmp"),  # noqa: S108 - in the container
            ],
        }

    def _ca_container(self) -> dict[str, Any]:
        """Return what copies the CA: the files of a secret belong to root."""
        script = f"umask 077 && mkdir -p {_CADIR} {_STATE} && cp /run/secret/*.pem {_CADIR}/"
        return {
            "name": "ca",
            "image": "claude-proxy",
            "command": ["sh", "-c", script],
            "resources": _resources(memory="128Mi", cpu="250m"),
            "securityContext": _confined(_PROXY_USER),
            "volumeMounts": [
                _mount("ca-secret", "/run/secret", read_only=True),
                _mount("ca", _CA_VOLUME),
                _mount("state", _STATE_VOLUME),
            ],
        }

    def _proxy_volumes(self) -> list[dict[str, Any]]:
        return [
            {"name": "policy", "configMap": {"name": f"{self._name}-policy"}},
            {"name": "ca-secret", "secret": {"secretName": f"{self._name}-ca"}},
            _memory("ca", "1Mi"),
            _memory("state", "256Mi"),
            _memory("proxy-tmp", "16Mi"),
        ]

    # The agent

    def _agent_deployment(self, *, two: bool) -> dict[str, Any]:
        init = [self._check_container(two=two)]
        volumes = self._agent_volumes()
        if not two:
            init = [self._rules_container(), self._ca_container(), self._sidecar(), *init]
            rules = {"name": "rules", "configMap": {"name": f"{self._name}-rules"}}
            volumes = [*volumes, rules, *self._proxy_volumes()]
        spec = {
            **self._pod_spec(walls.AGENT_USER),
            # With two pods the address of the proxy comes from the service's variables.
            "enableServiceLinks": two,
            "initContainers": init,
            "containers": [self._agent_container(two=two)],
            "volumes": volumes,
        }
        if two:
            spec["dnsPolicy"] = "None"
            spec["dnsConfig"] = {"nameservers": ["127.0.0.1"]}
        return self._deployment(self._name, "agent", spec)

    def _pod_spec(self, user: int) -> dict[str, Any]:
        return {
            "automountServiceAccountToken": False,
            "hostNetwork": False,
            "hostPID": False,
            "hostIPC": False,
            "shareProcessNamespace": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": 30,
        }

    def _deployment(self, name: str, component: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._meta(name, component),
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": self._selected(component),
                "template": {
                    "metadata": {"labels": self._labels(component)},
                    "spec": dict(spec),
                },
            },
        }

    def _agent_container(self, *, two: bool) -> dict[str, Any]:
        return {
            "name": "agent",
            "image": self._image,
            "stdin": True,
            "tty": True,
            "workingDir": walls.WORKSPACE,
            "env": self._agent_environment(two=two),
            "resources": _resources(memory="4Gi", cpu="2"),
            "securityContext": _confined(walls.AGENT_USER),
            "volumeMounts": [
                _mount("trust", str(INSIDE), read_only=True),
                _mount("workspace", walls.WORKSPACE),
                _mount("home", walls.AGENT_HOME),
                _mount("tmp", "/tmp"),  # noqa: S108 - in the container
            ],
        }

    def _agent_environment(self, *, two: bool) -> list[dict[str, Any]]:
        if not two:
            found = walls.agent_environment() | {"HOME": walls.AGENT_HOME}
            return [{"name": name, "value": value} for name, value in found.items()]
        login = {"name": f"{self._name}-login", "key": "password"}
        # Kubernetes fills in `$(...)` before a program runs.
        found = walls.agent_environment(host="proxy.invalid", port=_PORT)
        at = f"$({self._variable()}_SERVICE_HOST)"
        values = {
            name: value.replace(
                "http://proxy.invalid", f"http://agent:$(PROXY_PASSWORD)@{at}"
            ).replace("proxy.invalid", at)
            for name, value in found.items()
        }
        values["HOME"] = walls.AGENT_HOME
        return [
            {"name": "PROXY_PASSWORD", "valueFrom": {"secretKeyRef": login}},
            *({"name": name, "value": value} for name, value in values.items()),
        ]

    def _variable(self) -> str:
        return self._service.upper().replace("-", "_")

    def _agent_volumes(self) -> list[dict[str, Any]]:
        return [
            {"name": "trust", "configMap": {"name": f"{self._name}-trust"}},
            # To keep them, name a persistentVolumeClaim instead of emptyDir.
            _empty("workspace", "10Gi"),
            _empty("home", "2Gi"),
            _empty("tmp", "1Gi"),
        ]

    # Init containers

    def _check_container(self, *, two: bool) -> dict[str, Any]:
        canary = [f"--canary=$({self._variable()}_SERVICE_HOST):{_CANARY_PORT}"] if two else []
        variables = ("PROXY_PASSWORD", "HTTPS_PROXY")
        wanted = [one for one in self._agent_environment(two=two) if one["name"] in variables]
        return {
            "name": "check",
            "image": "claude-proxy",
            "args": ["doctor", "--attack-here", *canary],
            "env": [*wanted, {"name": "HOME", "value": "/tmp"}],  # noqa: S108 - in the container
            "resources": _resources(memory="256Mi", cpu="500m"),
            "securityContext": _confined(walls.AGENT_USER),
            "volumeMounts": [_mount("tmp", "/tmp")],  # noqa: S108 - in the container
        }

    def _rules_container(self) -> dict[str, Any]:
        return {
            "name": "rules",
            "image": "claude-proxy",
            "command": ["nft", "-f", "/etc/claude-proxy-rules/egress.nft"],
            "resources": _resources(memory="64Mi", cpu="250m"),
            "securityContext": {
                "runAsNonRoot": False,
                "runAsUser": 0,
                "runAsGroup": 0,
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            },
            "volumeMounts": [_mount("rules", "/etc/claude-proxy-rules", read_only=True)],
        }

    def _sidecar(self) -> dict[str, Any]:
        listen = [f"--listen=127.0.0.1:{port}" for port in (HTTP_PORT, SOCKS_PORT)]
        ask = f"import socket; socket.create_connection(('127.0.0.1', {HTTP_PORT}), 2).close()"
        # Kubernetes 1.29: an init container that stays, and is there before the ones after it.
        return self._proxy_container(listen) | {
            "restartPolicy": "Always",
            "startupProbe": {
                "exec": {"command": ["python3", "-c", ask]},
                "periodSeconds": 2,
                "failureThreshold": 60,
            },
        }


def _upstreams() -> list[dict[str, Any]]:
    """Return where the proxy may send: to name servers, and to HTTPS outside of the cluster."""
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    blocks = [
        {"ipBlock": {"cidr": network, "except": list(left_out)}} for network, left_out in _ANYWHERE
    ]
    return [
        {"ports": names},
        {"to": blocks, "ports": [{"protocol": "TCP", "port": HTTPS_PORT}]},
    ]


def _confined(user: int) -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _resources(*, memory: str, cpu: str) -> dict[str, Any]:
    return {
        "requests": {"memory": "64Mi", "cpu": "50m"},
        "limits": {"memory": memory, "cpu": cpu, "ephemeral-storage": "12Gi"},
    }


def _mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})


def _empty(name: str, size: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"sizeLimit": size}}


def _memory(name: str, size: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}
