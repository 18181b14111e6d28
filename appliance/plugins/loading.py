"""Importing a plugin and finding out what it is. For processes that may run operators' Python; control never does."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

import pluggy
from pydantic import BaseModel

from appliance import hookspecs
from appliance.api import API
from appliance.config.validation import nearest, options_problems
from appliance.errors import PluginError
from appliance.plugins.discovery import GROUP, Source

_PREFIX: Final = "appliance_"

Problem = tuple[tuple[str | int, ...], str, str]
"""Path of a value, what is wrong, what would be right."""


@dataclass(frozen=True)
class Implementation:
    """A plugin's function for one hook. ``arguments`` are those that it takes, in its own order."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    is_async: bool


@dataclass(frozen=True)
class Plugin:
    """An imported plugin.

    Attributes:
        hooks: by the hook's name without ``appliance_``.
        values: the model of its values; None where it takes none.
        module: what was registered: the module, or the object of an entry point.
    """

    name: str
    source: Source
    module: object
    summary: str
    version: str
    api: int
    values: type[BaseModel] | None
    hooks: Mapping[str, Implementation] = field(default_factory=dict)

    def value_problems(self, values: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with values that an operator wrote; empty if nothing."""
        if self.values is None:
            return [((key,), "unknown key", f"plugin {self.name!r} takes no values") for key in values]
        unknown: list[Problem] = []
        if self.values.model_config.get("extra") not in ("allow", "forbid"):
            known = [info.alias or name for name, info in self.values.model_fields.items()]
            unknown = [((key,), "unknown key", nearest(key, known)) for key in values if key not in known]
        return [*unknown, *options_problems(self.values, values)]

    def validated(self, values: Mapping[str, Any]) -> Any:
        """The values as the plugin has them at ``call.values``; None where it takes none.

        Raises:
            pydantic.ValidationError: they are wrong.
        """
        return None if self.values is None else self.values.model_validate(dict(values))


def load(source: Source) -> Plugin:
    """Import the plugin and look at it.

    Raises:
        PluginError: it cannot be used; says why, and what would be right.
    """
    try:
        module = _imported(source)
    except PluginError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise PluginError(f"plugin {source.name!r} cannot be imported: {_words(error, source)}") from error
    return looked_at(source, module)


def unload(plugin: Plugin) -> None:
    """Forget the modules of a plugin of files. What still refers to them goes on."""
    name = getattr(plugin.module, "__name__", "")
    if plugin.source.kind == "entry_point" or not name.startswith("appliance_plugin_"):
        return
    top = name.partition(".")[0]
    for module in [one for one in sys.modules if one == top or one.startswith(top + ".")]:
        del sys.modules[module]


def looked_at(source: Source, module: object) -> Plugin:
    """The plugin that ``module`` is.

    Raises:
        PluginError: it cannot be used.
    """
    name = source.name
    api = getattr(module, "API", API)
    if not isinstance(api, int) or isinstance(api, bool) or api < 1:
        raise PluginError(f"plugin {name!r}: API is {api!r}; write the major version that it needs, API = {API}")
    if api > API:
        raise PluginError(
            f"plugin {name!r} needs version {api} of the plugin interface, and this appliance has {API}; install a "
            "later appliance, or an earlier version of the plugin"
        )
    model = getattr(module, "Values", None)
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise PluginError(
            f"plugin {name!r}: Values is no pydantic model; write `class Values(appliance.api.PluginValues):`"
        )
    summary = getattr(module, "SUMMARY", None) or (inspect.getdoc(module) or "").partition("\n")[0]
    version = getattr(module, "VERSION", None) or getattr(module, "__version__", "")
    return Plugin(name, source, module, str(summary)[:200], str(version)[:40], api, model, _hooks(name, module))


def _hooks(name: str, module: object) -> dict[str, Implementation]:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name)
        manager.check_pending()
    except (ValueError, pluggy.PluginValidationError) as error:
        raise PluginError(f"plugin {name!r}: {_hook_mistake(str(error), manager)}") from error
    found: dict[str, Implementation] = {}
    for hook, caller in vars(manager.hook).items():
        for one in caller.get_hookimpls():
            if one.hookwrapper or one.wrapper:
                raise PluginError(
                    f"plugin {name!r}: {hook} is a hook wrapper; write a plain hook that returns a result"
                )
            found[hook.removeprefix(_PREFIX)] = Implementation(
                one.function, tuple(one.argnames), inspect.iscoroutinefunction(one.function)
            )
    return found


def _hook_mistake(words: str, manager: pluggy.PluginManager) -> str:
    unknown = re.search(r"unknown hook '(\w+)'", words)
    if unknown is not None:
        hooks = [hook for hook in vars(manager.hook) if hasattr(hookspecs, hook)]
        return f"there is no hook {unknown[1]!r}; {nearest(unknown[1], hooks)}"
    argument = re.search(r"hookimpl definition: (\w+)\((.*?)\)\nArgument\(s\) \{(.*?)\}", words, re.DOTALL)
    if argument is not None:
        caller = getattr(manager.hook, argument[1])
        takes = ", ".join(caller.spec.argnames) or "none"
        return f"{argument[1]} takes no argument {argument[3]}; its arguments are: {takes}"
    return " ".join(words.split())


def _imported(source: Source) -> object:
    if source.kind == "entry_point":
        return EntryPoint(source.name, source.where, GROUP).load()
    name = wanted = "appliance_plugin_" + source.name.replace("-", "_")
    number = 1
    while name in sys.modules:  # another state of the program, which calls in progress still go by
        number += 1
        name = f"{wanted}__{number}"
    path = Path(source.where)
    if source.kind == "file":
        return _module(name, path)
    package = _module(name, path if path.name == "__init__.py" else None, folder=path.parent)
    return importlib.import_module(f"{name}.plugin") if path.name == "plugin.py" else package


def _module(name: str, path: Path | None, folder: Path | None = None) -> types.ModuleType:
    within = [str(folder)] if folder is not None else None
    if path is None:
        module = types.ModuleType(name)
        module.__path__ = within or []
        sys.modules[name] = module
        return module
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=within)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _words(error: BaseException, source: Source) -> str:
    """What went wrong, with the line of the plugin's own file where that is known."""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == source.where:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == source.where:
        line = error.lineno or 0
    where = f" ({source.where}:{line})" if line else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the Python package {error.name!r}; install it into the appliance's environment{where}"
    return f"{type(error).__name__}: {error}{where}"
