// The one stream of a browser, shared by all its tabs, open while any of them is looked at.
const BACKOFF_MS = [1000, 2000, 5000, 10000, 30000];

export function feeding(tell) {
  let source = null;
  let timer = 0;
  let failures = 0;
  const ended = () => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };
  // An EventSource does not say why it was refused; an answer does.
  async function refused() {
    ended();
    tell({ kind: "state", state: "reconnecting" });
    timer = setTimeout(open, BACKOFF_MS[Math.min(failures++, BACKOFF_MS.length - 1)]);
    try {
      const answer = await fetch("/api/v1/stream", { method: "HEAD" });
      if (answer.status === 401 || answer.status === 403) tell({ kind: "state", state: "signed-out" });
    } catch {
      // the daemon is away: "reconnecting" is the truth
    }
  }
  function open() {
    ended();
    source = new EventSource("/api/v1/stream");
    source.onopen = () => {
      failures = 0;
      tell({ kind: "state", state: "live" });
    };
    source.onerror = () => {
      if (source?.readyState === EventSource.CLOSED) refused();
      else tell({ kind: "state", state: "reconnecting" });
    };
    source.addEventListener("now", (event) => tell({ kind: "now", data: JSON.parse(event.data) }));
    source.addEventListener("alive", () => tell({ kind: "alive" }));
  }
  return { open: () => source ?? open(), close: ended, isOpen: () => source !== null };
}

if ("SharedWorkerGlobalScope" in self) {
  const ports = new Map();
  let now = null;
  let state = null;
  const feed = feeding((message) => {
    if (message.kind === "now") now = message;
    if (message.kind === "state") state = message;
    for (const [port, seen] of ports) if (seen) port.postMessage(message);
  });
  let idle = 0;
  const look = () => {
    clearTimeout(idle);
    if ([...ports.values()].some(Boolean)) feed.open();
    else idle = setTimeout(() => feed.close(), 5000);
  };
  self.onconnect = ({ ports: [port] }) => {
    ports.set(port, false);
    port.onmessage = ({ data }) => {
      if (data === "bye") ports.delete(port);
      else ports.set(port, data === "visible");
      look();
      if (data === "visible" && feed.isOpen()) for (const message of [state, now]) if (message) port.postMessage(message);
    };
  };
}
