"""Laws of the client environment: one proxy for every tool, and the right trust store for each."""

import re
from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.trust.client_environment import NO_PROXY, environment, variables
from claude_proxy.wire.authority import Authority

PROXY = Authority.parse("127.0.0.1:9051")
URL = "http://127.0.0.1:9051"
CERTIFICATE = Path("/conf/mitmproxy-ca-cert.pem")
BUNDLE = Path("/conf/ca-bundle.pem")
TRUSTSTORE = Path("/conf/ca-bundle.p12")

# What each kind of store is given; a tool that is in neither list has no store of its own.
ADDING = {"NODE_EXTRA_CA_CERTS", "DENO_CERT"}
REPLACING = {
    "SSL_CERT_FILE",
    "npm_config_cafile",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
    "PERL_LWP_SSL_CA_FILE",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
}
BY_URL = {
    "npm_config_proxy",
    "npm_config_https_proxy",
    "YARN_HTTP_PROXY",
    "YARN_HTTPS_PROXY",
    "CARGO_HTTP_PROXY",
    "BUNDLE_HTTP_PROXY",
    "BUNDLE_HTTPS_PROXY",
    "DOCKER_HTTP_PROXY",
    "DOCKER_HTTPS_PROXY",
    "GLOBAL_AGENT_HTTP_PROXY",
    "GLOBAL_AGENT_HTTPS_PROXY",
}
IN_BOTH_CASES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "grpc_proxy")
FIXED = {
    "CLAUDE_CODE_CERT_STORE": "bundled,system",
    "CLAUDE_CODE_PROXY_RESOLVES_HOSTS": "1",
    "NODE_USE_ENV_PROXY": "1",
    "NODE_USE_SYSTEM_CA": "1",
    "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
    "DENO_TLS_CA_STORE": "system,mozilla",
    "CLOUDSDK_PROXY_TYPE": "http",
    "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
    "CLOUDSDK_PROXY_PORT": "9051",
    "PERL_LWP_ENV_PROXY": "1",
    "RSYNC_PROXY": "127.0.0.1:9051",
    "ELECTRON_GET_USE_PROXY": "true",
}
PAST_THE_PROXY = {"NO_PROXY", "no_proxy", "npm_config_noproxy", "GLOBAL_AGENT_NO_PROXY"}


def test_every_variable_has_the_value_that_its_tool_needs() -> None:
    expected = dict(FIXED)
    expected |= dict.fromkeys(ADDING, str(CERTIFICATE))
    expected |= dict.fromkeys(REPLACING, str(BUNDLE))
    expected |= dict.fromkeys(BY_URL, URL)
    expected |= dict.fromkeys(PAST_THE_PROXY, "localhost,127.0.0.1,::1")
    for name in IN_BOTH_CASES:
        expected |= {name: URL, name.upper(): URL}

    assert environment(PROXY, CERTIFICATE, BUNDLE) == expected


def test_a_store_that_replaces_never_gets_the_certificate_alone() -> None:
    given = environment(PROXY, CERTIFICATE, BUNDLE)

    assert {name for name, value in given.items() if value == str(CERTIFICATE)} == ADDING


def test_both_cases_say_the_same() -> None:
    given = environment(PROXY, CERTIFICATE, BUNDLE)

    general = [name for name in given if re.fullmatch(r"[A-Za-z]+_PROXY", name, re.IGNORECASE)]
    single = {"RSYNC_PROXY", "YARN_HTTP_PROXY"}
    for name in set(general) - single:
        assert given[name.lower()] == given[name.upper()]


def test_no_variable_names_a_socks_proxy() -> None:
    assert not [
        value for value in environment(PROXY, CERTIFICATE, BUNDLE).values() if "socks" in value
    ]


@pytest.mark.parametrize(
    "name", ["YARN_NO_PROXY", "YARN_HTTPS_CA_FILE_PATH", "YARN_CA_FILE_PATH", "YARN_CAFILE"]
)
def test_yarn_gets_no_setting_that_one_of_its_versions_ends_at(name: str) -> None:
    assert name not in environment(PROXY, CERTIFICATE, BUNDLE)


def test_only_this_machine_bypasses_the_proxy() -> None:
    assert NO_PROXY.split(",") == ["localhost", "127.0.0.1", "::1"]


def test_an_ipv6_proxy_has_brackets_in_urls_and_none_alone() -> None:
    given = environment(Authority.parse("[::1]:9051"), CERTIFICATE, BUNDLE)

    assert given["HTTPS_PROXY"] == "http://[::1]:9051"
    assert given["RSYNC_PROXY"] == "[::1]:9051"
    assert given["CLOUDSDK_PROXY_ADDRESS"] == "::1"


def test_names_are_valid_and_unique() -> None:
    names = [variable.name for variable in variables(PROXY, CERTIFICATE, BUNDLE)]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names)


def test_every_variable_says_in_one_line_who_reads_it_and_why() -> None:
    for variable in variables(PROXY, CERTIFICATE, BUNDLE, java_truststore=TRUSTSTORE):
        comment = f"{variable.tool}: {variable.why}"
        assert comment.isprintable()
        assert variable.tool
        assert variable.why


def test_the_order_is_the_same_each_time() -> None:
    first = list(environment(PROXY, CERTIFICATE, BUNDLE))

    assert first[:2] == ["http_proxy", "HTTP_PROXY"]
    assert list(environment(PROXY, CERTIFICATE, BUNDLE)) == first


# Java


def java(truststore: str) -> str:
    given = environment(PROXY, CERTIFICATE, BUNDLE, java_truststore=Path(truststore))
    return given["JAVA_TOOL_OPTIONS"]


def test_java_is_left_alone_unless_asked_for() -> None:
    assert "JAVA_TOOL_OPTIONS" not in environment(PROXY, CERTIFICATE, BUNDLE)


def test_java_gets_proxy_and_trust_store_as_properties() -> None:
    assert java("/conf/ca-bundle.p12").split(" ") == [
        "-Dhttp.proxyHost=127.0.0.1",
        "-Dhttp.proxyPort=9051",
        "-Dhttps.proxyHost=127.0.0.1",
        "-Dhttps.proxyPort=9051",
        "-Dhttp.nonProxyHosts=localhost|127.*|[::1]",
        "-Djavax.net.ssl.trustStore=/conf/ca-bundle.p12",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
    ]


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        ("/a b/c", '"-Djavax.net.ssl.trustStore=/a b/c"'),
        ("/it's/c", '"-Djavax.net.ssl.trustStore=/it\'s/c"'),
        ('/"a b"/c', "'-Djavax.net.ssl.trustStore=/\"a b\"/c'"),
    ],
)
def test_java_options_are_quoted_as_the_jvm_reads_them(path: str, spelled: str) -> None:
    assert spelled in java(path)


def test_a_path_that_java_options_cannot_express_is_an_error() -> None:
    with pytest.raises(ConfigError, match="both kinds of quotes"):
        java('/it\'s/"c"')


# Paths


def test_a_relative_path_is_refused_as_clients_run_elsewhere() -> None:
    with pytest.raises(ValueError, match="absolute"):
        environment(PROXY, Path("cert.pem"), BUNDLE)


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x85", "\u2028", "\udcff"])
def test_a_path_that_no_shell_can_express_is_an_error(character: str) -> None:
    with pytest.raises(ConfigError, match="control character") as caught:
        environment(PROXY, CERTIFICATE, Path(f"/conf{character}/bundle.pem"))

    assert str(caught.value.where).isprintable()
