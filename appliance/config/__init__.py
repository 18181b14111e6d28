"""``appliance.yaml``: validated settings, every mistake reported at once as ``file:line: key: what is wrong; hint``.

- :mod:`~appliance.config.marks` reads YAML and keeps line numbers,
- :mod:`~appliance.config.validation` turns plain data into frozen models and mistakes,
- :mod:`~appliance.config.settings` is the schema,
- :mod:`~appliance.config.load` reads the files and the command line's overrides,
- :mod:`~appliance.config.reference` is what ``docs/configuration.md`` is made with.
"""

from appliance.config.load import examine_settings, load_settings
from appliance.config.settings import Settings
from appliance.config.shipped import shipped_dir

__all__ = ["Settings", "examine_settings", "load_settings", "shipped_dir"]
