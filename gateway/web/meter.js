/* The level of a sound in a <meter>: 0 at silence (-60 dBFS), 1 at full scale. */

const FLOOR_DB = 60;

export class LevelMeter {
  #element;
  #context = null;
  #source = null;
  #analyser = null;
  #samples = new Float32Array(1024);

  constructor(element) {
    this.#element = element;
  }

  /* Shows the level of this track from now on; none: silence. */
  listen(track) {
    this.#source?.disconnect();
    this.#source = null;
    if (track === null) {
      this.#element.value = 0;
      return;
    }
    if (this.#context === null) {
      this.#context = new AudioContext();
      this.#analyser = new AnalyserNode(this.#context, { fftSize: this.#samples.length });
      requestAnimationFrame(() => this.#look());
    }
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(this.#analyser);
    if (this.#context.state === "suspended") this.#context.resume().catch(() => {});
  }

  #look() {
    if (this.#source !== null) {
      this.#analyser.getFloatTimeDomainData(this.#samples);
      const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
      this.#element.value = Math.max(0, 1 + (10 * Math.log10(power + 1e-12)) / FLOOR_DB);
    }
    requestAnimationFrame(() => this.#look());
  }
}
