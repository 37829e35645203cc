"""Keeps the rooms of ARCHITECTURE.md: imports point down, and what is pure has no effects."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "claude_proxy"
AT_THE_TOP = {"__init__.py", "__main__.py", "errors.py", "events.py"}

# What a pure room or module may import besides the package itself. A list of what is allowed, as a
# list of what is not would have to know every way to a socket, a clock or a file.
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
    "errno",
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
    ("control.questions", "hashlib"),
    ("policy.credentials.database", "hmac"),
    ("policy.credentials.decision", "hmac"),
    ("policy.credentials.login_hash", "hmac"),
    ("policy.credentials.secret", "hmac"),
    ("sandbox.container.plan.planner", "hashlib"),
    ("sandbox.plan.agent_home", "hashlib"),
    ("server.service.file_marks", "hashlib"),
    ("wire.postgres", "hashlib"),
    ("wire.scram", "hashlib"),
    ("wire.scram", "hmac"),
    # A table of names.
    ("policy.credentials.escapes", "html.entities"),
    # Files that are part of the program, as its code is.
    ("server.service.template_files", "importlib"),
    ("sandbox.container.files.scripts_text", "importlib"),
    # Reads or writes text that is handed to it.
    ("config.allowlist.edit", "yaml"),
    ("config.bw_claude.reader", "tomllib"),
    ("config.bw_claude.toml_locations", "tomllib"),
    ("sandbox.plan.codex_settings", "tomllib"),
    ("config.strict_yaml.fields", "yaml"),
    ("config.strict_yaml.nodes", "yaml"),
    ("server.service.launchd", "plistlib"),
    ("sandbox.container.files.yaml_text", "yaml"),
}
# Rooms and modules that do no I/O, tell no time, log nothing and know no mitmproxy. A path is a
# value as long as nothing is opened: these may import pathlib, and the effects below are refused.
PURE = (
    "errors",
    "events",
    "wire",
    "policy",
    "config.allowlist",
    "config.providers",
    "config.bw_claude",
    "config.config_reference",
    "config.config_schema",
    "config.config_yaml",
    "config.imports.claude_code",
    "config.imports.domain_entries",
    "config.imports.draft",
    "config.imports.emission",
    "config.imports.host_languages",
    "config.imports.host_tests",
    "config.imports.hosts",
    "config.imports.json_text",
    "config.imports.languages",
    "config.imports.openings",
    "config.imports.port_sets",
    "config.imports.posix_regex",
    "config.imports.squid",
    "config.imports.squid_acls",
    "config.imports.squid_text",
    "config.imports.srt",
    "config.imports.tinyproxy",
    "config.imports.url_languages",
    "config.option_kinds",
    "config.option_table",
    "config.option_values",
    "config.port_mappings",
    "config.preset_files",
    "config.settings",
    "config.strict_yaml",
    "config.worker_count",
    "trust.client_environment",
    "control.grant_texts",
    "control.protocol",
    "control.stored_rules",
    "control.questions",
    "vault.dotenv",
    "proxy.connection_end",
    "proxy.gateway.banner",
    "proxy.gateway.policy",
    "proxy.gateway.quotas",
    "proxy.gateway.responses",
    "proxy.gateway.routes",
    "proxy.gateway.strict",
    "proxy.inspection",
    "proxy.responses",
    "proxy.warm_demand",
    "proxy.warm_keys",
    "server.service.file_marks",
    "server.service.launchd",
    "server.service.names",
    "server.service.plan",
    "server.service.quoting",
    "server.service.systemd",
    "server.service.template_files",
    "sandbox.bubblewrap.mountinfo",
    "sandbox.container.files",
    "sandbox.container.plan",
    "sandbox.git.ref_moves",
    "sandbox.git.ref_names",
    "sandbox.macos.seatbelt",
    "sandbox.plan",
    "sandbox.relay.lookup_report",
    "sandbox.relay.pipe_states",
    "sandbox.relay.tunnel_opening",
    "sandbox.relay.unavailable",
)

ARGUED_READS = {
    # Where variables that hold a credential are read, and taken away.
    ("system.process_memory", "os.environ"),
    ("vault.vault", "os.environ"),
    # The program of --ask-command is run as the owner would.
    ("server.owner_answers", "os.environ"),
    # Programs of their own, which must not import `cli`.
    ("sandbox.proxy_process", "os.environ"),
    ("sandbox.bubblewrap.watchdog", "sys.argv"),
    ("sandbox.relay.relay", "sys.argv"),
    ("sandbox.bubblewrap.link_cover", "sys.argv"),
    ("sandbox.bubblewrap.mount_guard", "sys.argv"),
    ("sandbox.git.periodic", "sys.argv"),
    ("sandbox.bubblewrap.unix_sockets", "sys.argv"),
    ("sandbox.stream_pump", "sys.argv"),
    ("sandbox.container.container_init", "sys.argv"),
    ("sandbox.container.namespace_holder", "sys.argv"),
    ("sandbox.container.network_probe", "sys.argv"),
    # The user's environment is what a run is made of.
    ("sandbox.commit_bringer", "os.environ"),
    ("sandbox.container.lent_python", "os.environ"),
    ("sandbox.container.keeper_start", "os.environ"),
    ("sandbox.container.launcher", "os.environ"),
    ("sandbox.container.project_plan", "os.environ"),
    ("sandbox.helper_processes", "os.environ"),
    ("sandbox.run_directory", "os.environ"),
    ("sandbox.run_clone", "os.environ"),
    ("sandbox.runner", "os.environ"),
}

# Builtins and methods of paths by which a pure module could do something.
EFFECTS = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}
PATH_EFFECTS = {
    "chmod",
    "exists",
    "glob",
    "is_dir",
    "is_file",
    "is_symlink",
    "iterdir",
    "lstat",
    "mkdir",
    "open",
    "read_bytes",
    "readlink",
    "resolve",
    "rglob",
    "samefile",
    "stat",
    "symlink_to",
    "touch",
    "unlink",
    "write_bytes",
    "write_text",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(modules())
PURE_MODULES = [
    name for name in MODULES if any(name == at or name.startswith(f"{at}.") for at in PURE)
]


@cache
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
            yield node.module


def test_the_rooms_and_their_order_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_lies_at_the_top_but_those_that_every_room_needs() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == AT_THE_TOP


def test_a_package_file_holds_a_docstring_only() -> None:
    packages = {name: path for name, path in MODULES.items() if path.name == "__init__.py"}
    # The version is the one name that a program asks of the package itself.
    allowed = {name: 1 if name else 2 for name in packages}

    undocumented = [name for name in packages if not ast.get_docstring(tree_of(name))]
    more = [name for name in packages if len(tree_of(name).body) > allowed[name]]

    assert (undocumented, more) == ([], [])


def test_a_name_is_imported_from_where_it_is_defined() -> None:
    """A name with two homes is looked for in the wrong one."""
    elsewhere = [
        f"{module}: {node.module}.{alias.name}"
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if (home := node.module.removeprefix("claude_proxy").removeprefix(".")) in MODULES
        and f"{home}.{alias.name}".removeprefix(".") not in MODULES
        and alias.name not in defined_in(home)
    ]

    assert elsewhere == []


@cache
def defined_in(module: str) -> set[str]:
    """Return the names that `module` itself defines, at its top or below an `if` or a `try`."""
    names: set[str] = set()
    for node in ast.walk(tree_of(module)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def test_a_pure_module_imports_nothing_that_acts() -> None:
    acting = [
        (module, name)
        for module in PURE_MODULES
        for name in imports_of(module)
        if name.split(".")[0] != "claude_proxy"
        and name not in PURE_IMPORTS | {"pathlib"}
        and (module, name) not in ARGUED_IMPORTS
    ]

    assert acting == []


def test_a_pure_module_calls_nothing_that_acts() -> None:
    acting = [(module, name) for module in PURE_MODULES for name in effects_of(module)]

    assert acting == []


def effects_of(module: str) -> set[str]:
    """Return the builtins and methods of paths by which a module does something."""
    nodes = list(ast.walk(tree_of(module)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    called = {
        node.func.attr
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    paths = called & PATH_EFFECTS if "pathlib" in set(imports_of(module)) else set()
    return names & EFFECTS | paths


def test_every_argued_import_is_still_there() -> None:
    assert [
        (where, name) for where, name in sorted(ARGUED_IMPORTS) if name not in imports_of(where)
    ] == []


def test_every_pure_room_is_still_there() -> None:
    assert [name for name in PURE if name not in MODULES] == []


def test_no_decision_hangs_on_an_assert() -> None:
    """`python -O` is a fifth faster, and drops every assert."""
    asserting = [
        module
        for module in MODULES
        if any(isinstance(node, ast.Assert) for node in ast.walk(tree_of(module)))
    ]

    assert asserting == []


READS = {"sys.argv", "os.environ", "os.environb", "os.getenv"}


def test_only_the_command_line_reads_arguments_and_environment() -> None:
    reading = [
        (module, ast.unparse(node))
        for module in MODULES
        if module.split(".", maxsplit=1)[0] not in {"cli", "__main__"}
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in READS
    ]

    assert [read for read in reading if read not in ARGUED_READS] == []


def test_only_the_audit_and_the_store_of_grants_know_sqlite() -> None:
    knowing = [module for module in MODULES if "sqlite3" in set(imports_of(module))]

    others = [module for module in knowing if not module.startswith("audit.")]
    assert others == ["control.grant_store"]


def test_only_the_policy_makes_decisions() -> None:
    """One judge: elsewhere a decision is asked for, passed on and recorded."""
    making = [
        (module, ast.unparse(node))
        for module in MODULES
        if not module.startswith("policy.")
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in {"Decision", "CredentialDecision"}
    ]

    assert making == []


FACTORIES = {"denied", "denied_by", "allowed_by", "tunnel_allowed_by"}


def test_only_the_gate_has_the_policy_deny_for_a_reason_that_needs_no_rule() -> None:
    """What another layer refuses, it has the gate refuse, which records it."""
    importing = [
        (module, alias.name)
        for module in MODULES
        if not module.startswith("policy.")
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ImportFrom) and node.module == "claude_proxy.policy.decision"
        for alias in node.names
        if alias.name in FACTORIES
    ]

    assert importing == [("proxy.gate", "denied")]


def test_every_module_has_a_test_file_of_its_name() -> None:
    """Who changes a module finds its laws at the same path below tests/."""
    named = {
        path: path.with_name(f"test_{path.stem.strip('_')}.py")
        for path in (path.relative_to(PACKAGE) for path in MODULES.values())
        if path.name != "__init__.py"
    }

    assert [str(path) for path, test in named.items() if not (ROOT / "tests" / test).exists()] == []
