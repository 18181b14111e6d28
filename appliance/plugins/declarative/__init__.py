"""YAML plugins: HTTP tools, webhooks and look-up tables that operators describe without writing Python.

- :mod:`~appliance.plugins.declarative.schema` is the file, :mod:`~appliance.plugins.declarative.checks` what can be
  wrong between its keys, :mod:`~appliance.plugins.declarative.loader` reads files,
- :mod:`~appliance.plugins.declarative.templates` fills ``${...}``: what a call says may become a piece of a path, of a
  query or of a body, and nothing else,
- :mod:`~appliance.plugins.declarative.http_client` connects to allowed addresses only,
  :mod:`~appliance.plugins.declarative.http_tools` asks, :mod:`~appliance.plugins.declarative.response` picks what the
  model is told of the answer,
- :mod:`~appliance.plugins.declarative.tables` looks rows of CSV files up,
- :mod:`~appliance.plugins.declarative.webhooks` says which events go where, signed,
  :mod:`~appliance.plugins.declarative.delivery` brings them there,
- :mod:`~appliance.plugins.declarative.source` is all of them to the rest of the box.

All of it is our code and runs in the control process. Nothing here waits without a time-out or reads without a bound.
"""
