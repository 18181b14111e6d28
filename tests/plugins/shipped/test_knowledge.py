"""The plugin ``knowledge`` in scripted calls, with real files and a real database."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from appliance.testing import uses


def handbook(folder: Path) -> Path:
    (folder / "more").mkdir(parents=True)
    (folder / "returns.md").write_text(
        "# Returns\n\nWe take goods back.\n\n## How long\n\nWithin 30 days, in the box they came in.\n\n"
        "## Who pays\n\nWe pay for the parcel.\n\n```\n# not a heading\n```\n"
    )
    (folder / "more" / "opening_hours.md").write_text("Open on Sundays in December.\n")
    return folder


async def test_the_model_is_given_the_passages_that_fit(scripted_call: Any, tmp_path: Path) -> None:
    call = await scripted_call(
        plugins={"knowledge": {"folder": str(handbook(tmp_path / "docs")), "about": "returns"}},
        state_dir=tmp_path,
        model={
            "return": [uses("look_up", question="How many days can I return it?"), "Thirty days."],
            "sunday": [uses("look_up", question='sunday" OR title:*'), "In December."],
            "moon": [uses("look_up", question="the moon"), "I do not know."],
        },
    )
    await call.says("how long can I return it")
    first = call.tool("look_up").result[0]
    assert first == {
        "title": "Returns",
        "section": "How long",
        "text": "Within 30 days, in the box they came in.",
    }
    await call.says("open on sunday")
    assert call.tool("look_up").result == [
        {"title": "opening hours", "section": "opening hours", "text": "Open on Sundays in December."}
    ]
    await call.says("what about the moon")
    assert call.tool("look_up").result == {"found": "nothing; say so, and do not guess"}
    (database,) = (tmp_path / "plugins" / "knowledge").glob("*.sqlite")
    rows = sqlite3.connect(database).execute("SELECT count(*) FROM passages").fetchone()
    assert rows == (4,)


async def test_what_changes_in_the_folder_is_found(scripted_call: Any, tmp_path: Path) -> None:
    folder = handbook(tmp_path / "docs")
    call = await scripted_call(plugins={"knowledge": {"folder": str(folder)}}, model={})
    (folder / "returns.md").write_text("# Returns\n\nNever on Tuesdays.\n")
    os.utime(folder / "returns.md", (1, 1))
    index = call.plugin("knowledge").Index(folder, tmp_path / "own.sqlite")
    assert [one.text for one in index.look_up("returns on tuesday", 3)] == ["Never on Tuesdays."]
    (folder / "returns.md").unlink()
    index._looked_at = float("-inf")
    assert index.look_up("tuesday", 3) == []
