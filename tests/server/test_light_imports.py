"""A package that is imported lightly has all that it has otherwise, and imports it when asked."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from claude_proxy.server import light_imports

_LIGHTLY = """
import sys
from claude_proxy.server import light_imports
with light_imports.applied():
    {imports}
before = set(sys.modules)
{asks}
"""


def said_by(imports: str, asks: str) -> str:
    program = [sys.executable, "-W", "ignore", "-c", _LIGHTLY.format(imports=imports, asks=asks)]
    return subprocess.run(program, capture_output=True, check=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", sorted({*light_imports.PACKAGES, *light_imports.MODULES}))
def test_what_is_imported_lightly_exists_in_what_is_installed(name: str) -> None:
    assert find_spec(name) is not None


def test_a_package_imports_nothing_that_it_gathers() -> None:
    imports = "import mitmproxy.addons.errorcheck"

    assert said_by(imports, "print([name for name in before if 'flask' in name])") == "[]"


def test_a_module_below_a_package_is_found_in_every_way_of_asking() -> None:
    imports = "import mitmproxy.addons; from mitmproxy.addons import block"

    found = said_by(imports, "print(mitmproxy.addons.block is block, mitmproxy.addons.cut.Cut)")

    assert found == "True <class 'mitmproxy.addons.cut.Cut'>"


def test_what_a_package_defines_is_there_when_it_is_asked_for() -> None:
    imports = "from mitmproxy import addons; from mitmproxy.proxy import layers"

    found = said_by(imports, "print(len(addons.default_addons()) > 20, layers.HttpLayer.__name__)")

    assert found == "True HttpLayer"


def test_what_does_not_exist_is_an_attribute_error() -> None:
    asks = "print([hasattr(addons, name) for name in ('no_such_name', '__no_such_name__')])"

    assert said_by("from mitmproxy import addons", asks) == "[False, False]"


def test_a_function_that_is_imported_by_name_runs_its_module_when_it_is_called() -> None:
    asks = "print('expr' in vars(command_lexer), unquote('\"a b\"'), 'expr' in vars(command_lexer))"
    imports = "from mitmproxy import command_lexer; from mitmproxy.command_lexer import unquote"

    assert said_by(imports, asks) == "False a b True"


def test_a_master_with_all_of_mitmproxys_addons_can_still_be_made() -> None:
    imports = "from mitmproxy.tools.dump import DumpMaster; from mitmproxy.options import Options"
    asks = (
        "import asyncio\n"
        "async def made(): return DumpMaster(Options())\n"
        "print(len(asyncio.run(made()).addons.chain) > 30)"
    )

    assert said_by(imports, asks) == "True"


def test_nothing_is_light_any_more_once_the_context_is_left() -> None:
    assert (
        said_by("import mitmproxy", "print(sys.meta_path[0].__class__.__name__)") != "_LightFinder"
    )
