"""Lists, tool by tool, the environment variables that lead a client through the proxy; pure.

Two kinds of trust variable must never be mixed up. A store that *adds* to the roots its tool
has gets our certificate. One that *replaces* them gets the bundle of the system's roots and
ours: with our certificate alone, every host that is passed through would fail. And every proxy
variable is an http:// URL, whatever the tool calls it: Claude Code ends at a socks:// one.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from claude_proxy.errors import ConfigError
from claude_proxy.wire.authority import Authority

# Nothing but this machine: what is named here goes past the proxy.
NO_PROXY = "localhost,127.0.0.1,::1"
_JAVA_NO_PROXY = "localhost|127.*|[::1]"

# Line breaks and their like have no spelling that all shells and .env readers agree on, and
# lone surrogates (a path that is not UTF-8) cannot be printed.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, who reads it, and why it is set."""

    name: str
    value: str
    tool: str
    why: str


def _pair(name: str, value: str, tool: str, why: str) -> tuple[Variable, Variable]:
    # Programs read one case or the other: curl takes `http_proxy` in lower case only, others
    # know upper case only, and some prefer one where the two differ. So both, and equal; lower
    # case first, as Nushell may keep but one of them, and nearly all read that.
    return Variable(name.lower(), value, tool, why), Variable(name.upper(), value, tool, why)


_ADDS = "its store adds the CA to the roots it has"
_REPLACES = "its store replaces the roots, so it gets all of them"

# In the order in which they are printed. {proxy} is the URL, {address} "host:port".
_TABLE: tuple[Variable, ...] = (
    *_pair("http_proxy", "{proxy}", "most programs", "for http:// addresses"),
    *_pair("https_proxy", "{proxy}", "most programs", "for https:// addresses"),
    *_pair("all_proxy", "{proxy}", "curl, httpx, Rust programs", "for every other scheme"),
    *_pair("ws_proxy", "{proxy}", "codex", "for WebSockets"),
    *_pair("wss_proxy", "{proxy}", "codex", "for WebSockets over TLS"),
    *_pair("no_proxy", NO_PROXY, "most programs", "this machine alone is reached directly"),
    Variable("SSL_CERT_FILE", "{bundle}", "OpenSSL, Python, Ruby, Go, uv, Rust", _REPLACES),
    Variable("NODE_EXTRA_CA_CERTS", "{certificate}", "Claude Code, Node, Bun, yarn 2+", _ADDS),
    Variable("CLAUDE_CODE_CERT_STORE", "bundled,system", "Claude Code", "the roots to add to"),
    Variable("CLAUDE_CODE_PROXY_RESOLVES_HOSTS", "1", "Claude Code", "a sandbox has no DNS to ask"),
    Variable("NODE_USE_ENV_PROXY", "1", "Node 22.21+", "without it, fetch ignores the proxy"),
    Variable("NODE_USE_SYSTEM_CA", "1", "Node 22.19+", "the system's roots count too"),
    Variable("npm_config_proxy", "{proxy}", "npm, pnpm, yarn 1", "for http:// registries"),
    Variable("npm_config_https_proxy", "{proxy}", "npm, pnpm, yarn 1", "for https:// registries"),
    Variable("npm_config_noproxy", NO_PROXY, "npm, pnpm", "this machine is reached directly"),
    Variable("npm_config_cafile", "{bundle}", "npm, pnpm, yarn 1", _REPLACES),
    # No more for yarn: it ends at a setting that its version does not know. YARN_NO_PROXY stops
    # 3 and 4, YARN_HTTPS_CA_FILE_PATH stops 3, YARN_CA_FILE_PATH stops 4; each of them takes the
    # CA from NODE_EXTRA_CA_CERTS.
    Variable("YARN_HTTP_PROXY", "{proxy}", "yarn", "from 2 on it ignores HTTP_PROXY"),
    Variable("YARN_HTTPS_PROXY", "{proxy}", "yarn", "from 2 on it ignores HTTPS_PROXY"),
    Variable("PIP_CERT", "{bundle}", "pip", _REPLACES),
    Variable("REQUESTS_CA_BUNDLE", "{bundle}", "requests, conda, poetry, az", _REPLACES),
    Variable("HTTPLIB2_CA_CERTS", "{bundle}", "httplib2", _REPLACES),
    Variable("CURL_CA_BUNDLE", "{bundle}", "curl", _REPLACES),
    Variable("GIT_SSL_CAINFO", "{bundle}", "git", "built with GnuTLS it ignores SSL_CERT_FILE"),
    Variable("CARGO_HTTP_PROXY", "{proxy}", "cargo", "for registries"),
    Variable("CARGO_HTTP_CAINFO", "{bundle}", "cargo", _REPLACES),
    Variable("CARGO_NET_GIT_FETCH_WITH_CLI", "true", "cargo", "git knows the proxy, libgit2 less"),
    Variable("DENO_CERT", "{certificate}", "deno", _ADDS),
    Variable("DENO_TLS_CA_STORE", "system,mozilla", "deno", "the roots to add to"),
    Variable("AWS_CA_BUNDLE", "{bundle}", "aws, boto3", _REPLACES),
    Variable("CLOUDSDK_PROXY_TYPE", "http", "gcloud", "CONNECT, in its words"),
    Variable("CLOUDSDK_PROXY_ADDRESS", "{host}", "gcloud", "the proxy's host"),
    Variable("CLOUDSDK_PROXY_PORT", "{port}", "gcloud", "the proxy's port"),
    Variable("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "{bundle}", "gcloud", _REPLACES),
    Variable("BUNDLE_HTTP_PROXY", "{proxy}", "Bundler", "for http:// sources"),
    Variable("BUNDLE_HTTPS_PROXY", "{proxy}", "Bundler", "for https:// sources"),
    Variable("BUNDLE_SSL_CA_CERT", "{bundle}", "Bundler", _REPLACES),
    Variable("COMPOSER_CAFILE", "{bundle}", "Composer", _REPLACES),
    Variable("PERL_LWP_ENV_PROXY", "1", "Perl's LWP", "without it, it ignores the proxy"),
    Variable("PERL_LWP_SSL_CA_FILE", "{bundle}", "Perl's LWP", _REPLACES),
    Variable("NIX_SSL_CERT_FILE", "{bundle}", "Nix", _REPLACES),
    Variable("DOCKER_HTTP_PROXY", "{proxy}", "Docker", "for http:// registries"),
    Variable("DOCKER_HTTPS_PROXY", "{proxy}", "Docker", "for https:// registries"),
    Variable("RSYNC_PROXY", "{address}", "rsync", "it takes no URL"),
    *_pair("grpc_proxy", "{proxy}", "gRPC", "it asks here first"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "{bundle}", "gRPC", _REPLACES),
    Variable("ELECTRON_GET_USE_PROXY", "true", "Electron", "its downloads use the next three"),
    Variable("GLOBAL_AGENT_HTTP_PROXY", "{proxy}", "Electron, global-agent", "for http://"),
    Variable("GLOBAL_AGENT_HTTPS_PROXY", "{proxy}", "Electron, global-agent", "for https://"),
    Variable("GLOBAL_AGENT_NO_PROXY", NO_PROXY, "Electron, global-agent", "this machine alone"),
)


def variables(
    proxy: Authority, certificate: Path, bundle: Path, *, java_truststore: Path | None = None
) -> tuple[Variable, ...]:
    """Return the variables for a proxy at `proxy`, in a stable order.

    Java's is there only with a trust store: it makes each `java` print a line about itself.
    """
    facts = {
        "proxy": f"http://{proxy}",
        "address": str(proxy),
        "host": proxy.host,
        "port": str(proxy.port),
        "certificate": _path(certificate),
        "bundle": _path(bundle),
    }
    found = [Variable(row.name, row.value.format_map(facts), row.tool, row.why) for row in _TABLE]
    if java_truststore is not None:
        found.append(_java(proxy, _path(java_truststore)))
    return tuple(found)


def environment(
    proxy: Authority, certificate: Path, bundle: Path, *, java_truststore: Path | None = None
) -> dict[str, str]:
    """Return the same variables as a process takes them."""
    found = variables(proxy, certificate, bundle, java_truststore=java_truststore)
    return {variable.name: variable.value for variable in found}


_JAVA = "JAVA_TOOL_OPTIONS"


def _java(proxy: Authority, truststore: str) -> Variable:
    properties = {
        "http.proxyHost": proxy.host,
        "http.proxyPort": str(proxy.port),
        "https.proxyHost": proxy.host,
        "https.proxyPort": str(proxy.port),
        "http.nonProxyHosts": _JAVA_NO_PROXY,
        "javax.net.ssl.trustStore": truststore,
        "javax.net.ssl.trustStoreType": "PKCS12",
    }
    options = (_java_word(f"-D{name}={value}") for name, value in properties.items())
    return Variable(_JAVA, " ".join(options), "Java, Gradle, Maven", "they read no other")


def _java_word(option: str) -> str:
    # The JVM splits at white space and knows quotes of both kinds, but no escape.
    if not re.search(r"[\s\"']", option):
        return option
    for quote in ('"', "'"):
        if quote not in option:
            return f"{quote}{option}{quote}"
    raise ConfigError(
        f"{_JAVA} cannot hold a path with quotes of both kinds",
        where=option,
        fix="use a --confdir without quotes",
    )


def _path(path: Path) -> str:
    if not path.is_absolute():
        raise ValueError(f"a client runs elsewhere, so it needs an absolute path: {path}")
    if _UNPRINTABLE.search(str(path)):
        raise ConfigError(
            "the path holds a control character or is not UTF-8",
            where=repr(str(path)),
            fix="use a --confdir whose name can be printed",
        )
    return str(path)
