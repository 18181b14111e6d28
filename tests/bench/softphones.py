"""Bar 4: baresip and pyVoIP call in, hear the greeting without a gap, branch on a key, and either side hangs up."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from appliance.cli.box import Box
from appliance.errors import ApplianceError
from tests.bench import lines
from tests.bench.report import Bar
from tests.peers import baresip, pyvoip
from tests.peers.capture import may_capture
from tests.peers.phone import MAX_GAP_S, Phone, faults, make_call


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phones", nargs="+", choices=["baresip", "pyvoip"], default=["baresip", "pyvoip"])
    args = parser.parse_args()
    bar = Bar(4, "independent softphones")
    bar.require(may_capture(), "looking at the loopback interface needs root (CAP_NET_RAW)")
    with tempfile.TemporaryDirectory(prefix="bar4-") as name:
        folder = Path(name)
        with Box(folder / "box", lines.settings(folder, asr="pocketsphinx", tts="espeak")) as box:
            for which in args.phones if may_capture() else []:
                if problem := {"baresip": baresip, "pyvoip": pyvoip}[which].missing():
                    bar.require(False, problem)
                    continue
                for digit in "12":
                    one_call(bar, box, which, digit, folder)
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
    return bar.finish()


def one_call(bar: Bar, box: Box, which: str, digit: str, folder: Path) -> None:
    """One call with a fresh softphone."""
    name = f"{which}, {'phone' if digit == '1' else 'box'} hangs up"
    phone: Phone | None = None
    try:
        phone = baresip.Baresip(folder / f"phone{digit}") if which == "baresip" else pyvoip.PyVoip(box.sip_port)
        seen = make_call(box, phone, digit)
    except ApplianceError as error:
        bar.require(False, f"{name}: {error}")
        return
    finally:
        if phone is not None:
            phone.close()
    bar.figure(
        f"{name}: speech {seen.greeting_s:.1f} + {seen.branch_s:.1f} s, worst gap {seen.worst_gap_s * 1e3:.1f} ms"
    )
    for fault in faults(seen, digit, MAX_GAP_S):
        bar.require(False, f"{name}: {fault}")


if __name__ == "__main__":
    sys.exit(main())
