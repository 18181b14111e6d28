"""``python -m appliance.cli.reference``: writes ``docs/configuration.md`` of the schema and of what carriers take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from appliance.config.reference import document
from appliance.signalling.builtin_carriers import carrier_registry

PAGE: Final = Path(__file__).parents[2] / "docs" / "configuration.md"


def page() -> str:
    """The whole page in Markdown."""
    registry = carrier_registry()
    return document({kind: registry.carriers[kind].provider.options for kind in registry.kinds})


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
