"""Unbound hosts: hosts of a model's provider where an agent could use another account.

Secrets stay outside. A host name cannot tell the owner's account from somebody else's, and somebody
else could read what is sent to theirs. A credential that is bound to the host can. Pure.
"""

from claude_proxy.policy.policy import Policy

# The hosts of the presets that pass data on to an account, and a request by which they do.
_TAKING = {
    "api.anthropic.com": "/v1/messages",
    "mcp-proxy.anthropic.com": "/v1/mcp/connector",
    "claude.ai": "/api/organizations",
    "claude.com": "/api/organizations",
    "platform.claude.com": "/v1/files",
    "console.anthropic.com": "/v1/files",
    "api.openai.com": "/v1/responses",
    "chatgpt.com": "/backend-api/codex/responses",
    "generativelanguage.googleapis.com": "/v1beta/models/gemini:generateContent",
    "cloudcode-pa.googleapis.com": "/v1internal:generateContent",
}


def unbound_hosts(policy: Policy) -> tuple[str, ...]:
    """Return the hosts where any account can be used; none if every host is allowed anyway."""
    if policy.allows_by_default:
        return ()
    return tuple(
        host for host, path in _TAKING.items() if policy.allows_url(f"https://{host}{path}", "POST")
    )


def warn_of_unbound_hosts(policy: Policy) -> tuple[str, str] | None:
    """Return a warning about these hosts and its fix; None if there are none."""
    found = unbound_hosts(policy)
    if not found:
        return None
    what = (
        f"any account can be used on {', '.join(found)}, so a program could send data to somebody "
        "else's"
    )
    return what, (
        "for each, add an entry to credentials: in the policy file, such as "
        f"{{host: {found[0]}, inject: auto, from: {{env: NAME}}}}, or deny what you do not use, "
        f"such as deny: [{found[-1]}]"
    )
