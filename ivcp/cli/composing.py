"""Where configurations come from: the folder `conf`, and the entry points of other packages."""

from __future__ import annotations

import re
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

import ivcp

GROUPS = {"pruner": "ivcp.pruners", "model": "ivcp.families"}
"""Configuration groups, and the entry points that add to them."""

LONGEST_NAME = 200  # bytes of a folder's name; most file systems allow 255


def config_folder() -> Path:
    """The folder of `config.yaml`: inside the installed package, or at the top of a checkout."""
    package = Path(ivcp.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def folder_name(name: str) -> str:
    """A text as the name of one folder: without slashes, and not too long.

    >>> folder_name("3,model.path=/models/a,ratio=0.5")
    '3,model.path=_models_a,ratio=0.5'
    """
    name = re.sub(r"[\\/\0]", "_", name)
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


class EntryPointSource(ConfigSource):
    """Configurations of methods and families of other packages, made from their fields.

    A class is imported when it is chosen, not when choices are listed.
    """

    @staticmethod
    def scheme() -> str:
        """The scheme of its address."""
        return "entry-points"

    def available(self) -> bool:
        """Always."""
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        """The fields of a class with their defaults.

        Raises:
            UserError: The entry point gives no such class.
        """
        from ivcp.core.family import ModelFamily
        from ivcp.core.plugins import default_config, plugged
        from ivcp.core.pruner import Pruner

        group, _, name = config_path.removesuffix(".yaml").partition("/")
        if not self.is_config(config_path):
            raise ConfigLoadError(f"There is no {config_path}.")
        is_method = group == "pruner"
        kind = plugged(GROUPS[group], Pruner if is_method else ModelFamily)[name]
        fixed = {"keep_ratio": "${ratio}"} if is_method else {}
        config = OmegaConf.create(default_config(kind, **fixed))
        return ConfigResult(self.provider, self.full_path(), config, {"package": group})

    def is_group(self, config_path: str) -> bool:
        """Whether it is one of the groups to which packages can add."""
        return config_path.rstrip("/") in ("", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        """Whether a package has added it."""
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        return group in GROUPS and name in entry_points(group=GROUPS[group]).names

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The names of a group, or the groups."""
        group = config_path.rstrip("/")
        if not group:
            return sorted(GROUPS) if results_filter != ObjectType.CONFIG else []
        if group not in GROUPS or results_filter == ObjectType.GROUP:
            return []
        return sorted(entry_points(group=GROUPS[group]).names)


class EntryPointPath(SearchPathPlugin):
    """Looks for configurations among the entry points, too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the source, so that files of `conf` win."""
        search_path.append("ivcp", "entry-points://ivcp")


def register() -> None:
    """Teach Hydra what `conf` and other packages need; a second call changes nothing."""
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    plugins = Plugins.instance()
    if EntryPointPath not in plugins.discover(SearchPathPlugin):
        plugins.register(EntryPointSource)
        plugins.register(EntryPointPath)


def composed(*overrides: str) -> DictConfig:
    """The configuration of an evaluation that these overrides of a command line give."""
    register()
    running = GlobalHydra.instance().is_initialized()  # a run, which has its own sources
    folder = str(config_folder())
    with nullcontext() if running else initialize_config_dir(folder, version_base="1.3"):
        return compose("config", overrides=list(overrides))
