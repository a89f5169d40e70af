/* Small things of the pages of one call: elements, the call and the token in the address, the state in words. */

const STATES = {
  idle: "Off air",
  connecting: "Connecting",
  waiting: "Waiting",
  live: "Live",
  reconnecting: "Reconnecting",
  stalled: "Reconnecting",
  slate: "Reconnecting",
  error: "Not available",
};

/* Codecs as people write them. */
export const CODECS = { h264: "H.264", hevc: "HEVC", av1: "AV1", vp8: "VP8", vp9: "VP9", opus: "Opus", aac: "AAC", mp3: "MP3", mp2: "MP2", ac3: "AC-3", eac3: "E-AC-3", flac: "FLAC" };

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

export function byId(...ids) {
  return ids.map((id) => document.getElementById(id));
}

/* The call in the path, and the token in the fragment, which no server ever sees. */
export function addressed() {
  const call = decodeURIComponent(location.pathname.replace(/^\/\w+\//, ""));
  return { call, token: new URLSearchParams(location.hash.slice(1)).get("token") ?? "" };
}

/* The user that a token names (a JSON Web Token, RFC 7519), for display only: it proves nothing. */
export function userOf(token) {
  try {
    return String(JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).user_id ?? "");
  } catch {
    return "";
  }
}

export function showState(label, notice, { state, text }) {
  if (label.dataset.state !== state) label.textContent = STATES[state];
  label.dataset.state = state;
  notice.textContent = text;
  notice.hidden = state === "live" || !text;
  notice.classList.toggle("error", state === "error");
}
