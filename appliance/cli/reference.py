"""``python -m appliance.cli.reference``: writes ``docs/configuration.md`` of the schema and of what plugins take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from appliance.config.reference import document
from appliance.engines.builtin import provider_registry
from appliance.hookspecs import ProviderOptions
from appliance.plugins.registry import KINDS
from appliance.signalling.builtin_carriers import carrier_registry

PAGE: Final = Path(__file__).parents[2] / "docs" / "configuration.md"


def page() -> str:
    """The whole page in Markdown."""
    registry = carrier_registry()
    carriers = {kind: registry.carriers[kind].provider.options for kind in registry.kinds}
    return document(carriers, _engines())


def _engines() -> dict[tuple[str, str], type[ProviderOptions]]:
    """The engines that take options, those for tests left out."""
    registry = provider_registry()
    return {
        (kind, name): offer.provider.options
        for kind in KINDS
        for name, offer in sorted(registry.offers(kind).items())
        if name != "fake" and offer.provider.options.model_fields
    }


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
