"""Check of every configuration file: config.yaml, policies, presets and profiles.

All mistakes are gathered; a file that cannot be looked at is a mistake of its own.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from claude_proxy.cli import gateway_settings, paths, proxy_settings
from claude_proxy.config import config_file, policy_files, preset_files
from claude_proxy.config.allowlist import loader
from claude_proxy.config.config_yaml import GATEWAY_NAME, NAME, ConfigFile
from claude_proxy.config.file_states import POLICIES, PRESETS
from claude_proxy.config.option_table import Subcommand, defaults, fields_of
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.config.providers import find_provider
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.sandbox import profiles


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """A file, or what belongs together, and what is wrong with it."""

    name: str
    problems: tuple[ConfigError, ...] = ()


def check_files(confdir: Path) -> list[CheckedFile]:
    """Return every file of a configuration directory, with all mistakes."""
    return list(_checked_files(confdir))


def _checked_files(confdir: Path) -> Iterator[CheckedFile]:
    config = ConfigFile(confdir / NAME)
    problems: tuple[ConfigError, ...] = ()
    try:
        config = config_file.read(confdir)
    except ConfigError as error:
        problems = _each(error)
    if config.exists or problems:
        yield CheckedFile(str(config.path), (*problems, *_contradictions(config)))
    older = confdir / GATEWAY_NAME
    if older.exists() and not problems:
        yield CheckedFile(str(older))
    yield from _checked_policies(confdir, config)
    directory = confdir / profiles.DIRECTORY
    for path in sorted(directory.glob("*.yaml")):
        yield _checked(str(path), partial(profiles.load, path.stem, directory))


def _checked_policies(confdir: Path, config: ConfigFile) -> Iterator[CheckedFile]:
    files = OwnerFiles(confdir)
    allowlist = config.value("allowlist") or paths.allowlist_path(confdir)
    yield _checked(str(allowlist), partial(policy_files.read_file, files, allowlist))
    for path in _files_in(confdir / POLICIES):
        yield _checked(str(path), partial(policy_files.read_named, files, path.stem))
    for path in _files_in(confdir / PRESETS):
        yield _checked(str(path), partial(_read_preset, files, path.stem))


def _files_in(directory: Path) -> list[Path]:
    """Return the files that would be read by their names; others are nobody's."""
    return sorted(path for path in directory.glob("*.yaml") if preset_files.is_name(path.stem))


def _read_preset(files: OwnerFiles, name: str) -> None:
    files.preset(name)  # it has what is wrong with the file itself
    loader.preset_policy(name, files.library)


def _checked(name: str, load: Callable[[], object]) -> CheckedFile:
    try:
        load()
    except ConfigError as error:
        return CheckedFile(name, _each(error))
    return CheckedFile(name)


def _each(error: ConfigError) -> tuple[ConfigError, ...]:
    return error.problems if isinstance(error, ConfigErrors) else (error,)


def _contradictions(config: ConfigFile) -> Iterator[ConfigError]:
    """Yield what is right by itself and wrong with something else of the file."""
    here = Subcommand.SERVE
    written = {
        field.parameter(here): config.value(field.key)
        for field in fields_of(here)
        if field.key in config.entries and field.section != Subcommand.GATEWAY
    }
    values = {**defaults(here), "confdir": config.path.parent, **written, "gateway": ()}
    try:
        proxy_settings.settings_of(values, config)
    except ConfigError as error:
        yield from _each(error)
    for policy, key in _named_policies(config):
        try:
            policy_files.read_named(OwnerFiles(config.path.parent), policy, key)
        except ConfigError as error:
            if error.where == key:  # else it is a mistake in that policy's file
                yield error
    try:
        gateway_settings.options_in(config)
        if (name := config.value("gateway.provider")) is not None:
            find_provider(config.providers, name, config.where("gateway.provider"))
    except ConfigError as error:
        yield from _each(error)


def _named_policies(config: ConfigFile) -> Iterator[tuple[str, str]]:
    """Yield the policies that the file names, and where."""
    if (policy := config.value("policy")) is not None:
        yield policy, config.where("policy")
    for directory, policy in config.projects.items():
        yield policy, f"{config.path}, projects.{directory}"
