/* The watch page: a tile for each participant of the call named in the path. A token comes in the fragment, which no server ever sees. */

import { Chat } from "./chat.js";
import { addressed, byId, showState } from "./elements.js";
import { Events } from "./events.js";
import { Fallback } from "./hls.js";
import { Statistics } from "./statistics.js";
import { Tiles } from "./tiles.js";
import { Viewer } from "./whep.js";

const STATISTICS_MS = 1000;

const [title, label, notice, soundButton, statisticsButton] = byId("call", "state", "notice", "sound", "statistics");
const [viewers] = byId("viewers");
const { call, token } = addressed();
const viewer = new Viewer(call, token);
const tiles = new Tiles(document.getElementById("tiles"));
let statisticsTimer = 0;

viewer.addEventListener("state", ({ detail }) => {
  showState(label, notice, detail);
  if (detail.state === "error") arrange([]);
});
viewer.addEventListener("slots", ({ detail }) => arrange(detail));

new Fallback(call, token, viewer, (text) => {
  showState(label, notice, { state: "live", text });
  label.textContent = text;
  arrange([{ participant: "", name: call, tracks: [], video: true, audio: true }]);
  return document.querySelector("#tiles video");
});

/* What is said and what happens in the call */

const events = new Events(call, token);
new Chat(events);
let watching = ""; // the viewer's state
let opened = false; // the call has been, since the viewer began to try: a refusal that comes now is of before
viewer.addEventListener("state", ({ detail: { state } }) => {
  if (state === "live" && watching !== state) events.subscribe(); // one may do more in a call that is live
  watching = state;
  if (state === "connecting") opened = false;
  else if (state === "error" && opened) viewer.start();
});
events.addEventListener("allowed", ({ detail: { capabilities } }) => capabilities.has("join-call") && open());

function open() {
  opened = true;
  if (watching === "error") viewer.start(); // it was in backstage
}

events.addEventListener("told", ({ detail: { type, payload } }) => {
  if (type === "call.viewers_changed") {
    viewers.textContent = `${payload.viewers} watching`;
    viewers.hidden = false;
  } else if (type === "call.live_started" || type === "call.live_ended") {
    events.subscribe();
    if (type === "call.live_started") open();
  }
});

function arrange(slots) {
  tiles.arrange(slots);
  soundButton.hidden = tiles.size === 0;
}

function setSound(on) {
  tiles.sound = on;
  soundButton.textContent = on ? "Turn sound off" : "Turn sound on";
  soundButton.classList.toggle("strong", !on);
}

function setStatistics(on) {
  statisticsButton.setAttribute("aria-pressed", String(on));
  tiles.figures = on;
  clearInterval(statisticsTimer);
  if (!on) return;
  const statistics = new Statistics();
  const read = async () => viewer.peer !== null && tiles.tellFigures(await statistics.read(viewer.peer));
  read();
  statisticsTimer = setInterval(read, STATISTICS_MS);
}

tiles.onMuted = () => setSound(false);
tiles.onSize = (...size) => viewer.fit(...size);
soundButton.addEventListener("click", () => setSound(!tiles.sound));
statisticsButton.addEventListener("click", () => setStatistics(statisticsButton.getAttribute("aria-pressed") !== "true"));
addEventListener("pagehide", () => [viewer, events].forEach((each) => each.stop()));
addEventListener("pageshow", ({ persisted }) => persisted && [viewer, events].forEach((each) => each.start())); // from the page cache
addEventListener("hashchange", () => location.reload()); // another token

title.textContent = call;
document.title = `${call} – watch`;
Object.assign(globalThis, { viewer, events }); // for the console and the tests
viewer.start();
events.start();
