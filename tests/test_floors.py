"""Keeps the floors of ARCHITECTURE.md: imports point down, and what is pure stays pure."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "claude_proxy"

# A module that stands on no floor fails the first test below: place it, and be able to say why.
FLOORS = {
    # 0: pure
    "": 0,
    "errors": 0,
    "authority": 0,
    "address": 0,
    "patterns": 0,
    "policy": 0,
    "strangers": 0,
    "watch": 0,
    "source": 0,
    "request": 0,
    "reason": 0,
    "shown": 0,
    "events": 0,
    "clients": 0,
    "echo": 0,
    "secret": 0,
    "placeholders": 0,
    "logins": 0,
    "credentials": 0,
    "settings": 0,
    "wire": 0,
    "options": 0,
    "denial": 0,
    "gateway_words": 0,
    "gateway": 0,
    "messages": 0,
    # 1: text into values
    "strict_yaml": 1,
    "host_reader": 1,
    "clashes": 1,
    "field_reader": 1,
    "credential_reader": 1,
    "narrowing_reader": 1,
    "rule_reader": 1,
    "rule_writer": 1,
    "allowlist_edit": 1,
    "presets": 1,
    "allowlist": 1,
    "groups": 1,
    "dotenv": 1,
    "provider_reader": 1,
    "service": 1,
    # 2: one resource each
    "audit": 2,
    "ca": 2,
    "ownership": 2,
    "policyfile": 2,
    "logs": 2,
    "dialer": 2,
    "heap": 2,
    "bridge": 2,
    "relay": 2,
    "notify": 2,
    "passwordfile": 2,
    "dotenvfile": 2,
    "peers": 2,
    "socketfile": 2,
    "sockets": 2,
    "workers": 2,
    "vault": 2,
    "secret_sources": 2,
    "pins": 2,
    "memory": 2,
    # 3: adapters
    "gate": 3,
    "connection": 3,
    "layers": 3,
    "addons": 3,
    "listeners": 3,
    "launch": 3,
    # 4: assembly
    "companion": 4,
    "doctor": 4,
    "installing": 4,
    "judges": 4,
    "preflight": 4,
    "reload": 4,
    "proxy": 4,
    # 5: edge
    "cli": 5,
    "__main__": 5,
}

# What floors 0 and 1 may import besides each other. A list of what is allowed, as a list of what is
# not would have to know every way to a socket, a clock or a file.
PURE_IMPORTS = {
    "abc",
    "base64",
    "bisect",
    "collections",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "http",
    "idna",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "shlex",
    "string",
    "struct",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
    "zlib",
}
ARGUED_IMPORTS = {
    # Hashes and comparisons: the same for the same.
    ("logins", "hmac"),
    ("credentials", "hmac"),
    ("secret", "hmac"),
    ("echo", "zlib"),
    # A table of names.
    ("placeholders", "html.entities"),
    ("credentials", "pathlib"),
    # Paths as values; nothing is opened.
    ("settings", "pathlib"),
    ("clients", "pathlib"),
    ("options", "pathlib"),
    ("credential_reader", "pathlib"),
    ("service.plan", "pathlib"),
    # Files that are part of the program, as its code is.
    ("service.templates", "importlib"),
    ("allowlist", "importlib"),
    ("authority", "importlib"),
    ("groups", "importlib"),
    ("presets", "importlib"),
    # Computes on text that is handed to it.
    ("service.launchd", "plistlib"),
    ("service.marks", "hashlib"),
    # Reads text that is handed to it.
    ("strict_yaml", "yaml"),
    ("field_reader", "yaml"),
    ("allowlist_edit", "yaml"),
    ("groups.places", "tomllib"),
    ("groups.reader", "tomllib"),
}

ARGUED_READS = {
    # Where variables that hold a credential are read, and taken away.
    ("memory", "os.environ"),
    ("vault", "os.environ"),
    # Programs of their own, which must not import `cli`.
    ("companion", "os.environ"),
    ("launch.guard", "sys.argv"),
    ("launch.veil", "sys.argv"),
    ("relay", "sys.argv"),
    # The user's environment is what a run is made of.
    ("launch.attendants", "os.environ"),
    ("launch.rundir", "os.environ"),
    ("launch.runner", "os.environ"),
}

# Builtins by which a pure module could do something.
EFFECTS = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(modules())


def floor_of(module: str) -> int | None:
    """Return the floor of a module, or of the nearest package above it that has one."""
    if module in FLOORS:
        return FLOORS[module]
    above = module.rpartition(".")[0]
    return floor_of(above) if above else None


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imports_of(module: str) -> Iterator[str]:
    """Yield every module that `module` imports, at its top or inside a function."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                # `from claude_proxy.cli.main import paths` imports a module, not a name of one.
                deeper = f"{node.module}.{alias.name}"
                yield deeper if deeper.removeprefix("claude_proxy.") in MODULES else node.module


def own_imports_of(module: str) -> Iterator[str]:
    for imported in imports_of(module):
        if imported.split(".")[0] == "claude_proxy":
            yield imported.removeprefix("claude_proxy").removeprefix(".")


def floors_in_architecture() -> dict[str, int]:
    """Return the floor of each module in the table of ARCHITECTURE.md."""
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text("utf-8")
    [table] = re.findall(r"^\| floor \|.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    floors, floor = {}, 0
    for row in table.splitlines()[2:]:
        _, number, modules, *_ = row.split("|")
        floor = int(number.split()[0]) if number.strip() else floor
        for name in re.findall(r"`([a-z0-9_/*]+)(?:\.py)?`", modules):
            floors[name.split("/")[0]] = floor
    return floors


PURE = [module for module in MODULES if (floor_of(module) or 0) <= 1]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_stands_on_a_floor(module: str) -> None:
    assert floor_of(module) is not None


def test_architecture_tells_the_same_floors() -> None:
    assert floors_in_architecture() == {name: floor for name, floor in FLOORS.items() if name}


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_point_down(module: str) -> None:
    here = floor_of(module)

    above = [name for name in own_imports_of(module) if (floor_of(name) or 0) > (here or 0)]

    assert above == []


def test_no_module_imports_itself_by_a_detour() -> None:
    reached: dict[str, set[str]] = {module: set(own_imports_of(module)) for module in MODULES}
    for middle in MODULES:
        for module in MODULES:
            if middle in reached[module]:
                reached[module] |= reached[middle]

    assert [module for module in MODULES if module in reached[module]] == []


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_that_acts(module: str) -> None:
    foreign = {name for name in imports_of(module) if name.split(".")[0] != "claude_proxy"}

    argued = {name for where, name in ARGUED_IMPORTS if where == module}
    assert foreign - PURE_IMPORTS - argued == set()


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_calls_nothing_that_acts(module: str) -> None:
    names = {node.id for node in ast.walk(tree_of(module)) if isinstance(node, ast.Name)}

    assert names & EFFECTS == set()


def test_every_argued_import_is_still_there() -> None:
    assert [
        (where, name)
        for where, name in sorted(ARGUED_IMPORTS)
        if where in MODULES and name not in imports_of(where)
    ] == []


@pytest.mark.parametrize("module", MODULES)
def test_no_decision_hangs_on_an_assert(module: str) -> None:
    """`python -O` is a fifth faster, and drops every assert."""
    assert not [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_reads_arguments_and_environment(module: str) -> None:
    attributes = {
        ast.unparse(node) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)
    }

    read = attributes & {"sys.argv", "os.environ", "os.environb", "os.getenv"}
    read -= {name for where, name in ARGUED_READS if where == module}
    assert floor_of(module) == 5 or read == set()


@pytest.mark.parametrize("module", MODULES)
def test_mitmproxy_is_known_to_the_adapters_and_the_assembly_alone(module: str) -> None:
    knows = any(name.split(".")[0] == "mitmproxy" for name in imports_of(module))

    assert floor_of(module) in {3, 4} or not knows


@pytest.mark.parametrize("module", MODULES)
def test_only_the_audit_knows_sqlite(module: str) -> None:
    knows = "sqlite3" in set(imports_of(module))

    assert module.startswith("audit") or not knows
