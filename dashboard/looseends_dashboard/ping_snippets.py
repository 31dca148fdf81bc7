"""The setup page's pings, language by language, with this daemon's own address in them.

Rules: each runs as it stands when pasted and needs nothing installed. Each run has an id of its own, so that runs which
overlap are kept apart, and says how it ended also where it raises. A ping that does not get through never stops the work. A key
is a secret and never on a page: KEY stands for it.
"""

from __future__ import annotations

from looseends_daemon.core.resources import Value

SLUG = "backup"
KEY = "KEY"


class Language(Value, frozen=True):
    """One language: its name, the label of its block, the text to copy."""

    name: str
    label: str
    text: str


class Pings(Value, frozen=True):
    """The blocks, and how to get a key where one is needed ("": none is)."""

    key: str
    languages: tuple[Language, ...]


def pings(http_url: str, socket: str | None, token_needed: bool) -> Pings:
    """All blocks for a daemon at this address; where it has only a socket, the one for curl."""
    key = (
        f"looseends token create --role ingest --service cron | cut -d. -f1,2   # put this in place of {KEY}\n"
        if token_needed
        else ""
    )
    path = f"/ping/{KEY}/{SLUG}" if token_needed else f"/ping/{SLUG}"
    if not http_url:
        return Pings(key="", languages=(_shell(f"http://localhost/ping/{SLUG}", f"--unix-socket '{socket}' "),))
    url = f"{http_url}{path}"
    made = [
        _shell(url),
        _cron(url),
        *(Language(name=name, label=label, text=text.replace("URL", url)) for name, label, text in _TEXTS),
    ]
    return Pings(key=key, languages=tuple(made))


def _shell(url: str, more: str = "") -> Language:
    ping = f"curl -fsS -m 10 --retry 5 -o /dev/null {more}"
    text = f"""\
URL={url}
RID=$(cat /proc/sys/kernel/random/uuid)
{ping}"$URL/start?rid=$RID"
said=$(echo "your command here" 2>&1)
{ping}--data-raw "$said" "$URL/$??rid=$RID"
"""
    return Language(name="Shell", label="Shell: ping", text=text)


def _cron(url: str) -> Language:
    text = f"0 2 * * *  /usr/local/bin/backup.sh; curl -fsS -m 10 --retry 5 -o /dev/null {url}/$?\n"
    return Language(name="cron", label="crontab: ping", text=text)


_TEXTS = (
    (
        "systemd",
        "backup.service",
        """\
[Unit]
Description=Nightly backup

[Service]
Type=oneshot
ExecStartPre=-/bin/sh -c 'curl -fsS -m 10 --retry 5 -o /dev/null "URL/start?rid=$INVOCATION_ID"'
ExecStart=/usr/local/bin/backup.sh
ExecStopPost=-/bin/sh -c '[ "$SERVICE_RESULT" = success ] || end=/fail; \\
    curl -fsS -m 10 --retry 5 -o /dev/null "URL$end?rid=$INVOCATION_ID"'
""",
    ),
    (
        "Python",
        "Python: ping",
        """\
import urllib.request
import uuid

url, run = "URL", uuid.uuid4()


def ping(end: str, body: bytes = b"") -> None:
    try:
        urllib.request.urlopen(f"{url}{end}?rid={run}", data=body, timeout=10).close()
    except OSError as error:
        print("the ping did not get through:", error)


ping("/start")
try:
    print("your work here")
except BaseException as error:
    ping("/fail", repr(error).encode())
    raise
ping("")
""",
    ),
    (
        "Node",
        "Node: ping",
        """\
const url = "URL", run = crypto.randomUUID();
const ping = (end, body) => fetch(`${url}${end}?rid=${run}`, { method: "POST", body }).catch(console.error);

(async () => {
  await ping("/start");
  try {
    console.log("your work here");
  } catch (error) {
    await ping("/fail", String(error));
    throw error;
  }
  await ping("");
})();
""",
    ),
    (
        "PHP",
        "PHP: ping",
        """\
<?php
$url = "URL";
$run = bin2hex(random_bytes(16));
file_get_contents("$url/start?rid=$run");
try {
    echo "your work here\\n";
} catch (Throwable $error) {
    $post = ["http" => ["method" => "POST", "content" => (string) $error]];
    file_get_contents("$url/fail?rid=$run", false, stream_context_create($post));
    throw $error;
}
file_get_contents("$url?rid=$run");
""",
    ),
    (
        "Ruby",
        "Ruby: ping",
        """\
require "net/http"
require "securerandom"

url, run = "URL", SecureRandom.uuid
ping = lambda do |last, body = ""|
  Net::HTTP.post(URI("#{url}#{last}?rid=#{run}"), body)
rescue StandardError => error
  warn "the ping did not get through: #{error.message}"
end

ping.call("/start")
begin
  puts "your work here"
rescue Exception => error
  ping.call("/fail", error.full_message)
  raise
end
ping.call("")
""",
    ),
    (
        "Go",
        "main.go: ping",
        """\
package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

const url = "URL"

var client = http.Client{Timeout: 10 * time.Second}

func ping(end, run, body string) {
	if answer, err := client.Post(url+end+"?rid="+run, "text/plain", strings.NewReader(body)); err == nil {
		answer.Body.Close()
	}
}

func work() error {
	fmt.Println("your work here")
	return nil
}

func main() {
	run := fmt.Sprintf("run-%d", time.Now().UnixNano())
	ping("/start", run, "")
	if err := work(); err != nil {
		ping("/fail", run, err.Error())
		panic(err)
	}
	ping("", run, "")
}
""",
    ),
    (
        "GitHub Actions",
        ".github/workflows: ping",
        """\
    env:
      PING: URL
      RID: ${{ github.run_id }}-${{ github.run_attempt }}
    steps:
      - run: curl -fsS -m 10 --retry 5 "$PING/start?rid=$RID"
      - run: echo "your steps here"
      - if: always()
        run: curl -fsS -m 10 --retry 5 "$PING${{ job.status != 'success' && '/fail' || '' }}?rid=$RID"
""",
    ),
)
