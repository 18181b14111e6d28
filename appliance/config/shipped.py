"""Where the files that come with the appliance are: beside the source in a checkout, in ``share/`` once installed."""

from __future__ import annotations

import site
import sysconfig
from pathlib import Path


def shipped_dir(name: str) -> Path:
    """The shipped folder ``name`` ("dialplans" or "plugins").

    A folder that is nowhere to be found is answered with the place it would be installed at.
    """
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / name
    installed = Path(sysconfig.get_path("data"), "share", "appliance", name)
    of_user = Path(site.getuserbase(), "share", "appliance", name)
    return of_user if of_user.is_dir() and not installed.is_dir() else installed
