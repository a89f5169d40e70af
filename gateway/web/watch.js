/* The watch page: a tile for each participant of the call named in the path. A token comes in the fragment, which no server ever sees. */

import { Statistics } from "./statistics.js";
import { Viewer } from "./whep.js";

const STATISTICS_MS = 1000;

const call = decodeURIComponent(location.pathname.replace(/^\/watch\//, ""));
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const [title, stateLabel, notice, tiles, soundButton, statisticsButton] = ["call", "state", "notice", "tiles", "sound", "statistics"].map(
  (id) => document.getElementById(id),
);
const viewer = new Viewer(call, token);
const shown = new Map(); // participant -> Tile
let sound = false;
let statisticsTimer = 0;

class Tile {
  constructor() {
    this.element = make("figure", "tile");
    this.element.setAttribute("role", "listitem");
    this.video = make("video");
    this.video.autoplay = this.video.playsInline = true;
    this.video.muted = !sound;
    this.soundOnly = make("div", "sound-only", "Sound only");
    this.name = make("figcaption", "name");
    this.figures = make("pre");
    this.figures.hidden = statisticsButton.ariaPressed !== "true";
    this.fullscreen = make("button");
    this.fullscreen.type = "button";
    const icon = make("img");
    icon.src = "/web/fullscreen.svg";
    icon.alt = ""; // the button has a label
    this.fullscreen.append(icon);
    this.fullscreen.addEventListener("click", () => this.toggleFullscreen());
    this.element.append(this.video, this.soundOnly, this.name, this.figures, this.fullscreen);
  }

  show(slot) {
    this.mids = [slot.video && slot.video_mid, slot.audio && slot.audio_mid].filter((mid) => typeof mid === "string");
    this.name.textContent = slot.name;
    this.video.setAttribute("aria-label", `Video of ${slot.name}`);
    this.fullscreen.setAttribute("aria-label", `${slot.name} in full screen`);
    this.soundOnly.hidden = slot.video;
    const playing = this.video.srcObject?.getTracks() ?? [];
    if (playing.length !== slot.tracks.length || !slot.tracks.every((track) => playing.includes(track))) {
      this.video.srcObject = new MediaStream(slot.tracks);
      this.video.play().catch(({ name }) => name === "NotAllowedError" && this.mute()); // there may be no sound before a click
    }
  }

  mute() {
    setSound(false);
    this.video.play().catch(() => {});
  }

  toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.element.requestFullscreen) this.element.requestFullscreen().catch(() => {});
    else this.video.webkitEnterFullscreen?.(); // iPhone: only a video element has a full screen
  }
}

viewer.addEventListener("state", ({ detail: { state, text } }) => {
  const label = { connecting: "Connecting", waiting: "Waiting", live: "Live", reconnecting: "Reconnecting", error: "Not available" }[state];
  if (stateLabel.dataset.state !== state) stateLabel.textContent = label;
  stateLabel.dataset.state = state;
  notice.textContent = text;
  notice.hidden = state === "live";
  notice.classList.toggle("error", state === "error");
  if (state === "error") arrange([]);
});
viewer.addEventListener("slots", ({ detail }) => arrange(detail));

function arrange(slots) {
  const present = new Set(slots.map((slot) => slot.participant));
  for (const [participant, tile] of shown) {
    if (present.has(participant)) continue;
    tile.video.srcObject = null;
    tile.element.remove();
    shown.delete(participant);
  }
  for (const slot of slots) {
    if (!shown.has(slot.participant)) {
      const tile = new Tile();
      shown.set(slot.participant, tile);
      tiles.append(tile.element);
    }
    shown.get(slot.participant).show(slot);
  }
  tiles.style.setProperty("--columns", Math.ceil(Math.sqrt(shown.size || 1)));
  tiles.classList.toggle("many", shown.size > 4);
  soundButton.hidden = shown.size === 0;
}

function setSound(on) {
  sound = on;
  soundButton.textContent = on ? "Turn sound off" : "Turn sound on";
  soundButton.classList.toggle("strong", !on);
  for (const { video } of shown.values()) {
    video.muted = !on;
    if (on) video.play().catch(() => {});
  }
}

function setStatistics(on) {
  statisticsButton.setAttribute("aria-pressed", String(on));
  for (const { figures } of shown.values()) figures.hidden = !on;
  clearInterval(statisticsTimer);
  if (!on) return;
  const statistics = new Statistics();
  const read = async () => {
    if (viewer.peer === null) return;
    const byMid = await statistics.read(viewer.peer);
    for (const tile of shown.values()) {
      tile.figures.textContent = tile.mids.flatMap((mid) => byMid.get(mid) ?? []).join("\n");
    }
  };
  read();
  statisticsTimer = setInterval(read, STATISTICS_MS);
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

soundButton.addEventListener("click", () => setSound(!sound));
statisticsButton.addEventListener("click", () => setStatistics(statisticsButton.getAttribute("aria-pressed") !== "true"));
addEventListener("pagehide", () => viewer.stop());
addEventListener("pageshow", ({ persisted }) => persisted && viewer.start()); // back from the browser's page cache
addEventListener("hashchange", () => location.reload()); // another token

title.textContent = call;
document.title = `${call} – watch`;
globalThis.viewer = viewer; // for the console and the tests
viewer.start();
