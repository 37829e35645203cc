"""Light imports of mitmproxy: what a package gathers, and the proxy never runs, is not imported.

mitmproxy's packages import everything that they have: thirty addons with Flask and LDAP, HTTP/3, a
command language. Here a package is only the way to its modules, and a few modules are imported when
something of them is used. Nothing is taken away: what is asked for is imported then, by the
ordinary way and from the installed file.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader, find_spec
from types import ModuleType
from typing import Any, override

# Packages whose own file is run only when something is asked of it that is no module below it.
PACKAGES = frozenset({"mitmproxy.addons", "mitmproxy.proxy.layers", "wsproto"})

# Modules that are run when something is asked of them; functions of theirs that others import by
# name are run when they are called.
MODULES: dict[str, tuple[str, ...]] = {
    "mitmproxy_rs": (),
    "mitmproxy.addons.dumper": (),
    "mitmproxy.addons.errorcheck": (),
    "mitmproxy.addons.keepserving": (),
    "mitmproxy.addons.readfile": (),
    "mitmproxy.addons.termlog": (),
    "mitmproxy.command_lexer": ("unquote",),
    "mitmproxy.eventsequence": (),
    "mitmproxy.http": (),
    "pyparsing": (),
    "ruamel.yaml": (),
}


@contextmanager
def applied() -> Iterator[None]:
    """Import lightly in this context, which must come before any other import of mitmproxy."""
    finder = _LightFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _LightFinder(MetaPathFinder):
    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PACKAGES and fullname not in MODULES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        if fullname in PACKAGES or MODULES[fullname]:
            spec.loader = _LightLoader(spec.loader, MODULES.get(fullname, ()))
        else:
            spec.loader = LazyLoader(spec.loader)
        return spec


class _LightLoader(Loader):
    """Makes a module that knows how to run its file, and does not run it."""

    def __init__(self, loader: Loader, functions: Sequence[str]) -> None:
        self._loader = loader
        self._functions = functions

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LightModule(spec.name)

    @override
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__run__"] = partial(self._loader.exec_module, module)
        for name in self._functions:
            module.__dict__[name] = _called_later(module, name)


def _called_later(module: ModuleType, name: str) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        run_file(module)
        return module.__dict__[name](*args, **keywords)

    return call


class _LightModule(ModuleType):
    """A module that runs its file when something is asked of it that it does not have."""

    def __getattr__(self, name: str) -> Any:
        is_special = name.startswith("__")
        if not is_special and "__path__" in self.__dict__:
            below = f"{self.__name__}.{name}"
            if find_spec(below) is not None:
                return import_module(below)
        if not is_special and run_file(self):
            return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def run_file(module: ModuleType) -> bool:
    """Run the file of a module that was imported lightly; False if it has been run."""
    run = module.__dict__.pop("__run__", None)
    if run is None:
        return False
    run()
    return True
