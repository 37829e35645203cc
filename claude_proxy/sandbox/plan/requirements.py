"""Requirements of a sandbox: what the machine lacks, and the command that fixes it; pure.

Law kept: no quiet downgrade. Only a bwrap that was tried and failed is a problem: many settings can
stop it, and any of them may not matter on this machine.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError

SANDBOX_EXEC = Path("/usr/bin/sandbox-exec")  # of macOS

# --perms, --clearenv and --chmod came with 0.5, in 2021.
OLDEST_BWRAP = (0, 5, 0)

USERNS_CLONE = "kernel.unprivileged_userns_clone"
MAX_USERNS = "user.max_user_namespaces"
MAX_NETNS = "user.max_net_namespaces"
APPARMOR_USERNS = "kernel.apparmor_restrict_unprivileged_userns"
SETTINGS = (USERNS_CLONE, MAX_USERNS, MAX_NETNS, APPARMOR_USERNS)

APPARMOR_FILE = "/etc/apparmor.d/bwrap"
APPARMOR_PROFILE = """\
abi <abi/4.0>,
include <tunables/global>

profile bwrap {path} flags=(unconfined) {{
  userns,

  include if exists <local/bwrap>
}}
"""

# By the ID or ID_LIKE of os-release.
_INSTALL = {
    "debian": "sudo apt install bubblewrap",
    "ubuntu": "sudo apt install bubblewrap",
    "fedora": "sudo dnf install bubblewrap",
    "rhel": "sudo dnf install bubblewrap",
    "centos": "sudo dnf install bubblewrap",
    "suse": "sudo zypper install bubblewrap",
    "opensuse": "sudo zypper install bubblewrap",
    "arch": "sudo pacman -S bubblewrap",
    "alpine": "sudo apk add bubblewrap",
    "void": "sudo xbps-install bubblewrap",
    "gentoo": "sudo emerge bubblewrap",
    "nixos": "nix profile install nixpkgs#bubblewrap",
}
_OTHERWISE = "install bubblewrap with the package manager of this system"


@dataclass(frozen=True, slots=True)
class BwrapSupport:
    """Whether bwrap works here, and the settings that explain a failure."""

    bwrap: Path | None
    version: tuple[int, ...] = ()
    refusal: str | None = None  # the message of bwrap when it was tried; None: it worked
    os_release: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    user_namespaces: bool = True  # whether the kernel has them
    container: bool = False
    sandbox: bool = False  # made by bwrap, for example by `claude-proxy run`
    root: bool = False


def problems_of(machine: BwrapSupport) -> list[ClaudeProxyError]:
    """Return the problems that keep a sandbox from starting, each with its fix."""
    if machine.bwrap is None:
        return [bwrap_missing(machine.os_release)]
    if machine.version < OLDEST_BWRAP:
        return [_bwrap_too_old(machine)]
    if machine.refusal is None:
        return []
    return [_inside_another(machine) if machine.sandbox else _explained(machine)]


def bwrap_missing(os_release: str) -> ClaudeProxyError:
    """Return the error for a machine without bubblewrap."""
    return ClaudeProxyError("bwrap not found", where="PATH", fix=_install_line(os_release))


def _install_line(os_release: str) -> str:
    """Return the command that installs bubblewrap on this kind of system."""
    for name in _ids_of(os_release):
        if name in _INSTALL:
            return _INSTALL[name]
    return _OTHERWISE


def _ids_of(os_release: str) -> list[str]:
    found: dict[str, str] = {}
    for line in os_release.splitlines():
        name, _, value = line.partition("=")
        try:
            found[name.strip()] = " ".join(shlex.split(value))
        except ValueError:
            continue
    ids = f"{found.get('ID', '')} {found.get('ID_LIKE', '')}".lower().split()
    # openSUSE has an ID for each of its editions, such as opensuse-leap.
    return [re.sub(r"^opensuse.*", "opensuse", name) for name in ids]


def _bwrap_too_old(machine: BwrapSupport) -> ClaudeProxyError:
    found = ".".join(map(str, machine.version)) or "of an unknown version"
    wanted = ".".join(map(str, OLDEST_BWRAP))
    return ClaudeProxyError(
        f"bwrap is {found}, and a run needs {wanted} or newer",
        where=str(machine.bwrap),
        fix="upgrade bubblewrap, or put a newer bwrap before it in PATH",
    )


def _inside_another(machine: BwrapSupport) -> ClaudeProxyError:
    return _refused(
        machine,
        "this is already inside a sandbox, and a sandbox cannot be created in it",
        "start COMMAND directly, which is sandboxed here; or start the run from outside",
    )


def _explained(machine: BwrapSupport) -> ClaudeProxyError:
    """Return the error with the most likely cause of a failure; simple causes are tried first."""
    if not machine.user_namespaces:
        return _refused(
            machine,
            "this kernel has no user namespaces",
            "boot a kernel with CONFIG_USER_NS; the kernels of most distributions have it",
        )
    for name in (MAX_USERNS, MAX_NETNS):
        if machine.settings.get(name) == "0":
            return _switched(machine, name, "15000")
    if machine.settings.get(USERNS_CLONE) == "0" and not machine.root:
        return _switched(machine, USERNS_CLONE, "1")
    if machine.settings.get(APPARMOR_USERNS) == "1" and not machine.root:
        profile = APPARMOR_PROFILE.format(path=machine.bwrap)
        return _refused(
            machine,
            "AppArmor lets a program create user namespaces only with a profile for it"
            f" ({APPARMOR_USERNS} is 1)",
            f"write this to {APPARMOR_FILE}, then: sudo apparmor_parser -r {APPARMOR_FILE}\n\n"
            f"{profile}",
        )
    if machine.container:
        return _refused(
            machine,
            "this is a container that may not create user namespaces",
            "run claude-proxy outside the container; or start the container with"
            " --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            " --security-opt systempaths=unconfined",
        )
    return _refused(
        machine,
        "bwrap cannot create a sandbox on this machine",
        "fix what bwrap reports; `claude-proxy doctor` checks everything that a run needs",
    )


def _switched(machine: BwrapSupport, name: str, value: str) -> ClaudeProxyError:
    return _refused(
        machine,
        f"user namespaces are switched off ({name} is 0)",
        f"sudo sysctl -w {name}={value}; to keep it:"
        f" echo {name}={value} | sudo tee /etc/sysctl.d/60-claude-proxy.conf",
    )


def _refused(machine: BwrapSupport, what: str, fix: str) -> ClaudeProxyError:
    said = " ".join((machine.refusal or "").split())
    return ClaudeProxyError(what, where=f"{machine.bwrap}: {said}", fix=fix)
