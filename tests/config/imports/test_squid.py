"""Laws of `import squid`: what squid denies is denied, and what is lost is told.

The configurations are shaped like public ones; a model of squid decides about thousands of targets.
"""

import random
from itertools import product

import pytest

from claude_proxy.config.imports import squid
from claude_proxy.config.imports.draft import Draft
from claude_proxy.errors import ConfigError
from tests.config.imports import squid_model
from tests.config.imports.files import Texts
from tests.config.imports.squid_model import Acl, Rule, Target, policy_allows

PORTS = """\
acl SSL_ports port 443
acl Safe_ports port 80
acl Safe_ports port 443
acl Safe_ports port 1025-65535
acl CONNECT method CONNECT
http_access deny !Safe_ports
http_access deny CONNECT !SSL_ports
"""


def _converted(text: str, *clients: str, **files: str) -> Draft:
    return squid.convert(text, name="s.conf", library=Texts(**files), clients=clients)


def _allows(draft: Draft, url: str, method: str = "GET") -> bool:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, _, port = authority.partition(":")
    number = int(port) if port else squid_model.DEFAULT_PORT[scheme]
    return policy_allows(draft.policy(), Target(scheme, host, number, method, slash + path or "/"))


def _told(draft: Draft) -> str:
    return "\n".join(map(str, draft.remarks))


def test_domains_are_allowed_by_tls_and_without() -> None:
    draft = _converted(
        PORTS + "acl good dstdomain .example.com api.example.org\n"
        "http_access allow good\nhttp_access deny all\n"
    )

    for host in ("example.com", "www.example.com", "api.example.org"):
        assert _allows(draft, f"https://{host}/")
        assert _allows(draft, f"http://{host}/")
    for host in ("notexample.com", "example.org", "www.api.example.org"):
        assert not _allows(draft, f"https://{host}/")
    assert not _allows(draft, "https://example.com:8443/")


def test_values_come_from_files_and_included_files() -> None:
    draft = _converted(
        "include conf.d/*.conf\nhttp_access allow good\nhttp_access deny all\n",
        **{"conf.d__a.conf": 'acl good dstdomain "list"\n', "list": "# x\n.example.com # y\n\n"},
    )

    assert _allows(draft, "https://a.example.com/")
    assert "list:2" not in draft.text()


def test_a_denial_before_the_allow_line_is_kept() -> None:
    draft = _converted(
        "acl bad dstdomain ads.example.com\nacl good dstdomain .example.com\n"
        "http_access deny bad\nhttp_access allow good\nhttp_access deny all\n"
    )

    assert _allows(draft, "https://example.com/")
    assert not _allows(draft, "https://ads.example.com/")


def test_a_denial_after_the_allow_line_takes_nothing() -> None:
    draft = _converted(
        "acl bad dstdomain .example.com\nacl good dstdomain api.example.com\n"
        "http_access allow good\nhttp_access deny bad\nhttp_access deny all\n"
    )

    assert _allows(draft, "https://api.example.com/")
    assert not draft.deny


def test_a_denial_that_takes_from_an_earlier_line_is_told() -> None:
    draft = _converted(
        "acl one dstdomain api.example.com\nacl two dstdomain .example.com\n"
        "acl bad dstdomain api.example.com\n"
        "http_access allow one\nhttp_access deny bad\nhttp_access allow two\n"
        "http_access deny all\n"
    )

    assert not _allows(draft, "https://api.example.com/")
    assert "narrower: s.conf:4: api.example.com is denied (s.conf:3)" in _told(draft)


def test_what_is_not_on_the_list_is_denied_as_it_is_by_a_negated_acl() -> None:
    draft = _converted(
        "acl localnet src 10.0.0.0/8\nacl good dstdomain .example.com\n"
        "http_access deny !good\nhttp_access allow localnet\nhttp_access deny all\n"
    )

    assert _allows(draft, "https://a.example.com/")
    assert not _allows(draft, "https://example.org/")


def test_a_method_other_than_connect_is_one_without_tls() -> None:
    draft = _converted(
        "acl good dstdomain example.com\nacl read method GET HEAD\n"
        "http_access allow good read\nhttp_access deny all\n"
    )

    assert _allows(draft, "http://example.com/")
    assert not _allows(draft, "http://example.com/", "POST")
    assert not _allows(draft, "https://example.com/")


def test_inside_tls_that_squid_opens_requests_are_judged_as_well() -> None:
    draft = _converted(
        "acl good dstdomain example.com\nacl read method GET\nacl CONNECT method CONNECT\n"
        "http_access allow CONNECT good\nhttp_access allow good read\nhttp_access deny all\n"
        "ssl_bump bump all\n"
    )

    assert _allows(draft, "https://example.com/")
    assert not _allows(draft, "https://example.com/", "POST")


def test_tls_that_squid_ends_is_not_allowed() -> None:
    draft = _converted(
        "acl step1 at_step SslBump1\nacl good ssl::server_name .example.com\n"
        "acl net src 10.0.0.0/8\nhttp_access allow net\nhttp_access deny all\n"
        "ssl_bump peek step1\nssl_bump splice good\nssl_bump terminate all\n"
    )

    assert _allows(draft, "https://a.example.com/")
    assert not _allows(draft, "https://example.org/")


def test_paths_are_kept_where_an_entry_can_say_them() -> None:
    draft = _converted(
        "acl api url_regex ^http://api\\.example\\.com/v1/\n"
        "http_access allow api\nhttp_access deny all\n"
    )

    assert _allows(draft, "http://api.example.com/v1/items/1")
    assert not _allows(draft, "http://api.example.com/v1")
    assert not _allows(draft, "http://api.example.com:8080/v1/items")
    assert not _allows(draft, "https://api.example.com/v1/items")


def test_what_cannot_be_said_of_a_denial_is_denied_wholly() -> None:
    draft = _converted(
        "acl programs urlpath_regex -i \\.exe$\nacl good dstdomain example.com\n"
        "http_access deny programs\nhttp_access allow good\nhttp_access deny all\n"
    )

    assert not _allows(draft, "http://example.com/")
    assert _allows(draft, "https://example.com/")
    assert "narrower: s.conf:1: what \\.exe$ denies of example.com" in _told(draft)


def test_conditions_that_no_policy_has_leave_the_line_out() -> None:
    draft = _converted(
        "acl work time MTWHF 09:00-17:00\nacl good dstdomain example.com\n"
        "http_access allow good work\nhttp_access deny all\n"
    )

    assert not draft.allow
    assert "not carried over: s.conf:3: http_access allow good work is left out" in _told(draft)


def test_a_denial_by_such_a_condition_denies_always() -> None:
    draft = _converted(
        "acl work time MTWHF 09:00-17:00\nacl good dstdomain example.com\n"
        "http_access deny good !work\nhttp_access allow good\nhttp_access deny all\n"
    )

    assert not draft.allow
    assert "narrower: s.conf:3: http_access deny good !work denies always" in _told(draft)


CLIENTS = (
    "acl kids src 10.0.1.0/24\nacl staff src 10.0.2.0/24\nacl toys dstdomain toys.example\n"
    "acl work dstdomain work.example\nhttp_access allow kids toys\nhttp_access allow staff work\n"
    "http_access allow localhost\nhttp_access deny all\n"
)


def test_lines_that_differ_by_client_need_one_to_be_named() -> None:
    with pytest.raises(ConfigError, match="different hosts to different clients") as caught:
        _converted(CLIENTS)
    assert "--client kids, or with --client staff" in str(caught.value.fix)

    for client, host in (("kids", "toys.example"), ("10.0.2.7", "work.example")):
        draft = _converted(CLIENTS, client)
        assert [str(each.pattern) for each in draft.allow] == [host, host]


def test_a_client_that_may_do_everything_gets_it_only_by_name() -> None:
    text = "http_access allow localhost\nhttp_access deny all\n"

    quiet, named = _converted(text), _converted(text, "127.0.0.1")

    assert "default: allow" in named.text()
    assert "default: deny" in quiet.text()
    assert "opens every host to those clients; fix: import with --client localhost" in _told(quiet)


def test_every_host_on_some_ports_only_is_not_carried_over() -> None:
    draft = _converted(PORTS + "http_access allow all\n")

    assert "default: deny" in draft.text()
    assert not draft.allow
    assert "every host is allowed over https on the ports 443" in _told(draft)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("http_access allow nobody\n", "there is no acl"),
        ("http_access permit all\n", 'begins with "permit"'),
        ("acl a src 10.0.0.0/8\nacl a dst 10.0.0.0/8\nhttp_access allow a\n", 'is "dst" here'),
        ("acl a port x\nhttp_access allow a\n", "neither a port"),
        ("acl a\nhttp_access allow a\n", "a name and a type"),
        ("if ${process_number} = 1\nendif\n", "depends on the process"),
        ('acl a dstdomain "gone"\nhttp_access allow a\n', "cannot be read"),
        ("include s.conf\n", "cannot be read"),
        ("http_port 3128\n", "no line http_access"),
        ("acl a any-of a\nhttp_access allow a\n", "nested too deeply"),
        ('acl a dstdomain "x\n', "a quote is not closed"),
    ],
)
def test_what_squid_would_refuse_is_an_error(text: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _converted(text)

    assert what in caught.value.what
    assert caught.value.where is not None


def test_a_line_without_an_acl_opens_nothing() -> None:
    draft = _converted("http_access allow\nhttp_access deny all\n")

    assert not draft.allow
    assert "s.conf:1: http_access allow names no acl" in _told(draft)


def test_a_list_without_values_matches_nothing() -> None:
    draft = _converted("acl none dstdomain\nhttp_access allow none\nhttp_access deny all\n")

    assert not draft.allow


def test_cases_matter_after_a_plus() -> None:
    draft = _converted(
        "acl own url_regex -i ^cache_object:// +i ^https?://[^/]+/squid-internal-mgr/\n"
        "acl good dstdomain a.com\nhttp_access deny own\nhttp_access allow good\n"
        "http_access deny all\n"
    )

    assert _allows(draft, "http://a.com/")
    assert not _allows(draft, "http://a.com/squid-internal-mgr/info")


def test_everybody_by_another_name_is_everybody() -> None:
    draft = _converted(
        "acl all src 0.0.0.0/0\nacl good dstdomain a.com\nhttp_access deny all !good\n"
        "http_access allow all\n"
    )

    assert _allows(draft, "https://a.com/")
    assert not _allows(draft, "https://b.com/")


# Shaped like files that are public: a gateway that looks at names alone, one for virtual machines
# behind a load balancer, and one whose order lets the list in before the ports are limited.

_NET = "".join(f"acl localnet src {net}\n" for net in ("10.0.0.0/8", "172.16.0.0/12", "fc00::/7"))


def test_a_gateway_that_ends_other_names_keeps_its_list() -> None:
    draft = _converted(
        _NET + PORTS + "http_access allow localhost manager\nhttp_access deny manager\n"
        'http_port 3129 intercept\nacl sites dstdomain "/etc/squid/sites.txt"\n'
        "http_access allow sites\nhttp_port 0.0.0.0:3130 ssl-bump cert=/etc/squid/squid.pem\n"
        'acl names ssl::server_name "/etc/squid/sites.txt"\nacl step1 at_step SslBump1\n'
        "acl step2 at_step SslBump2\nacl step3 at_step SslBump3\nssl_bump peek step1 all\n"
        "ssl_bump peek step2 names\nssl_bump splice step3 names\nssl_bump terminate step2 all\n"
        "http_access deny all\n",
        **{"__etc__squid__sites.txt": ".example.com\nregistry.example.org\n"},
    )

    assert _allows(draft, "https://a.example.com/")
    assert _allows(draft, "http://registry.example.org/")
    assert not _allows(draft, "https://example.org/")
    assert "default: deny" in draft.text()


def test_lists_of_clients_and_metadata_are_told_apart() -> None:
    draft = _converted(
        "acl safe_ports port 80\nacl safe_ports port 443\nacl CONNECT method CONNECT\n"
        "acl to_metadata dst 169.254.169.254\nacl health src 130.211.0.0/22 35.191.0.0/16\n"
        'acl clients src "clients.txt"\nacl allowlist dstdomain "allow.txt"\n'
        "http_access deny !safe_ports\nhttp_access deny to_metadata\n"
        "http_access allow health CONNECT\nhttp_access allow clients allowlist\n"
        "http_access deny all\n",
        **{"clients.txt": "10.0.0.0/8\n", "allow.txt": ".example.com\n"},
    )

    assert _allows(draft, "https://a.example.com/")
    assert "169.254.169.254" in draft.text()
    assert not _allows(draft, "https://example.org/")


def test_a_list_that_comes_before_the_ports_has_every_port_and_says_so() -> None:
    draft = _converted(
        _NET + 'acl allowlist dstdomain "/etc/squid/allowlist"\ninclude /etc/squid/conf.d/*\n'
        "http_access allow allowlist\nhttp_access allow localnet\nhttp_access allow localhost\n"
        + PORTS
        + "http_access deny all\n",
        __etc__squid__allowlist="api.example.com\n",
    )

    assert _allows(draft, "https://api.example.com/")
    assert not _allows(draft, "https://other.example.com/")
    assert "of the ports 1-65535 an entry for https lists 443" in _told(draft)
    assert "http_access allow localnet opens every host to those clients" in _told(draft)


def test_acls_of_acls_are_taken_apart() -> None:
    draft = _converted(
        "acl a dstdomain a.example\nacl b dstdomain b.example\nacl p port 443\n"
        "acl either any-of a b\nacl both all-of either p\n"
        "http_access allow both\nhttp_access deny all\n"
    )

    assert _allows(draft, "https://a.example/")
    assert _allows(draft, "https://b.example/")
    assert not _allows(draft, "http://a.example/")


# The model.

_HOSTS = (
    *("a.com", "x.a.com", "y.x.a.com", "xa.com", "b.org", "x.b.org", "10.1.2.3"),
    *("93.184.216.34", "a.com.evil.net", "_u.a.com", "c.net", "xbcom.net"),
)
_PATHS = (("/", ""), ("/v1", ""), ("/v1/x", ""), ("/v1x/y", "a=/v1/"), ("/V1/a.exe", ""),
          ("/z/a.exe", "b"), ("/%76/x", ""))  # fmt: skip
_TARGETS = [
    Target(scheme, host, port, method, path, query)
    for scheme, host, port, method, (path, query) in product(
        ("http", "https"), _HOSTS, (80, 443, 8080, 25), ("GET", "POST", "PURGE"), _PATHS
    )
    if port != squid_model.DEFAULT_PORT["https" if scheme == "http" else "http"]
]
_VALUES = {
    "dstdomain": [".a.com", "a.com", "x.a.com", ".x.a.com", "b.org", ".b.org", "10.1.2.3",
                  ".com", "c.net"],
    "dstdom_regex": [r"a\.com$", r"(^|\.)a\.com$", r"^([a-z]+\.)?b\.org$", r"\.a\.com$", "x",
                     r"^a\.com$", "b.org", r"^[^.]+\.a\.com$", r"(a\.com|b\.org)$",
                     r"^x\.(a|b)\."],
    "port": ["80", "443", "8080", "1-1024", "1025-65535"],
    "method": ["GET", "POST", "CONNECT"],
    "dst": ["10.0.0.0/8", "93.184.216.34", "93.0.0.0/8"],
    "url_regex": [r"^http://a\.com/v1/", r"a\.com", r"^https?://([a-z]+\.)?b\.org/", r"\.exe$",
                  "v1", r"^http://x\.a\.com/v1", r"^https://a\.com/", r"^a\.com:443$"],
    "urlpath_regex": [r"^/v1/", r"^/v1", r"\.exe$", r"^/v1/x$", "v1", r"^/v1(/|$)"],
    "src": ["10.0.0.0/8"],
}  # fmt: skip


def _configuration(choose: random.Random) -> tuple[dict[str, Acl], list[Rule]]:
    acls = {}
    for at in range(choose.randint(2, 6)):
        kind = choose.choice([*_VALUES, "dstdomain", "dstdomain", "port", "dstdom_regex"])
        count = min(len(_VALUES[kind]), choose.choice((1, 1, 2, 3)))
        cased = kind.endswith("regex") and choose.random() < 0.5
        acls[f"n{at}"] = Acl(kind, choose.sample(_VALUES[kind], count), cased)
    rules = []
    for _ in range(choose.randint(1, 6)):
        terms = []
        for _ in range(choose.choice((1, 1, 2, 2, 3))):
            name = choose.choice([*acls, "CONNECT"])
            is_of_client = name in acls and acls[name].type == "src"
            terms.append(name if is_of_client else choose.choice(("", "", "!")) + name)
        rules.append(Rule(choose.random() < 0.5, terms))
    if choose.random() < 0.8:
        rules.append(Rule(allows=False, terms=["all"]))
    return acls, rules


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_allowed_that_squid_denies_and_nothing_lost_silently(seed: int) -> None:
    choose = random.Random(seed)
    acls, rules = _configuration(choose)
    bumps = choose.random() < 0.3
    lines = [*(acl.text(name) for name, acl in acls.items()), *(rule.text() for rule in rules)]
    text = "\n".join([*lines, "ssl_bump bump all" if bumps else ""]) + "\n"
    clients = [name for name, acl in acls.items() if acl.type == "src"] or ["127.0.0.1"]

    draft = _converted(text, *clients)

    policy = draft.policy()
    for target in _TARGETS:
        allowed = policy_allows(policy, target)
        by_squid = squid_model.allows(acls, rules, target, bumps=bumps)
        assert by_squid or not allowed, (target, text, draft.text())
        if by_squid and not allowed and target.port in {80, 443}:
            assert draft.remarks, (target, text, draft.text())
