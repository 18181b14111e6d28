"""Kamailio as registrar and proxy, with a configuration that the test makes.

Everybody's password is :data:`PASSWORD`. A call to a registered user goes to
wherever that user is registered, to all places at once; what else a call to a number does is told by ``routes``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from appliance.cli.box import HOST, free_port
from appliance.errors import ApplianceError
from tests.waiting import LIMIT_S

REALM = "interop"
PASSWORD = "open-sesame"

WITH_QOP, WITHOUT_QOP = "1", "0"
"""The ``flags`` of :data:`AUTHENTICATED`: whether its challenges offer qop."""


class KamailioFailed(ApplianceError):
    """It did not start; its own words follow."""


def missing() -> str:
    """Why Kamailio can't be used here; empty when it can."""
    return "" if shutil.which("kamailio") else "kamailio is not installed (make peers)"


_CONFIGURATION = """
debug=2
log_stderror=yes
children=2
disable_tcp=yes
auto_aliases=no
listen=udp:{host}:{port}
loadmodule "corex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "auth.so"
loadmodule "xlog.so"
modparam("auth", "algorithm", "{algorithm}")
modparam("auth", "qop", "auth")
modparam("auth", "nonce_count", 1)
modparam("auth", "nonce_expire", {nonce_expire_s})
modparam("registrar", "max_expires", {max_expires_s})
modparam("registrar", "min_expires", {min_expires_s})
modparam("registrar", "min_expires_mode", 1)
modparam("tm", "fr_timer", 2000)

request_route {{
  if (!mf_process_maxfwd_header("10")) {{
    sl_send_reply("483", "Too Many Hops");
    exit;
  }}
  if (is_method("REGISTER")) {{
    if (!pv_www_authenticate("{realm}", "{password}", "0")) {{
      xlog("L_WARN", "SEEN challenged $rm $hdr(CSeq)\\n");
      www_challenge("{realm}", "1");
      exit;
    }}
    xlog("L_WARN", "SEEN REGISTER of $tU expires $hdr(Expires) $hdr(CSeq) $ci $hdr(Authorization)\\n");
    save("location");
    exit;
  }}
  if (is_method("CANCEL")) {{
    if (t_check_trans()) t_relay();
    exit;
  }}
  if (has_totag()) {{
    xlog("L_WARN", "SEEN in dialog $rm to $ru route $hdr(Route)\\n");
    if (loose_route()) t_relay();
    else if (is_method("ACK") && t_check_trans()) t_relay();
    else if (!is_method("ACK")) sl_send_reply("404", "Not Here");
    exit;
  }}
  if (is_method("OPTIONS") && $rU == $null) {{
    sl_send_reply("200", "OK");
    exit;
  }}
  record_route();
{routes}
  if (!lookup("location")) {{
    sl_send_reply("404", "Not Found");
    exit;
  }}
  xlog("L_WARN", "SEEN $rm for $ru\\n");
  t_relay();
  exit;
}}

failure_route[NEXT] {{
  xlog("L_WARN", "SEEN a failing branch $T_reply_code\\n");
  $du = "{next_hop}";
  t_relay();
}}
"""

AUTHENTICATED = """
  if ($rU == "{number}") {{
    if (!pv_proxy_authenticate("{realm}", "{password}", "0")) {{
      xlog("L_WARN", "SEEN challenged $rm $hdr(CSeq)\\n");
      proxy_challenge("{realm}", "{flags}");
      exit;
    }}
    xlog("L_WARN", "SEEN authenticated $rm $hdr(CSeq) $hdr(Proxy-Authorization)\\n");
    consume_credentials();
    $du = "{target}";
    t_relay();
    exit;
  }}
"""

FORKED = """
  if ($rU == "{number}") {{
    $du = "{first}";
    append_branch("{second_uri}");
    t_relay();
    exit;
  }}
"""

MOVED = """
  if ($rU == "{number}") {{
    xlog("L_WARN", "SEEN moved $ru\\n");
    append_to_reply("Contact: {contacts}\\r\\n");
    sl_send_reply("302", "Moved Temporarily");
    exit;
  }}
"""

FAILING_FIRST = """
  if ($rU == "{number}") {{
    $du = "{first}";
    t_on_failure("NEXT");
    t_relay();
    exit;
  }}
"""


class Kamailio:
    """One running Kamailio.

    Args:
        folder: of its own, for its configuration and log.
        routes: parts of the request route, of those above, filled in.
        next_hop: where a call goes whose first branch failed, for :data:`FAILING_FIRST`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        routes: str = "",
        next_hop: str = "sip:127.0.0.1:9",
        algorithm: str = "MD5",
        nonce_expire_s: int = 300,
        min_expires_s: int = 1,
        max_expires_s: int = 3600,
        port: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self._log_path = folder / "kamailio.log"
        script = folder / "kamailio.cfg"
        script.write_text(
            _CONFIGURATION.format(
                host=HOST, port=self.port, realm=REALM, password=PASSWORD, routes=routes, next_hop=next_hop,
                algorithm=algorithm, nonce_expire_s=nonce_expire_s, min_expires_s=min_expires_s,
                max_expires_s=max_expires_s,
            )
        )  # fmt: skip
        self._log = self._log_path.open("wb")
        self._process = subprocess.Popen(
            ["kamailio", "-DD", "-E", "-f", str(script), "-Y", str(folder), "-P", str(folder / "kamailio.pid")],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def uri(self) -> str:
        """The proxy, as a trunk names it."""
        return f"sip:{HOST}:{self.port}"

    def user(self, name: str) -> str:
        """How to call somebody here."""
        return f"sip:{name}@{HOST}:{self.port}"

    def log(self) -> str:
        """What it has said so far."""
        return self._log_path.read_text(errors="replace")

    def seen(self, what: str) -> list[str]:
        """The lines of its log about messages, those that match a regular expression."""
        return [line for line in re.findall(r"SEEN (.*)", self.log()) if re.search(what, line)]

    def wait_seen(self, what: str, count: int = 1, timeout_s: float = LIMIT_S) -> list[str]:
        """Wait until so many lines match.

        Raises:
            KamailioFailed: they do not come.
        """
        deadline = time.monotonic() + timeout_s
        while len(found := self.seen(what)) < count:
            if time.monotonic() > deadline:
                raise KamailioFailed(f"{len(found)} of {count} {what!r} within {timeout_s:.0f} s\n{self.log()[-3000:]}")
            time.sleep(0.05)
        return found

    def wait_ready(self, timeout_s: float = LIMIT_S) -> None:
        """Wait until it has its socket.

        Raises:
            KamailioFailed: it leaves, or does not come up.
        """
        deadline = time.monotonic() + timeout_s
        while f":{self.port:04X} " not in Path("/proc/net/udp").read_text():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise KamailioFailed(f"kamailio does not listen\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and its children."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def __enter__(self) -> Kamailio:
        try:
            self.wait_ready()
        except KamailioFailed:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def fill(route: str, **values: str) -> str:
    """One of the routes above with its values."""
    filled: Mapping[str, str] = {"realm": REALM, "password": PASSWORD, "flags": WITH_QOP, **values}
    return route.format(**filled)
