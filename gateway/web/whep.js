/*
 * A viewer of one call by WHEP: keeps one peer connection with a number of slots (the i-th video with the i-th audio m-line) and comes
 * back by itself when it breaks off.
 *
 * Events: "state" as a Lasting connection tells it (waiting: nobody is shown; live: somebody is), and "slots" (detail: the slots that
 * show a participant, each with its tracks).
 */

import { answering } from "./answering.js";
import { Connection, Lasting } from "./connection.js";

const FIRST_PAIRS = 4;
const MOST_PAIRS = 16;
const LAYER = "urn:ietf:params:whep:ext:core:layer";
const WAITING = ["waiting", "Waiting for the stream to start"];

export class Viewer extends Lasting {
  #pairs = FIRST_PAIRS;
  #sizes = new Map(); // mid -> width and height

  /* `without` is a participant that is not to be shown: on the page of a host, its own user. */
  constructor(call, token, without = "") {
    const address = new URL(`/whep/${encodeURIComponent(call)}`, location.href);
    if (without) address.searchParams.set("without", without);
    super(() => this.#connection(address, token), WAITING);
  }

  /* The picture of this media section (mid) is shown so large, in pixels of the screen: more need not be sent. */
  fit(mid, width, height) {
    this.#sizes.set(mid, [width, height]);
    this.connection?.fit(mid, width, height);
  }

  #connection(address, token) {
    const connection = new Slots(address, token, this.#pairs);
    connection.addEventListener("connected", () => this.#sizes.forEach((size, mid) => connection.fit(mid, ...size)));
    connection.addEventListener("slots", ({ detail }) => connection === this.connection && this.#show(detail));
    return connection;
  }

  #show({ slots, waiting }) {
    if (waiting > 0 && this.#pairs < MOST_PAIRS) {
      this.#pairs = Math.min(this.#pairs * 2, MOST_PAIRS); // more participants than slots: ask again for twice as many
      this.again();
      return;
    }
    const shown = slots.filter((slot) => slot.participant);
    this.dispatchEvent(new CustomEvent("slots", { detail: shown }));
    if (shown.length > 0) this.tell("live", "Live");
    else this.tell(...WAITING);
  }
}

/* One connection with its slots. */
class Slots extends Connection {
  #slots = [];
  #events = null;
  #waiting = new AbortController();

  constructor(address, token, pairs) {
    super(address, token);
    for (let pair = 0; pair < pairs; pair++) {
      const video = this.peer.addTransceiver("video", { direction: "recvonly" });
      const audio = this.peer.addTransceiver("audio", { direction: "recvonly" });
      this.#slots.push({ video: video.receiver.track, audio: audio.receiver.track });
    }
    this.addEventListener("connected", () => this.#listen());
  }

  /* Chromium plays Opus in stereo only if its own description says so (RFC 7587 §6.1). */
  offering(sdp) {
    return sdp.replaceAll(/(a=fmtp:\d+ .*useinbandfec=1)(?!.*stereo=1)/g, "$1;stereo=1");
  }

  close() {
    this.#waiting.abort();
    this.#events?.close();
    return super.close();
  }

  /* WHEP's layer selection, with a tile's size as this gateway knows it. Lost is no more than a picture in a size that is not the best. */
  fit(mid, width, height) {
    const address = this.link(LAYER);
    if (address === null) return;
    const body = JSON.stringify({ mediaId: mid, width, height });
    fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(() => {});
  }

  #listen() {
    const address = new URL(this.resource);
    address.pathname = `${address.pathname.replace(/\/$/, "")}/events`;
    this.#events = new EventSource(address);
    this.#events.addEventListener("message", ({ data }) => {
      const { slots, waiting } = JSON.parse(data);
      // Only tracks that carry something: with a silent one in it, browsers wait for its first packet before they play any.
      const tracks = ({ slot, video, audio }) => [video && this.#slots[slot].video, audio && this.#slots[slot].audio].filter(Boolean);
      const detail = { waiting, slots: slots.map((slot) => ({ ...slot, tracks: tracks(slot) })) };
      this.dispatchEvent(new CustomEvent("slots", { detail }));
    });
    this.#events.addEventListener("lost", () => this.lost()); // the gateway knows it at once, the browser in many seconds
    this.#events.addEventListener("error", () => this.#broken());
  }

  /* The way to the gateway's events has ended, which of a gateway that has gone is noticed before its media are. */
  async #broken() {
    const refused = this.#events.readyState === EventSource.CLOSED; // and not cut off
    this.#events.close();
    if (refused) {
      this.forgotten = true;
      this.lost();
    } else if (await answering(this.#waiting.signal, () => this.dispatchEvent(new Event("silent")))) {
      this.#listen();
    }
  }
}
