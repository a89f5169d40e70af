/*
 * The camera or the screen, and the microphone, as chosen. Keeps at most one track of each kind; what is not used any more is let go at
 * once, so that no camera's light stays on.
 *
 * Events: "change" (the tracks are others), "ended" (detail: the kind; the device was taken out, or the sharing was stopped).
 */

const PICTURE = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
const SCREEN = { frameRate: { ideal: 30 } };
export const SCREEN_CHOICE = "screen";

const ERRORS = {
  NotAllowedError: "The browser was not allowed to use the camera, the microphone or the screen",
  NotFoundError: "There is no camera or microphone",
  NotReadableError: "The device is in use by another program",
  OverconstrainedError: "The device is not there any more",
};

/* What went wrong with a device, for people. */
export function inWords({ name, message }) {
  return ERRORS[name] ?? message;
}

export class Capture extends EventTarget {
  video = null;
  audio = null;

  /* Any camera and microphone: asked for together, so that people are asked once; alone if there are not both. */
  async open() {
    if (!navigator.mediaDevices) throw new Error("Cameras work on pages that were loaded over HTTPS only");
    const both = await navigator.mediaDevices.getUserMedia({ video: PICTURE, audio: true }).catch((error) => error);
    if (both instanceof MediaStream) {
      this.#take({ video: both.getVideoTracks()[0], audio: both.getAudioTracks()[0] });
      return;
    }
    if (both.name === "NotAllowedError") throw both;
    const alone = await Promise.allSettled([this.choosePicture(true), this.chooseSound(true)]);
    if (alone.every(({ status }) => status === "rejected")) throw both;
  }

  /* Devices with their names, as {kind: [[id, name], …]}; names are known after the first permission. */
  async devices() {
    const found = { videoinput: [], audioinput: [] };
    for (const { kind, deviceId, label } of (await navigator.mediaDevices?.enumerateDevices()) ?? []) {
      if (deviceId) found[kind]?.push([deviceId, label || `${kind} ${found[kind].length + 1}`]);
    }
    return { cameras: found.videoinput, microphones: found.audioinput };
  }

  /* A camera's id, SCREEN_CHOICE, true for any camera, "" for none. */
  async choosePicture(choice) {
    if (choice === SCREEN_CHOICE) {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: SCREEN, audio: false });
      const [video] = stream.getVideoTracks();
      video.contentHint = "detail"; // text stays sharp, and frames are given up first
      this.#take({ video });
    } else if (choice) {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { ...PICTURE, ...device(choice) } });
      this.#take({ video: stream.getVideoTracks()[0] });
    } else {
      this.#take({ video: null });
    }
  }

  /* A microphone's id, true for any, "" for none. */
  async chooseSound(choice) {
    const stream = choice ? await navigator.mediaDevices.getUserMedia({ audio: device(choice) }) : null;
    this.#take({ audio: stream?.getAudioTracks()[0] ?? null });
  }

  #take(tracks) {
    for (const [kind, track] of Object.entries(tracks)) {
      const before = this[kind];
      this[kind] = track;
      before?.stop();
      if (track !== null && before?.enabled === false) track.enabled = false; // muted is muted, whatever the device
      track?.addEventListener("ended", () => this[kind] === track && this.#ended(kind));
    }
    this.dispatchEvent(new Event("change"));
  }

  #ended(kind) {
    this.#take({ [kind]: null });
    this.dispatchEvent(new CustomEvent("ended", { detail: kind }));
  }
}

function device(choice) {
  return choice === true ? {} : { deviceId: { exact: choice } };
}
