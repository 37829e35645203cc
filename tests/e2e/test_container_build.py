"""Images with real podman: built, updated and killed, with the proxy as their only network."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet
from .rig.launch import Launches

PASSWD = b"root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n"
POLICY = "allow:\n  - {host: origin.test, methods: [GET, HEAD]}\n"
FETCH = "curl -sS -o /dev/null -w '%{http_code}\\n'"
LIMIT_S = 300


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    files = [("/etc/passwd", PASSWD)]
    image = image_of(program("busybox"), [program("curl")], files)
    storage.add(image, "box", 'ENTRYPOINT ["/bin/env"]', "USER 1000:1000", "ENV KEPT=1")
    yield storage
    storage.close()


class Images:
    """The commands about images, as a user runs them."""

    def __init__(self, runs: Launches, storage: EngineStorage) -> None:
        self.runs, self.storage = runs, storage
        policies = runs.place.home / ".config/claude-proxy/policies"
        policies.mkdir(parents=True, mode=0o700, exist_ok=True)
        (policies / "origin.yaml").write_text(POLICY)
        (policies / "origin.yaml").chmod(0o600)

    def words(self, command: str, *more: str | Path) -> list[str | Path]:
        # Options come before `--` and what follows it.
        own = [*self.runs.program(), "container", command]
        if command in {"build", "update"}:
            own += ["--policy", "origin", "--upstream-ca", self.runs.root_file]
        if command == "run":
            own += ["--allowlist", self.runs.allowlist, "--upstream-ca", self.runs.root_file]
        return [*own, *more]

    def begin(self, command: str, *more: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.runs.argv(self.words(command, *more)),
            env=self.runs.environment(**self.storage.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, command: str, *more: str | Path) -> tuple[int, str]:
        process = self.begin(command, *more)
        out, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, out

    def config(self, image: str) -> dict[str, object]:
        (found,) = json.loads(self.storage.call("image", "inspect", image))
        config: dict[str, object] = found["Config"]
        return config


@pytest.fixture
def images(runs: Launches, storage: EngineStorage) -> Images:
    return Images(runs, storage)


def containerfile(directory: Path, *steps: str) -> Path:
    file = directory / "Containerfile"
    file.write_text("\n".join(["FROM localhost/box", "USER 0:0", *steps, "USER 1000:1000", ""]))
    return file


def test_a_build_reaches_what_its_policy_allows_and_nothing_of_it_stays(
    images: Images, internet: Internet, tmp_path: Path
) -> None:
    past = f"{FETCH} --noproxy '*' --resolve origin.test:443:10.0.0.1 https://origin.test/"
    file = containerfile(
        tmp_path,
        f"RUN {FETCH} https://origin.test/in; {FETCH} https://denied.test/; echo $?; "
        f"{past}; echo $?; ip -o link | cut -d: -f2",
        'RUN [ "$SSL_CERT_FILE" = /run/claude-proxy/bundle.pem ]',
    )
    with internet.watch() as seen:
        code, said = images("build", "--file", file, "--tag", "built")

    assert code == 0, said
    assert seen.targets() == ["/in"]
    lines = [line.strip() for line in said.splitlines()]
    assert [line for line in lines if line.isdigit() or line == "lo"] == [
        "200",
        "000",
        "56",
        "000",
        "7",
        "lo",
    ]
    assert "proxy" not in json.dumps(images.config("built")["Env"]).lower()
    assert images.config("built")["Entrypoint"] == ["/bin/env"]


def test_an_add_is_fetched_through_the_proxy_too(
    images: Images, internet: Internet, tmp_path: Path
) -> None:
    file = containerfile(tmp_path, "ADD https://denied.test/x /x")

    with internet.watch() as seen:
        code, said = images("build", "--file", file, "--tag", "added")

    assert code == 1, said
    assert seen.targets() == []
    assert "the build failed" in said


def test_a_build_that_fails_leaves_the_image_of_before(images: Images, tmp_path: Path) -> None:
    images.storage.call("tag", "box", "kept")

    code, said = images("build", "--file", containerfile(tmp_path, "RUN exit 7"), "--tag", "kept")

    assert code == 1
    assert "exit code 7" in said
    assert Path(said.partition("where: ")[2].splitlines()[0]).is_file()
    names = images.storage.call("image", "inspect", "--format", "{{.RepoTags}}", "kept")
    assert "localhost/box" in names


@pytest.fixture
def container(images: Images) -> Iterator[str]:
    code, said = images("run", "--image", "box", "--name", "web", "--detach", "--", "sleep", "1d")
    assert code == 0, said
    yield "web"
    images("rm", "--force", "web")


def image_of_container(images: Images) -> str:
    return images.storage.call("container", "inspect", "--format", "{{.Image}}", "web").strip()


def test_an_update_is_there_after_the_next_start_and_the_image_is_configured_as_before(
    images: Images, container: str, internet: Internet
) -> None:
    before = image_of_container(images)
    step = f"id -u > /updated; {FETCH} https://origin.test/up"
    with internet.watch() as seen:
        code, said = images("update", container, "--", "sh", "-c", step)
    assert code == 0, said
    assert seen.targets() == ["/up"]
    assert image_of_container(images) == before  # it runs, as it was

    assert images("restart", container)[0] == 0

    assert images.storage.call("exec", "web", "cat", "/updated") == "0\n"
    assert image_of_container(images) != before
    newest = images.config("localhost/claude-proxy-container-web:latest")
    assert newest["User"] == "1000:1000"
    assert newest["Entrypoint"] == ["/bin/env"]
    assert "KEPT=1" in json.dumps(newest["Env"])
    assert "proxy" not in json.dumps(newest["Env"]).lower()
    assert images("rm", "--force", "web")[0] == 0
    listed = images.storage.call("images", "--format", "{{.Repository}}")
    assert "claude-proxy-container-web" not in listed
    assert "localhost/box" in listed


def test_an_update_that_fails_changes_nothing_and_has_few_capabilities(
    images: Images, container: str
) -> None:
    before = image_of_container(images)
    script = "touch /x; mount -t tmpfs none /tmp || grep CapBnd /proc/self/status; exit 100"

    code, said = images("update", container, "--", "sh", "-c", script)

    assert code == 100, said
    assert "as it was" in said
    bound = int(said.rpartition("CapBnd:")[2].split()[0], 16)
    assert not bound & (1 << 13 | 1 << 12 | 1 << 21 | 1 << 19)  # raw, net and sys admin, ptrace
    assert images("stop", container)[0] == images("start", container)[0] == 0
    assert image_of_container(images) == before


def test_nothing_is_left_of_an_update_that_was_killed(images: Images, container: str) -> None:
    mark = f"{time.monotonic_ns()}"
    process = images.begin("update", container, "--", "sh", "-c", f"echo begun; sleep {mark[-9:]}")
    assert process.stdout is not None
    while "begun" not in process.stdout.readline().split():
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=LIMIT_S)

    until(lambda: not processes_with("sleep", mark[-9:]))
    images("update", container, "--", "true")
    names = images.storage.call("ps", "--all", "--external", "--format", "{{.Names}}")
    assert names.split() == ["web"]
    listed = images.storage.call("images", "--format", "{{.Repository}}")
    assert "claude-proxy-work" not in listed


def processes_with(*words: str) -> list[int]:
    """Return the processes that have these words one after another in their command line."""
    wanted = "\0".join(words).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
