"""The plugin host: the process that operators' Python runs in. ``python -m appliance.plugins.host``.

Nothing of the box is in it: no audio, no record, no secrets but those in plugins' values.
"""
