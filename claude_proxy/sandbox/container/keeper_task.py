"""Task of a keeper: the container, its run, and what is set up for it."""

from pathlib import Path
from typing import TYPE_CHECKING

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.enter import HookFiles
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.run_spec import RunSpec

if TYPE_CHECKING:
    from claude_proxy.sandbox.container.walled_project import WalledProject
    from claude_proxy.sandbox.container.ways_in import WayTask


@dataclass(frozen=True, slots=True)
class KeeperTask:
    """What a keeper is started for."""

    run: RunSpec
    name: str
    directory: Path  # of the container
    engine: Engine
    image_digest: str = ""
    hook: HookFiles | None = None  # None: the container runs already, as process `pid`
    pid: int = 0
    way: "WayTask | None" = None  # what is set up before the container starts, without a hook
    attended: bool = False  # its launcher waits for its end, with the terminal
    removed: StoredContainer | None = None  # what is forgotten when it has ended
    project: "WalledProject | None" = None

    @property
    def goes_on(self) -> bool:
        """Whether the container runs already."""
        return self.pid != 0
