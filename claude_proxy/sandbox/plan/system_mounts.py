"""System mounts: the programs and the files of /etc and /proc that a run sees; pure.

Law kept: default-deny. /etc is assembled name by name, because a directory that contains both
`ld.so.cache` and `shadow` cannot be shown; what is not listed does not exist inside.
"""

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.sandbox.plan.model import User

HOSTNAME = "claude-proxy"
_NOBODY = 65534  # the owner that the kernel shows for users who do not exist inside

# Shown as on the host: a directory, or a symbolic link if /usr is merged.
DIRECTORIES = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix/store",
    "/nix/var/nix/profiles",
    "/run/current-system",
    "/gnu/store",
    "/snap",
    "/home/linuxbrew/.linuxbrew",
    "/var/lib/flatpak/runtime",
    # The number and kind of processors, which pools of workers read.
    "/sys/devices/system/cpu",
)

# Programs that users install into their home directories; shown read-only, each if it exists.
TOOLCHAINS = (
    "bin",
    "go/bin",
    "miniconda3",
    "miniforge3",
    "anaconda3",
    "mambaforge",
    ".asdf",
    ".bun/bin",
    ".bun/install/global",
    ".cabal/bin",
    ".cargo/bin",
    ".config/yarn/global",
    ".deno/bin",
    ".dotnet",
    ".elan",
    ".ghcup",
    ".jbang/bin",
    ".juliaup",
    ".local/bin",
    ".local/lib",
    ".local/pipx",
    ".local/share/claude",
    ".local/share/fnm",
    ".local/share/mise",
    ".local/share/pipx",
    ".local/share/pnpm",
    ".local/share/pypoetry",
    ".local/share/uv/python",
    ".local/share/uv/tools",
    ".local/share/virtualenvs",
    ".local/state/nix/profiles",
    ".n",
    ".nix-profile",
    ".nodenv",
    ".npm-global/bin",
    ".npm-global/lib",
    ".nvm",
    ".opencode/bin",
    ".proto",
    ".pub-cache/bin",
    ".pyenv",
    ".rbenv",
    ".rustup",
    ".rvm",
    ".sdkman",
    ".volta",
    ".yarn/bin",
)

# Files of /proc that describe the host and not the sandbox, or control it: if root has started the
# run, root inside owns them.
PROC_HIDDEN = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/config.gz",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/mtrr",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysvipc",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
)

# Settings of the whole host. bwrap makes them read-only only if it can write to the directory, but
# root can write to files in directories that are not writable: `core_pattern` stayed writable.
PROC_READ_ONLY = ("/proc/sys", "/proc/bus", "/proc/irq", "/proc/sysrq-trigger")

# Patterns of names in /etc. Directories of certificates are listed below: keys are beside them.
_ETC = (
    r"ld\.so\.(cache|conf|conf\.d)",
    r"ld-musl-.*\.path",
    r"alternatives",
    r"localtime|timezone|adjtimex?|locale\.(conf|alias)|default/locale",
    r"os-release|lsb-release|debian_version|alpine-release|arch-release|(fedora|redhat|system)-release",
    r"profile|profile\.d|bash\.bashrc|bashrc|bash|inputrc|shells|terminfo",
    r"zsh|zshrc|zshenv|zprofile|fish|DIR_COLORS.*",
    r"gitconfig|gitattributes",
    r"ca-certificates|ca-certificates\.conf|crypto-policies",
    r"protocols|services|mime\.types|magic|magic\.mime|ethertypes|rpc|gai\.conf|host\.conf",
    r"java|java-.*|maven|gradle|python3.*|perl|ruby|php|lua|R|node|ghc|texmf|groff|manpath\.config",
    r"fonts|ImageMagick-.*|papersize|paperspecs|vim|vimrc|nanorc|emacs|skel|mke2fs\.conf|xattr\.conf",
    r"static|nix|nixos|chromium\.d",
    r"lesskey|less|lynx|pkgconfig|dpkg",
)
ETC_BELOW = (
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust",
    "/etc/pki/java",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/tls/fips_local.cnf",
)
# Name resolution: generated for a run, unless it has the host's own network.
RESOLVER = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")

_RESOLV_CONF = "# Only the proxy resolves names.\n"
# One short try: the answer is always the same.
_LOOKUPS_NOTED = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
# The proxy is asked about each name, and may still be starting.
_LOOKUPS_ANSWERED = "nameserver 127.0.0.1\noptions timeout:5 attempts:4\n"

_ETC_SHOWN = lazy_pattern("|".join(_ETC))


def is_shown_in_etc(name: str) -> bool:
    """Tell whether /etc/`name` is harmless."""
    return _ETC_SHOWN.fullmatch(name) is not None


def files(user: User, *, notes_lookups: bool, answers_lookups: bool = False) -> dict[str, bytes]:
    """Return the files of /etc that are generated for the run.

    `notes_lookups`: whether something listens on 127.0.0.1:53. It knows no name, but says at the
    end of the run which ones were looked up.
    """
    root = f"root:x:0:0:root:{user.home if user.uid == 0 else '/'}:/bin/sh\n"
    passwd, group = root, "root:x:0:\ntty:x:5:\n"
    if user.uid != 0:
        passwd += f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh\n"
    if user.gid not in {0, 5}:
        group += f"{user.name}:x:{user.gid}:\n"
    if user.uid != _NOBODY:
        passwd += "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    if user.gid != _NOBODY:
        group += "nogroup:x:65534:\n"
    texts = {
        "passwd": passwd,
        "group": group,
        # Only one address: the relay listens on IPv4, and a login that waits on ::1 would never be
        # called back.
        "hosts": f"127.0.0.1 localhost\n127.0.0.1 {HOSTNAME}\n::1 ip6-localhost ip6-loopback\n",
        "hostname": f"{HOSTNAME}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\n"
        f"hosts: files{' dns' if notes_lookups else ''}\n"
        "networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n",
    }
    found = {
        f"/etc/{name}": text.encode("utf-8", "surrogateescape") for name, text in texts.items()
    }
    found["/etc/resolv.conf"] = resolver(
        notes_lookups=notes_lookups, answers_lookups=answers_lookups
    )
    return found


def resolver(*, notes_lookups: bool, answers_lookups: bool = False) -> bytes:
    """Return the settings of the resolver: what listens on 127.0.0.1:53, if anything does.

    `answers_lookups`: it gives the names that the policy allows an address.
    """
    lookups = ""
    if notes_lookups:
        lookups = _LOOKUPS_ANSWERED if answers_lookups else _LOOKUPS_NOTED
    return (_RESOLV_CONF + lookups).encode()
