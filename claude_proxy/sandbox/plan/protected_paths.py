"""Protected paths: keys, password stores, browsers and sockets that a run must not see.

`protected` paths are never shown; `secret` paths are shown only if named. Paths without a leading
slash are below the home directory. Law kept: no quiet downgrade: a run that asks for a protected
path is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_PROTECTED_IN_HOME = (
    # Keys to other machines, and what signs in the user's name.
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".config/gcloud",
    ".config/containers",
    ".oci",
    ".config/doctl",
    ".config/hcloud",
    ".fly",
    # Password stores.
    ".password-store",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".config/op",
    ".config/Bitwarden",
    ".config/Bitwarden CLI",
    ".config/1Password",
    ".config/keepassxc",
    ".keepass",
    ".lastpass",
    ".local/share/pass",
    ".config/rbw",
    ".config/gopass",
    ".local/share/gopass",
    ".pki",
    "Library/Keychains",
    "Library/Group Containers",
    # Browsers and mail: cookies are as good as passwords.
    ".mozilla",
    ".config/mozilla",
    ".thunderbird",
    ".librewolf",
    ".waterfox",
    ".zen",
    ".config/google-chrome",
    ".config/google-chrome-beta",
    ".config/google-chrome-unstable",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    ".config/microsoft-edge-dev",
    ".config/vivaldi",
    ".config/opera",
    ".config/qutebrowser",
    ".local/share/qutebrowser",
    ".local/share/evolution",
    ".var/app",
    "snap",
    "Library/Application Support/Google",
    "Library/Application Support/Firefox",
    "Library/Application Support/BraveSoftware",
    "Library/Application Support/Microsoft Edge",
    "Library/Application Support/Arc",
    "Library/Safari",
    "Library/Cookies",
    "Library/Mail",
    "Library/Messages",
    # Sockets of agents and container engines may be in these.
    ".local/share/containers",
    ".local/share/docker",
    ".colima",
    ".lima",
    ".orbstack",
    ".rd",
)

_PROTECTED_ELSEWHERE = (
    # The session bus, the agents of SSH and GnuPG, and rootless engines all live in here.
    "/run/user",
    "/run/dbus",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/libvirt",
    "/run/lxd.socket",
    "/run/snapd.socket",
    "/run/systemd",
    "/run/secrets",
    "/run/credentials",
    "/var/run/docker.sock",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/snap/lxd",
    "/var/lib/incus",
    "/var/spool/cron",
    "/var/lib/systemd",
    "/var/lib/NetworkManager",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/NetworkManager",
    "/etc/kubernetes",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/openvpn",
    "/tmp/.X11-unix",  # noqa: S108 - named to be hidden
)

_SECRET_IN_HOME = (
    ".netrc",
    ".git-credentials",
    ".config/git/credentials",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".bunfig.toml",
    ".pypirc",
    ".config/pip",
    ".pip",
    ".config/pypoetry",
    ".config/uv",
    ".local/share/uv/credentials",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".local/share/gem/credentials",
    ".bundle/config",
    ".composer/auth.json",
    ".config/composer/auth.json",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".nuget/NuGet",
    ".config/NuGet",
    ".terraform.d",
    ".terraformrc",
    ".vault-token",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".config/tea",
    ".config/rclone",
    ".config/s3cmd",
    ".s3cfg",
    ".boto",
    ".databrickscfg",
    ".snowsql",
    ".kaggle",
    ".huggingface",
    ".cache/huggingface/token",
    ".config/huggingface",
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".dbshell",
    ".config/heroku",
    ".heroku",
    ".config/stripe",
    ".config/ngrok",
    ".ngrok2",
    ".config/netlify",
    ".netlify",
    ".vercel",
    ".local/share/com.vercel.cli",
    ".config/configstore",
    ".config/hub.json",
    ".config/age",
    ".config/sops",
    ".age",
    ".config/mutt",
    ".mutt",
    ".muttrc",
    ".msmtprc",
    ".mbsyncrc",
    ".fetchmailrc",
    ".config/Signal",
    ".config/Slack",
    ".config/discord",
    ".config/Element",
    ".local/share/TelegramDesktop",
    ".config/Code",
    ".config/Cursor",
    ".Xauthority",
    ".ICEauthority",
    ".esd_auth",
    ".config/pulse/cookie",
    ".wget-hsts",
    ".lesshst",
    ".bash_history",
    ".zsh_history",
    ".zhistory",
    ".histfile",
    ".history",
    ".local/share/fish/fish_history",
    ".config/nushell/history.txt",
    ".config/nushell/history.sqlite3",
    ".python_history",
    ".node_repl_history",
    ".psql_history",
    ".mysql_history",
    ".sqlite_history",
    ".rediscli_history",
    ".irb_history",
    # Settings and logins of other agents: each profile names those of its own.
    ".claude",
    ".claude.json",
    ".gemini",
    ".codex",
    ".config/github-copilot",
    ".aider.conf.yml",
    ".local/share/opencode",
)


# Variables that name the path of such a file, if it is not the usual one.
_SECRET_BY_VARIABLE = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "DOCKER_CONFIG",
    "GH_CONFIG_DIR",
    "GNUPGHOME",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HISTFILE",
    "KUBECONFIG",
    "NETRC",
    "NPM_CONFIG_USERCONFIG",
    "PASSWORD_STORE_DIR",
    "PGPASSFILE",
    "PIP_CONFIG_FILE",
    "SOPS_AGE_KEY_FILE",
    "SSH_AUTH_SOCK",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
)
_BASES = {
    ".config": "XDG_CONFIG_HOME",
    ".local/share": "XDG_DATA_HOME",
    ".cache": "XDG_CACHE_HOME",
}


def protected(home: Path, environ: Mapping[str, str], *ours: Path) -> tuple[Path, ...]:
    """Return the paths that are never shown; `ours` are paths of this program."""
    return (
        *ours,
        *_in_home(home, environ, _PROTECTED_IN_HOME),
        *(Path(name) for name in _PROTECTED_ELSEWHERE),
    )


def secret(home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the paths that may hold a secret, and are shown only if they are named."""
    return (*_in_home(home, environ, _SECRET_IN_HOME), *named_by_variable(home, environ))


def named_by_variable(home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the paths of secrets that the user's variables name."""
    return tuple(
        Path(entry)
        for name in _SECRET_BY_VARIABLE
        for entry in environ.get(name, "").split(":")  # KUBECONFIG is a list
        if entry.startswith("/") and Path(entry) not in {home, *home.parents}
    )


def _in_home(home: Path, environ: Mapping[str, str], names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        yield home / name
        for base, variable in _BASES.items():
            given = environ.get(variable, "")
            if given.startswith("/") and name.startswith(f"{base}/"):
                yield Path(given, name.removeprefix(f"{base}/"))
