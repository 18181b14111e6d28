// Microphone and loudspeaker of one call.

const RATES = [8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000]; // that the box takes

const LAST_SOUND_MS = 250; // what the device still plays when the box has been told that all has been

/** Why there is no sound; the message is for people. */
export class SoundError extends Error {
  constructor(title, text) {
    super(text);
    this.title = title;
  }
}

function whyNot(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new SoundError("The microphone is blocked",
        "Allow it for this page (the icon in front of the address) and, where it asks, in the system's settings; then call again.");
    case "NotFoundError":
    case "OverconstrainedError":
      return new SoundError("There is no microphone", "Connect one, or choose one in the system's settings; then call again.");
    case "NotReadableError":
    case "AbortError":
      return new SoundError("The microphone cannot be opened", "Another program may hold it. Close that one; then call again.");
    default:
      return new SoundError("The sound cannot be started", `${error.name}: ${error.message}`);
  }
}

/** Says why this page cannot have the microphone at all; null where it can. */
export function unusable() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    const port = location.port ? `:${location.port}` : "";
    return new SoundError("This page is not secure",
      "Browsers give the microphone only to pages opened by https or on localhost. Put a proxy with a certificate in " +
      `front of the box and open https://${location.hostname}/phone, or, on the box itself, http://localhost${port}/phone.`);
  }
  if (!window.AudioWorkletNode) return new SoundError("This browser is too old", "It has no AudioWorklet. Use a newer one.");
  return null;
}

export class Sound {
  /** onBlock(ArrayBuffer) is called every 20 ms, onMark(name) when a mark has been played, onLevel("you" | "agent", 0..1). */
  constructor({ onBlock, onMark, onLevel, onLost }) {
    Object.assign(this, { onBlock, onMark, onLevel, onLost });
    this.closed = false;
  }

  /** Opens both. Throws SoundError. Call it from a click: browsers want one before they let a page be heard. */
  async open() {
    this.context = this.makeContext();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
      });
      this.stopIfClosed();
      await this.context.resume();
      await this.context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
      this.stopIfClosed();
      this.connect();
    } catch (error) {
      this.close();
      throw whyNot(error);
    }
  }

  /** Whoever hung up while the browser asked for the microphone does not want it open. */
  stopIfClosed() {
    if (!this.closed) return;
    for (const track of this.stream.getTracks()) track.stop();
    throw new DOMException("hung up", "AbortError");
  }

  makeContext() {
    const usual = new AudioContext({ latencyHint: "interactive" });
    if (RATES.includes(usual.sampleRate)) return usual;
    usual.close();
    return new AudioContext({ latencyHint: "interactive", sampleRate: 48000 });
  }

  connect() {
    const { context } = this;
    this.microphone = context.createMediaStreamSource(this.stream);
    this.capture = new AudioWorkletNode(context, "capture", { numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1], channelCount: 1, channelCountMode: "explicit" });
    this.playback = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, numberOfOutputs: 1, outputChannelCount: [1] });
    this.capture.port.onmessage = ({ data }) => {
      this.onLevel("you", data.level);
      this.onBlock(data.samples);
    };
    this.playback.port.onmessage = ({ data }) => {
      if (data.mark !== undefined) this.onMark(data.mark);
      else this.onLevel("agent", data.level);
    };
    this.microphone.connect(this.capture);
    this.capture.connect(context.destination); // gives silence; without it the node is not run
    this.playback.connect(context.destination);
    for (const track of this.stream.getAudioTracks()) {
      track.onended = () => { if (!this.closed) this.onLost(); };
    }
  }

  get rate() { return this.context.sampleRate; }

  play(samples) { this.playback.port.postMessage({ samples }, [samples]); }
  mark(name) { this.playback.port.postMessage({ mark: name }); }
  clear() { this.playback.port.postMessage({ clear: true }); }
  mute(muted) { this.capture.port.postMessage({ muted }); }

  close() {
    if (this.closed) return;
    this.closed = true;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    for (const node of [this.capture, this.playback]) if (node) node.port.onmessage = null;
    this.microphone?.disconnect();
    const { context } = this;
    if (context) setTimeout(() => context.close(), LAST_SOUND_MS);
  }
}
