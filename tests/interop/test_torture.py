"""The torture messages of RFC 4475 against a running daemon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.cli.box import Box
from tests.bench import torture
from tests.interop.claims import proves

pytestmark = [
    pytest.mark.peer,
    pytest.mark.slow,
    pytest.mark.skipif(
        not torture.CORPUS.exists(),
        reason="the messages of RFC 4475 are not beside this clone; they go into ../shared/sip-torture",
    ),
]


@proves("Signalling: torture: the messages of RFC 4475")
def test_every_message_gets_the_verdict_of_the_rfc(
    start_box: Callable[..., Box], record_property: Callable[[str, object], None]
) -> None:
    seen = torture.run(start_box())
    record_property("torture", [(one.message.name, one.words) for one in seen])
    assert [(one.message.name, one.allowed, one.words) for one in seen if not one.right] == []
    assert [one.message.name for one in seen if one.allowed == "D" and not one.strays] == []
