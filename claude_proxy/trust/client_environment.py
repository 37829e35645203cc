"""Environment variables that make each client use the proxy and trust its CA; pure.

Two kinds of trust variables must not be confused. A variable that *adds* to its tool's roots gets
our certificate. One that *replaces* them gets the bundle of the system's roots and ours: with our
certificate alone, every host that is passed through would fail. Every proxy variable is an http://
URL, whatever its name: Claude Code exits at a socks:// one.
"""

import re
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.wire.authority import Authority

# Only this machine: what is listed here bypasses the proxy.
NO_PROXY = "localhost,127.0.0.1,::1"
_JAVA_NO_PROXY = "localhost|127.*|[::1]"

# Shells and .env readers do not agree on how to write line breaks and other control characters, and
# lone surrogates (from a path that is not UTF-8) cannot be printed.
_UNPRINTABLE = lazy_pattern(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, who reads it, and why it is set."""

    name: str
    value: str
    tool: str
    why: str


def _pair(name: str, value: str, tool: str, why: str) -> tuple[Variable, Variable]:
    # Programs differ: curl reads `http_proxy` in lower case only, others read upper case only, and
    # some prefer one of the two. So both are set to the same value; lower case first, as Nushell
    # may keep only one and nearly every program reads that.
    return Variable(name.lower(), value, tool, why), Variable(name.upper(), value, tool, why)


_ADDS = "adds the CA to the tool's own roots"
_REPLACES = "replaces the tool's roots, so it gets all of them"

# In the order they are printed. {proxy} is the URL, {address} "host:port".
_TABLE: tuple[Variable, ...] = (
    *_pair("http_proxy", "{proxy}", "most programs", "for http:// URLs"),
    *_pair("https_proxy", "{proxy}", "most programs", "for https:// URLs"),
    *_pair("all_proxy", "{proxy}", "curl, httpx, Rust programs", "for every other scheme"),
    *_pair("ws_proxy", "{proxy}", "codex", "for WebSockets"),
    *_pair("wss_proxy", "{proxy}", "codex", "for WebSockets over TLS"),
    *_pair("no_proxy", NO_PROXY, "most programs", "only this machine is reached directly"),
    Variable("SSL_CERT_FILE", "{bundle}", "OpenSSL, Python, Ruby, Go, uv, Rust", _REPLACES),
    Variable("NODE_EXTRA_CA_CERTS", "{certificate}", "Claude Code, Node, Bun, yarn 2+", _ADDS),
    Variable("CLAUDE_CODE_CERT_STORE", "bundled,system", "Claude Code", "the roots to add to"),
    Variable("CLAUDE_CODE_PROXY_RESOLVES_HOSTS", "1", "Claude Code", "a sandbox has no DNS"),
    Variable("NODE_USE_ENV_PROXY", "1", "Node 22.21+", "fetch ignores the proxy without it"),
    Variable("NODE_USE_SYSTEM_CA", "1", "Node 22.19+", "trusts the system's roots too"),
    Variable("npm_config_proxy", "{proxy}", "npm, pnpm, yarn 1", "for http:// registries"),
    Variable("npm_config_https_proxy", "{proxy}", "npm, pnpm, yarn 1", "for https:// registries"),
    Variable("npm_config_noproxy", NO_PROXY, "npm, pnpm", "this machine is reached directly"),
    Variable("npm_config_cafile", "{bundle}", "npm, pnpm, yarn 1", _REPLACES),
    # Nothing more for yarn: it exits at a setting that its version does not know. YARN_NO_PROXY
    # stops 3 and 4, YARN_HTTPS_CA_FILE_PATH stops 3, YARN_CA_FILE_PATH stops 4; all of them take
    # the CA from NODE_EXTRA_CA_CERTS.
    Variable("YARN_HTTP_PROXY", "{proxy}", "yarn", "version 2 and later ignore HTTP_PROXY"),
    Variable("YARN_HTTPS_PROXY", "{proxy}", "yarn", "version 2 and later ignore HTTPS_PROXY"),
    Variable("PIP_CERT", "{bundle}", "pip", _REPLACES),
    Variable("REQUESTS_CA_BUNDLE", "{bundle}", "requests, conda, poetry, az", _REPLACES),
    Variable("HTTPLIB2_CA_CERTS", "{bundle}", "httplib2", _REPLACES),
    Variable("CURL_CA_BUNDLE", "{bundle}", "curl", _REPLACES),
    Variable("GIT_SSL_CAINFO", "{bundle}", "git", "built with GnuTLS it ignores SSL_CERT_FILE"),
    Variable("CARGO_HTTP_PROXY", "{proxy}", "cargo", "for registries"),
    Variable("CARGO_HTTP_CAINFO", "{bundle}", "cargo", _REPLACES),
    Variable(
        "CARGO_NET_GIT_FETCH_WITH_CLI",
        "true",
        "cargo",
        "git supports the proxy better than libgit2",
    ),
    Variable("DENO_CERT", "{certificate}", "deno", _ADDS),
    Variable("DENO_TLS_CA_STORE", "system,mozilla", "deno", "the roots to add to"),
    Variable("AWS_CA_BUNDLE", "{bundle}", "aws, boto3", _REPLACES),
    Variable("CLOUDSDK_PROXY_TYPE", "http", "gcloud", "its name for CONNECT"),
    Variable("CLOUDSDK_PROXY_ADDRESS", "{host}", "gcloud", "the proxy's host"),
    Variable("CLOUDSDK_PROXY_PORT", "{port}", "gcloud", "the proxy's port"),
    Variable("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "{bundle}", "gcloud", _REPLACES),
    Variable("BUNDLE_HTTP_PROXY", "{proxy}", "Bundler", "for http:// sources"),
    Variable("BUNDLE_HTTPS_PROXY", "{proxy}", "Bundler", "for https:// sources"),
    Variable("BUNDLE_SSL_CA_CERT", "{bundle}", "Bundler", _REPLACES),
    Variable("COMPOSER_CAFILE", "{bundle}", "Composer", _REPLACES),
    Variable("PERL_LWP_ENV_PROXY", "1", "Perl's LWP", "ignores the proxy without it"),
    Variable("PERL_LWP_SSL_CA_FILE", "{bundle}", "Perl's LWP", _REPLACES),
    Variable("NIX_SSL_CERT_FILE", "{bundle}", "Nix", _REPLACES),
    Variable("DOCKER_HTTP_PROXY", "{proxy}", "Docker", "for http:// registries"),
    Variable("DOCKER_HTTPS_PROXY", "{proxy}", "Docker", "for https:// registries"),
    Variable("RSYNC_PROXY", "{address}", "rsync", "takes host:port, not a URL"),
    *_pair("grpc_proxy", "{proxy}", "gRPC", "read before the others"),
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "{bundle}", "gRPC", _REPLACES),
    Variable(
        "ELECTRON_GET_USE_PROXY", "true", "Electron", "makes its downloads use the next three"
    ),
    Variable("GLOBAL_AGENT_HTTP_PROXY", "{proxy}", "Electron, global-agent", "for http://"),
    Variable("GLOBAL_AGENT_HTTPS_PROXY", "{proxy}", "Electron, global-agent", "for https://"),
    Variable("GLOBAL_AGENT_NO_PROXY", NO_PROXY, "Electron, global-agent", "only this machine"),
)


def variables(
    proxy: Authority, certificate: Path, bundle: Path, *, java_truststore: Path | None = None
) -> tuple[Variable, ...]:
    """Return the variables for a proxy at `proxy`, in a stable order.

    Java's is included only with a trust store: it makes every `java` print a line about it.
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
    """Return the same variables as a mapping for a process."""
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
    return Variable(_JAVA, " ".join(options), "Java, Gradle, Maven", "they read no other variable")


def _java_word(option: str) -> str:
    # The JVM splits at white space and knows quotes of both kinds, but no escape.
    if not re.search(r"[\s\"']", option):
        return option
    for quote in ('"', "'"):
        if quote not in option:
            return f"{quote}{option}{quote}"
    raise ConfigError(
        f"{_JAVA} cannot hold a path with both kinds of quotes",
        where=option,
        fix="use a --confdir without quotes",
    )


def _path(path: Path) -> str:
    if not path.is_absolute():
        raise ValueError(f"a client runs elsewhere, so it needs an absolute path: {path}")
    if _UNPRINTABLE.search(str(path)):
        raise ConfigError(
            "the path contains a control character or is not UTF-8",
            where=repr(str(path)),
            fix="use a --confdir with a printable name",
        )
    return str(path)
