/*
 * A viewer of one call by WHEP: keeps one peer connection with a number of slots (the i-th video with the i-th audio m-line) and comes
 * back by itself when it breaks off.
 *
 * Events: "state" (detail: {state, text}) with state connecting | waiting | live | reconnecting | error, and "slots" (detail: the slots
 * that show a participant, each with its tracks). An error is final: asking again would get the same answer.
 */

const FIRST_PAIRS = 4;
const MOST_PAIRS = 16;
const REQUEST_MS = 10_000;
const CONNECT_MS = 15_000;
const DISCONNECTED_MS = 3_000;
const LONGEST_WAIT_MS = 15_000;
const FINAL = new Set([400, 401, 403, 404, 405, 406, 413, 415]);

class Refused extends Error {
  constructor(status, text, retryAfterSeconds) {
    super(text);
    this.final = FINAL.has(status);
    this.waitMs = Math.min(Number(retryAfterSeconds) * 1000 || 0, 60_000);
  }
}

export class Viewer extends EventTarget {
  #address;
  #token;
  #pairs = FIRST_PAIRS;
  #failures = 0;
  #connection = null;
  #timer = 0;
  #stopped = false;

  constructor(call, token) {
    super();
    this.#address = new URL(`/whep/${encodeURIComponent(call)}`, location.href);
    this.#token = token;
  }

  /* The peer connection in use, or null. */
  get peer() {
    return this.#connection?.peer ?? null;
  }

  start() {
    this.#stopped = false;
    this.#tell("connecting", "Connecting…");
    this.#connect();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  async #connect() {
    const connection = new Connection(this.#address, this.#token, this.#pairs);
    this.#connection = connection;
    const mine = () => connection === this.#connection && !this.#stopped;
    connection.addEventListener("connected", () => {
      this.#failures = 0;
      this.#tell("waiting", "Waiting for the stream to start");
    });
    connection.addEventListener("slots", ({ detail }) => mine() && this.#show(detail));
    connection.addEventListener("lost", () => mine() && this.#again(0));
    try {
      await connection.open();
    } catch (error) {
      if (!mine()) return;
      if (error instanceof Refused && error.final) {
        this.#drop();
        this.#tell("error", error.message);
      } else {
        this.#again(error.waitMs ?? 0, error instanceof Refused ? error.message : "");
      }
    }
  }

  #show({ slots, waiting }) {
    if (waiting > 0 && this.#pairs < MOST_PAIRS) {
      this.#pairs = Math.min(this.#pairs * 2, MOST_PAIRS); // more participants than slots: ask again for twice as many
      this.#drop();
      this.#connect();
      return;
    }
    const shown = slots.filter((slot) => slot.participant);
    this.dispatchEvent(new CustomEvent("slots", { detail: shown }));
    if (shown.length > 0) this.#tell("live", "Live");
    else this.#tell("waiting", "Waiting for the stream to start");
  }

  #again(leastMs, why) {
    this.#drop();
    // Doubling with a random part, so that the viewers of a restarted gateway do not all come back in the same moment.
    const doubled = Math.min(500 * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures += 1;
    this.#tell("reconnecting", why ? `${why} – trying again…` : "The connection is lost – trying again…");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), Math.max(leastMs, doubled * (0.5 + Math.random() / 2)));
  }

  #drop() {
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
  }

  #tell(state, text) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text } }));
  }
}

/* One try: from the offer to the end of the peer connection. */
class Connection extends EventTarget {
  peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  #address;
  #token;
  #slots = [];
  #resource = null;
  #events = null;
  #timer = 0;
  #closed = false;
  #asking = new AbortController();

  constructor(address, token, pairs) {
    super();
    this.#address = address;
    this.#token = token;
    for (let pair = 0; pair < pairs; pair++) {
      const video = this.peer.addTransceiver("video", { direction: "recvonly" });
      const audio = this.peer.addTransceiver("audio", { direction: "recvonly" });
      this.#slots.push({ video: video.receiver.track, audio: audio.receiver.track });
    }
    this.peer.addEventListener("connectionstatechange", () => this.#changed());
  }

  async open() {
    const offer = await this.peer.createOffer();
    // Chromium plays Opus in stereo only if its own description says so (RFC 7587 §6.1).
    offer.sdp = offer.sdp.replaceAll(/(a=fmtp:\d+ .*useinbandfec=1)(?!.*stereo=1)/g, "$1;stereo=1");
    await this.peer.setLocalDescription(offer);
    // Sent at once: the gateway is an ICE-lite agent and learns this side's address from its connectivity checks.
    const expiry = setTimeout(() => this.#asking.abort(), REQUEST_MS);
    const response = await fetch(this.#address, {
      method: "POST",
      headers: this.#headers({ "Content-Type": "application/sdp" }),
      body: this.peer.localDescription.sdp,
      signal: this.#asking.signal,
    }).finally(() => clearTimeout(expiry));
    if (response.status !== 201) {
      throw new Refused(response.status, await explanation(response), response.headers.get("Retry-After"));
    }
    this.#resource = new URL(response.headers.get("Location"), response.url);
    const sdp = await response.text();
    if (this.#closed) {
      this.#leave();
      return;
    }
    await this.peer.setRemoteDescription({ type: "answer", sdp });
    this.#timer = setTimeout(() => this.#lost(), CONNECT_MS);
    for (const { transport } of this.peer.getReceivers()) {
      transport?.addEventListener("statechange", () => transport.state === "closed" && this.#lost());
    }
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#events?.close();
    this.peer.close();
    this.#leave();
  }

  #changed() {
    clearTimeout(this.#timer);
    switch (this.peer.connectionState) {
      case "connected":
        if (this.#events === null) this.#listen();
        break;
      case "disconnected":
        this.#timer = setTimeout(() => this.#lost(), DISCONNECTED_MS);
        break;
      case "failed":
      case "closed":
        this.#lost();
        break;
      default:
        this.#timer = setTimeout(() => this.#lost(), CONNECT_MS);
    }
  }

  #listen() {
    this.dispatchEvent(new Event("connected"));
    const { pathname } = this.#resource;
    const address = new URL(this.#resource);
    address.pathname = `${pathname.replace(/\/$/, "")}/events`;
    this.#events = new EventSource(address);
    this.#events.addEventListener("message", ({ data }) => {
      const { slots, waiting } = JSON.parse(data);
      // Only tracks that carry something: with a silent one in it, browsers wait for its first packet before they play any.
      const tracks = ({ slot, video, audio }) => [video && this.#slots[slot].video, audio && this.#slots[slot].audio].filter(Boolean);
      const detail = { waiting, slots: slots.map((slot) => ({ ...slot, tracks: tracks(slot) })) };
      this.dispatchEvent(new CustomEvent("slots", { detail }));
    });
  }

  #lost() {
    if (!this.#closed) this.dispatchEvent(new Event("lost"));
  }

  #leave() {
    if (this.#resource === null) {
      this.#asking.abort();
      return;
    }
    // keepalive: it goes out although the page is being left.
    fetch(this.#resource, { method: "DELETE", headers: this.#headers({}), keepalive: true }).catch(() => {});
  }

  #headers(headers) {
    return this.#token ? { ...headers, Authorization: `Bearer ${this.#token}` } : headers;
  }
}

/* A refusal in words: the gateway's own (problem+json, RFC 9457), else the status. */
async function explanation(response) {
  const fallback = `The gateway answered ${response.status} ${response.statusText}`.trim();
  if (!(response.headers.get("Content-Type") ?? "").includes("json")) return fallback;
  const problem = await response.json().catch(() => ({}));
  return problem.detail || problem.title || fallback;
}
