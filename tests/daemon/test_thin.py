"""What makes a daemon small must not make it trusting, and must leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, ssl
before = {name: value for name, value in os.environ.items() if name.startswith("SSL_")}
from looseends_daemon import thin
thin.prepare()
from aiohttp import connector
from looseends_daemon.notify import reach
after = {name: value for name, value in os.environ.items() if name.startswith("SSL_")}
context = connector._SSL_CONTEXT_VERIFIED
print(json.dumps({
    "environment": before == after,
    "trusts nobody": not context.get_ca_certs() and context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname,
    "ours checks": reach._context().verify_mode == ssl.CERT_REQUIRED and reach._context().check_hostname,
}))
"""


@pytest.mark.parametrize("folder", ["", "/nowhere"])
def test_certificates_are_read_only_by_who_needs_them(folder: str) -> None:
    environment = {**os.environ, **({"SSL_CERT_DIR": folder} if folder else {})}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["environment"] and said["trusts nobody"] and said["ours checks"], said


# Made for this test alone, for localhost, good for a hundred years.
PAIR = """\
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUL+MsXMOSWJ/fnj65f6ga4lIPSNwwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMDE2MzQzOVoYDzIxMjYxMDI3
MTYzNDM5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQ8hJv5duM88YfVfvsbWssJccPsl1MjuIb0JuqfyjwoWpJqKNhDQWnN
nSD701oPLtmCfs765R9atrWo1zqf7INHo28wbTAdBgNVHQ4EFgQUDHV+lHUNP8Fz
95DMaXjrKKQVgrcwHwYDVR0jBBgwFoAUDHV+lHUNP8Fz95DMaXjrKKQVgrcwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgC71IY7L32A81RvnuH70PN13HTKyR/Y7BZ8zMom698CgCIQC1
X108g+lDY1fMM4KOCzb74USiRPy/mYSjaRCAXFEfEg==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfuxLnmsl4Z8WUuCk
Nzi3li/DJ14JVF1+riNxLCBcJaehRANCAAQ8hJv5duM88YfVfvsbWssJccPsl1Mj
uIb0JuqfyjwoWpJqKNhDQWnNnSD701oPLtmCfs765R9atrWo1zqf7INH
-----END PRIVATE KEY-----
"""
DELIVERY = """
import asyncio, ssl, sys
from looseends_daemon import thin
thin.prepare()
from aiohttp import web
from looseends_daemon.notify.reach import Caller, Reach

async def ok(request):
    return web.Response(text="ok")

async def main():
    app = web.Application()
    app.router.add_post("/", ok)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    caller = Caller(Reach(), timeout=20)
    outcome = await caller.request("POST", f"https://localhost:{runner.addresses[0][1]}/", body=b"x", headers={})
    print(outcome.status, outcome.detail)
    await caller.close()
    await runner.cleanup()

asyncio.run(main())
"""


@pytest.mark.parametrize(("trusted", "said"), [(True, "200 ok"), (False, "None its certificate is not trusted")])
def test_a_notice_goes_only_to_who_the_machine_trusts(tmp_path: Path, trusted: bool, said: str) -> None:
    pair = tmp_path / "pair.pem"
    pair.write_text(PAIR)
    environment = {**os.environ, **({"SSL_CERT_FILE": str(pair)} if trusted else {})}
    command = [sys.executable, "-c", DELIVERY, str(pair)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.startswith(said), done.stdout + done.stderr
