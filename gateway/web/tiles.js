/* The participants of a call, a tile for each: its picture and sound, its name, its figures, full screen. */

import { make } from "./elements.js";

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

  set figures(on) {
    this.#figures = on;
    for (const { figures } of this.#shown.values()) figures.hidden = !on;
  }

  /* Show the participants of these slots, and no others. */
  arrange(slots) {
    const present = new Set(slots.map((slot) => slot.participant));
    for (const [participant, tile] of this.#shown) {
      if (present.has(participant)) continue;
      tile.video.srcObject = null;
      tile.element.remove();
      this.#shown.delete(participant);
    }
    for (const slot of slots) {
      if (!this.#shown.has(slot.participant)) {
        const tile = new Tile(() => this.#mute());
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
      tile.figures.textContent = tile.mids.flatMap((mid) => byMid.get(mid) ?? []).join("\n");
    }
  }

  #mute() {
    this.sound = false;
    this.onMuted();
  }
}

class Tile {
  #blocked;

  constructor(blocked) {
    this.#blocked = blocked;
    this.element = make("figure", "tile");
    this.element.setAttribute("role", "listitem");
    this.video = make("video");
    this.video.autoplay = this.video.playsInline = true;
    this.soundOnly = make("div", "sound-only", "Sound only");
    this.name = make("figcaption", "name");
    this.figures = make("pre");
    this.fullscreen = make("button");
    this.fullscreen.type = "button";
    const icon = make("img");
    icon.src = "/web/fullscreen.svg";
    icon.alt = ""; // the button has a label
    this.fullscreen.append(icon);
    this.fullscreen.addEventListener("click", () => this.#toggleFullscreen());
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
      this.video.play().catch(({ name }) => name === "NotAllowedError" && this.#muted()); // there may be no sound before a click
    }
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
