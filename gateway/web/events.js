/*
 * The events of one call over the gateway's WebSocket. It comes back by itself, after waits that double, each with a random part, so that a
 * thousand pages of a restarted gateway do not all come back in the same moment.
 *
 * Events: "allowed" (detail: {user, capabilities}) whenever the gateway says what this page may do; "told" (detail: the gateway's event);
 * "barred" (detail: why, in words) when the call is not to be listened to, or not any more; it is then asked again after a while.
 */

import { answering } from "./answering.js";

const PING_MS = 25_000;
const SILENT_MS = 40_000;
const REPLY_MS = 10_000;
const LONGEST_WAIT_MS = 30_000;
const BARRED_MS = 10_000;
const UNAUTHENTICATED = 4001;
const REMEMBERED = 200;

export class Events extends EventTarget {
  #call;
  #token;
  #socket = null;
  #user = null;
  #replies = new Map(); // id -> [resolve, reject]
  #asked = 0;
  #failures = 0;
  #retry = 0;
  #waiting = new AbortController();
  #pinging = 0;
  #heardAt = 0;
  #told = new Set(); // ids: what was told once is not told again when the call is subscribed to anew

  constructor(call, token) {
    super();
    this.#call = call;
    this.#token = token;
  }

  start() {
    this.stop();
    const address = new URL("/api/v2/video/connect", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.addEventListener("open", () => this.#say({ type: "authenticate", token: this.#token }));
    socket.addEventListener("message", ({ data }) => socket === this.#socket && this.#hear(JSON.parse(data)));
    socket.addEventListener("close", ({ code, reason }) => socket === this.#socket && this.#closed(code, reason));
  }

  stop() {
    clearTimeout(this.#retry);
    this.#waiting.abort();
    clearInterval(this.#pinging);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const [, reject] of this.#replies.values()) reject(new Error("The connection is lost"));
    this.#replies.clear();
  }

  /* Ask anew what this page may hear and do: the call has changed. */
  async subscribe() {
    if (this.#user === null) return;
    try {
      const { own_capabilities, recent = [] } = await this.ask({ type: "subscribe" });
      recent.forEach((event) => this.#tell(event)); // said before this page came
      this.dispatchEvent(new CustomEvent("allowed", { detail: { user: this.#user, capabilities: new Set(own_capabilities) } }));
    } catch ({ message }) {
      this.#bar(message);
    }
  }

  /* What is closed now may open, and who is nobody in particular is told nothing of it. */
  #bar(why) {
    this.dispatchEvent(new CustomEvent("barred", { detail: why }));
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.subscribe(), BARRED_MS * (0.5 + Math.random() / 2));
  }

  /* Sends a message about the call; resolves with the answer, rejects with the gateway's words. */
  ask(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("There is no connection: try again in a moment"));
    const id = String(++this.#asked);
    this.#say({ id, cid: this.#call, ...message });
    return new Promise((resolve, reject) => {
      this.#replies.set(id, [resolve, reject]);
      setTimeout(() => this.#replies.delete(id) && reject(new Error("The gateway does not answer")), REPLY_MS);
    });
  }

  #say(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #hear(message) {
    this.#heardAt = performance.now();
    const [resolve, reject] = this.#replies.get(message.reply_to) ?? [];
    this.#replies.delete(message.reply_to);
    if (resolve) {
      if (message.type === "error") reject(new Error(message.message));
      else resolve(message);
    } else if (message.type === "connection.ok") {
      this.#failures = 0;
      this.#user = message.user;
      this.#pinging = setInterval(() => this.#ping(), PING_MS);
      this.subscribe();
    } else if (message.type === "subscription.ended") {
      this.#bar(message.message);
    } else if (message.cid === this.#call && message.payload) {
      this.#tell(message);
    }
  }

  #tell(event) {
    if (this.#told.has(event.id)) return;
    this.#told.add(event.id);
    if (this.#told.size > REMEMBERED) this.#told.delete(this.#told.values().next().value);
    this.dispatchEvent(new CustomEvent("told", { detail: event }));
  }

  /* A network that has gone is not told to a browser: only that nothing comes any more. */
  #ping() {
    if (performance.now() - this.#heardAt > SILENT_MS) this.start();
    else this.#say({ type: "ping" });
  }

  #closed(code, reason) {
    this.stop();
    if (code === UNAUTHENTICATED) {
      this.dispatchEvent(new CustomEvent("barred", { detail: reason })); // asking again would get the same answer
      return;
    }
    const wait = Math.min(1000 * 2 ** this.#failures, LONGEST_WAIT_MS);
    this.#failures += 1;
    this.#retry = setTimeout(() => this.#return(), wait * (0.5 + Math.random() / 2));
  }

  async #return() {
    this.#waiting = new AbortController();
    if (await answering(this.#waiting.signal)) this.start();
  }
}
