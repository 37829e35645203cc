"""Python runtime that is lent to a container: a copy of what our own programs need of the host's.

An image may hold another C library or nothing at all. So the copy has the dynamic loader, the
shared libraries, the interpreter, and only those modules that our programs import, compiled; it is
started through its own loader. Law kept: nothing else of the host's is seen with it. What is needed
is not guessed: a process imports the programs and tells what it has loaded.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import waiting_process

DIRECTORY = "lent-python"  # in the directory of the state
INSIDE = PurePosixPath("/run/claude-proxy-python")

_PACKAGE = Path(__file__).resolve().parents[2]
_PROGRAMS = {
    "namespace_holder": "claude_proxy.sandbox.container.namespace_holder",
    "container_init": "claude_proxy.sandbox.container.container_init",
    "network_probe": "claude_proxy.sandbox.container.network_probe",
    "probes": "claude_proxy.doctor.attack.probes.__main__",
}
# The probes need far more than the programs that serve containers: they have copies of their own.
_KINDS = {
    "current": ("namespace_holder", "container_init"),
    "network_probe": ("network_probe",),
    "probes": ("probes",),
}
# Imported late: by the interpreter itself, and by os.execvp.
_MORE = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8", "warnings")
_LATE = {
    "probes": (
        "encodings.idna",
        "encodings.unicode_escape",
        "ssl",
        "ctypes",
        "struct",
        "linecache",
        "traceback",
    )
}
_LIBRARIES, _LOADER = "lib", "ld.so"
_MANIFEST = "manifest.json"
_PATIENCE_S = 60.0
_NEW_S = 600.0
_PROBE = """
import sys; sys.path[:] = sys.argv[1:2] + sys.path
import importlib, json
for name in sys.argv[2:]:
    importlib.import_module(name)
found = {name: module.__file__ for name, module in sys.modules.items()
         if getattr(module, "__file__", None) and name != "__main__"}
frozen = [name for name, module in sys.modules.items()
          if not getattr(module, "__file__", None) and getattr(module, "__path__", None) is None]
auxv = open("/proc/self/auxv", "rb").read()
words = memoryview(auxv).cast("N")
base = dict(zip(words[::2], words[1::2])).get(7, 0)
maps = [line.split(None, 5) for line in open("/proc/self/maps")]
loader = next((row[5].strip() for row in maps if len(row) > 5
               and int(row[0].partition("-")[0], 16) == base), "")
import os
print(json.dumps({"modules": found, "loader": loader, "prefix": sys.base_prefix,
    "program": os.path.realpath("/proc/self/exe"), "stdlib": os.path.dirname(os.__file__),
    "dynload": [p for p in sys.path if p.endswith("lib-dynload")]}))
"""


@dataclass(frozen=True, slots=True)
class LentPython:
    """A copy of the runtime, and how it is started where it is mounted."""

    directory: Path
    version: str  # "3.13"
    has_loader: bool  # False: a static interpreter

    def words(self, program: str, *arguments: str) -> tuple[str, ...]:
        """Return the command line of one of our programs in a container."""
        start = [str(INSIDE / "bin" / f"python{self.version}")]
        if self.has_loader:
            libraries = str(INSIDE / _LIBRARIES)
            start[:0] = [str(INSIDE / _LOADER), "--inhibit-cache", "--library-path", libraries]
        path = "/".join(_PROGRAMS[program].split("."))
        return (
            *(*start, "-I", "-S", "-B", "-X", "utf8"),
            *(str(INSIDE / "app" / f"{path}.py"), *arguments),
        )


def planned(statedir: Path) -> LentPython:
    """Return what `lend` returns, or a copy that is not made yet: for a plan that is printed."""
    version = "{}.{}".format(*sys.version_info)
    return _current(statedir / DIRECTORY) or LentPython(statedir / DIRECTORY, version, True)


def lend(statedir: Path, kind: str = "current") -> LentPython:
    """Return the copy for this Python and this version of claude-proxy; made at the first use.

    ClaudeProxyError if this machine's Python cannot be lent. `kind` is "probes" for the attacks,
    and "network_probe" for the check of a network.
    """
    store = statedir / DIRECTORY
    if (found := _current(store, kind)) is not None:
        return found
    if sys.platform != "linux":
        raise ClaudeProxyError(
            "the Python of this machine cannot run in a container, which is of another system",
            where=sys.platform,
            fix="use an engine that claude-proxy can enter; or put claude-proxy into the image",
        )
    import py_compile  # noqa: PLC0415 - of a copy, which is made once

    try:
        return _made(store, kind)
    except (OSError, ValueError, subprocess.SubprocessError, py_compile.PyCompileError) as error:
        raise ClaudeProxyError(
            f"the Python of this machine cannot be lent to a container: {error}",
            where=sys.executable,
            fix="use podman, which needs none of it; or make room in --statedir",
        ) from error


def _current(store: Path, kind: str = "current") -> LentPython | None:
    """Return the copy that there is; None: there is none, or what it was made from has changed."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        current = json.loads((store / f"{kind}.json").read_bytes())
        if current["program"] == sys.executable and _is_unchanged(current["sources"]):
            found = LentPython(store / current["key"], current["version"], current["loader"])
            if (found.directory / _MANIFEST).is_file():
                return found
    return None


def _made(store: Path, kind: str) -> LentPython:
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = _probe(kind)
    copies = dict(_copies(facts))
    version = "{}.{}".format(*sys.version_info)
    marks = {str(source): _mark_of(str(source)) for source in copies.values()}
    key = hashlib.sha256(json.dumps([sorted(map(str, copies)), marks]).encode()).hexdigest()[:16]
    if not (store / key / _MANIFEST).is_file():
        _write(store, key, copies)
    current = {
        "program": sys.executable,
        "sources": marks,
        "key": key,
        "version": version,
        "loader": bool(facts["loader"]),
    }
    new = store / f".{kind}.{os.getpid()}"
    new.write_text(json.dumps(current), "utf-8")
    new.replace(store / f"{kind}.json")
    _remove_old(store)
    return LentPython(store / key, version, bool(facts["loader"]))


def _remove_old(store: Path) -> None:
    """Remove the copies that no `KIND.json` names, and what a start that was killed has left.

    A copy that a container has mounted stays: what is mounted of it would be empty. One that was
    written a moment ago is another process's, which has yet to name it.
    """
    now = time.time()
    with contextlib.suppress(OSError, ValueError, KeyError):
        named = {json.loads(path.read_bytes())["key"] for path in store.glob("*.json")}
        mounted = _mounted()
        for path in store.iterdir():
            is_old = now - path.lstat().st_mtime > _NEW_S
            if path.suffix == ".json" or path.name in named or not is_old:
                continue
            if path.is_dir() and path.name not in mounted:
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_file():
                path.unlink(missing_ok=True)


def _mounted() -> frozenset[str]:
    """Return the names of the copies that any process here has mounted."""
    found = set[str]()
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            for line in path.read_text("utf-8", "surrogateescape").splitlines():
                root = line.split(" ")[3]
                if f"/{DIRECTORY}/" in root:
                    found.add(root.rpartition(f"/{DIRECTORY}/")[2].partition("/")[0])
    return frozenset(found)


def _write(store: Path, key: str, copies: Mapping[PurePosixPath, Path]) -> None:
    """Write a copy as a whole: under another name until it is complete."""
    import py_compile  # noqa: PLC0415 - once for each version
    import tempfile  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(dir=store, prefix=".new-") as temporary:
        new = Path(temporary, key)
        for inside, source in copies.items():
            target = new / inside
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            is_program = inside.name.startswith(("ld.so", "python", "lib")) or ".so" in inside.name
            target.chmod(0o755 if is_program else 0o644)
            if inside.suffix == ".py":
                # Not by time: the copy has another one, and nobody may write there.
                py_compile.compile(
                    str(target),
                    dfile=str(INSIDE / inside),
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
        for directory, _, files in os.walk(new):
            Path(directory).chmod(0o755)
            for name in files:
                if name.endswith(".pyc"):
                    Path(directory, name).chmod(0o644)
        (new / _MANIFEST).write_text(json.dumps(sorted(map(str, copies))), "utf-8")
        with contextlib.suppress(FileExistsError, OSError):  # another process was faster
            new.rename(store / key)
    if not (store / key / _MANIFEST).is_file():
        raise OSError(f"{store / key} could not be written")


def _probe(kind: str) -> dict[str, object]:
    """Return what a process has loaded that imports our programs."""
    words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROBE, str(_PACKAGE.parent)]
    ended = subprocess.run(  # noqa: S603 - no shell
        [*words, *(_PROGRAMS[name] for name in _KINDS[kind]), *_MORE, *_LATE.get(kind, ())],
        env=waiting_process.harmless(os.environ),
        capture_output=True,
        check=True,
        timeout=_PATIENCE_S,
    )
    return dict(json.loads(ended.stdout))


def _copies(facts: Mapping[str, object]) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield where each file goes in the copy, and where it is here."""
    modules, loader = dict(facts["modules"]), str(facts["loader"])  # type: ignore[call-overload]
    version = "{}.{}".format(*sys.version_info)
    stdlib = Path(str(facts["stdlib"]))
    program = Path(str(facts["program"]))
    yield PurePosixPath("bin", f"python{version}"), program
    lib = PurePosixPath("lib", f"python{version}")
    native = [program]
    yield lib / "os.py", stdlib / "os.py"  # the landmark by which Python finds its library
    for path in map(Path, modules.values()):
        if path.is_relative_to(_PACKAGE):
            yield PurePosixPath("app", "claude_proxy", path.relative_to(_PACKAGE)), path
        elif ".so" in path.suffixes:
            yield lib / "lib-dynload" / path.name, path
            native.append(path)
        else:
            yield lib / path.relative_to(stdlib), path
    for name in modules:  # of a module that puts another one in its place (collections.abc)
        path = stdlib.joinpath(*name.split(".")).with_suffix(".py")
        if path.is_file():
            yield lib / path.relative_to(stdlib), path
    if loader:
        yield PurePosixPath(_LOADER), Path(loader)
        for name, path in _libraries(loader, native).items():
            yield PurePosixPath(_LIBRARIES, name), path


_LISTED = re.compile(r"^\s*([^/\s]+) => (/.+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def _libraries(loader: str, programs: Sequence[Path]) -> dict[str, Path]:
    """Return the shared libraries of programs, by the names under which they are looked for."""
    found: dict[str, Path] = {}
    for program in programs:
        listed = subprocess.run(  # noqa: S603 - no shell
            [loader, "--list", str(program)],
            env=waiting_process.harmless(os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
        found |= {name: Path(path) for name, path in _LISTED.findall(listed.stdout)}
    return found


def _mark_of(path: str) -> list[int]:
    seen = os.stat(path)  # noqa: PTH116 - a hundred of them at each start
    return [seen.st_mtime_ns, seen.st_size]


def _is_unchanged(sources: Mapping[str, list[int]]) -> bool:
    return all(_mark_of(path) == mark for path, mark in sources.items())
