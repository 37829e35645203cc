"""What programs outside obey: read-only in every profile, or named when the run ends."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FindProgram

from .rig.launch import Launches

OFFLINE = ("--no-network",)

# Each obeyed by another tool, and by no profile in particular.
KEPT = (
    *(".codex/config.toml", ".cursor/mcp.json", ".zed/tasks.json", ".cargo/config.toml"),
    *(".npmrc", ".pre-commit-config.yaml", ".venv/bin/activate", ".claude/settings.json"),
    *(".vscode/tasks.json", ".envrc", "lefthook.yml", ".gemini/settings.json", "mise.toml"),
)


def written(path: Path, text: str = "kept\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def git(user: Launches, *words: str) -> None:
    argv = user.argv(["git", "-C", user.project, *words])
    subprocess.run(argv, env=user.environment(), check=True, capture_output=True)


@pytest.mark.parametrize("profile", ["shell", "claude", "codex", "gemini"])
def test_no_profile_lets_a_run_write_what_another_tool_obeys(runs: Launches, profile: str) -> None:
    files = [written(runs.project / name) for name in KEPT]
    words = " ".join(f"{name} $(dirname {name})/new" for name in KEPT)
    inside = f"for file in {words}; do echo bad >>$file; mv $file x; rm -f $file; done 2>/dev/null"

    ran = runs.run("sh", "-c", f"{inside}; true", options=[*OFFLINE, "--profile", profile])

    assert ran.returncode == 0, ran.stderr
    assert {file.read_text(encoding="utf-8") for file in files} == {"kept\n"}
    assert not (runs.project / ".codex/new").exists()


def test_what_gits_settings_name_in_the_project_is_read_only(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    git(runs, "init", "-q")
    scripts = [runs.project / name for name in ("tools/hooks/pre-commit", "tools/monitor", "extra")]
    for script in scripts:
        written(script)
    # Beyond what one look at the beginning of the file would show, and in the user's own settings.
    padding = "".join(f'[branch "b{number}"]\n\tremote = origin\n' for number in range(500))
    with (runs.project / ".git/config").open("a", encoding="utf-8") as config:
        config.write(f"{padding}[core]\n\thooksPath = tools/hooks\n[include]\n\tpath = ../extra\n")
    written(runs.place.home / ".gitconfig", '[filter "x"]\n\tclean = sh tools/monitor %f\n')
    scripts[-1].write_text("[user]\n\tname = kept\n", encoding="utf-8")
    before = [script.read_text(encoding="utf-8") for script in scripts]

    runs.run(
        "sh",
        "-c",
        "for f in tools/*/* tools/monitor extra; do echo bad >>$f; done",
        options=OFFLINE,
    )

    assert [script.read_text(encoding="utf-8") for script in scripts] == before


def test_what_a_run_leaves_is_named_at_its_end(runs: Launches, program: FindProgram) -> None:
    program("git")
    script = (
        "git init -q deep/er/nested; git init -q node_modules/x; git init -q --bare .;"
        "mkdir -p sub/.zed; echo >sub/.zed/tasks.json; echo >.envrc; echo >sub/.git;"
        "mkdir $(printf 'a\\033[2Kb'); echo >$(printf 'a\\033[2Kb')/CLAUDE.md"
    )

    ran = runs.run("sh", "-c", script, options=OFFLINE)

    said = [line for line in ran.stderr.splitlines() if "this run created or changed" in line]
    places = ["deep/er/nested/.git", "node_modules/x/.git", "sub/.git"]
    ours = [*(f"{runs.project}/{place} (a repository: " for place in places)]
    ours += [f"{runs.project} (laid out as a repository: ", f"{runs.project}/.envrc (obeyed by "]
    ours += [f"{runs.project}/sub/.zed/tasks.json (obeyed by Zed)", r"a\x1b[2Kb/CLAUDE.md (obeyed"]
    assert [text for text in ours if not any(text in line for line in said)] == []
    assert len(said) == len(ours)


def test_a_run_that_is_terminated_is_reported_all_the_same(runs: Launches) -> None:
    inside = "echo >.envrc; echo begun; exec sleep 600"
    words = runs.argv(runs.words(["sh", "-c", inside], *OFFLINE))
    with subprocess.Popen(
        words, env=runs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"

        process.terminate()

        _, said = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM
    assert f"created or changed {runs.project}/.envrc (obeyed by direnv)" in said.decode()


def test_a_file_with_a_second_name_is_refused_before_anything_runs(runs: Launches) -> None:
    runs.run("sh", "-c", "echo mine >.envrc; ln .envrc other", options=OFFLINE)

    ran = runs.run("sh", "-c", "echo bad >other", options=OFFLINE)

    assert ran.returncode == 2
    assert "a protected file has a second name" in ran.stderr
    assert (runs.project / ".envrc").read_text(encoding="utf-8") == "mine\n"


def test_what_an_agent_is_asked_to_create_works_inside(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    script = (
        "git init -q . && mkdir .husky .devcontainer && echo a >.husky/pre-commit && "
        "echo >.npmrc && echo >>.npmrc && exec 3>.envrc && ls && echo x >&3 && "
        "echo x >>.envrc && git status --porcelain && git config user.name a && rm .envrc"
    )

    ran = runs.run("sh", "-c", script, options=OFFLINE)

    assert ran.returncode == 0, ran.stderr
    assert f"{runs.project}/.git (a repository: " in ran.stderr


def test_what_links_in_obeyed_files_lead_to_is_read_only(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    git(runs, "init", "-q")
    project = runs.project
    targets = [project / name for name in ("hk/pre-commit", "conf/git", "conf/attr", "conf/tasks")]
    for target in targets:
        written(target, "")
    (project / ".vscode").mkdir()
    for name, text in {
        ".git/hooks": "../way/hk",
        "way/hk": "../hk",
        ".git/config": "../conf/git",
        ".git/info/attributes": "../../conf/attr",
        ".vscode/tasks.json": "../conf/tasks",
    }.items():
        link = project / name
        link.parent.mkdir(exist_ok=True)
        if link.is_dir():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(text)
    words = "hk/pre-commit conf/git conf/attr conf/tasks hk/pre-push way/hk/new"
    inside = f"for f in {words}; do echo bad >>$f; rm -f $f; done; rm -f way/hk; mv hk x; mv conf y"

    ran = runs.run("sh", "-c", f"{inside}; echo free >conf/free", options=OFFLINE)

    assert ran.returncode == 0, ran.stderr
    assert [target.read_text(encoding="utf-8") for target in targets] == [""] * 4
    assert [path.name for path in (project / "way/hk").iterdir()] == ["pre-commit"]
    assert (project / "conf/free").read_text(encoding="utf-8") == "free\n"


def test_a_run_is_refused_that_could_create_what_git_obeys_by_a_link(
    runs: Launches, program: FindProgram
) -> None:
    program("git")
    git(runs, "init", "-q")
    (runs.project / ".git/info/attributes").symlink_to("../../missing")

    ran = runs.run("true", options=OFFLINE)

    assert ran.returncode != 0
    assert "Git outside obeys" in ran.stderr
