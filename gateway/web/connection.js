/*
 * What publishing (WHIP) and watching (WHEP) share: one try, from the offer to the end of its peer connection, and the life of many
 * tries, which comes back by itself.
 *
 * A Connection tells "connected" once and "lost" once; where it knows more of the gateway than that the connection broke off, "silent" while
 * it does not answer, and it is `forgotten` by one that was restarted. A Lasting one tells "state" (detail: {state, text}) with state idle | connecting |
 * waiting | live | reconnecting | error. An error is final: asking again would get the same answer. It tells "restarted" when the gateway
 * seems to have been.
 */

import { SILENT, answering } from "./answering.js";

const REQUEST_MS = 10_000;
const CONNECT_MS = 15_000;
const DISCONNECTED_MS = 3_000;
const STEADY_MS = 5_000;
const LONGEST_WAIT_MS = 15_000;
const LEAVING_MS = 5_000; // a busy gateway may take as long, and two at once would be two encoders with one key
const FINAL = new Set([400, 401, 403, 404, 405, 406, 409, 413, 415, 422]);

export class Refused extends Error {
  constructor(text, status = 0, retryAfterSeconds = 0) {
    super(text);
    this.final = status === 0 || FINAL.has(status);
    this.waitMs = Math.min(Number(retryAfterSeconds) * 1000 || 0, 60_000);
  }
}

export class Connection extends EventTarget {
  peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  resource = null;
  forgotten = false;
  #links = "";
  #address;
  #token;
  #timer = 0;
  #connected = false;
  #closed = false;
  #asking = new AbortController();

  constructor(address, token) {
    super();
    this.#address = address;
    this.#token = token;
    this.peer.addEventListener("connectionstatechange", () => this.#changed());
  }

  /* What a kind of connection changes in the SDP that the browser made, and in the answer. */
  offering(sdp) {
    return sdp;
  }

  answered(sdp) {
    return sdp;
  }

  /* Sends the offer and takes the answer. Raises Refused, and what fetch raises. */
  async open() {
    const offer = await this.peer.createOffer();
    await this.peer.setLocalDescription({ type: "offer", sdp: this.offering(offer.sdp) });
    // Sent at once: the gateway is an ICE-lite agent and learns this side's address from its connectivity checks.
    const expiry = setTimeout(() => this.#asking.abort(), REQUEST_MS);
    const response = await fetch(this.#address, {
      method: "POST",
      headers: this.#headers({ "Content-Type": "application/sdp" }),
      body: this.peer.localDescription.sdp,
      signal: this.#asking.signal,
    }).finally(() => clearTimeout(expiry));
    if (response.status !== 201) {
      throw new Refused(await explanation(response), response.status, response.headers.get("Retry-After"));
    }
    this.resource = new URL(response.headers.get("Location"), response.url);
    this.#links = response.headers.get("Link") ?? "";
    const sdp = await response.text();
    if (this.#closed) {
      this.#leave();
      return;
    }
    await this.peer.setRemoteDescription({ type: "answer", sdp: this.answered(sdp) });
    if (!this.#connected) this.#timer = setTimeout(() => this.lost(), CONNECT_MS);
  }

  /* The address of what the answer linked to by this relation (RFC 8288), or null. */
  link(relation) {
    const found = [...this.#links.matchAll(/<([^>]*)>([^<]*)/g)].find(([, , parameters]) => parameters.includes(`rel="${relation}"`));
    return found ? new URL(found[1], this.resource) : null;
  }

  /* Ends it, and is done when the gateway knows. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.peer.close();
    await this.#leave();
  }

  #changed() {
    clearTimeout(this.#timer);
    switch (this.peer.connectionState) {
      case "connected":
        if (!this.#connected) this.dispatchEvent(new Event("connected"));
        this.#connected = true;
        break;
      case "disconnected":
        this.#timer = setTimeout(() => this.lost(), DISCONNECTED_MS);
        break;
      case "failed":
      case "closed":
        this.lost();
        break;
      default:
        this.#timer = setTimeout(() => this.lost(), CONNECT_MS);
    }
  }

  /* Whether the gateway has said goodbye (DTLS close_notify), and not the network failed. */
  get dismissed() {
    return this.peer.getTransceivers().some(({ sender, receiver }) => (sender.transport ?? receiver.transport)?.state === "closed");
  }

  /* It has broken off: seen here, or said by who knows it sooner. */
  lost() {
    if (!this.#closed) this.dispatchEvent(new Event("lost"));
  }

  async #leave() {
    if (this.resource === null) {
      this.#asking.abort();
      return;
    }
    // keepalive: it goes out although the page is being left.
    const deleting = { method: "DELETE", headers: this.#headers({}), keepalive: true, signal: AbortSignal.timeout(LEAVING_MS) };
    await fetch(this.resource, deleting).catch(() => {});
  }

  #headers(headers) {
    return this.#token ? { ...headers, Authorization: `Bearer ${this.#token}` } : headers;
  }
}

export class Lasting extends EventTarget {
  #make;
  #live;
  #connection = null;
  #failures = 0;
  #connectedAt = Infinity;
  #timer = 0;
  #waiting = new AbortController();

  /* `make` gives a Connection for each try; `live` is the state and its text once one is connected. */
  constructor(make, live) {
    super();
    this.#make = make;
    this.#live = live;
  }

  /* The connection in use, or null. */
  get connection() {
    return this.#connection;
  }

  get peer() {
    return this.#connection?.peer ?? null;
  }

  start() {
    this.tell("connecting", "Connecting…");
    this.#failures = 0;
    this.again();
  }

  stop() {
    this.#drop();
    this.tell("idle", "");
  }

  /* The end, for a reason that trying again would not change. */
  fail(text) {
    this.#drop();
    this.tell("error", text);
  }

  /* A new connection in place of the one in use, at once. */
  async again() {
    const left = this.#drop();
    const connection = this.#make();
    this.#connection = connection;
    const mine = () => connection === this.#connection;
    connection.addEventListener("connected", () => {
      if (!mine()) return;
      this.#connectedAt = performance.now();
      this.tell(...this.#live);
    });
    connection.addEventListener("lost", () => mine() && (connection.forgotten ? this.#restarted() : this.#later(0, "", connection.dismissed)));
    connection.addEventListener("silent", () => mine() && this.#silent());
    await left; // two at once would be two encoders with one key, of which the gateway refuses one
    if (!mine()) return;
    try {
      await connection.open();
    } catch (error) {
      if (!mine()) return;
      if (error instanceof Refused && error.final) {
        this.fail(error.message);
      } else {
        this.#later(error.waitMs ?? 0, error instanceof Refused ? error.message : "");
      }
    }
  }

  tell(state, text) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text } }));
  }

  /* Comes back after a wait; `dismissed`: the gateway had ended the connection. */
  retry(dismissed) {
    return this.again();
  }

  #later(leastMs, why, dismissed = false) {
    if (performance.now() - this.#connectedAt > STEADY_MS) this.#failures = 0; // not for one that is ended as soon as it stands
    this.#drop();
    // Doubling with a random part, so that the peers of a restarted gateway do not all come back in the same moment.
    const doubled = Math.min(500 * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures += 1;
    this.tell("reconnecting", why ? `${why} – trying again…` : "The connection is lost – trying again…");
    this.#timer = setTimeout(() => this.#return(dismissed), Math.max(leastMs, doubled * (0.5 + Math.random() / 2)));
  }

  /* While the gateway is away nothing else is tried. */
  async #return(dismissed) {
    this.#waiting = new AbortController();
    if (await answering(this.#waiting.signal, () => this.#silent())) this.retry(dismissed);
  }

  #silent() {
    this.tell("reconnecting", SILENT);
  }

  /* The gateway is back, and knows nothing of this connection: whoever was in the same one has waited for it at times of their own. */
  #restarted() {
    const steady = performance.now() - this.#connectedAt > STEADY_MS;
    this.dispatchEvent(new Event("restarted"));
    if (steady) this.again();
    else this.#later(0, "");
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#waiting.abort();
    const connection = this.#connection;
    this.#connection = null;
    this.#connectedAt = Infinity;
    return connection?.close();
  }
}

/* A refusal in words: the gateway's own (problem+json, RFC 9457), else the status. */
async function explanation(response) {
  const fallback = `The gateway answered ${response.status} ${response.statusText}`.trim();
  if (!(response.headers.get("Content-Type") ?? "").includes("json")) return fallback;
  const problem = await response.json().catch(() => ({}));
  return problem.detail || problem.title || fallback;
}
