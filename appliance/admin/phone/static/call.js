// One call: asked for over HTTP, heard over a WebSocket, told of by server-sent events.

import { Sound } from "./audio.js";

const OPEN_MS = 8000;
const GOODBYE_MS = 2500;
const AGAIN_MS = [200, 1000, 2000]; // when a stream that broke is opened anew; the box waits some seconds for it
const MOST_UNSENT_S = 1;

/** A call that did not come about or broke; the message is for people. */
export class CallError extends Error {
  constructor(title, text) {
    super(text);
    this.title = title;
  }
}

const TITLES = { 403: "This page may not call", 404: "Nobody answers there", 486: "Busy", 503: "The box is full", 504: "No answer" };

export class Call {
  /**
   * on: {told(event), level(who, value), again(trying), over({title, text} | null)}. `over` comes once, with what went wrong, if
   * anything; the call's own "ended" event comes before it wherever the box can still be reached.
   */
  constructor(trunk, called, on) {
    Object.assign(this, { trunk, called, on });
    this.isOver = false;
    this.ended = false;
    this.sound = new Sound({
      onBlock: (samples) => this.send(samples),
      onMark: (name) => this.say({ event: "mark", name }),
      onLevel: on.level,
      onLost: () => this.finish({ title: "The microphone is gone", text: "It was unplugged or taken away; the call was ended." }),
    });
  }

  /** Place it. Throws CallError or SoundError; returns once the stream is open. */
  async start() {
    try {
      await this.sound.open();
      const { call, token, media_url: mediaUrl } = await this.ask();
      this.id = call;
      if (this.isOver) { this.leave(); return; }
      this.follow();
      await this.open(mediaUrl, token);
    } catch (error) {
      if (this.isOver) return;
      this.isOver = true;
      this.leave();
      throw error;
    }
  }

  async ask() {
    let response;
    try {
      response = await fetch(new URL(`browser/${encodeURIComponent(this.trunk)}/calls`, document.baseURI), {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ called: this.called }),
      });
    } catch {
      throw new CallError("The box cannot be reached", `Nothing answers at ${location.host}. Is it running?`);
    }
    const said = await response.json().catch(() => ({}));
    if (!response.ok) throw new CallError(TITLES[response.status] ?? "The call was refused", sentence(said.error ?? `the box said ${response.status}`));
    return said;
  }

  follow() {
    this.events = new EventSource(new URL(`phone/calls/${encodeURIComponent(this.id)}/events`, document.baseURI));
    this.events.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "ended") this.ended = true;
      this.on.told(event);
      if (event.type === "ended") this.finish(null);
    };
  }

  open(url, token) {
    return new Promise((resolve, reject) => {
      const unreachable = () => reject(new CallError("The audio cannot be reached",
        `No connection to ${url}. The page is there, but not the port of listen.media: open it in the firewall, or set media_url of trunk ${this.trunk}.`));
      const socket = this.socket = new WebSocket(url);
      socket.binaryType = "arraybuffer";
      const timer = setTimeout(() => { unreachable(); socket.close(); }, OPEN_MS);
      socket.onopen = () => {
        clearTimeout(timer);
        this.say({ event: "start", token, rate: this.sound.rate });
        this.streaming = true;
        resolve();
      };
      socket.onmessage = ({ data }) => this.take(data);
      socket.onclose = ({ code, reason }) => {
        clearTimeout(timer);
        if (!this.streaming) { unreachable(); return; }
        this.streaming = false;
        if (this.goodbye) this.waitForEnd(null);
        else this.again({ title: "The audio broke off", text: sentence(reason || `the connection to ${url} was lost (${code})`) });
      };
    });
  }

  /** Open another stream for the call, in place of one that broke. */
  async again(problem) {
    for (const wait of AGAIN_MS) {
      if (this.isOver || this.waiting) return;
      this.on.again(true);
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (this.isOver || this.waiting) return;
      try {
        const response = await fetch(this.where("/stream"), { method: "POST" });
        if (response.status === 404) break;
        if (!response.ok) continue;
        const { token, media_url: mediaUrl } = await response.json();
        this.sound.clear();
        await this.open(mediaUrl, token);
        this.on.again(false);
        return;
      } catch { /* the next try */ }
    }
    this.waitForEnd(problem);
  }

  where(what = "") {
    return new URL(`browser/${encodeURIComponent(this.trunk)}/calls/${encodeURIComponent(this.id)}${what}`, document.baseURI);
  }

  take(data) {
    if (data instanceof ArrayBuffer) { this.sound.play(data); return; }
    const message = JSON.parse(data);
    if (message.event === "mark") this.sound.mark(message.name);
    else if (message.event === "clear") this.sound.clear();
    else if (message.event === "goodbye") this.goodbye = true;
  }

  send(samples) {
    if (!this.streaming || this.socket.readyState !== WebSocket.OPEN) return;
    if (this.socket.bufferedAmount > this.sound.rate * 2 * MOST_UNSENT_S) return; // a stalled line is not made later
    this.socket.send(samples);
  }

  say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  press(digit) { this.say({ event: "dtmf", digit }); }
  mute(muted) { this.sound.mute(muted); }

  /** End it from this side. */
  hangUp() {
    if (this.isOver) return;
    this.say({ event: "stop" });
    if (!this.id) { this.finish(null); return; }
    this.leave({ keepEvents: true });
    this.waitForEnd(null);
  }

  /** The stream has ended; the box says soon how the call did. */
  waitForEnd(problem) {
    if (this.isOver || this.waiting) return;
    this.waiting = setTimeout(() => this.finish(problem), GOODBYE_MS);
  }

  finish(problem) {
    if (this.isOver) return;
    this.isOver = true;
    this.leave();
    this.on.over(this.ended ? null : problem);
  }

  /** Let go of everything. */
  leave({ keepEvents = false } = {}) {
    clearTimeout(this.waiting);
    this.waiting = undefined;
    this.sound.close();
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) {
      this.say({ event: "stop" });
      this.socket.close(1000);
    }
    if (!keepEvents) this.events?.close();
    if (this.id && !this.ended) {
      fetch(this.where(), { method: "DELETE", keepalive: true }).catch(() => {}); // the end of the stream says it too
    }
  }
}

function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}
