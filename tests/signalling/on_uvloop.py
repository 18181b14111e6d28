"""A pytest plugin: every event loop is uvloop's, as in the box. ``pytest -p tests.signalling.on_uvloop ...``"""

import asyncio

import uvloop

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_report_header() -> str:
    """Say so in the report."""
    return f"event loop: {type(asyncio.get_event_loop_policy()).__module__}"
