"""A stand-in for podman: a program that does what a test needs, for builds that are no podman's."""

import stat
from pathlib import Path

from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import EngineKind

# It notes how it is called, and builds an image by writing an id.
_PROGRAM = """\
#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/calls"
case "$1" in
    info) cat "$here/info" ;;
    build)
        [ "$(ls /proc/self/ns | wc -l)" -gt 0 ] || exit 9
        while [ $# -gt 0 ]; do
            case "$1" in
                --iidfile) id=$2 ;;
                --file) cp "$2" "$here/Containerfile" ;;
            esac
            shift
        done
        readlink /proc/self/ns/net > "$here/network"
        env > "$here/environment"
        echo "STEP 1"
        [ ! -e "$here/fails" ] || exit "$(cat "$here/fails")"
        echo sha256:0123abc > "$id"
        ;;
    import) echo sha256:ba5e ;;
    image) cat "$here/image" ;;
    run)
        [ ! -e "$here/broken" ] || { echo "no such file" >&2; exit 127; }
        echo "1.2.3 (program)"
        ;;
    ps) cat "$here/containers" 2>/dev/null || echo '[]' ;;
esac
"""
_INFO = """{
  "host": {"security": {"rootless": false}, "ociRuntime": {"name": "runc"}},
  "store": {"graphRoot": "ROOT", "graphDriverName": "vfs"},
  "version": {"Version": "4.3.1"}
}"""
_IMAGE = """[{"Id": "sha256:0123abc", "RepoTags": [], "Config": {"User": "1000"}}]"""


class StandIn:
    """The program, and what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        program = directory / "podman"
        program.write_text(_PROGRAM)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (directory / "info").write_text(_INFO.replace("ROOT", str(directory)))
        (directory / "image").write_text(_IMAGE)
        self.engine = Engine(EngineKind.PODMAN, program, {"PATH": f"{directory}:/usr/bin:/bin"})

    def calls(self, command: str) -> list[str]:
        """Return how a command was called, in order."""
        lines = (self.directory / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[0] == command]

    def text(self, name: str) -> str:
        """Return what it has noted."""
        return (self.directory / name).read_text()

    def let(self, name: str, text: str = "") -> None:
        """Have it behave in another way."""
        (self.directory / name).write_text(text)

    def keep(self, container: str, state: str) -> None:
        """Keep a working container of a build in the storage."""
        place = self.directory / "vfs-containers" / container / "userdata"
        place.mkdir(parents=True)
        (place / "buildah.json").write_text(state)
