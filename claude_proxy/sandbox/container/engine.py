"""Container engines: podman and docker, the only place that starts them.

Every call is bounded in time, and what it answers is read as JSON. An engine is started with
harmless variables only: the process that stays with a container keeps them for its whole life
(secrets stay outside). Only an engine on this machine is used: the way out is a socket here.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import Any

from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import waiting_process
from claude_proxy.sandbox.container import init_programs, store
from claude_proxy.sandbox.container.known_images import KnownImages, mark_of
from claude_proxy.sandbox.container.plan.model import (
    ContainerState,
    ContainerStatus,
    EngineFacts,
    EngineKind,
    ImageFacts,
)
from claude_proxy.sandbox.container.plan.planner import INSPECTED
from claude_proxy.system import selinux

_SHORT_S = 60.0
_REMOTE = ("CONTAINER_HOST", "DOCKER_HOST")  # where a context leads, docker is asked
# What an engine reads besides what every program may.
_OF_ENGINES = frozenset(
    {"STORAGE_DRIVER", "STORAGE_OPTS", "REGISTRY_AUTH_FILE", "DBUS_SESSION_BUS_ADDRESS"}
    | {"DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_HOST", "TERM", "COLUMNS", "LINES"}
)
_OF_PODMAN = ("CONTAINERS_", "_CONTAINERS_")
_HOOK_PLACES = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
_SECCOMP_PLACES = (
    "/etc/containers/seccomp.json",
    "/usr/share/containers/seccomp.json",
    # Docker keeps its own in its program: one that allows less.
    str(Path(__file__).with_name("own_seccomp.json")),
)
_DOCKER_SOCKET = "/var/run/docker.sock"
_SAID_LIMIT = 300
_CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")  # of version 2
_PROBE_NAME = "claude-proxy-look"
_TAR_LIMIT = 64 * 1024 * 1024

INSTALL = (
    "install podman: apt install podman (Debian, Ubuntu), dnf install podman (Fedora, RHEL), "
    "pacman -S podman (Arch), zypper install podman (openSUSE)"
)


class EngineError(ClaudeProxyError):
    """An engine did not do what it was asked for."""


class NoImageError(ClaudeProxyError):
    """There is no such image on this machine."""


class Engine:
    """One engine of this machine."""

    def __init__(self, kind: EngineKind, program: Path, environ: Mapping[str, str]) -> None:
        self.kind = kind
        self.program = program
        self.environ = environment_of(environ)

    @classmethod
    def find(cls, kind: EngineKind | None, environ: Mapping[str, str]) -> "Engine":
        """Return the engine that is asked for, or the first that is installed.

        ClaudeProxyError if there is none, ConfigError if it would be one on another machine.
        """
        wanted = tuple(EngineKind) if kind is None else (kind,)
        for one in wanted:
            if (found := shutil.which(one.value, path=environ.get("PATH"))) is not None:
                _refuse_remote(environ)
                return cls(one, Path(found), environ)
        names = " or ".join(one.value for one in wanted)
        raise ClaudeProxyError(
            f"{names} is not installed, which makes the containers", where="PATH", fix=INSTALL
        )

    # --- calls

    def words(self, *words: str) -> list[str]:
        """Return a command line of the engine."""
        return [str(self.program), *words]

    def attached_words(self) -> list[str]:
        """Return the options by which no key ends the attachment to a terminal.

        The container would go on, while all others take it for ended; and Ctrl-P would wait for a
        second key. Docker takes no empty option for that, so it gets keys that nobody presses.
        """
        keys = "" if self._is_podman else "ctrl-^,ctrl-@,ctrl-^"
        return [f"--detach-keys={keys}"]

    def call(self, *words: str, given: bytes | None = None, timeout_s: float = _SHORT_S) -> bytes:
        """Run one command of the engine and return what it prints; EngineError if it fails."""
        return self.begin(*words, given=given).end(timeout_s)

    def begin(self, *words: str, given: bytes | None = None) -> "Call":
        """Start one command of the engine, whose answer is waited for later."""
        return Call(self, words, given)

    def waiting(self, name: str) -> "subprocess.Popen[bytes]":
        """Return a process that ends when a container does, which runs."""
        return subprocess.Popen(  # noqa: S603 - no shell
            self.words("wait", "--", name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environ,
        )

    # --- facts

    def facts(self, cache: Path | None = None) -> EngineFacts:
        """Return what the engine is; from a file, as long as the engine stays the same."""
        known = self._cached_info(cache)
        uid, gid = os.geteuid(), os.getegid()
        return EngineFacts(
            kind=self.kind,
            program=self.program,
            version=str(known.get("version", "")),
            rootless=bool(known.get("rootless", uid != 0)),
            uid=uid,
            gid=gid,
            has_init=init_programs.of_podman() if self._is_podman else bool(known.get("init")),
            init=init_programs.another() if self._is_podman else None,
            limits=bool(known.get("limits", True)),
            selinux=selinux.is_enforced(),
            runtime=str(known.get("runtime", "")),
            elsewhere=str(known.get("elsewhere", "")),
            seccomp=_seccomp_of(str(known.get("seccomp", ""))),
            hooks=tuple(path for path in map(Path, _HOOK_PLACES) if path.is_dir()),
        )

    def _cached_info(self, cache: Path | None) -> Mapping[str, Any]:
        key = self._key()
        known = None if cache is None else self._known_info(cache, key)
        if known is not None:
            return known
        info = self._info()
        if cache is not None:
            with contextlib.suppress(ConfigError):  # it is asked again
                _keep(cache, {"key": key, "info": info})
        return info

    def _known_info(self, cache: Path, key: Sequence[str]) -> Mapping[str, Any] | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(cache.read_bytes())
            if found["key"] == key:
                return dict(found["info"])
        return None

    def _key(self) -> list[str]:
        """Return what changes when the engine or its configuration does."""
        home = self.environ.get("HOME", "")
        if not self._is_podman:
            # Another daemon may be the next to listen there, or another one be chosen.
            host, context = (self.environ.get(f"DOCKER_{word}", "") for word in ("HOST", "CONTEXT"))
            chosen = Path(self.environ.get("DOCKER_CONFIG", f"{home}/.docker"), "config.json")
            socket = Path(host.removeprefix("unix://") or _DOCKER_SOCKET)
            marks = map(mark_of, (self.program, chosen, socket))
            return [f"{os.geteuid()}", host, context, *marks]
        files = [self.program, Path("/etc/containers/containers.conf")]
        files += [Path(home, ".config/containers", name) for name in _CONFIGURATIONS]
        files += [Path(self.environ[name]) for name in _CONFIGURED if name in self.environ]
        return [f"{os.geteuid()}", _controllers(), *map(mark_of, files)]

    def _info(self) -> dict[str, Any]:
        said = self.call("info", "--format", "json" if self._is_podman else "{{json .}}")
        found = _parsed(said)
        if self._is_podman:
            self._refuse_service(found)
            return _podman_info(found)
        if "host" in found:
            raise ConfigError(
                "the program docker is podman under another name",
                where=str(self.program),
                fix="use it by its own name: --engine podman",
            )
        self._refuse_other_endpoint()
        return _docker_info(found)

    def _refuse_service(self, found: Mapping[str, Any]) -> None:
        """Refuse a podman that only passes its work to a service, as containers.conf may say.

        The service does the work in namespaces of its own: a build there has the host's network.
        """
        if found["host"].get("serviceIsRemote"):
            raise ConfigError(
                "podman hands its work to a service, which is not where it is started",
                where=f"podman info: {found['host'].get('remoteSocket', {}).get('path', '')}",
                fix="in containers.conf, [engine]: remote = false",
            )

    def _refuse_other_endpoint(self) -> None:
        """Refuse a daemon on another machine, which a context of docker may name."""
        words = ("context", "inspect", "--format", "{{json .Endpoints.docker.Host}}")
        endpoint = str(_parsed(self.call(*words)))
        if not endpoint.startswith("unix:"):
            raise ConfigError(
                "the engine is on another machine, where the proxy's sockets are not",
                where=f"docker context inspect: {endpoint}",
                fix="choose one on this machine: docker context use default",
            )

    @property
    def _is_podman(self) -> bool:
        return self.kind is EngineKind.PODMAN

    # --- images

    def image(self, name: str, cache: Path | None = None) -> ImageFacts:
        """Return what is known of an image; NoImageError if it is not on this machine."""
        return self.image_of(self.begin_image(name, cache), name, cache)

    def begin_image(self, name: str, cache: Path | None = None) -> "ImageQuestion":
        """Begin to ask for an image, unless its description is known."""
        return ImageQuestion(self, name, None if cache is None else self._known_images(cache))

    def _known_images(self, cache: Path) -> KnownImages | None:
        """Return the descriptions that are kept; None: nothing shows whether they still hold."""
        key = self._key()
        info = self._known_info(cache / f"{self.kind}.json", key) or {}
        if not info.get("images"):
            return None
        home = self.environ.get("HOME", "")
        files = [Path(self.environ[name]) for name in _NAMING if name in self.environ]
        files += [Path(home, place) for place in _NAMES_OF_USER]
        files += [Path(place) for place in _NAMES_OF_SYSTEM]
        return KnownImages(cache, Path(str(info["images"])), tuple(key), tuple(files))

    def image_of(self, asked: "ImageQuestion", name: str, cache: Path | None = None) -> ImageFacts:
        """Return the answer of `begin_image`, with what is in the image, from a file if known."""
        try:
            found = asked.answer()
        except EngineError as error:
            if re.search(r"no such image|image not known|not found", error.what, re.IGNORECASE):
                raise NoImageError(
                    f'there is no image "{name}" on this machine',
                    where=f"{self.kind} image inspect {name}",
                    fix=f"build or pull it first: {self.kind} pull {name}, or `claude-proxy "
                    "container build`",
                ) from error
            raise
        facts = _image_facts(found, name)
        content = self._content(facts.id, cache)
        return ImageFacts(
            **{each: getattr(facts, each) for each in _IMAGE_FIELDS},
            homes={int(uid): str(home) for uid, home in content["homes"].items()},
            passwd=content["passwd"],
            paths=frozenset(content["paths"]),
        )

    def _content(self, image: str, cache: Path | None) -> Mapping[str, Any]:
        name = "".join(letter for letter in image if letter in "0123456789abcdef")
        path = None if cache is None else cache / f"{name}.json"
        if path is not None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                found = json.loads(path.read_bytes())
                if found["inspected"] == list(INSPECTED) and "passwd" in found:
                    return dict(found)
        content = {"inspected": list(INSPECTED), **self._look_into(image)}
        if path is not None:
            with contextlib.suppress(ConfigError):  # it is asked again
                _keep(path, content)
        return content

    def _look_into(self, image: str) -> dict[str, Any]:
        """Return what is in /etc of an image, of which nothing is run."""
        name = f"{_PROBE_NAME}-{os.getpid()}"
        self.call("create", "--pull", "never", "--network", "none", "--name", name, image, "-")
        try:
            paths: set[str] = set()
            passwd: bytes | None = b""
            for place in ("/etc", "/usr/lib/ssl/cert.pem"):
                with contextlib.suppress(EngineError):
                    archive = self.call("cp", f"{name}:{place}", "-")
                    found = list(_entries(archive, place))
                    paths |= {path for path, _ in found}
                    passwd = dict(found).get("/etc/passwd", passwd)
            text = None if passwd is None else passwd.decode("utf-8", "surrogateescape")
            homes = _homes(text or "")
            return {"paths": sorted(paths & {*INSPECTED}), "homes": homes, "passwd": text}
        finally:
            with contextlib.suppress(EngineError):
                self.call("rm", "--force", name)

    # --- containers

    def inspect(self, name: str) -> ContainerState | None:
        """Return a container; None if there is none of this name."""
        try:
            (found,) = _parsed(self.call("container", "inspect", "--", name))
        except EngineError as error:
            if re.search(r"no such container", error.what, re.IGNORECASE):
                return None
            raise
        return _state_of(found)

    def stop(self, name: str, *, timeout_s: int = 10) -> None:
        """Stop a container: SIGTERM, and SIGKILL after a while."""
        self.call("stop", "--time", str(timeout_s), "--", name, timeout_s=_SHORT_S + timeout_s)

    def kill(self, name: str, signal: str) -> None:
        """Send a signal to the first process of a container."""
        self.call("kill", "--signal", signal, "--", name)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a container, with its volumes that have no name."""
        self.call("rm", "--volumes", *(["--force"] if force else []), "--", name)

    def remove_volume(self, name: str) -> None:
        """Remove a named volume; nothing if there is none."""
        try:
            self.call("volume", "rm", "--", name)
        except EngineError as error:
            if not re.search(r"no such volume", error.what, re.IGNORECASE):
                raise


class Call:
    """One command of an engine that was started."""

    def __init__(self, engine: Engine, words: Sequence[str], given: bytes | None) -> None:
        self._engine, self._words, self._given = engine, words, given
        try:
            self._process = subprocess.Popen(  # noqa: S603 - no shell
                engine.words(*words),
                stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=engine.environ,
            )
        except OSError as error:
            raise EngineError(
                f"{engine.kind} cannot be started: {(error.strerror or '').lower()}",
                where=str(engine.program),
                fix=INSTALL,
            ) from error

    def end(self, timeout_s: float) -> bytes:
        """Wait for its end and return what it has printed; EngineError if it failed."""
        try:
            out, err = self._process.communicate(self._given, timeout_s)
        except BaseException as error:
            self.drop()
            if isinstance(error, subprocess.TimeoutExpired):
                raise EngineError(
                    f"{self._engine.kind} {self._words[0]} did not end within {timeout_s:.0f} s",
                    where=str(self._engine.program),
                    fix=f"see what holds it up: {self._engine.kind} ps --all",
                ) from error
            raise
        if self._process.returncode:
            raise explained(self._engine, self._words[0], err, self._process.returncode)
        return out

    def drop(self) -> None:
        """End it; its answer is not needed."""
        self._process.kill()
        self._process.communicate()


class ImageQuestion:
    """What an image is: from the file that keeps it, or by a call that was started."""

    def __init__(self, engine: Engine, name: str, known: KnownImages | None) -> None:
        self._name, self._known = name, known
        self._mark = [] if known is None else known.mark()
        self._found = None if known is None else known.find(name)
        self._call = None
        if self._found is None:
            self._call = engine.begin("image", "inspect", "--", name)

    def answer(self) -> Mapping[str, Any]:
        """Return the engine's description of it; EngineError if it has none."""
        if self._found is None and self._call is not None:
            (self._found,) = _parsed(self._call.end(_SHORT_S))
            if self._known is not None:
                self._known.keep(self._name, self._found, self._mark)
        return self._found or {}

    def drop(self) -> None:
        """End the call; its answer is not needed."""
        if self._call is not None:
            self._call.drop()


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an engine is started with."""
    own = {name: value for name, value in environ.items() if _is_of_engines(name)}
    return {**waiting_process.harmless(environ), **own, "DOCKER_CLI_HINTS": "false"}


def _is_of_engines(name: str) -> bool:
    return name in _OF_ENGINES or (name.startswith(_OF_PODMAN) and set(name) <= _IN_NAMES)


_IN_NAMES = frozenset("_ABCDEFGHIJKLMNOPQRSTUVWXYZ")

# What engines say, and what helps: (a part of it, what it means, the fix).
_KNOWN = (
    (
        (
            r"no subuid ranges found|no subgid ranges found|cannot find UID/GID for user"
            r"|requires additional UIDs"
        ),
        "this user has no range of user ids for containers",
        "have root add one: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
    ),
    (
        (
            r"newuidmap.*(?:not found|no such file)|newgidmap.*(?:not found|no such file)"
            r"|executable file.*newuidmap"
        ),
        "newuidmap is missing, which containers of a user without root need",
        "install it: apt install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)",
    ),
    (
        r"cgroup controller .* is not available|opening file [`'\"](?:memory|pids|cpu)\.",
        "this machine's control groups cannot limit memory or processes",
        (
            "give them the controllers memory and pids; or else, in containers.conf, "
            "[containers]: pids_limit = 0"
        ),
    ),
    (
        (
            r"cgroup.*(?:hybrid|v1 mount)|invalid file descriptor.*cgroup|unknown version specified"
            r"|(?:crun|runc).*cgroup"
        ),
        "the runtime cannot use the control groups of this machine",
        'in containers.conf, [engine]: runtime = "runc" and cgroup_manager = "cgroupfs"',
    ),
    (
        (
            r"cannot clone: operation not permitted|user namespaces are not enabled"
            r"|unshare.*operation not permitted"
        ),
        "this machine does not let users make namespaces",
        (
            "have root allow it: sysctl kernel.unprivileged_userns_clone=1 "
            "user.max_user_namespaces=15000; on Ubuntu "
            "kernel.apparmor_restrict_unprivileged_userns=0, too"
        ),
    ),
    (
        r"setting rlimit|set rlimit",
        "containers get higher limits (open files, processes) than this machine allows",
        (
            'lower them: in containers.conf, [containers]: default_ulimits = ["nofile=1024:1024", '
            '"nproc=1024:1024"]; for docker, default-ulimits in daemon.json'
        ),
    ),
    (
        r"default OCI runtime .* not found|could not find a working conmon",
        "a program that podman needs is not installed",
        (
            "install it: apt install crun conmon; or name another in containers.conf, [engine]: "
            'runtime = "runc"'
        ),
    ),
    (
        r"name [\"']?/?[\w.-]+[\"']? is already in use",
        "there is a container of this name that claude-proxy did not make",
        "use another --name",
    ),
    (
        r"permission denied.*docker.*(?:sock|daemon)",
        "this user may not talk to the Docker daemon",
        "use podman: --engine podman; or Docker's rootless mode; the group docker is root's power",
    ),
    (
        r"cannot connect to the docker daemon|docker daemon is not running|docker\.sock: connect",
        "the Docker daemon cannot be reached",
        "start it, or use podman, which needs none: --engine podman",
    ),
)


def explained(engine: Engine, command: str, said: bytes, code: int = 1) -> EngineError:
    """Return the error for what an engine has said, with the fix if it is known.

    `code` is its exit code, or -n if signal n has ended it.
    """
    if code < 0:
        return EngineError(
            f"{engine.kind} {command} was ended by {Signals(-code).name}",
            where=str(engine.program),
            fix="try again; after SIGKILL, see whether this machine had memory left: dmesg",
        )
    text = " ".join(said.decode("utf-8", "replace").split())
    text = re.sub(r"^(?:docker: |Error: |Error response from daemon: )+", "", text)
    for pattern, what, fix in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            return EngineError(what, where=f"{engine.kind}: {text[:_SAID_LIMIT]}", fix=fix)
    return EngineError(
        f"{engine.kind} {command} failed: {text[:_SAID_LIMIT] or 'it said nothing'}",
        where=str(engine.program),
        fix=f"see `{engine.kind} info`; `--dry-run` prints how it is called",
    )


def _refuse_remote(environ: Mapping[str, str]) -> None:
    for name in _REMOTE:
        value = environ.get(name, "")
        if value and not value.startswith("unix:"):
            raise ConfigError(
                "the engine is on another machine, where the proxy's sockets are not",
                where=f"{name}={value}",
                fix=f"unset {name}, and use an engine on this machine",
            )


_CONFIGURATIONS = ("containers.conf", "storage.conf")
_CONFIGURED = ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")
# containers-registries.conf(5): what decides which image a short name means.
_NAMING = ("CONTAINERS_REGISTRIES_CONF", "CONTAINERS_SHORT_NAME_ALIASES_CONF")
_NAMES_OF_USER = (
    ".config/containers/registries.conf",
    ".config/containers/registries.conf.d",
    ".cache/containers/short-name-aliases.conf",
)
_NAMES_OF_SYSTEM = (
    "/etc/containers/registries.conf",
    "/etc/containers/registries.conf.d",
    "/var/cache/containers/short-name-aliases.conf",
)


def _keep(path: Path, known: Mapping[str, Any]) -> None:
    store.make_directory(path.parent)
    store.write(path.parent, path.name, json.dumps(known).encode())


def _parsed(said: bytes) -> Any:
    try:
        return json.loads(said)
    except ValueError as error:
        raise EngineError(
            "the engine's answer is not JSON", fix="report it as a bug, with `podman --version`"
        ) from error


def _controllers() -> str:
    """Return what control groups this machine has, which may be others after it has started."""
    try:
        return _CONTROLLERS.read_text("ascii").strip()
    except OSError:
        return "v1"


def _podman_info(found: Mapping[str, Any]) -> dict[str, Any]:
    host = found["host"]
    security = host.get("security", {})
    controllers = set(host.get("cgroupControllers") or ())
    return {
        "version": found.get("version", {}).get("Version", ""),
        "rootless": security.get("rootless", os.geteuid() != 0),
        "seccomp": security.get("seccompProfilePath", ""),
        "runtime": host.get("ociRuntime", {}).get("name", ""),
        "limits": {"memory", "pids"} <= controllers
        and not (security.get("rootless") and host.get("cgroupVersion") == "v1"),
        "images": _index_of_images(found.get("store") or {}),
    }


def _index_of_images(found: Mapping[str, Any]) -> str:
    """Return the file in which podman lists its images; "": it has other stores as well."""
    root, driver = str(found.get("graphRoot") or ""), str(found.get("graphDriverName") or "")
    if not (root and driver) or "imagestore" in json.dumps(found.get("graphOptions")).lower():
        return ""
    return f"{root}/{driver}-images/images.json"


def _docker_info(found: Mapping[str, Any]) -> dict[str, Any]:
    options = " ".join(found.get("SecurityOptions") or ())
    return {
        "version": found.get("ServerVersion", ""),
        "rootless": "rootless" in options,
        "seccomp": "",
        "runtime": found.get("DefaultRuntime", ""),
        "elsewhere": _elsewhere(found),
        "limits": bool(found.get("MemoryLimit")) and bool(found.get("PidsLimit")),
        "init": bool(found.get("InitBinary")),
    }


def _elsewhere(found: Mapping[str, Any]) -> str:
    """Return where a daemon's containers run, if that is a virtual machine; else ""."""
    kernel = str(found.get("KernelVersion", ""))
    if kernel == os.uname().release:
        return ""
    return f"{found.get('OperatingSystem', 'unknown')}, kernel {kernel}"


def _seccomp_of(path: str) -> bytes:
    for place in (path, *_SECCOMP_PLACES):
        with contextlib.suppress(OSError):
            if place:
                return Path(place).read_bytes()
    return b""


_IMAGE_FIELDS = (
    *("name", "id", "digest", "user", "entrypoint", "command", "environment", "workdir"),
    "stop_signal",
)


def _image_facts(found: Mapping[str, Any], name: str) -> ImageFacts:
    config = found.get("Config") or {}
    pairs = (each.partition("=") for each in config.get("Env") or ())
    digests = found.get("RepoDigests") or ()
    digest = found.get("Digest") or next((each.rpartition("@")[2] for each in digests), "")
    return ImageFacts(
        name=name,
        id=str(found["Id"]),
        digest=str(digest or found["Id"]),
        user=str(config.get("User") or found.get("User") or ""),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        environment={key: value for key, _, value in pairs},
        workdir=str(config.get("WorkingDir") or ""),
        stop_signal=str(config.get("StopSignal") or ""),
    )


def _state_of(found: Mapping[str, Any]) -> ContainerState:
    state, config = found["State"], found.get("Config") or {}
    words = {
        "running": ContainerStatus.RUNNING,
        "exited": ContainerStatus.EXITED,
        "stopped": ContainerStatus.EXITED,
        "created": ContainerStatus.CREATED,
        "configured": ContainerStatus.CREATED,
        "initialized": ContainerStatus.CREATED,
    }
    return ContainerState(
        id=str(found["Id"]),
        name=str(found["Name"]).removeprefix("/"),
        status=words.get(str(state.get("Status", "")), ContainerStatus.OTHER),
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        image=str(found.get("Image", "")),
        labels=dict(config.get("Labels") or {}),
        user=str(config.get("User") or ""),
        started=str(state.get("StartedAt", "")),
        stop_signal=str(config.get("StopSignal") or ""),
    )


def _entries(archive: bytes, place: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield the paths in an archive of `cp`, with the content of /etc/passwd.

    None in its place: it is a link, or no file at all, or too large.
    """
    import tarfile  # noqa: PLC0415 - once for each image

    above = str(Path(place).parent).rstrip("/")
    with tarfile.open(fileobj=io.BytesIO(archive[:_TAR_LIMIT])) as tar:
        for member in tar:
            path = f"{above}/{member.name.strip('/')}"
            is_shown = path == "/etc/passwd" and member.isreg() and member.size <= _PASSWD_LIMIT
            file = tar.extractfile(member) if is_shown else None
            yield path, file.read() if file else None


def _homes(passwd: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in passwd.split("\n"):
        fields = line.split(":")
        if len(fields) >= _PASSWD_FIELDS and fields[2].isdigit():
            found.setdefault(fields[2], fields[5])
    return found


_PASSWD_LIMIT = 1024 * 1024
_PASSWD_FIELDS = 6
