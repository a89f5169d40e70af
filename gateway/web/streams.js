/*
 * The page of live streams: asks `/api/streams` every two seconds and changes only what changed, so that focus and selection stay. Shown are
 * streams of calls that anybody may watch, and with `#token=…` in the address those that its bearer may.
 */

import { CODECS, addressed } from "./elements.js";

const EVERY_MS = 2000;
const TREATMENTS = { passthrough: "passed through", transcode: "transcoded", refuse: "left out" };
const ROLES = { primary: "Primary", backup: "Backup" };
const STATES = { standby: "stands by", silent: "stands by, sends nothing" };

const { token } = addressed();
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const [list, count, empty, publicCalls] = ["streams", "count", "empty", "public"].map((id) => document.getElementById(id));
const cards = new Map(); // stream id -> Card

class Card {
  constructor(stream) {
    this.element = make("article", "stream");
    this.heading = make("h2");
    this.heading.id = `stream-${stream.id}`;
    this.element.setAttribute("aria-labelledby", this.heading.id);
    this.state = make("span", "state");
    this.watch = make("a", "watch", "Watch");
    this.facts = make("dl");
    this.warnings = make("ul");
    const head = make("header");
    head.append(this.heading, this.state, this.watch);
    this.element.append(head, this.facts, this.warnings);
  }

  show(stream) {
    set(this.heading, `${stream.call} – ${stream.user}`);
    set(this.state, stream.state);
    this.state.dataset.state = stream.state.toLowerCase();
    this.watch.href = `/watch/${encodeURIComponent(stream.call)}${location.hash}`;
    this.watch.setAttribute("aria-label", `Watch ${stream.call}`);
    table(this.facts, [
      ["Source", [stream.protocol.toUpperCase(), stream.software].filter(Boolean).join(", ")],
      ["Live for", duration(Date.now() - Date.parse(stream.started_at))],
      ["Bitrate", bitrate(stream.bitrate_bps)],
      ["Viewers", String(stream.viewers)],
      ...(stream.role === "backup" || stream.standbys.length > 0 ? [[ROLES[stream.role], "live"]] : []),
      ...stream.standbys.map(standby),
      ...(stream.link ? network(stream) : []),
      ...stream.tracks.flatMap(rows),
    ]);
    const beside = stream.standbys.flatMap((input) => input.warnings);
    bullets(this.warnings, [...new Set([...stream.tracks.map((track) => track.advice), ...stream.warnings, ...beside])].filter(Boolean));
  }
}

/** An encoder that stands by for the live one. */
function standby(input) {
  const facts = [input.protocol.toUpperCase(), input.software, bitrate(input.bitrate_bps)].filter(Boolean).join(", ");
  return [ROLES[input.role], `${STATES[input.state] ?? input.state}: ${facts}`];
}

/** What SRT knows of the way from the encoder. */
function network(stream) {
  const link = stream.link;
  const lost = link.packets_received ? (100 * link.packets_lost) / (link.packets_received + link.packets_dropped) : 0;
  const packets = `${link.packets_lost} lost (${lost.toFixed(1)} %), ${link.packets_retransmitted} sent again, ${link.packets_dropped} given up`;
  return [
    ["Round trip", milliseconds(stream.round_trip_ms)],
    ["SRT latency", milliseconds(link.latency_ms)],
    ["Packets", packets],
  ];
}

function rows(track) {
  const name = track.kind === "video" ? "Video" : "Audio";
  const size = track.width ? `${track.width} × ${track.height}` : "";
  const rate = track.kind === "video" ? track.frame_rate && `${Math.round(track.frame_rate)} fps` : track.sample_rate && `${track.sample_rate / 1000} kHz`;
  const channels = track.channels && (["", "mono", "stereo"][track.channels] ?? `${track.channels} channels`);
  const delay = typeof track.delay_ms_p50 === "number" ? `${milliseconds(track.delay_ms_p50)} (95 %: ${milliseconds(track.delay_ms_p95)})` : "–";
  return [
    [name, [CODECS[track.codec] ?? track.codec, size, rate, channels].filter(Boolean).join(", ")],
    ["", `${TREATMENTS[track.mode] ?? track.mode}: ${track.why}`],
    ["Delay", delay],
  ];
}

async function refresh() {
  if (!document.hidden) {
    try {
      const response = await fetch("/api/streams", { headers, signal: AbortSignal.timeout(5000) });
      if (response.status === 401) {
        set(count, "The token in this page's address is not valid: ask for another link");
        return;
      }
      if (!response.ok) throw new Error(`status ${response.status}`);
      const { streams, next } = await response.json();
      show(streams, Boolean(next));
    } catch {
      set(count, "The gateway does not answer – trying again");
    }
  }
  setTimeout(refresh, EVERY_MS);
}

function show(streams, more) {
  const present = new Set(streams.map((stream) => stream.id));
  for (const [id, card] of cards) {
    if (present.has(id)) continue;
    card.element.remove();
    cards.delete(id);
  }
  for (const stream of streams) {
    if (!cards.has(stream.id)) {
      cards.set(stream.id, new Card(stream));
      list.append(cards.get(stream.id).element);
    }
    cards.get(stream.id).show(stream);
  }
  empty.hidden = streams.length > 0;
  const shown = streams.length === 1 ? "1 stream" : `${streams.length} streams`;
  set(count, more ? `${shown}, and more that this page does not show` : shown);
}

function table(element, pairs) {
  const texts = pairs.flat();
  while (element.children.length > texts.length) element.lastElementChild.remove();
  texts.forEach((text, index) => {
    const cell = element.children[index] ?? element.appendChild(make(index % 2 === 0 ? "dt" : "dd"));
    set(cell, text);
  });
}

function bullets(element, texts) {
  while (element.children.length > texts.length) element.lastElementChild.remove();
  texts.forEach((text, index) => set(element.children[index] ?? element.appendChild(make("li")), text));
  element.hidden = texts.length === 0;
}

function bitrate(bitsPerSecond) {
  return bitsPerSecond >= 1e6 ? `${(bitsPerSecond / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

function milliseconds(value) {
  return typeof value === "number" ? `${value < 10 ? value.toFixed(1) : Math.round(value)} ms` : "–";
}

function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function showPublicCalls() {
  const calls = (document.documentElement.dataset.publicCalls ?? "").split(" ").filter(Boolean);
  publicCalls.append(...calls.flatMap((call) => {
    const link = make("a", "", `Watch ${call}`);
    link.href = `/watch/${encodeURIComponent(call)}`;
    return [link, " "];
  }));
}

showPublicCalls();
refresh();
