"""`claude-proxy ca`: show, export and rotate the CA, and print how to trust it.

Keeps "secrets stay outside": nothing here prints the CA key, and nothing here changes a trust
store. `trust` only prints commands for the owner to run.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

import click

from claude_proxy.cli import paths
from claude_proxy.cli.groups import Group
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.trust import certificate_authority
from claude_proxy.trust.published_certificate import AUTHORITY_FILE

EXAMPLES = """\b
Examples:
  curl --proxy http://127.0.0.1:9051 --cacert "$(claude-proxy ca path)" https://api.anthropic.com
  claude-proxy ca rotate --constrain      a new CA, valid only for hosts of the allowlist
  claude-proxy ca trust                   print the commands for this system; run none
"""


def _confdir(_context: click.Context, _parameter: click.Parameter, given: Path | None) -> Path:
    # Absolute, as clients run in other directories.
    return (given or paths.default_confdir()).absolute()


confdir_option: Callable[[Any], Any] = click.option(
    "--confdir",
    envvar="CLAUDE_PROXY_CONFDIR",
    show_envvar=True,
    callback=_confdir,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of the CA.  [default: ~/.config/claude-proxy]",
)


@click.group(cls=Group, name="ca", epilog=EXAMPLES)
def command() -> None:
    """Show, export, rotate or trust the proxy's CA."""


@command.command()
@confdir_option
def path(confdir: Path) -> None:
    """Print the path of the CA certificate."""
    click.echo(certificate_authority.CertificateAuthority.load(confdir).certificate_path)


@command.command()
@confdir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(*, confdir: Path, as_json: bool) -> None:
    """Print the CA's name, fingerprint, dates, constraints and files."""
    facts = certificate_authority.CertificateAuthority.load(confdir).describe()
    click.echo(_json_of(facts) if as_json else "\n".join(_lines_of(facts)))


@command.command()
@confdir_option
@click.option("--stdout", is_flag=True, help="Print the bundle instead of writing the file.")
def bundle(*, confdir: Path, stdout: bool) -> None:
    """Write the system's roots and the CA to one PEM file, and print its path."""
    authority = certificate_authority.CertificateAuthority.load_or_create(confdir)
    if stdout:
        click.echo(authority.bundle_pem(), nl=False)
    else:
        click.echo(authority.write_bundle())


@command.command()
@confdir_option
@click.option(
    "--constrain",
    is_flag=True,
    help="Limit the new CA to the allowlist's hosts, so that a stolen key is valid only for them.",
)
@click.option(
    "--allowlist",
    envvar="CLAUDE_PROXY_ALLOWLIST",
    show_envvar=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The allowlist for --constrain.  [default: the one that `serve` uses]",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def rotate(
    *,
    confdir: Path,
    constrain: bool,
    allowlist: Path | None,
    yes: bool,
) -> None:
    """Replace the CA with a new one, and keep the old one."""
    patterns = None
    if constrain:
        patterns = _allowed_hosts(allowlist or paths.allowlist_path(confdir), confdir)
    if not yes and os.path.lexists(confdir / AUTHORITY_FILE):
        _ask(confdir)
    done = certificate_authority.rotate(confdir, patterns)
    click.echo("\n".join(_after(done)))


@command.command()
@confdir_option
@click.option("--all", "everywhere", is_flag=True, help="Print the commands for every system.")
def trust(*, confdir: Path, everywhere: bool) -> None:
    """Print the commands that make this system trust the CA. Runs none of them."""
    authority = certificate_authority.CertificateAuthority.load(confdir)
    stores = STORES if everywhere else stores_of(sys.platform, _distribution())
    click.echo("\n".join(_trust_lines(authority, stores)))


def _allowed_hosts(allowlist: Path, confdir: Path) -> tuple[str, ...]:
    # Needed only here, and a quarter of the start-up time of `env`.
    from claude_proxy.config.policy_files import load  # noqa: PLC0415

    return tuple(load(allowlist, confdir).policy.hosts())


def _ask(confdir: Path) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            "replacing the CA needs confirmation, and standard input is not a terminal",
            where=str(confdir / AUTHORITY_FILE),
            fix="add --yes",
        )
    click.confirm(
        "Every client that trusts the current CA must be given the new one. Replace it?",
        abort=True,
    )


def _after(done: certificate_authority.Rotation) -> Iterator[str]:
    facts = done.authority.describe()
    yield from _lines_of(facts)
    if done.kept:
        yield "The old CA is kept here; delete it once nothing needs it any more:"
        yield from (f"  {path}" for path in done.kept)
    yield "Next steps:"
    yield "  1. A running claude-proxy takes the new CA within a second; it need not be restarted."
    yield "     Runs that are open keep the old CA until they end."
    yield "  2. Restart programs that use the variables of `claude-proxy env`: the files they name"
    yield "     now hold the new CA, and programs read them at startup."
    yield "  3. If the system trusted the old CA: claude-proxy ca trust"
    if facts.permitted:
        yield "  4. After allowing a new host, rotate again: this CA covers only the current hosts."
        yield "     (Java ignores the constraints of a CA that it trusts.)"


def _lines_of(facts: certificate_authority.Description) -> Iterator[str]:
    left = (facts.not_after - datetime.now(UTC)).days
    yield f"subject:      {facts.subject}"
    yield f"fingerprint:  SHA-256 {facts.fingerprint}"
    yield f"valid:        {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d} ({left} days)"
    yield f"key:          {facts.key_type}"
    yield f"valid for:    {'; '.join(facts.permitted) or 'every host'}"
    if facts.excluded:
        yield f"not for:      {'; '.join(facts.excluded)}"
    yield "files:"
    yield from (f"  {mode:04o}  {file}" for file, mode in facts.files.items())


def _json_of(facts: certificate_authority.Description) -> str:
    found = asdict(facts)
    found["not_before"] = facts.not_before.isoformat()
    found["not_after"] = facts.not_after.isoformat()
    found["files"] = {file: f"{mode:04o}" for file, mode in facts.files.items()}
    return json.dumps(found, indent=2)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """A trust store, and the commands that add a certificate to it and remove it again.

    `_trust_lines` replaces the names in braces.
    """

    title: str
    systems: frozenset[str]  # IDs of os-release, or "darwin"; empty: any system
    add: tuple[str, ...]
    undo: tuple[str, ...]


STORES = (
    TrustStore(
        "Debian, Ubuntu, Alpine: the whole system",
        frozenset({"debian", "ubuntu", "alpine"}),
        (
            "sudo install -m 0644 {certificate} /usr/local/share/ca-certificates/claude-proxy.crt",
            "sudo update-ca-certificates",
        ),
        (
            "sudo rm /usr/local/share/ca-certificates/claude-proxy.crt",
            "sudo update-ca-certificates --fresh",
        ),
    ),
    TrustStore(
        "Fedora, RHEL, Arch, openSUSE: the whole system",
        frozenset({"fedora", "rhel", "centos", "arch", "suse", "opensuse"}),
        ("sudo trust anchor --store {certificate}",),
        ("sudo trust anchor --remove {certificate}",),
    ),
    TrustStore(
        "macOS: your login keychain, for TLS only",
        frozenset({"darwin"}),
        ("security add-trusted-cert -r trustRoot -p ssl -k {keychain} {certificate}",),
        (
            "security remove-trusted-cert {certificate}",
            "security delete-certificate -Z {sha256} {keychain}",
        ),
    ),
    TrustStore(
        "Chromium on Linux: for you only (Firefox: use -d sql: with the profile's directory)",
        frozenset(),
        ('certutil -d "sql:$HOME/.pki/nssdb" -A -t C,, -n {name} -i {certificate}',),
        ('certutil -d "sql:$HOME/.pki/nssdb" -D -n {name}',),
    ),
    TrustStore(
        "Java: one JDK (for one shell only: claude-proxy env --java)",
        frozenset(),
        ("keytool -importcert -noprompt {jdk} -file {certificate}",),
        ("keytool -delete {jdk}",),
    ),
)


def stores_of(system: str, distribution: frozenset[str]) -> tuple[TrustStore, ...]:
    """Return the trust stores of a system; all of them if it is unknown."""
    here = frozenset({system}) | distribution
    if not any(store.systems & here for store in STORES):
        return STORES
    return tuple(store for store in STORES if not store.systems or store.systems & here)


def _distribution() -> frozenset[str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return frozenset()
    return frozenset([release["ID"], *release.get("ID_LIKE", "").split()])


def _trust_lines(
    authority: certificate_authority.CertificateAuthority, stores: tuple[TrustStore, ...]
) -> Iterator[str]:
    facts = {
        "certificate": quote(str(authority.certificate_path)),
        "name": quote(authority.name),
        "keychain": "~/Library/Keychains/login.keychain-db",
        "jdk": "-cacerts -storepass changeit -alias claude-proxy",
        "sha256": authority.fingerprint.replace(":", ""),
    }
    yield "# None of these commands has been run. A system that trusts this CA trusts the holder of"
    yield '# its key for every host. Prefer the variables of one shell:  eval "$(claude-proxy env)"'
    for place in stores:
        yield ""
        yield f"# {place.title}"
        yield from (line.format_map(facts) for line in place.add)
        yield "# To undo it:"
        yield from (f"#   {line.format_map(facts)}" for line in place.undo)
    yield ""
    yield "# After `ca rotate`, undo it with the old certificate, which is kept beside the new one."
