"""Laws of public suffixes: names with many owners are distinguished from names with one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.wire.authority import normalise_host
from claude_proxy.wire.public_suffix import Suffix, public_suffix


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("com", Suffix.REGISTRY),
        ("co.uk", Suffix.REGISTRY),
        ("anything.ck", Suffix.REGISTRY),  # by the rule "*.ck"
        ("xn--fiqs8s", Suffix.REGISTRY),  # listed as a U-label
        ("github.io", Suffix.PROVIDER),
        ("s3.amazonaws.com", Suffix.PROVIDER),
        ("pages.dev", Suffix.PROVIDER),
        ("blob.core.windows.net", Suffix.PROVIDER),
        ("run.app", Suffix.PROVIDER),  # the list has its regions alone
        ("a.run.app", Suffix.PROVIDER),
        ("storage.googleapis.com", Suffix.PROVIDER),  # not listed at all
        ("fr.platform.sh", Suffix.PROVIDER),
        ("nonesuch", Suffix.UNLISTED),
        ("www.ck", None),  # by the exception "!www.ck"
        ("amazonaws.com", None),  # suffixes lie below it, but it is none
        ("anthropic.com", None),
        ("frame.claudeusercontent.com", None),  # listed, and exempt
        ("claudeusercontent.com", Suffix.PROVIDER),
        ("b.c.d.example.com", None),
        ("internal", None),
        ("home.arpa", None),
        ("a_b.xn--p1ai", None),
        ("r1---x.xn--p1ai", None),
        ("localhost", None),
    ],
)
def test_a_public_suffix_is_distinguished_from_a_name_with_one_owner(
    name: str, suffix: Suffix | None
) -> None:
    assert public_suffix(name) is suffix


@given(
    st.one_of(st.text(), st.from_regex(r"(\*\.)?xn--[a-z0-9-]{1,20}\.[a-z!]{1,5}", fullmatch=True))
)
def test_every_normal_name_has_an_answer(text: str) -> None:
    try:
        name = normalise_host(text, unicode=True)
    except ValueError:
        return

    assert public_suffix(name) in {None, *Suffix}


@pytest.mark.parametrize(
    "name",
    [
        *("azurestaticapps.net", "deno.dev", "edgeone.app", "fly.dev", "gitpod.io", "hf.space"),
        *("lovable.app", "netlify.app", "ngrok-free.app", "ngrok.io", "onrender.com", "pages.dev"),
        *("r2.cloudflarestorage.com", "r2.dev", "repl.co", "replit.app", "replit.dev", "run.app"),
        *("streamlit.app", "supabase.co", "trycloudflare.com", "val.run", "vercel.app", "web.app"),
        *("web.core.windows.net", "workers.dev", "azurecontainer.io", "nodebalancer.linode.com"),
    ],
)
def test_no_release_of_the_list_opens_a_host_of_customers_content(name: str) -> None:
    assert public_suffix(name) is Suffix.PROVIDER
