/* What a viewer's connection is like, in lines for people: differences between two getStats() reports, per media section (mid). */

export class Statistics {
  #before = new Map();

  /* Lines of text by mid, since the call before. */
  async read(peer) {
    const reports = [...(await peer.getStats()).values()];
    const pair = reports.find((report) => report.type === "candidate-pair" && report.nominated && report.state === "succeeded");
    const roundTrip = pair?.currentRoundTripTime;
    const byMid = new Map();
    const now = new Map();
    for (const report of reports.filter((each) => each.type === "inbound-rtp" && each.mid !== undefined)) {
      now.set(report.id, report);
      byMid.set(report.mid, lines(report, this.#before.get(report.id), roundTrip));
    }
    this.#before = now;
    return byMid;
  }
}

function lines(report, before, roundTrip) {
  const since = (name) => (report[name] ?? 0) - (before?.[name] ?? 0);
  const seconds = before ? (report.timestamp - before.timestamp) / 1000 : 0;
  const received = since("packetsReceived");
  const lost = Math.max(since("packetsLost"), 0);
  const emitted = since("jitterBufferEmittedCount");
  const bitrate = seconds > 0 ? `${Math.round((since("bytesReceived") * 8) / seconds / 1000)} kbit/s` : "– kbit/s";
  const loss = received + lost > 0 ? `${((100 * lost) / (received + lost)).toFixed(1)} %` : "–";
  const buffer = emitted > 0 ? `${Math.round((1000 * since("jitterBufferDelay")) / emitted)} ms` : "–";
  const flow = `${report.kind} ${bitrate}, loss ${loss}, buffer ${buffer}`;
  if (report.kind === "audio") return [flow];
  const size = report.frameWidth ? `${report.frameWidth} × ${report.frameHeight}` : "no picture yet";
  const rtt = roundTrip === undefined ? "–" : `${(roundTrip * 1000).toFixed(1)} ms`;
  return [
    `${size}, ${Math.round(report.framesPerSecond ?? 0)} fps`,
    flow,
    `rtt ${rtt}, dropped ${report.framesDropped ?? 0}, freezes ${report.freezeCount ?? 0}`,
  ];
}
