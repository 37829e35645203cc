"""Clients that are tested: the command of each, and what fixes it; pure.

Each is started with an empty home and sends one request, without retries. A package client asks for
a package that does not exist; only the arrival of the request counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Where a shim (of pyenv, rustup, …) finds its program when the home is empty.
SHIMS = {
    "PYENV_ROOT": ".pyenv",
    "RUSTUP_HOME": ".rustup",
    "VOLTA_HOME": ".volta",
    "ASDF_DATA_DIR": ".asdf",
    "MISE_DATA_DIR": ".local/share/mise",
    "NVM_DIR": ".nvm",
}

# The exit code of a test program whose library is not installed.
ABSENT_CODE = 77

_PYTHON = "import sys\ntry:\n    import {module}\nexcept ImportError:\n    sys.exit(77)\n{act}"
_NODE = (
    "const ask = globalThis.fetch ?? ((u) => new Promise((d, f) => "
    "require('https').get(u, d).on('error', f)));"
    "ask(process.argv[1]).then(() => process.exit(0), (e) => "
    "{ console.error(String(e.cause?.code ?? e.cause ?? e)); process.exit(1); });"
)
_JAVA = """\
import java.net.URI;
public class Probe {
    public static void main(String[] given) throws Exception {
        URI.create(given[0]).toURL().openStream().close();
    }
}
"""
ENV = 'eval "$(claude-proxy env)"'
JAVA_ENV = 'eval "$(claude-proxy env --java)"'
_BUNDLE = '"$(claude-proxy ca bundle)"'
_CERTIFICATE = '"$(claude-proxy ca path)"'


@dataclass(frozen=True, slots=True)
class Client:
    """One client; {url} and {home} are replaced in its arguments, files and variables."""

    name: str
    argv: tuple[str, ...]
    proxy_fix: str = ENV  # if it ignores the proxy although the variables are set
    trust_fix: str = ENV  # if it does not trust the CA although they are set
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    # Settings of the user that it reads in spite of the empty home: the fix is written there.
    own: Mapping[str, str] = field(default_factory=dict)
    java: bool = False  # needs the variable that `claude-proxy env --java` adds

    @property
    def program(self) -> str:
        """The program that must be installed."""
        return self.argv[0]


def _python(name: str, module: str, act: str, trust_fix: str) -> Client:
    script = _PYTHON.format(module=module, act=act)
    return Client(name, ("python3", "-c", script, "{url}"), trust_fix=trust_fix)


CLIENTS: tuple[Client, ...] = (
    Client(
        "curl",
        ("curl", "--silent", "--show-error", "--max-time", "20", "--output", "/dev/null", "{url}"),
        trust_fix=f"export CURL_CA_BUNDLE={_BUNDLE}",
    ),
    Client(
        "wget",
        ("wget", "--no-verbose", "--tries", "1", "--timeout", "20", "-O", "/dev/null", "{url}"),
        trust_fix=f"echo ca_certificate = {_BUNDLE} >> ~/.wgetrc",
        # No variable names a CA to the wget that is built with GnuTLS (Debian's).
        own={"WGETRC": ".wgetrc"},
    ),
    Client(
        "git",
        ("git", "ls-remote", "{url}/repository.git"),
        environ={"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"},
        proxy_fix="git config --global http.proxy {proxy}",
        trust_fix=f"git config --global http.sslCAInfo {_BUNDLE}",
    ),
    Client(
        "node",
        ("node", "--eval", _NODE, "{url}"),
        proxy_fix="use Node 22.21, 24.5 or newer, which support NODE_USE_ENV_PROXY=1",
        trust_fix=f"export NODE_EXTRA_CA_CERTS={_CERTIFICATE}",
    ),
    _python(
        "python requests",
        "requests",
        "requests.get(sys.argv[1], timeout=20)",
        trust_fix=f"export REQUESTS_CA_BUNDLE={_BUNDLE}",
    ),
    Client(
        "pip",
        (
            *("pip", "download", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"),
            *("--retries", "0", "--timeout", "20", "--dest", "{home}"),
            *("--index-url", "{url}/simple", "claude-proxy-doctor"),
        ),
        environ={"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INPUT": "1"},
        proxy_fix="pip config set global.proxy {proxy}",
        trust_fix=f"pip config set global.cert {_BUNDLE}",
    ),
    Client(
        "uv",
        (
            *("uv", "pip", "compile", "-", "--no-cache", "--no-config", "--no-progress"),
            *("--index-url", "{url}/simple"),
        ),
        environ={"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "20", "UV_PYTHON_DOWNLOADS": "never"},
        stdin="claude-proxy-doctor\n",
        trust_fix=f"export SSL_CERT_FILE={_BUNDLE}",
    ),
    Client(
        "npm",
        (
            *("npm", "view", "--registry", "{url}/", "--cache", "{home}/cache"),
            *("--fetch-retries", "0", "--no-update-notifier", "--loglevel", "error"),
            "claude-proxy-doctor",
        ),
        proxy_fix="npm config set https-proxy {proxy}",
        trust_fix=f"npm config set cafile {_BUNDLE}",
    ),
    Client(
        "cargo",
        ("cargo", "search", "--index", "sparse+{url}/index/", "claude-proxy-doctor"),
        environ={"CARGO_HOME": "{home}/cargo", "CARGO_NET_RETRY": "0"},
        trust_fix=f"export CARGO_HTTP_CAINFO={_BUNDLE}",
    ),
    Client(
        "go",
        ("go", "list", "-m", "-versions", "doctor.example/claude-proxy"),
        environ={
            "GOPROXY": "{url}",
            "GONOSUMDB": "*",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod",
            "GOPATH": "{home}/go",
            "GOCACHE": "{home}/go-cache",
            "GOENV": "off",
        },
        files={"go.mod": "module doctor.example/probe\n"},
        trust_fix=f"export SSL_CERT_FILE={_BUNDLE} (on macOS Go uses only the keychain)",
    ),
    Client(
        "java",
        ("java", "{home}/Probe.java", "{url}"),
        files={"Probe.java": _JAVA},
        java=True,
        proxy_fix=JAVA_ENV,
        trust_fix=JAVA_ENV,
    ),
    Client(
        "deno",
        ("deno", "eval", "await fetch(Deno.args[0])", "{url}"),
        environ={"DENO_DIR": "{home}/deno", "DENO_NO_UPDATE_CHECK": "1"},
        trust_fix=f"export DENO_CERT={_CERTIFICATE}",
    ),
    Client(
        "gh",
        ("gh", "api", "{url}"),
        environ={
            "GH_TOKEN": "none",
            "GH_ENTERPRISE_TOKEN": "none",
            "GH_NO_UPDATE_NOTIFIER": "1",
            "GH_CONFIG_DIR": "{home}/gh",
        },
        trust_fix=f"export SSL_CERT_FILE={_BUNDLE} (on macOS gh uses only the keychain)",
    ),
)
