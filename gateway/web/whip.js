/*
 * Publishing into one call by WHIP: one picture, one sound, comes back by itself when it breaks off.
 *
 * Events: "state" as a Lasting connection tells it.
 */

import { Connection, Lasting } from "./connection.js";

// As a share of the full size, with the bit/s for each: what a call of this gateway takes of a picture of about 1280 x 720.
const LAYERS = [
  { rid: "h", scaleResolutionDownBy: 1, maxBitrate: 2_500_000 },
  { rid: "m", scaleResolutionDownBy: 2, maxBitrate: 700_000 },
  { rid: "l", scaleResolutionDownBy: 4, maxBitrate: 200_000 },
];
// The gateway passes H.264 through untouched; the others are decoded and encoded once more.
const PREFERRED = "h264";
const START = "x-google-start-bitrate=1500"; // kbit/s
const REQUEST_MS = 5_000;
const OFFERED = ["h264", "vp8", "vp9", "av1"];

export class Publisher extends Lasting {
  #call;
  #token;
  #user;
  #media = { video: null, audio: null, codec: "", simulcast: false };

  /* `user` is whom the token names. */
  constructor(call, token, user) {
    const address = new URL(`/whip/${encodeURIComponent(call)}`, location.href);
    super(() => new Sending(address, token, this.#media), ["live", "Live"]);
    this.#call = call;
    this.#token = token;
    this.#user = user;
  }

  /* Codecs that this browser can publish, as in MIME types, the best first. */
  static codecs() {
    const known = new Set(capabilities().map(name));
    return OFFERED.filter((codec) => known.has(codec));
  }

  /* What to publish: tracks or null, the codec of the picture or "" for the best, several sizes or one. A running stream takes new
     tracks as it is, and starts anew for all else. */
  set media(media) {
    const before = this.#media;
    this.#media = media;
    const same = media.codec === before.codec && media.simulcast === before.simulcast;
    if (this.connection !== null && !(same && this.connection.replace(media))) this.again();
  }

  /* Whether the gateway still has it, where it might have been restarted: if not it goes live again, at once. */
  async check() {
    const connection = this.connection;
    const stood = ["connected", "disconnected"].includes(this.peer?.connectionState);
    if (!stood || (await streamOf(this.#call, this.#user, this.#token))?.state === "live") return;
    if (connection === this.connection) this.again();
  }

  /* Not while another page or encoder publishes with the same key: the two would take the place from each other for ever. */
  async retry(dismissed) {
    if (dismissed && (await streamOf(this.#call, this.#user, this.#token))?.state === "live") this.fail("You went live from another place: this one has ended");
    else await super.retry(dismissed);
  }
}

/* The stream of this user in the call as the gateway shows it; undefined, where there is none or the gateway does not say. */
export async function streamOf(call, user, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {}; // of a call in backstage only its hosts are told
  try {
    const response = await fetch(`/api/streams?call=${encodeURIComponent(call)}`, { headers, signal: AbortSignal.timeout(REQUEST_MS) });
    const { streams } = await response.json();
    return streams.find((stream) => stream.call === call && stream.user === user);
  } catch {
    return undefined;
  }
}

class Sending extends Connection {
  #senders = {};

  constructor(address, token, { video, audio, codec, simulcast }) {
    super(address, token);
    const streams = [new MediaStream([video, audio].filter(Boolean))];
    if (audio !== null) this.#senders.audio = this.peer.addTransceiver(audio, { direction: "sendonly", streams }).sender;
    if (video === null) return;
    const layers = simulcast ? LAYERS : [{ maxBitrate: LAYERS[0].maxBitrate }];
    // VP9 and AV1: several streams, and not one with layers inside (W3C webrtc-svc §5.2).
    const sendEncodings = layers.map((layer) => (["vp9", "av1"].includes(codec) ? { ...layer, scalabilityMode: "L1T1" } : layer));
    const transceiver = this.peer.addTransceiver(video, { direction: "sendonly", streams, sendEncodings });
    transceiver.setCodecPreferences?.(codec ? only(codec) : preferred(PREFERRED));
    this.#senders.video = transceiver.sender;
  }

  /* Lost sound is sent again too, which browsers do if they are told so, and do not offer. */
  offering(sdp) {
    return sdp.replace(/(a=rtpmap:(\d+) opus\/48000\/2\r\n)/i, "$1a=rtcp-fb:$2 nack\r\n");
  }

  /* Chromium begins with 300 kbit/s, and a picture scaled down for that grows only over 20 s; it knows this parameter, others pass over it. */
  answered(sdp) {
    return sdp.replaceAll(/^(a=rtpmap:(\d+) (?:H264|VP8|VP9|AV1)\/90000\r\n)(a=fmtp:\2 [^\r]*)?/gim, (_, map, type, fmtp) =>
      fmtp ? `${map}${fmtp};${START}` : `${map}a=fmtp:${type} ${START}\r\n`,
    );
  }

  /* Whether these tracks can take the place of those that are sent, and do. */
  replace({ video, audio }) {
    const tracks = Object.entries({ video, audio });
    if (tracks.some(([kind, track]) => (track === null) !== (this.#senders[kind] === undefined))) return false;
    for (const [kind, track] of tracks) this.#senders[kind]?.replaceTrack(track).catch(() => {});
    return true;
  }
}

function capabilities() {
  return RTCRtpSender.getCapabilities?.("video")?.codecs ?? [];
}

function name({ mimeType }) {
  return mimeType.toLowerCase().replace("video/", "");
}

/* This codec with what repairs it. */
function only(codec) {
  return preferred(codec).filter((each) => !OFFERED.includes(name(each)) || name(each) === codec);
}

/* All that the browser has, this codec first. */
function preferred(codec) {
  const rank = (each) => (name(each) !== codec ? 2 : codec === "h264" && !/packetization-mode=1/.test(each.sdpFmtpLine) ? 1 : 0);
  return capabilities().toSorted((one, other) => rank(one) - rank(other));
}
