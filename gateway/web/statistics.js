/* What a connection is like, for people: differences between two getStats() reports of it. */

export class Statistics {
  #before = new Map();

  /* A viewer's lines of text by media section (mid), since the call before. */
  async read(peer) {
    const { reports, since, roundTrip } = await this.#look(peer);
    const byMid = new Map();
    for (const report of reports.filter((each) => each.type === "inbound-rtp" && each.mid !== undefined)) {
      const codec = reports.find(({ id }) => id === report.codecId)?.mimeType.split("/")[1] ?? "";
      byMid.set(report.mid, lines(report, codec, since(report), roundTrip));
    }
    return byMid;
  }

  /* A publisher's figures since the call before, as [name, text] pairs. */
  async readSending(peer) {
    const { reports, since, roundTrip } = await this.#look(peer);
    const sent = reports.filter((each) => each.type === "outbound-rtp");
    const heard = reports.filter((each) => each.type === "remote-inbound-rtp");
    const packets = sent.reduce((sum, report) => sum + since(report).count("packetsSent"), 0);
    const lost = heard.reduce((sum, report) => sum + Math.max(since(report).count("packetsLost"), 0), 0);
    const limits = new Set(sent.map((report) => LIMITS[report.qualityLimitationReason]).filter(Boolean));
    return [
      ...sent.filter(({ kind }) => kind === "video").sort((one, other) => (other.frameHeight ?? 0) - (one.frameHeight ?? 0)).map((report) => {
        const size = report.frameWidth ? `${report.frameWidth} × ${report.frameHeight}, ${Math.round(report.framesPerSecond ?? 0)} fps` : "not sent";
        return ["Picture", report.frameWidth ? `${size}, ${since(report).bitrate("bytesSent")}` : size];
      }),
      ...sent.filter(({ kind }) => kind === "audio").map((report) => ["Sound", since(report).bitrate("bytesSent")]),
      ["Loss", percentage(lost, packets)],
      ["Round trip", milliseconds(roundTrip)],
      ...[...limits].map((limit) => ["Held back by", limit]),
    ];
  }

  async #look(peer) {
    const stats = await peer.getStats();
    const reports = [...stats.values()];
    const before = this.#before;
    this.#before = new Map(reports.map((report) => [report.id, report]));
    const pair = reports.find((report) => report.type === "candidate-pair" && report.nominated && report.state === "succeeded");
    return { reports, roundTrip: pair?.currentRoundTripTime, since: (report) => new Since(report, before.get(report.id)) };
  }
}

const LIMITS = { bandwidth: "the network", cpu: "this machine's processor" };

/* One report beside the one before. */
class Since {
  constructor(report, before) {
    this.report = report;
    this.before = before;
  }

  count(name) {
    return (this.report[name] ?? 0) - (this.before?.[name] ?? 0);
  }

  bitrate(name) {
    const seconds = this.before ? (this.report.timestamp - this.before.timestamp) / 1000 : 0;
    return seconds > 0 ? `${Math.round((this.count(name) * 8) / seconds / 1000)} kbit/s` : "– kbit/s";
  }
}

function lines(report, codec, since, roundTrip) {
  const received = since.count("packetsReceived");
  const lost = Math.max(since.count("packetsLost"), 0);
  const emitted = since.count("jitterBufferEmittedCount");
  const buffer = emitted > 0 ? `${Math.round((1000 * since.count("jitterBufferDelay")) / emitted)} ms` : "–";
  const flow = `${report.kind} ${codec} ${since.bitrate("bytesReceived")}, loss ${percentage(lost, received + lost)}, buffer ${buffer}`;
  if (report.kind === "audio") return [flow];
  const size = report.frameWidth ? `${report.frameWidth} × ${report.frameHeight}` : "no picture yet";
  return [
    `${size}, ${Math.round(report.framesPerSecond ?? 0)} fps`,
    flow,
    `rtt ${milliseconds(roundTrip)}, dropped ${report.framesDropped ?? 0}, freezes ${report.freezeCount ?? 0}`,
  ];
}

function percentage(part, all) {
  return all > 0 ? `${((100 * part) / all).toFixed(1)} %` : "–";
}

function milliseconds(seconds) {
  return seconds === undefined ? "–" : `${(seconds * 1000).toFixed(1)} ms`;
}
