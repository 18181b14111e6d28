"""The plugin host with budgets that a test can wait for: ``python -m tests.plugins.quick_host``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from appliance.plugins.hook_table import HOOKS
from appliance.plugins.host.__main__ import main

BUDGET_S = float(os.environ.get("HOOK_BUDGET_S", "0.75"))

if __name__ == "__main__":
    for hook, rule in HOOKS.items():
        if not rule.lifecycle:
            HOOKS[hook] = replace(rule, budget_s=BUDGET_S)
    sys.exit(main())
