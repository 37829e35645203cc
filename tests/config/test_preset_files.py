"""The presets and the shipped list: they load, they are enough, and they open no side door."""

import re
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from claude_proxy.config import preset_files as packaged
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.schema import schema
from claude_proxy.config.allowlist.writer import entry_of, facts_of
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.rules import RawScheme, Rule, Tls
from claude_proxy.wire.authority import Authority

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = (ROOT / "allowlist.yaml").read_text("utf-8")
NAMES = packaged.names()
SCHEMA = jsonschema.Draft202012Validator(schema())

# Only these may send more than a question: they are services that an agent talks to.
TALKING = {
    *("anthropic", "claude", "claude-min", "claude-optional", "claude-telemetry"),
    *("codex", "gemini"),
}

DOH = (
    *("dns.google", "dns.google.com", "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"),
    *("cloudflare-dns.com", "mozilla.cloudflare-dns.com", "chrome.cloudflare-dns.com"),
    *("one.one.one.one", "dns.quad9.net", "doh.opendns.com", "dns.nextdns.io", "dns.adguard.com"),
    *("dns.adguard-dns.com", "doh.cleanbrowsing.org", "freedns.controld.com", "dns.mullvad.net"),
    *("doh.dns.sb", "dns.alidns.com", "doh.pub", "doh.li", "ordns.he.net", "doh.xfinity.com"),
)
ANYBODYS = (
    *("https://storage.googleapis.com/somebody/x", "https://somebody.storage.googleapis.com/x"),
    *("https://s3.amazonaws.com/somebody/x", "https://somebody.s3.amazonaws.com/x"),
    *("https://github-cloud.s3.amazonaws.com/x", "https://somebody.blob.core.windows.net/x"),
    *("https://somebody.r2.cloudflarestorage.com/x", "https://pub-1.r2.dev/x"),
    *("https://gist.github.com/somebody", "https://gist.githubusercontent.com/somebody/x"),
    *("https://somebody.github.io/", "https://user-images.githubusercontent.com/1/x"),
    *("https://somebody.pages.dev/", "https://somebody.workers.dev/", "https://x.gitlab.io/"),
    *("https://pastebin.com/x", "https://pastebin.ubuntu.com/p/x", "https://paste.debian.net/x"),
    *("https://somebody.vercel.app/", "https://somebody.netlify.app/", "https://x.web.app/"),
    *("https://somebody.ingest.us.sentry.io/api/1/envelope/", "https://huggingface.co/somebody"),
    "https://dl.google.com/somebody/x",
)


@cache
def policy_of(name: str) -> Policy:
    return loader.preset_policy(name)


def asks(url: str, method: str = "GET") -> Request:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    target = Authority.parse(host, default_port=443 if scheme == "https" else 80)
    return Request(Scheme(scheme), target, target, method, f"/{path}")


def allowed(name: str, url: str, method: str = "GET") -> bool:
    return policy_of(name).decide_request(asks(url, method)).allowed


def example_of(rule: Rule) -> Request:
    """Return a request that `rule` is there to allow."""
    host = rule.name.replace("*.", "sub.").removeprefix(".")
    port = min(rule.ports or {443})
    path = "/"
    if rule.paths:
        path = rule.paths[0].text.replace("/**", "/deep/er").replace("*", "segment")
    target = Authority.of(host, port)
    assert not isinstance(rule.scheme, RawScheme)
    return Request(rule.scheme or Scheme.HTTPS, target, target, min(rule.methods or {"GET"}), path)


# Every preset


def test_every_preset_that_was_promised_is_there() -> None:
    promised = """
        alpine anthropic bitbucket cargo cdn claude claude-min claude-optional claude-telemetry
        codex debian devcontainer docker fedora gemini github gitlab go jvm nodejs npm pypi ruby
        ubuntu vscode
    """

    assert list(NAMES) == promised.split()


def test_the_list_of_presets_tells_name_purpose_and_size() -> None:
    listed = loader.presets()

    assert [preset.name for preset in listed] == list(NAMES)
    assert all(preset.rules == policy_of(preset.name).rules_count > 0 for preset in listed)
    assert all(10 < len(preset.description) < 100 for preset in listed)
    assert not [preset for preset in listed if preset.description.endswith(".")]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_it_is_for_and_where_that_is_known_from(name: str) -> None:
    header, _, _ = loader.preset_text(name).partition("\ndescription:")

    assert all(line.startswith("#") for line in header.splitlines())
    assert "# Source: " in header


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_allows_what_each_of_its_entries_is_for(name: str) -> None:
    policy = policy_of(name)

    for rule in policy.allow:
        request = example_of(rule)
        assert policy.decide_request(request).allowed, (rule, request)
        assert policy.decide_connect(request.target).allowed


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_opens_no_tunnel_that_is_not_judged(name: str) -> None:
    assert all(rule.tls is Tls.INTERCEPT and not rule.addresses for rule in policy_of(name).allow)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_reaches_no_resolver(name: str) -> None:
    policy = policy_of(name)
    targets = [Authority.of(host, port) for host in DOH for port in (443, 80, 53, 853)]

    assert [target for target in targets if policy.decide_connect(target).allowed] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_reaches_no_storage_of_just_anybody(name: str) -> None:
    policy = policy_of(name)

    assert [url for url in ANYBODYS if policy.decide_request(asks(url)).allowed] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_wildcard_of_a_preset_stays_within_one_owner(name: str) -> None:
    # The owners were looked up by hand; a new wildcard must be argued here.
    owned = {
        *(".anthropic.com", "*.frame.claudeusercontent.com", ".npmjs.org", ".debian.org"),
        *(".pypi.org", ".pythonhosted.org", ".archive.ubuntu.com"),
        *("*.gallery.vsassets.io", "*.gallerycdn.vsassets.io", "*.vscode-unpkg.net"),
        "*.data.mcr.microsoft.com",
    }

    wide = {rule.name for rule in policy_of(name).allow if rule.name[0] in "*."}

    assert wide <= owned


@pytest.mark.parametrize("name", sorted(set(NAMES) - TALKING - {"devcontainer"}))
def test_a_preset_of_a_tool_only_reads(name: str) -> None:
    policy = policy_of(name)

    for rule in policy.allow:
        # POST is for questions that do not fit into a URL, at paths that are named.
        assert rule.methods is not None
        assert rule.methods <= {"GET", "HEAD"} or (
            rule.methods <= {"GET", "POST"} and rule.paths is not None
        )
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            request = example_of(rule)
            asked = Request(request.scheme, request.target, request.host, method, "/up/load")
            assert not policy.decide_request(asked).allowed


@pytest.mark.parametrize("name", NAMES)
def test_plain_http_is_for_reading_signed_archives_alone(name: str) -> None:
    plain = [rule for rule in policy_of(name).allow if rule.scheme is Scheme.HTTP]

    assert not plain or name in {"alpine", "debian", "ubuntu"}
    assert all(rule.methods == frozenset({"GET", "HEAD"}) for rule in plain)
    assert all(rule.ports == frozenset({80}) for rule in plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_printed_as_entries_loads_to_the_same_rules(name: str) -> None:
    rules = policy_of(name).allow
    text = "allow:\n" + "".join(f"  - {entry_of(rule)}\n" for rule in rules)

    again = loader.load(text, name="again.yaml").allow

    assert [facts_of(rule) | {"source": ""} for rule in again] == [
        facts_of(rule) | {"source": ""} for rule in rules
    ]


def test_an_unknown_preset_is_a_key_error() -> None:
    for name in ("", "nothing", "../allowlist", "claude.yaml", "__init__"):
        with pytest.raises(KeyError):
            loader.preset_text(name)


# Single presets

CLAUDE = (
    ("POST", "https://api.anthropic.com/v1/messages"),
    ("GET", "https://api.anthropic.com/api/oauth/profile"),
    ("POST", "https://api.anthropic.com/api/oauth/claude_cli/create_api_key"),
    ("POST", "https://platform.claude.com/v1/oauth/token"),
    ("POST", "https://platform.claude.com/v1/oauth/token/revoke"),
    ("GET", "https://platform.claude.com/v1/oauth/hello"),
    ("GET", "https://platform.claude.com/oauth/authorize"),
    ("GET", "https://claude.ai/oauth/authorize"),
    ("GET", "https://claude.com/cai/oauth/authorize"),
    ("POST", "https://mcp-proxy.anthropic.com/v1/mcp/mcpsrv_01"),
    ("GET", "https://mcp-proxy.anthropic.com/v1/mcp/mcpsrv_01"),
    ("DELETE", "https://mcp-proxy.anthropic.com/v1/mcp/mcpsrv_01"),
    ("GET", "https://mcp-proxy.anthropic.com/v1/mcp/mcpsrv_01/downloads"),
)
# Each takes data for any account, which can read it back.
CLAUDE_STORES = (
    ("POST", "https://claude.ai/api/organizations/1/chat_conversations"),
    ("POST", "https://claude.ai/api/organizations/1/upload"),
    ("POST", "https://claude.ai/oauth/authorize"),
    ("GET", "https://claude.ai/share/1"),
    ("GET", "https://claude.ai/api/organizations/1/mcp/start-auth/1"),
    ("POST", "https://claude.com/cai/oauth/authorize"),
    ("POST", "https://claude.com/"),
    ("POST", "https://platform.claude.com/v1/files"),
    ("GET", "https://platform.claude.com/v1/files"),
    ("POST", "https://platform.claude.com/v1/messages"),
    ("POST", "https://platform.claude.com/oauth/authorize"),
    ("PUT", "https://platform.claude.com/v1/oauth/token"),
    ("POST", "https://platform.claude.com/v1/oauth/tokens"),
    ("POST", "https://platform.claude.com/v1/oauth/token/../../files"),
    ("POST", "https://mcp-proxy.anthropic.com/"),
    ("POST", "https://mcp-proxy.anthropic.com/v1/mcp/mcpsrv_01/uploads"),
    ("PUT", "https://mcp-proxy.anthropic.com/v1/mcp/mcpsrv_01"),
    ("POST", "https://api.anthropic.com/v1/files"),
    ("POST", "https://api.anthropic.com/v1/messages/batches"),
    ("POST", "https://api.anthropic.com/v1/skills"),
    ("POST", "https://api.anthropic.com/v1/sessions"),
    ("POST", "https://api.anthropic.com/api/claude_cli_feedback"),
    ("POST", "https://api.anthropic.com/api/claude_code_shared_session_transcripts"),
    ("POST", "https://api.anthropic.com/api/frame/upload"),
    ("PATCH", "https://api.anthropic.com/api/oauth/account/settings"),
    ("PUT", "https://api.anthropic.com/api/claude_code/notification/preferences"),
)
CLAUDE_READS = (
    "https://downloads.claude.ai/claude-code-releases/latest",
    "https://code.claude.com/docs/en/overview",
    "https://raw.githubusercontent.com/anthropics/claude-code/refs/heads/main/CHANGELOG.md",
    "https://registry" + ".npmjs.org/@anthropic-ai%2fclaude-code",
)


def test_the_shipped_list_is_enough_for_claude_code() -> None:
    policy = loader.load(SHIPPED, name="allowlist.yaml")

    for method, url in CLAUDE:
        assert policy.decide_head(asks(url, method)).allowed, (method, url)
    for url in CLAUDE_READS:
        assert policy.decide_request(asks(url)).allowed
        assert policy.decide_request(asks(url, "HEAD")).allowed


@pytest.mark.parametrize("text", [SHIPPED, "allow: [{preset: claude-optional}, {preset: claude}]"])
def test_nothing_can_be_stored_for_another_account_beside_the_api(text: str) -> None:
    policy = loader.load(text, name="allowlist.yaml")

    passed = [at for at in CLAUDE_STORES if policy.decide_head(asks(at[1], at[0])).allowed]
    assert passed == []


@pytest.mark.parametrize(
    ("name", "method", "url", "expected"),
    [
        ("codex", "POST", "https://auth.openai.com/oauth/token", True),
        ("codex", "POST", "https://auth.openai.com/api/accounts/deviceauth/usercode", True),
        ("codex", "GET", "https://chatgpt.com/backend-api/codex/models", True),
        ("codex", "POST", "https://chatgpt.com/backend-api/codex/responses", True),
        ("codex", "GET", "https://api.openai.com/v1/models", True),
        ("codex", "POST", "https://auth.openai.com/api/accounts/profile", False),
        ("codex", "POST", "https://chatgpt.com/backend-api/codex/tasks", False),
        ("codex", "PATCH", "https://chatgpt.com/backend-api/wham/settings/user", False),
        ("codex", "POST", "https://chatgpt.com/backend-api/wham/profiles/me", False),
        ("codex", "POST", "https://api.openai.com/v1/files", False),
        ("codex", "DELETE", "https://api.openai.com/v1/models/mine", False),
        ("gemini", "POST", "https://oauth2.googleapis.com/token", True),
        ("gemini", "POST", "https://cloudcode-pa.googleapis.com/v1internal:generateContent", True),
        ("gemini", "GET", "https://cloudcode-pa.googleapis.com/v1internal/operations/1", True),
        ("gemini", "POST", "https://cloudcode-pa.googleapis.com/v1internal:setUserSettings", False),
        (
            "gemini",
            "POST",
            "https://generativelanguage.googleapis.com/v1beta/models/g:streamGenerateContent",
            True,
        ),
        (
            "gemini",
            "POST",
            "https://generativelanguage.googleapis.com/v1beta/models/g:batchGenerateContent",
            False,
        ),
        ("gemini", "POST", "https://generativelanguage.googleapis.com/v1beta/models", False),
        ("claude-telemetry", "POST", "https://statsig.anthropic.com/v1/files", False),
    ],
)
def test_a_preset_of_a_service_lets_an_agent_talk_and_sign_in_and_store_nothing(
    name: str,
    method: str,
    url: str,
    expected: bool,  # noqa: FBT001
) -> None:
    assert policy_of(name).decide_head(asks(url, method)).allowed is expected


@pytest.mark.parametrize("name", sorted({"claude", "claude-min", "codex", "gemini"}))
def test_a_preset_of_an_agent_holds_every_host_to_methods(name: str) -> None:
    assert [rule for rule in policy_of(name).allow if rule.methods is None] == []


@pytest.mark.parametrize(
    "url",
    [
        *("https://http-intake.logs.us5.datadoghq.com/api/v2/logs", "https://statsig.com/v1"),
        *("https://statsig.anthropic.com/v1/rgstr", "https://o1158394.ingest.us.sentry.io/api/1/"),
        "https://raw.githubusercontent.com/somebody/claude-code/main/x",
        "https://raw.githubusercontent.com/anthropics/claude-code-action/main/x",
        "https://raw.githubusercontent.com/anthropics/claude-code/../../somebody/x",
        *("https://mozilla.org/", "https://github.com/", "https://evilanthropic.com/"),
        "https://api.anthropic.com.evil.com/",
    ],
)
def test_the_shipped_list_is_not_more_than_claude_code(url: str) -> None:
    policy = loader.load(SHIPPED, name="allowlist.yaml")

    assert not policy.decide_request(asks(url)).allowed
    assert not policy.decide_request(asks(url, "POST")).allowed


def test_the_shipped_list_shows_no_example_that_does_not_load() -> None:
    """Uncomment every example in the file's comments, as an owner would."""
    shown = re.sub(r"^(\s*)# (\s*)(?=- |deny:|[a-z_]+:)", r"\1\2", SHIPPED, flags=re.MULTILINE)
    policy = loader.load(shown, name="allowlist.yaml")

    assert policy.rules_count > 20
    assert len(policy.deny) == 2
    assert {"pinned.example.com", "*.example.com", "git.corp.example"} <= set(policy.hosts())
    assert [each.name for each in policy.credentials] == [
        *("api.anthropic.com", "github.com", "gitlab.com"),
    ]
    (narrowing,) = policy.restrictions
    assert (narrowing.models, narrowing.server_tools) == (("claude-*",), ("web_search",))


def test_the_anthropic_preset_is_the_domain_and_nothing_else() -> None:
    assert allowed("anthropic", "https://anthropic.com/", "POST")
    assert allowed("anthropic", "https://a.b.anthropic.com/", "POST")
    for host in ("evilanthropic.com", "anthropic.com.evil.com", "claude.ai"):
        assert not allowed("anthropic", f"https://{host}/")


GITHUB = {
    "clone asks": ("GET", "https://github.com/o/r/info/refs", True),
    "clone asks, with .git": ("GET", "https://github.com/o/r.git/info/refs", True),
    "clone fetches": ("POST", "https://github.com/o/r/git-upload-pack", True),
    "clone fetches, with .git": ("POST", "https://github.com/O/R.git/git-upload-pack", True),
    "a wiki": ("POST", "https://github.com/o/r.wiki.git/git-upload-pack", True),
    "LFS asks": ("POST", "https://github.com/o/r.git/info/lfs/objects/batch", True),
    "LFS fetches": ("GET", "https://github-cloud.githubusercontent.com/alambic/media/1", True),
    "LFS uploads": ("PUT", "https://github-cloud.s3.amazonaws.com/alambic/media/1", False),
    "push": ("POST", "https://github.com/o/r/git-receive-pack", False),
    "push, with .git": ("POST", "https://github.com/o/r.git/git-receive-pack", False),
    "push, in capitals": ("POST", "https://github.com/o/r/GIT-RECEIVE-PACK", False),
    "push by a detour": ("POST", "https://github.com/o/r/x/../git-receive-pack", False),
    "push in disguise": (
        "POST",
        "https://github.com/o/r/git-upload-pack/../git-receive-pack",
        False,
    ),
    "push with a semicolon": ("POST", "https://github.com/o/r/git-upload-pack;/x", False),
    "push, encoded": ("POST", "https://github.com/o/r%2fgit-receive-pack/git-upload-pack", False),
    "a deeper upload-pack": ("POST", "https://github.com/o/r/x/git-upload-pack", False),
    "a release": ("GET", "https://github.com/o/r/releases/download/v1/a%2Bb.tar.gz", True),
    "its file": ("GET", "https://release-assets.githubusercontent.com/1/2", True),
    "an archive": ("GET", "https://codeload.github.com/o/r/tar.gz/refs%2Fheads%2Fmain", True),
    "a branch with a slash": ("GET", "https://github.com/o/r/tree/feature%2Fx", True),
    "REST": ("GET", "https://api.github.com/repos/o/r", True),
    "a REST write": ("POST", "https://api.github.com/repos/o/r/issues", False),
    "a REST change": ("PATCH", "https://api.github.com/repos/o/r", False),
    "GraphQL": ("POST", "https://api.github.com/graphql", False),
    "a gist": ("GET", "https://gist.github.com/o/1", False),
    "a new gist": ("POST", "https://api.github.com/gists", False),
    "signing in": ("POST", "https://github.com/login", False),
    "an upload": ("POST", "https://uploads.github.com/repos/o/r/releases/1/assets", False),
}


@pytest.mark.parametrize(("method", "url", "expected"), GITHUB.values(), ids=GITHUB)
def test_github_reads_and_does_not_write(method: str, url: str, expected: bool) -> None:  # noqa: FBT001
    assert allowed("github", url, method) is expected


@pytest.mark.parametrize("depth", range(1, 6))
def test_gitlab_clones_from_groups_in_groups_and_pushes_nowhere(depth: int) -> None:
    project = f"https://gitlab.com/{'g/' * depth}p.git"

    assert allowed("gitlab", f"{project}/info/refs")
    assert allowed("gitlab", f"{project}/git-upload-pack", "POST")
    assert not allowed("gitlab", f"{project}/git-receive-pack", "POST")
    assert not allowed("gitlab", "https://gitlab.com/api/v4/projects", "POST")


def test_bitbucket_clones_and_does_not_push() -> None:
    assert allowed("bitbucket", "https://bitbucket.org/o/r.git/git-upload-pack", "POST")
    assert not allowed("bitbucket", "https://bitbucket.org/o/r.git/git-receive-pack", "POST")


def test_npm_installs_scoped_packages_and_audits_but_does_not_publish() -> None:
    registry = "https://registry" + ".npmjs.org"

    assert allowed("npm", f"{registry}/@scope%2fname")
    assert allowed("npm", f"{registry}/@scope/name/-/name-1.0.0.tgz")
    assert allowed("npm", f"{registry}/-/npm/v1/security/advisories/bulk", "POST")
    assert not allowed("npm", f"{registry}/@scope%2fname", "PUT")
    assert not allowed("npm", f"{registry}/-/user/org.couchdb.user:x", "PUT")
    assert not allowed("npm", f"{registry}/-/npm/v1/security/../../../x", "POST")


@pytest.mark.parametrize(
    ("name", "url", "method"),
    [
        ("pypi", "https://upload.pypi" + ".org/legacy/", "POST"),
        ("cargo", "https://crates.io/api/v1/crates/new", "PUT"),
        ("ruby", "https://rubygems.org/api/v1/gems", "POST"),
        ("jvm", "https://plugins.gradle.org/api/v1/publish", "POST"),
        ("docker", "https://registry-1.docker.io/v2/o/r/blobs/uploads/", "POST"),
        ("docker", "https://registry-1.docker.io/v2/o/r/manifests/latest", "PUT"),
        ("docker", "https://hub.docker.com/v2/users/login", "POST"),
        ("vscode", "https://marketplace.visualstudio.com/_apis/gallery/publishers", "POST"),
        ("devcontainer", "https://github.com/o/r/git-receive-pack", "POST"),
    ],
)
def test_nothing_is_published(name: str, url: str, method: str) -> None:
    assert not allowed(name, url, method)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("debian", "http://ftp.de.debian.org/debian/pool/main/g/g++-12_12.2.0-14%2bdeb12u1.deb"),
        ("debian", "http://security.debian.org/debian-security/pool/x_1%7ebpo12%2b1_amd64.deb"),
        ("ubuntu", "http://us.archive.ubuntu.com/ubuntu/pool/main/x_1%7e22.04_amd64.deb"),
        ("ubuntu", "http://azure.archive.ubuntu.com/ubuntu/dists/noble/InRelease"),
        ("ubuntu", "https://ports.ubuntu.com/ubuntu-ports/dists/noble/InRelease"),
        ("go", "https://proxy.golang.org/github.com/!azure/x/@v/v1.0.0%2Bincompatible.zip"),
        ("go", "https://storage.googleapis.com/proxy-golang-org-prod/1-github.com:a:b-@v-v1.zip"),
        ("jvm", "https://dl.google.com/dl/android/maven2/androidx/x/1/x-1.pom"),
        ("docker", "https://auth.docker.io/token"),
    ],
)
def test_what_the_tools_really_ask_for_is_allowed(name: str, url: str) -> None:
    assert allowed(name, url)


DOCKER_HOSTS = [
    tuple(line.split(" "))
    for line in (Path(__file__).parent / "recorded" / "docker-hosts.txt").read_text().splitlines()
    if not line.startswith("#")
]
LAYER = "/registry-v2/docker/registry/v2/blobs/sha256/79/79bb/data"


@pytest.mark.parametrize(("needed", "host"), DOCKER_HOSTS)
def test_docker_reads_from_the_hosts_that_docker_names_for_pulling(needed: str, host: str) -> None:
    assert {needed} <= {"pull", "no"}
    path = "/token" if host.startswith("auth.") else LAYER

    assert allowed("docker", f"https://{host}{path}") is (needed == "pull")
    for method in ("PUT", "PATCH", "DELETE"):
        assert not allowed("docker", f"https://{host}{path}", method)


def test_the_preset_docker_names_no_host_that_is_not_recorded() -> None:
    # Its packages for apt and rpm are no part of the list, nor is the registry's older name.
    known = {host for needed, host in DOCKER_HOSTS if needed == "pull"}

    assert set(policy_of("docker").hosts()) - known == {"download.docker.com", "index.docker.io"}


def test_a_denied_method_is_told_as_such() -> None:
    decision = policy_of("cargo").decide_request(asks("https://crates.io/api/v1/x", "PUT"))

    assert decision.reason is Reason.METHOD_NOT_ALLOWED
