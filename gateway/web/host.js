/* The host page: publishes a camera or the screen and a microphone into the call named in the path, and shows who else is in it. */

import { Capture, SCREEN_CHOICE, inWords } from "./capture.js";
import { addressed, byId, make, showState, userOf } from "./elements.js";
import { LevelMeter } from "./meter.js";
import { Statistics } from "./statistics.js";
import { Tiles } from "./tiles.js";
import { Viewer } from "./whep.js";
import { Publisher, streamOf } from "./whip.js";

const STATISTICS_MS = 1000;
const ADVICE_MS = 3000;
const CODECS = { h264: "H.264", vp8: "VP8", vp9: "VP9", av1: "AV1" };
const ENDED = { video: "The picture has ended: choose another", audio: "The microphone has gone: choose another" };

const [title, label, notice, live, microphone, preview, none] = byId("call", "state", "notice", "live", "microphone", "preview", "none");
const [pictures, sounds, codecs, simulcast, figures] = byId("picture", "sound", "codec", "simulcast", "figures");
const [others, othersSound, watch, advice] = byId("others", "others-sound", "watch", "advice");
const { call, token } = addressed();
const capture = new Capture();
const user = userOf(token);
const publisher = new Publisher(call, token, user);
const viewer = new Viewer(call, token, user);
const tiles = new Tiles(document.getElementById("tiles"));
const meter = new LevelMeter(document.getElementById("level"));
let onAir = false;
let statistics = new Statistics();

/* Publishing */

function goLive(on) {
  onAir = on;
  live.textContent = on ? "Stop" : "Go live";
  live.classList.toggle("strong", !on);
  if (!on) publisher.stop();
  else publisher.start();
}

publisher.addEventListener("state", ({ detail }) => {
  showState(label, notice, detail);
  statistics = new Statistics();
  if (detail.state === "live" && !watch.hash) linkWatching(); // publishing may have made the call
  if (detail.state === "error") goLive(false), showState(label, notice, detail);
});

function publish() {
  publisher.media = { video: capture.video, audio: capture.audio, codec: codecs.value, simulcast: simulcast.checked };
  live.disabled = capture.video === null && capture.audio === null;
  if (onAir && live.disabled) goLive(false);
}

/* Choosing */

capture.addEventListener("change", () => {
  preview.srcObject = capture.video && new MediaStream([capture.video]);
  none.hidden = capture.video !== null;
  microphone.disabled = capture.audio === null;
  meter.listen(capture.audio);
  publish();
  offerDevices();
});
capture.addEventListener("ended", ({ detail }) => tell(ENDED[detail]));

async function offerDevices() {
  const { cameras, microphones } = await capture.devices();
  const used = (track) => track?.getSettings().deviceId ?? "";
  const picture = capture.video?.contentHint === "detail" ? SCREEN_CHOICE : used(capture.video);
  const screen = navigator.mediaDevices?.getDisplayMedia ? [[SCREEN_CHOICE, "Screen or window"]] : [];
  offer(pictures, [...cameras, ...screen, ["", "None"]], picture);
  offer(sounds, [...microphones, ["", "None"]], used(capture.audio));
}

function offer(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => Object.assign(make("option", "", text), { value })));
  select.value = chosen;
}

async function choose(changing) {
  try {
    await changing;
    if (!onAir) tell("");
  } catch (error) {
    tell(inWords(error), true);
    offerDevices(); // the selection shows what is in use
  }
}

function tell(text, error = false) {
  notice.textContent = text;
  notice.hidden = !text;
  notice.classList.toggle("error", error);
}

function mute(on) {
  if (capture.audio !== null) capture.audio.enabled = !on;
  microphone.setAttribute("aria-pressed", String(on));
  microphone.textContent = on ? "Muted" : "Mute";
}

live.addEventListener("click", () => goLive(!onAir));
microphone.addEventListener("click", () => mute(microphone.getAttribute("aria-pressed") !== "true"));
pictures.addEventListener("change", () => choose(capture.choosePicture(pictures.value)));
sounds.addEventListener("change", () => choose(capture.chooseSound(sounds.value)));
for (const each of [codecs, simulcast]) each.addEventListener("change", publish);
navigator.mediaDevices?.addEventListener("devicechange", offerDevices);

viewer.addEventListener("restarted", () => onAir && publisher.check()); // who sends would notice only in many seconds

/* The others */

viewer.addEventListener("slots", ({ detail }) => arrange(detail));
viewer.addEventListener("state", ({ detail }) => ["error", "idle"].includes(detail.state) && arrange([]));

function arrange(slots) {
  tiles.arrange(slots);
  others.hidden = slots.length === 0;
}

function setSound(on) {
  tiles.sound = on;
  othersSound.textContent = on ? "Turn sound off" : "Turn sound on";
  othersSound.classList.toggle("strong", !on);
}

tiles.onMuted = () => setSound(false);
tiles.onSize = (...size) => viewer.fit(...size);
othersSound.addEventListener("click", () => setSound(!tiles.sound));

/* The page */

/* The link is handed on: it gets a token of its own, that watches and cannot publish; none where the call is not there yet. */
async function linkWatching() {
  const page = `/watch/${encodeURIComponent(call)}`;
  watch.href = page;
  if (!token) return;
  const made = `/api/v2/video/call/${call.split(":").map(encodeURIComponent).join("/")}/watch_token`;
  try {
    const response = await fetch(made, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    if (response.ok) watch.href = `${page}#token=${(await response.json()).token}`;
  } catch {
    // the gateway is away: the link opens the page all the same
  }
}

async function readStatistics() {
  const peer = publisher.peer;
  const rows = peer?.connectionState === "connected" ? await statistics.readSending(peer) : [];
  figures.replaceChildren(...rows.flatMap(([name, text]) => [make("dt", "", name), make("dd", "", text)]));
}

/* What the gateway says is not well with what it gets, and which setting helps: also while viewers are shown a slate instead. */
async function readAdvice() {
  const stream = onAir ? await streamOf(call, user, token) : undefined;
  const texts = onAir ? (stream?.warnings ?? []) : [];
  if (texts.join() !== [...advice.children].map((each) => each.textContent).join()) advice.replaceChildren(...texts.map((text) => make("li", "", text)));
  advice.hidden = texts.length === 0;
}

addEventListener("pagehide", () => [publisher, viewer].forEach((each) => each.stop()));
addEventListener("pageshow", ({ persisted }) => persisted && location.reload()); // back from the browser's page cache
addEventListener("hashchange", () => location.reload()); // another token

title.textContent = call;
document.title = `${call} – host`;
linkWatching();
offer(codecs, [["", "Automatic"], ...Publisher.codecs().map((codec) => [codec, CODECS[codec]])], "");
Object.assign(globalThis, { publisher, viewer }); // for the console and the tests
setInterval(readStatistics, STATISTICS_MS);
setInterval(readAdvice, ADVICE_MS);
publish();
viewer.start();
choose(capture.open());
