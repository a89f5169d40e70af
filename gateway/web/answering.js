/*
 * Waits for a gateway that does not answer: it is being restarted, or the network is away.
 *
 * Kept true: who waits is back within a second of the gateway's return, and a thousand who wait do not come back in the same moment: each
 * asks at times of its own, by the smallest request that there is. After some minutes they ask less often.
 */

export const SILENT = "The gateway does not answer – waiting for it…";

const PROBE = "/livez"; // answered even where all places are taken
const PROBE_MS = 2_000;
const OFTEN_MS = 600; // at most; half of it at least
const SELDOM_MS = 5_000;
const OFTEN_FOR_MS = 180_000;
const BEHIND_A_PROXY = new Set([502, 503, 504]); // as a proxy says that the gateway is away

/* True once the gateway answers, false if `signal` says that nobody waits any more. `onSilent` is called once if it does not answer at once. */
export async function answering(signal, onSilent = () => {}) {
  const since = performance.now();
  for (let told = false; !signal.aborted; told = true) {
    if (await answers(signal)) return !signal.aborted;
    if (signal.aborted) return false;
    if (!told) onSilent();
    const most = performance.now() - since < OFTEN_FOR_MS ? OFTEN_MS : SELDOM_MS;
    await sleep(most * (0.5 + Math.random() / 2), signal);
  }
  return false;
}

async function answers(signal) {
  const over = AbortSignal.timeout(PROBE_MS);
  const asking = new AbortController();
  for (const each of [signal, over]) each.addEventListener("abort", () => asking.abort(), { once: true, signal: asking.signal });
  try {
    const { status } = await fetch(PROBE, { cache: "no-store", signal: asking.signal });
    return !BEHIND_A_PROXY.has(status);
  } catch {
    return false;
  } finally {
    asking.abort();
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
