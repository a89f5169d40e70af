/* The participants of a call, a tile for each: its picture and sound, its name, whether it is muted, its figures, full screen. */

import { CODECS, make } from "./elements.js";

const RESIZED_MS = 250; // a window that is being dragged has many sizes

export class Tiles {
  #element;
  #shown = new Map(); // participant -> Tile
  #sound = false;
  #figures = false;

  constructor(element) {
    this.#element = element;
  }

  get size() {
    return this.#shown.size;
  }

  get sound() {
    return this.#sound;
  }

  /* Sound for all or for none; `onMuted` is called when the browser allows none before a click. */
  set sound(on) {
    this.#sound = on;
    for (const { video } of this.#shown.values()) {
      video.muted = !on;
      if (on) video.play().catch(() => {});
    }
  }

  onMuted = () => {};

  /* Told how large a picture is shown, in pixels of the screen: the mid of its media section, width, height. */
  onSize = () => {};

  set figures(on) {
    this.#figures = on;
    for (const { figures } of this.#shown.values()) figures.hidden = !on;
  }

  /* Show the participants of these slots, and no others. */
  arrange(slots) {
    const present = new Set(slots.map((slot) => slot.participant));
    for (const [participant, tile] of this.#shown) {
      if (present.has(participant)) continue;
      tile.remove();
      this.#shown.delete(participant);
    }
    for (const slot of slots) {
      if (!this.#shown.has(slot.participant)) {
        const tile = new Tile(() => this.#mute(), (...size) => this.onSize(...size));
        tile.video.muted = !this.#sound;
        tile.figures.hidden = !this.#figures;
        this.#shown.set(slot.participant, tile);
        this.#element.append(tile.element);
      }
      this.#shown.get(slot.participant).show(slot);
    }
    this.#element.style.setProperty("--columns", Math.ceil(Math.sqrt(this.size || 1)));
    this.#element.classList.toggle("many", this.size > 4);
  }

  /* Lines of text by mid, as `Statistics.read` gives them. */
  tellFigures(byMid) {
    for (const tile of this.#shown.values()) {
      tile.figures.textContent = [...tile.mids.flatMap((mid) => byMid.get(mid) ?? []), ...tile.layer].join("\n");
    }
  }

  #mute() {
    this.sound = false;
    this.onMuted();
  }
}

class Tile {
  #blocked;
  #sized;
  #size = [0, 0];
  #sizing = 0;
  #observer = new ResizeObserver(([entry]) => this.#resized(entry));

  constructor(blocked, sized) {
    this.#blocked = blocked;
    this.#sized = sized;
    this.element = make("figure", "tile");
    this.element.setAttribute("role", "listitem");
    this.video = make("video");
    this.video.autoplay = this.video.playsInline = true;
    this.noPicture = make("div", "no-picture");
    this.name = make("figcaption", "name");
    this.muted = make("span", "muted");
    this.figures = make("pre");
    this.fullscreen = make("button");
    this.fullscreen.type = "button";
    const icon = make("img");
    icon.src = "/web/fullscreen.svg";
    icon.alt = ""; // the button has a label
    this.fullscreen.append(icon);
    this.fullscreen.addEventListener("click", () => this.#toggleFullscreen());
    this.element.append(this.video, this.noPicture, this.name, this.muted, this.figures, this.fullscreen);
    this.#observer.observe(this.video);
  }

  remove() {
    this.#observer.disconnect();
    clearTimeout(this.#sizing);
    this.video.srcObject = null;
    this.element.remove();
  }

  show(slot) {
    this.mids = [slot.video && slot.video_mid, slot.audio && slot.audio_mid].filter((mid) => typeof mid === "string");
    this.layer = slot.layer ? [`layer ${slot.layer}: ${slot.width} × ${slot.height}`] : [];
    if (this.videoMid !== slot.video_mid) {
      this.videoMid = slot.video_mid;
      this.#tellSize();
    }
    this.name.textContent = slot.name;
    this.video.setAttribute("aria-label", `Video of ${slot.name}`);
    this.fullscreen.setAttribute("aria-label", `${slot.name} in full screen`);
    this.noPicture.hidden = slot.video && !slot.muted_video; // over the last picture before it was muted
    this.noPicture.textContent = withoutPicture(slot);
    this.muted.hidden = !slot.muted_audio;
    this.muted.textContent = slot.muted_video ? "Muted" : "Sound muted";
    const playing = this.video.srcObject?.getTracks() ?? [];
    if (playing.length !== slot.tracks.length || !slot.tracks.every((track) => playing.includes(track))) {
      this.video.srcObject = new MediaStream(slot.tracks);
      this.video.play().catch(({ name }) => name === "NotAllowedError" && this.#muted()); // there may be no sound before a click
    }
  }

  #resized({ contentRect }) {
    this.#size = [contentRect.width, contentRect.height].map((length) => Math.round(length * devicePixelRatio));
    clearTimeout(this.#sizing);
    this.#sizing = setTimeout(() => this.#tellSize(), RESIZED_MS);
  }

  #tellSize() {
    const [width, height] = this.#size;
    if (typeof this.videoMid === "string" && width > 0 && height > 0) this.#sized(this.videoMid, width, height);
  }

  #muted() {
    this.#blocked();
    this.video.play().catch(() => {});
  }

  #toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.element.requestFullscreen) this.element.requestFullscreen().catch(() => {});
    else this.video.webkitEnterFullscreen?.(); // iPhone: only a video element has a full screen
  }
}

/* Why a tile shows no picture. */
function withoutPicture({ muted_video, unplayable }) {
  if (muted_video) return "Picture muted";
  return unplayable ? `This browser cannot show ${CODECS[unplayable]}.` : "Sound only";
}
