/* The watch page: a tile for each participant of the call named in the path. A token comes in the fragment, which no server ever sees. */

import { addressed, byId, showState } from "./elements.js";
import { Statistics } from "./statistics.js";
import { Tiles } from "./tiles.js";
import { Viewer } from "./whep.js";

const STATISTICS_MS = 1000;

const [title, label, notice, soundButton, statisticsButton] = byId("call", "state", "notice", "sound", "statistics");
const { call, token } = addressed();
const viewer = new Viewer(call, token);
const tiles = new Tiles(document.getElementById("tiles"));
let statisticsTimer = 0;

viewer.addEventListener("state", ({ detail }) => {
  showState(label, notice, detail);
  if (detail.state === "error") arrange([]);
});
viewer.addEventListener("slots", ({ detail }) => arrange(detail));

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
soundButton.addEventListener("click", () => setSound(!tiles.sound));
statisticsButton.addEventListener("click", () => setStatistics(statisticsButton.getAttribute("aria-pressed") !== "true"));
addEventListener("pagehide", () => viewer.stop());
addEventListener("pageshow", ({ persisted }) => persisted && viewer.start()); // back from the browser's page cache
addEventListener("hashchange", () => location.reload()); // another token

title.textContent = call;
document.title = `${call} – watch`;
globalThis.viewer = viewer; // for the console and the tests
viewer.start();
