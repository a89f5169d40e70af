/*
 * The call as HLS, some seconds behind, for whom WebRTC does not reach: a firewall that lets no UDP through, a browser without it or without
 * the codec that is on air. Played by hls.js where this gateway has it (/web/hls.min.js), else by the browser itself.
 */

import { SILENT, answering } from "./answering.js";

const PATIENCE_MS = 8_000;
const AGAIN_MS = 10_000;
const MODULE = "/web/hls.min.js";
const WORDS = "Live, some seconds behind";
const TYPE = "application/vnd.apple.mpegurl";

/*
 * Watches a Viewer that tries to connect, and takes its place when it does not get there in time, or has no picture that it can show, and the
 * call is there as HLS. `show` is called with words for people and gives the video element to play in; `tell` with the page's state and words
 * when the gateway goes and comes.
 */
export class Fallback {
  #call;
  #token;
  #viewer;
  #show;
  #tell;
  #timer = 0;
  #player = null;
  #blind = false; // it has pictures, and can show none of them: soon it may, because the call comes in another codec for it

  constructor(call, token, viewer, show, tell) {
    [this.#call, this.#token, this.#viewer, this.#show, this.#tell] = [call, token, viewer, show, tell];
    viewer.addEventListener("slots", ({ detail }) => {
      this.#blind = detail.some(({ unplayable }) => unplayable) && !detail.some(({ video }) => video);
    });
    viewer.addEventListener("state", ({ detail: { state } }) => this.#follow(state));
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#player?.close();
    this.#player = null;
  }

  #follow(state) {
    const waits = state === "connecting" || state === "reconnecting" || (state === "live" && this.#blind);
    if (waits) this.#timer ||= setTimeout(() => this.#take(), PATIENCE_MS);
    else this.stop(); // it is there, or it is not wanted, or not allowed
  }

  async #take() {
    try {
      const address = await playlist(this.#call, this.#token);
      const player = await Player.for(address);
      this.#viewer.stop();
      this.#player = player;
      player.onEnd = () => this.#viewer.start();
      player.onSilent = () => this.#tell("reconnecting", SILENT);
      player.onBack = () => this.#tell("live", WORDS);
      player.play(this.#show(WORDS));
    } catch {
      if (this.#timer !== 0) this.#timer = setTimeout(() => this.#take(), AGAIN_MS); // perhaps it is broadcast later
    }
  }
}

/* The address of the call's playlist here; raises where there is none. */
async function playlist(call, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(`/hls/${encodeURIComponent(call)}`, { headers });
  if (!response.ok) throw new Error(`no HLS: ${response.status}`);
  const { playlist_url } = await response.json();
  return new URL(new URL(playlist_url, location.href).pathname, location.href).href; // from here, whatever CDN others are sent to
}

class Player {
  onEnd = () => {};
  onSilent = () => {};
  onBack = () => {};
  tried = false; // to load it anew, and nothing has come of that yet
  #waiting = new AbortController();

  /* `load` it anew once the gateway answers; the end where that was tried. */
  async retry(load) {
    if (this.#waiting.signal.aborted) return;
    if (this.tried) this.onEnd();
    else if (await answering(this.#waiting.signal, this.onSilent)) {
      this.tried = true;
      this.onBack();
      load();
    }
  }

  close() {
    this.#waiting.abort();
  }

  static async for(address) {
    const { default: Hls } = await import(MODULE).catch(() => ({}));
    if (Hls?.isSupported()) return new Scripted(address, Hls);
    if (document.createElement("video").canPlayType(TYPE)) return new Native(address);
    throw new Error("this browser plays no HLS");
  }
}

class Native extends Player {
  #address;
  #video = null;

  constructor(address) {
    super();
    this.#address = address;
  }

  play(video) {
    this.#video = video;
    video.addEventListener("ended", () => this.onEnd(), { once: true });
    video.addEventListener("playing", () => (this.tried = false));
    video.addEventListener("error", () => this.retry(() => this.#load()));
    this.#load();
  }

  #load() {
    this.#video.src = this.#address;
    this.#video.play().catch(() => {});
  }

  close() {
    super.close();
    this.#video?.removeAttribute("src");
    this.#video?.load();
  }
}

class Scripted extends Player {
  #hls;
  #address;

  constructor(address, Hls) {
    super();
    this.#address = address;
    this.#hls = new Hls({ enableWorker: false, lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.25, backBufferLength: 10 });
    this.#hls.on(Hls.Events.FRAG_BUFFERED, () => (this.tried = false));
    this.#hls.on(Hls.Events.ERROR, (_, { fatal, type }) => {
      if (!fatal) return;
      if (type === Hls.ErrorTypes.MEDIA_ERROR) this.#hls.recoverMediaError();
      else if (type === Hls.ErrorTypes.NETWORK_ERROR) this.retry(() => this.#hls.loadSource(this.#address));
      else this.onEnd();
    });
  }

  play(video) {
    this.#hls.attachMedia(video);
    this.#hls.loadSource(this.#address);
    video.addEventListener("ended", () => this.onEnd(), { once: true });
    video.play().catch(() => {});
  }

  close() {
    super.close();
    this.#hls.destroy();
  }
}
