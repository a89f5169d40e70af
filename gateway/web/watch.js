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

/* What the connection is like, and what became of those who are shown over it, which is told before anything is seen of it. */

const away = new Set(); // users whose encoders are silent or gone
let shown = { state: "idle", text: "" };
let over = false; // whoever was shown has left, and nobody has come since

function tellState() {
  if (shown.state === "live" && away.size > 0) showState(label, notice, { state: "slate", text: "The host is reconnecting" });
  else if (shown.state === "waiting" && over) showState(label, notice, { state: "waiting", text: "The show has ended" });
  else showState(label, notice, shown);
}

viewer.addEventListener("state", ({ detail }) => {
  shown = detail;
  if (detail.state === "live") over = false;
  tellState();
  if (detail.state === "error") arrange([]);
});
viewer.addEventListener("slots", ({ detail }) => arrange(detail));

function tellFallback(state, text) {
  shown = { state, text };
  tellState();
  if (state === "live") label.textContent = text;
}

const fallback = (text) => {
  tellFallback("live", text);
  arrange([{ participant: "", name: call, tracks: [], video: true, audio: true }]);
  return document.querySelector("#tiles video");
};
new Fallback(call, token, viewer, fallback, tellFallback);

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
events.addEventListener("allowed", () => {
  away.clear(); // what was told while this page did not listen is not known
  tellState();
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
  } else if (type === "ingress.stalled" || type === "ingress.slate") {
    away.add(payload.user_id);
    tellState();
  } else if (type === "ingress.resumed") {
    away.delete(payload.user_id);
    tellState();
  } else if (type === "call.session_participant_left") {
    away.delete(payload.participant.user_id);
    over = true;
    tellState();
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
