"""Obeyed files: what agents, editors, shells and build tools obey in a project, by name; pure.

One table for every profile. What is *protected* is read-only inside, where it exists when the run
starts: whole directories where an agent has no business, and files that make a tool run a command.
What is *reported* stays writable, because agents are asked to write it; the run names what it
created or changed, and so it does with protected names that did not exist. Names are compared
without regard to case, as some file systems do.
"""

from collections.abc import Iterator
from itertools import chain

from claude_proxy.deferred.data_classes import dataclass

_CLAUDE = "https://code.claude.com/docs/en"
_VSCODE = "https://code.visualstudio.com/docs"
_COPILOT = "https://docs.github.com/en/copilot"


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool and what it obeys, relative to any directory of a project.

    "name/" is a directory with everything in it; "*.end" is every file with this ending.
    """

    name: str
    source: str  # where the tool documents it
    protected: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()


def _named(names: tuple[str, ...], endings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}.{ending}" for name in names for ending in endings)


_LEFTHOOK = _named(
    (
        *("lefthook", ".lefthook", "lefthook-local", ".lefthook-local"),
        *(".config/lefthook", ".config/lefthook-local"),
    ),
    ("yml", "yaml", "toml", "json", "jsonc"),
)
_ACTIVATE = tuple(
    f"{directory}/{name}"
    for directory in (".venv", "venv")
    for name in (
        *("bin/activate", "bin/activate.csh", "bin/activate.fish", "bin/activate.nu"),
        *("bin/Activate.ps1", "bin/activate.ps1", "bin/activate.bat", "bin/activate_this.py"),
        "pyvenv.cfg",
    )
)

TOOLS = (
    Tool(
        "claude-proxy",
        "https://claude-proxy.readthedocs.io/en/latest/concepts/sandbox.html",
        protected=(".claude-proxy.yaml",),
    ),
    # Coding agents
    Tool(
        "Claude Code",
        f"{_CLAUDE}/settings",
        protected=(
            *(".claude/settings.json", ".claude/settings.local.json", ".claude/hooks/"),
            *(".claude/plugins/", ".claude/statusline.sh", ".claude/statusline-command.sh"),
        ),
        reported=("CLAUDE.md", "CLAUDE.local.md", ".claude/", ".claude-plugin/"),
    ),
    Tool("clients of MCP", f"{_CLAUDE}/mcp", protected=(".mcp.json", "mcp.json")),
    Tool(
        "agents that read AGENTS.md",
        "https://agents.md",
        reported=("AGENTS.md", "AGENTS.override.md", "AGENT.md", ".agents/", ".rules"),
    ),
    Tool("Codex", "https://developers.openai.com/codex/hooks", protected=(".codex/",)),
    Tool(
        "Gemini CLI",
        "https://geminicli.com/docs/reference/configuration",
        protected=(
            *(".gemini/settings.json", ".gemini/extensions/", ".gemini/hooks/"),
            *(".gemini/policies/", ".gemini/.env"),
        ),
        reported=("GEMINI.md", ".gemini/"),
    ),
    Tool("Qwen Code", "https://qwenlm.github.io/qwen-code-docs", (".qwen/",), ("QWEN.md",)),
    Tool("Cursor", "https://cursor.com/docs/agent/hooks", (".cursor/",), (".cursorrules",)),
    Tool(
        "Windsurf",
        "https://docs.windsurf.com/windsurf/cascade/hooks",
        (".windsurf/", ".devin/"),
        (".windsurfrules",),
    ),
    Tool(
        "GitHub Copilot",
        f"{_COPILOT}/how-tos/copilot-cli/customize-copilot/use-hooks",
        protected=(".github/hooks/",),
        reported=(
            *("copilot-instructions.md", ".github/instructions/", ".github/prompts/"),
            *(".github/agents/", ".github/chatmodes/", ".github/skills/"),
            *("*.instructions.md", "*.prompt.md", "*.chatmode.md", "*.agent.md"),
        ),
    ),
    Tool(
        "opencode",
        "https://opencode.ai/docs/config",
        protected=(".opencode/", "opencode.json", "opencode.jsonc"),
    ),
    Tool(
        "Crush",
        "https://github.com/charmbracelet/crush",
        protected=("crush.json", ".crush.json", ".crushrc", "crushrc"),
        reported=("CRUSH.md", ".crush/"),
    ),
    Tool(
        "Aider",
        "https://aider.chat/docs/config/aider_conf.html",
        protected=(".aider.conf.yml", ".aider.conf.yaml"),
        reported=(".aider.model.settings.yml",),
    ),
    Tool("Kiro", "https://kiro.dev/docs/hooks", (".kiro/hooks/", ".kiro/settings/"), (".kiro/",)),
    Tool("Amazon Q", "https://docs.aws.amazon.com/amazonq", protected=(".amazonq/",)),
    Tool("Continue", "https://docs.continue.dev/reference", (".continue/", ".continuerc.json")),
    Tool("Cline", "https://docs.cline.bot/customization", (".cline/",), (".clinerules",)),
    Tool(
        "Roo Code",
        "https://docs.roocode.com/features/mcp/using-mcp-in-roo",
        protected=(".roo/mcp.json",),
        reported=(".roo/", ".roorules", ".roomodes"),
    ),
    Tool(
        "Kilo Code",
        "https://kilo.ai/docs",
        protected=(".kilocode/mcp.json",),
        reported=(".kilocode/", ".kilocodemodes"),
    ),
    Tool(
        "Junie",
        "https://www.jetbrains.com/help/junie",
        protected=(".junie/mcp/",),
        reported=(".junie/",),
    ),
    Tool("Augment", "https://docs.augmentcode.com", reported=(".augment/",)),
    Tool("Goose", "https://block.github.io/goose", (".goose/",), (".goosehints",)),
    Tool("Amp", "https://ampcode.com/manual", protected=(".amp/",)),
    Tool("Factory Droid", "https://docs.factory.ai", protected=(".factory/",)),
    Tool("Trae", "https://docs.trae.ai", protected=(".trae/",)),
    # Editors
    Tool(
        "Visual Studio Code",
        f"{_VSCODE}/debugtest/tasks",
        protected=(".vscode/",),
        reported=("*.code-workspace",),
    ),
    Tool("JetBrains IDEs", "https://www.jetbrains.com/help/idea", (".idea/", ".run/", ".fleet/")),
    Tool("Zed", "https://zed.dev/docs/configuring-zed", protected=(".zed/",)),
    Tool("Helix", "https://docs.helix-editor.com/configuration.html", protected=(".helix/",)),
    Tool(
        "Vim and Neovim",
        "https://neovim.io/doc/user/options.html#'exrc'",
        protected=(
            *(".exrc", ".vimrc", ".gvimrc", ".nvimrc", ".nvim.lua", ".lvimrc", ".local.vimrc"),
            *(".nvim/", ".vim/"),
        ),
    ),
    Tool(
        "Emacs",
        "https://www.gnu.org/software/emacs/manual/html_node/emacs/Directory-Variables.html",
        protected=(".dir-locals.el", ".dir-locals-2.el"),
    ),
    Tool(
        "Sublime Text",
        "https://www.sublimetext.com/docs/projects.html",
        reported=("*.sublime-project", "*.sublime-build"),
    ),
    Tool("Eclipse", "https://help.eclipse.org", reported=(".externalToolBuilders/",)),
    Tool(
        "development containers",
        "https://containers.dev/implementors/spec",
        protected=(".devcontainer/", ".devcontainer.json"),
    ),
    # Shells and environments that load what they find in a directory
    Tool("direnv", "https://direnv.net/man/direnv.1.html", (".envrc", ".envrc.local", ".direnv/")),
    Tool(
        "mise",
        "https://mise.jdx.dev/configuration.html",
        protected=(
            *("mise.toml", ".mise.toml", "mise.local.toml", ".mise.local.toml", ".rtx.toml"),
            *(".mise/", "mise/config.toml", ".config/mise.toml", ".config/mise/"),
        ),
        reported=(".mise-tasks/", "mise-tasks/"),
    ),
    Tool("asdf", "https://asdf-vm.com/manage/configuration.html", (".tool-versions",)),
    Tool(
        "shells with autoenv",
        "https://github.com/hyperupcall/autoenv",
        protected=(".autoenv", ".autoenv.zsh", ".autoenv_leave.zsh", ".env.leave"),
    ),
    Tool("shadowenv", "https://shopify.github.io/shadowenv", protected=(".shadowenv.d/",)),
    Tool(
        "Nix",
        "https://nix.dev/manual/nix/latest/command-ref/nix-shell",
        reported=("flake.nix", "shell.nix", "devenv.nix", "devenv.yaml"),
    ),
    Tool(
        "virtual environments of Python",
        "https://docs.python.org/3/library/venv.html",
        protected=_ACTIVATE,
        reported=("pyvenv.cfg", "sitecustomize.py", "usercustomize.py"),
    ),
    # Interpreters and debuggers that read a file of the directory in which they are started
    Tool("IRB", "https://ruby.github.io/irb", protected=(".irbrc",)),
    Tool("Pry", "https://github.com/pry/pry", protected=(".pryrc",)),
    Tool("RSpec", "https://rspec.info/features", reported=(".rspec", ".rspec-local")),
    Tool("GHCi", "https://downloads.haskell.org/ghc/latest/docs", protected=(".ghci",)),
    Tool("OCaml", "https://ocaml.org/manual/latest/toplevel.html", protected=(".ocamlinit",)),
    Tool("IEx", "https://hexdocs.pm/iex/IEx.html", protected=(".iex.exs",)),
    Tool(
        "R",
        "https://stat.ethz.ch/R-manual/R-devel/library/base/html/Startup.html",
        protected=(".Rprofile", ".Renviron"),
    ),
    Tool("pdb", "https://docs.python.org/3/library/pdb.html", protected=(".pdbrc",)),
    Tool(
        "GDB and LLDB",
        "https://sourceware.org/gdb/current/onlinedocs/gdb.html/Init-File-in-the-Current-Directory.html",
        protected=(".gdbinit", ".gdbearlyinit", ".lldbinit"),
    ),
    # Package managers and build tools, by settings that name a program
    Tool(
        "Cargo",
        "https://doc.rust-lang.org/cargo/reference/config.html",
        protected=(".cargo/",),
        reported=("rust-toolchain", "rust-toolchain.toml"),
    ),
    Tool("npm", "https://docs.npmjs.com/cli/configuring-npm/npmrc", protected=(".npmrc",)),
    Tool(
        "pnpm",
        "https://pnpm.io/pnpmfile",
        protected=(".pnpmfile.cjs", ".pnpmfile.mjs"),
        reported=("pnpm-workspace.yaml",),
    ),
    Tool(
        "Yarn",
        "https://yarnpkg.com/configuration/yarnrc",
        protected=(".yarnrc", ".yarnrc.yml", ".yarn/releases/", ".yarn/plugins/"),
        reported=(".pnp.cjs", ".pnp.loader.mjs"),
    ),
    Tool("Bun", "https://bun.com/docs/runtime/bunfig", protected=("bunfig.toml",)),
    Tool(
        "Bundler",
        "https://bundler.io/man/bundle-config.1.html",
        protected=(".bundle/config", ".bundle/plugin/"),
        reported=(".bundle/",),
    ),
    Tool("uv", "https://docs.astral.sh/uv/concepts/configuration-files", reported=("uv.toml",)),
    Tool(
        "Maven and Gradle",
        "https://maven.apache.org/configure.html",
        # Older wrappers download themselves into `.mvn/wrapper`.
        protected=(
            *(".mvn/jvm.config", ".mvn/maven.config", ".mvn/extensions.xml"),
            ".mvn/wrapper/maven-wrapper.properties",
        ),
        reported=(".mvn/", "gradle-wrapper.properties", "gradle-wrapper.jar", "gradle.properties"),
    ),
    Tool("sbt", "https://www.scala-sbt.org/1.x/docs", protected=(".sbtopts", ".jvmopts")),
    Tool(
        "Bazel",
        "https://bazel.build/run/bazelrc",
        protected=(".bazelrc", ".bazeliskrc", "tools/bazel"),
    ),
    Tool(
        "NuGet",
        "https://learn.microsoft.com/nuget/reference/nuget-config-file",
        protected=("NuGet.Config", "nuget.config"),
    ),
    # Hooks of version control, and what they run
    Tool("Husky", "https://typicode.github.io/husky", (".husky/",)),
    Tool(
        "Git hooks that a project keeps",
        "https://git-scm.com/docs/githooks",
        (".githooks/", ".git-hooks/"),
    ),
    Tool(
        "pre-commit",
        "https://pre-commit.com",
        protected=(".pre-commit-config.yaml", ".pre-commit-config.yml", "prek.toml"),
    ),
    Tool(
        "Lefthook",
        "https://lefthook.dev/configuration",
        protected=(*_LEFTHOOK, ".lefthook/", ".lefthook-local/"),
    ),
    Tool(
        "other managers of Git hooks",
        "https://github.com/sds/overcommit",
        protected=(
            *(".overcommit.yml", "captainhook.json", "grumphp.yml", ".rusty-hook.toml"),
            *("hk.pkl", ".hk.pkl", ".trunk/", ".huskyrc", ".huskyrc.json", ".huskyrc.js"),
            *(".simple-git-hooks.json", ".simple-git-hooks.js", ".simple-git-hooks.cjs"),
            *("simple-git-hooks.json", "simple-git-hooks.js", "simple-git-hooks.cjs"),
        ),
    ),
    Tool(
        "Git",
        "https://git-scm.com/docs/gitmodules",
        reported=(".gitmodules", ".gitattributes", ".lfsconfig"),
    ),
    Tool(
        "Mercurial, Jujutsu and Sapling",
        "https://www.mercurial-scm.org/doc/hgrc.5.html",
        protected=(".hg/hgrc", ".hg/hgrc-not-shared", ".jj/repo/config.toml", ".sl/config"),
    ),
    # Services that run what a commit brings
    Tool(
        "continuous integration",
        "https://docs.github.com/en/actions/reference/workflows-and-actions",
        reported=(
            *(".github/workflows/", ".github/actions/", ".gitlab-ci.yml", ".circleci/"),
            *(".gitea/workflows/", ".forgejo/workflows/", ".woodpecker/", ".buildkite/"),
            *("azure-pipelines.yml", ".travis.yml", "Jenkinsfile", ".gitpod.yml"),
        ),
    ),
)

# What starts programs on its own, without a command of the user's: hooks, servers, environments.
_STARTING = (
    *(".claude/settings.json", ".claude/settings.local.json", ".claude/hooks", ".mcp.json"),
    *("mcp.json", ".cursor/hooks.json", ".cursor/mcp.json", ".codex/config.toml"),
    *(".codex/hooks.json", ".gemini/settings.json", ".windsurf/hooks.json", ".github/hooks"),
    *("opencode.json", ".envrc", ".autoenv.zsh", ".devcontainer.json"),
    *(".devcontainer/devcontainer.json", ".husky", ".githooks", ".git-hooks", ".git/hooks"),
    *(".pre-commit-config.yaml", ".lefthook", *_LEFTHOOK),
)

# Claude Code checks out whole projects here, which are searched as projects are.
_CHECKOUTS = (".claude", "worktrees")

# Dependencies and caches: very many files, written by every build; only repositories count there.
_DEPENDENCIES = frozenset({"node_modules", ".venv", "venv", "site-packages", "__pycache__"})
# What version control keeps for itself, and obeys.
_REPOSITORIES = {
    ".git": "Git",
    ".hg": "Mercurial",
    ".jj": "Jujutsu",
    ".sl": "Sapling",
    ".svn": "Subversion",
}
# By these, a directory is a Git directory, and another one an environment of Python.
_LAYOUTS = frozenset({"head", "objects", "refs", "commondir", "pyvenv.cfg"})
_OF_PYTHON = frozenset({"sitecustomize.py", "usercustomize.py"})

# Data that an agent keeps in its own directory in the home, and obeys nothing of.
_DATA_OF_AGENTS = frozenset(
    {
        *("projects", "todos", "tasks", "plans", "statsig", "history.jsonl", "file-history"),
        *("debug", "paste-cache", "image-cache", "cache", "telemetry", "session-env", "sessions"),
        *("logs", "log", "tmp", "backups", "stats-cache.json", "version.json", "history.json"),
        *("models_cache.json", "installation_id", "history", "ide", "chats", "auth.json"),
        *(".credentials.json", "oauth_creds.json", "google_accounts.json", "mcp-oauth-tokens.json"),
        *("archived_sessions", "shell_history", "usage-data", "uploads", "downloads"),
    }
)


@dataclass(frozen=True, slots=True)
class _Pattern:
    above: tuple[str, ...]  # the names of the directories, the nearest last
    tool: Tool


def _patterns(*, directories: bool) -> dict[str, list[_Pattern]]:
    found: dict[str, list[_Pattern]] = {}
    for tool in TOOLS:
        for name in (*tool.protected, *tool.reported):
            if name.startswith("*") or name.endswith("/") is not directories:
                continue
            *above, last = name.casefold().rstrip("/").split("/")
            found.setdefault(last, []).append(_Pattern(tuple(above), tool))
    return found


_FILES = _patterns(directories=False)
_DIRECTORIES = _patterns(directories=True)
_ENDINGS = {
    name.removeprefix("*").casefold(): tool
    for tool in TOOLS
    for name in tool.reported
    if name.startswith("*")
}
_ALL_ENDINGS = tuple(_ENDINGS)
_NOTEWORTHY = frozenset({*_FILES, *_DIRECTORIES, *_REPOSITORIES, *_LAYOUTS})


def protected_names() -> Iterator[str]:
    """Yield the paths in a project that are read-only where they exist."""
    for name in chain.from_iterable(tool.protected for tool in TOOLS):
        yield name.rstrip("/")


def starting_names() -> tuple[str, ...]:
    """Return the files and directories of a project that start programs on their own."""
    return _STARTING


def is_of_environment(name: str) -> bool:
    """Tell whether a protected name is a part of a virtual environment of Python."""
    return name in _ACTIVATE


def obeying(directory: str, name: str) -> Tool | None:
    """Return the tool that obeys the file `name` in a directory of this path; None if none does."""
    folded = name.casefold()
    if folded in _FILES:
        return _matching(_FILES[folded], directory)
    if folded.endswith(_ALL_ENDINGS):
        return next(tool for ending, tool in _ENDINGS.items() if folded.endswith(ending))
    return None


def obeying_all_in(directory: str, name: str) -> Tool | None:
    """Return the tool that obeys everything in the subdirectory `name` of a directory."""
    folded = name.casefold()
    # Some names are both: `.clinerules` is a file or a directory.
    return _matching([*_DIRECTORIES.get(folded, ()), *_FILES.get(folded, ())], directory)


def _matching(patterns: list[_Pattern], directory: str) -> Tool | None:
    for pattern in patterns:
        if not pattern.above:
            return pattern.tool
        parts = directory.casefold().rsplit("/", len(pattern.above))
        if tuple(parts[-len(pattern.above) :]) == pattern.above:
            return pattern.tool
    return None


def holds_checkouts(parent: str, name: str) -> bool:
    """Tell whether this directory of an agent contains projects, and not settings."""
    return (parent.casefold(), name.casefold()) == _CHECKOUTS


def holds_dependencies(name: str) -> bool:
    """Tell whether a directory holds dependencies, whose files are not a project's own."""
    return name.casefold() in _DEPENDENCIES


def is_noteworthy(folded: str) -> bool:
    """Tell whether anything is to be known about a name that is folded; fast, for large trees."""
    return folded in _NOTEWORTHY or folded.endswith(_ALL_ENDINGS)


def is_read_by_python(name: str) -> bool:
    """Tell whether Python reads a file among the packages of an environment at each start."""
    return name.endswith(".pth") or name in _OF_PYTHON


def owner_of(name: str) -> str:
    """Return which version control keeps a directory of this name for itself."""
    return _REPOSITORIES[name.casefold()]


def is_repository(name: str) -> bool:
    """Tell whether a directory of this name is what version control keeps for itself."""
    return name.casefold() in _REPOSITORIES


def is_data(name: str) -> bool:
    """Tell whether an agent keeps data by this name in its directory in the home."""
    return name.casefold() in _DATA_OF_AGENTS
