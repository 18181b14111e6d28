// What was said, turn by turn, and what each answer's time went into.

const STAGES = [
  ["vad", "speech detector"],
  ["endpointing", "end of turn"],
  ["turn_model", "turn model"],
  ["asr", "recognition"],
  ["reply", "reply"],
  ["tts", "voice"],
  ["playout", "sending"],
];
const GOOD_MS = 900;
const SLOW_MS = 1800;
const SVG = "http://www.w3.org/2000/svg";

export class Transcript {
  constructor({ list, scroll, empty, live, figures, understood }) {
    Object.assign(this, { list, scroll, empty, live, figures, understood });
    this.stuck = true; // to the newest, until somebody scrolls up
    scroll.addEventListener("scroll", () => { this.stuck = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60; });
    new ResizeObserver(() => this.toNewest()).observe(scroll);
    this.clear();
  }

  clear() {
    this.turns = new Map();
    this.list.replaceChildren();
    this.empty.hidden = false;
    this.figures.textContent = "";
    this.understood.textContent = "";
    this.stuck = true;
    this.doing("");
  }

  /** Show a turn as far as it is known; `over`: it will not change any more. */
  show(turn, over, speaking = false) {
    if (!turn.caller_text && !turn.agent_text) return;
    let shown = this.turns.get(turn.number);
    if (!shown) {
      shown = new ShownTurn(turn.number);
      this.turns.set(turn.number, shown);
      this.list.append(shown.element);
      this.empty.hidden = true;
      // For those who do not see the page: what the agent says they hear.
      if (turn.by === "voice") this.understood.textContent = `${turn.accepted ? "Understood" : "Not understood"}: ${turn.caller_text}`;
    }
    shown.update(turn, over, speaking);
    this.sum();
    this.toNewest();
  }

  /** What goes on right now; "" where there is no call. */
  doing(what) {
    this.live.hidden = !["caller_speaks", "thinking"].includes(what);
    this.live.className = `live ${what === "caller_speaks" ? "caller" : "agent"}`;
    this.toNewest();
  }

  /** What is understood of the caller who still speaks, where the recogniser says so; "" for dots alone. */
  hearing(text) {
    this.live.dataset.hearing = text;
    this.toNewest();
  }

  sum() {
    const times = [...this.turns.values()].map((shown) => shown.latency).filter((ms) => ms !== null).sort((a, b) => a - b);
    if (!times.length) return;
    const middle = (times[Math.floor((times.length - 1) / 2)] + times[Math.ceil((times.length - 1) / 2)]) / 2;
    this.figures.textContent = times.length === 1 ? `answered in ${time(middle)}`
      : `${times.length} answers · median ${time(middle)} · slowest ${time(times.at(-1))}`;
  }

  toNewest() { if (this.stuck) this.scroll.scrollTop = this.scroll.scrollHeight; }
}

class ShownTurn {
  constructor(number) {
    this.element = make("li", "turn");
    this.element.dataset.turn = number;
    this.latency = null;
    this.drawn = "";
  }

  update(turn, over, speaking) {
    const drawn = JSON.stringify([turn, over, speaking]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.latency = turn.latency_ms;
    const open = this.element.querySelector("details")?.open ?? false;
    const parts = [];
    if (turn.caller_text) parts.push(callerBubble(turn));
    if (turn.agent_text) parts.push(agentBubble(turn, over, speaking));
    if (turn.latency_ms !== null) parts.push(waterfall(turn, open));
    this.element.replaceChildren(...parts);
  }
}

function callerBubble(turn) {
  const keys = turn.by === "key";
  const bubble = make("div", `bubble caller${turn.accepted ? "" : " doubtful"}`);
  bubble.append(make("span", "speaker", keys ? "You pressed" : "You"));
  if (keys) {
    const row = make("p", "pressed");
    for (const key of turn.caller_text) row.append(make("kbd", "", key));
    bubble.append(row);
    return bubble;
  }
  bubble.append(make("p", "", turn.caller_text));
  const notes = [];
  if (!turn.accepted) notes.push("not understood: nothing that the line expects");
  if (turn.confidence !== null) notes.push(`${Math.round(turn.confidence * 100)} % sure`);
  if (notes.length) bubble.append(make("p", "note", notes.join(" · ")));
  return bubble;
}

function agentBubble(turn, over, speaking) {
  const cut = turn.interrupted || (over && turn.heard_text !== turn.agent_text);
  const bubble = make("div", `bubble agent${speaking ? " speaking" : ""}`);
  bubble.append(make("span", "speaker", "Agent"));
  const text = make("p", "");
  const heard = cut ? wordsOf(turn.heard_text).length : Infinity;
  const words = wordsOf(turn.agent_text);
  text.append(words.slice(0, heard).join(" "));
  if (words.length > heard) {
    const rest = make("s", "unheard", words.slice(heard).join(" "));
    rest.title = "not heard";
    text.append(heard ? " " : "", rest);
    bubble.append(text, make("p", "note", turn.interrupted ? "interrupted; what was not heard is struck out" : "not heard to the end"));
  } else {
    bubble.append(text);
  }
  return bubble;
}

/** The answer's time with a small chart of its stages, which opens into a table. */
function waterfall(turn, open) {
  const details = make("details", "latency");
  details.open = open;
  const summary = make("summary", "");
  const grade = turn.latency_ms <= GOOD_MS ? "good" : turn.latency_ms <= SLOW_MS ? "fair" : "slow";
  summary.append(make("span", "visually-hidden", "answered in"), make("span", `badge ${grade}`, time(turn.latency_ms)));
  const stages = STAGES.filter(([stage]) => stage in turn.waterfall_ms);
  const end = Math.max(turn.latency_ms, 1, ...stages.map(([stage]) => turn.waterfall_ms[stage][1]));
  summary.append(chart(stages, turn.waterfall_ms, end));
  details.append(summary);
  const table = make("table", "stages");
  const head = make("thead", "");
  const titles = make("tr", "");
  for (const title of ["stage", "from", "to", "takes ms"]) titles.append(make("th", "", title));
  head.append(titles);
  const body = make("tbody", "");
  for (const [stage, name] of stages) {
    const [from, to] = turn.waterfall_ms[stage];
    const row = make("tr", `stage-${stage}`);
    row.append(make("th", "", name), ...[from, to, to - from].map((ms) => make("td", "", String(Math.round(ms)))));
    body.append(row);
  }
  table.append(head, body);
  details.append(table, make("p", "note", turn.by === "key" ? "From the last key; stages overlap where work is done ahead."
    : "From the last sound of your words; stages overlap where work is done ahead."));
  return details;
}

function chart(stages, spans, end) {
  const width = 160;
  const lane = 4;
  const svg = document.createElementNS(SVG, "svg");
  set(svg, { class: "chart", viewBox: `0 0 ${width} ${stages.length * lane}`, width, height: stages.length * lane, "aria-hidden": "true" });
  stages.forEach(([stage], row) => {
    const from = Math.max(0, spans[stage][0]) / end * width;
    const to = Math.max(0, spans[stage][1]) / end * width;
    const bar = document.createElementNS(SVG, "rect");
    set(bar, { class: `stage-${stage}`, x: from.toFixed(1), y: row * lane + 0.5, width: Math.max(1.5, to - from).toFixed(1), height: lane - 1, rx: 1 });
    svg.append(bar);
  });
  return svg;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

function wordsOf(text) { return text.split(/\s+/).filter(Boolean); }
function time(ms) { return `${Math.round(ms)} ms`; }

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
