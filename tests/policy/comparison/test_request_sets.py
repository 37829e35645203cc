"""Laws of the requests that rules allow."""

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.comparison.request_sets import RequestSets, more_requests
from claude_proxy.policy.comparison.sides import Side
from claude_proxy.policy.request import Scheme


def sets(text: str) -> RequestSets:
    return Side(loader.load(text, name="list.yaml")).at("a.example").requests(Scheme.HTTPS, 443)


def test_without_a_rule_no_request_is_allowed() -> None:
    assert sets("allow: [b.example]").is_empty
    assert not sets("allow: [a.example]").is_empty
    assert sets("allow: [a.example]\ndeny: [a.example]").is_empty


def test_a_denied_method_has_its_other_spellings_beside_it() -> None:
    denied = sets("allow: [a.example]\ndeny: [{host: a.example, methods: [POST]}]")

    assert denied.methods == {"POST", "post"}
    assert denied.paths_of("post").is_empty
    assert not denied.paths_of("GET").is_empty


def test_methods_with_the_same_paths_are_one_entry() -> None:
    [(methods, paths)] = more_requests(
        sets("allow: [{host: a.example, methods: [GET]}]"), sets("allow: [a.example]")
    )

    assert (str(methods), str(paths)) == ("every method but GET", "")
