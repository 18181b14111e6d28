// The two ends of the sound, on the audio thread. Samples are 16 bits, one channel, at the context's rate.

const BLOCK_S = 0.02;
const LEVEL_S = 0.05;
const FADE_S = 0.005;
const MOST_QUEUED_S = 10;

/** Posts {samples: ArrayBuffer, level} every 20 ms; takes {muted}. */
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * BLOCK_S);
    this.block = new Int16Array(this.size);
    this.filled = 0;
    this.power = 0;
    this.muted = false;
    this.port.onmessage = ({ data }) => { this.muted = data.muted; };
  }

  process(inputs, outputs) {
    const input = inputs[0][0]; // none while the microphone starts: silence is sent then
    const length = input ? input.length : outputs[0][0].length;
    for (let at = 0; at < length; at++) {
      const value = input && !this.muted ? Math.max(-1, Math.min(1, input[at])) : 0;
      this.block[this.filled++] = value < 0 ? value * 0x8000 : value * 0x7fff;
      this.power += value * value;
      if (this.filled === this.size) {
        const samples = this.block.buffer;
        this.port.postMessage({ samples, level: Math.sqrt(this.power / this.size) }, [samples]);
        this.block = new Int16Array(this.size);
        this.filled = 0;
        this.power = 0;
      }
    }
    return true;
  }
}

/**
 * Plays what it is given, in order. Takes {samples: ArrayBuffer}, {mark} and {clear: true}.
 * Posts {mark} once all before it has been played, or thrown away, and {level} every 50 ms.
 */
class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = []; // Int16Array or the name of a mark
    this.at = 0; // within the first of the queue
    this.queued = 0;
    this.last = 0;
    this.power = 0;
    this.measured = 0;
    this.fade = Math.round(sampleRate * FADE_S);
    this.port.onmessage = ({ data }) => {
      if (data.clear) this.clear();
      else if (data.mark !== undefined) this.queue.push(data.mark);
      else if (this.queued < sampleRate * MOST_QUEUED_S) {
        const samples = new Int16Array(data.samples);
        this.queue.push(samples);
        this.queued += samples.length;
      }
    };
  }

  /** Silence at once, but for a fade too short to be heard as sound. */
  clear() {
    const tail = new Int16Array(this.fade);
    let filled = 0;
    for (const item of this.queue) {
      if (typeof item === "string") {
        this.port.postMessage({ mark: item });
        continue;
      }
      for (let at = item === this.queue[0] ? this.at : 0; at < item.length && filled < tail.length; at++) {
        tail[filled] = item[at] * (1 - filled / tail.length);
        filled += 1;
      }
    }
    this.queue = filled ? [tail.subarray(0, filled)] : [];
    this.queued = filled;
    this.at = 0;
  }

  /** The next sample; where there is none, the last one dying away. */
  next() {
    while (this.queue.length) {
      const item = this.queue[0];
      if (typeof item === "string") {
        this.queue.shift();
        this.port.postMessage({ mark: item });
      } else if (this.at < item.length) {
        this.queued -= 1;
        this.last = item[this.at++] / 0x8000;
        return this.last;
      } else {
        this.queue.shift();
        this.at = 0;
      }
    }
    this.last = Math.abs(this.last) < 1e-4 ? 0 : this.last * 0.97;
    return this.last;
  }

  process(inputs, outputs) {
    const channels = outputs[0];
    const output = channels[0];
    for (let at = 0; at < output.length; at++) {
      const value = this.next();
      output[at] = value;
      this.power += value * value;
    }
    for (const other of channels.slice(1)) other.set(output);
    this.measured += output.length;
    if (this.measured >= sampleRate * LEVEL_S) {
      this.port.postMessage({ level: Math.sqrt(this.power / this.measured) });
      this.power = 0;
      this.measured = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
