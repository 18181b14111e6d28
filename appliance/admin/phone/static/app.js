// The page: which line, the call's state, keys, and what is shown of it.

import { unusable } from "./audio.js";
import { Call } from "./call.js";
import { Transcript, make } from "./transcript.js";

const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "0", "#"];
const LETTERS = { 2: "abc", 3: "def", 4: "ghi", 5: "jkl", 6: "mno", 7: "pqrs", 8: "tuv", 9: "wxyz", 0: "+" };
const DOING = {
  microphone: "Asking for the microphone …",
  calling: "Calling …",
  ringing: "Ringing …",
  answered: "Connected",
  listening: "Your turn",
  caller_speaks: "You speak",
  thinking: "Thinking …",
  agent_speaks: "Agent speaks",
  handed_on: "Handed on to somebody else",
  ending: "Hanging up …",
};
const ENDINGS = {
  completed: { caller: "You hung up", agent: "The agent hung up", box: "The box ended the call" },
  interrupted: { box: "The box was stopped" },
  failed: { caller: "The call broke off", agent: "The call broke off", box: "The call broke off" },
};

const $ = (id) => document.getElementById(id);
const transcript = new Transcript({ list: $("turns"), scroll: $("scroll"), empty: $("empty"), live: $("live"), figures: $("figures"), understood: $("understood") });
const state = { trunk: "", lines: [], call: null, doing: "", recordId: "", answeredAt: 0, timer: 0, ending: null, muted: false };

function setState(name) { document.body.dataset.state = name; for (const [id, when] of [["dial", "idle"], ["incall", "call"], ["after", "after"]]) $(id).hidden = name !== when; }

function notice(title, text) {
  $("notice").hidden = !title;
  $("notice-title").textContent = title ?? "";
  $("notice-text").textContent = text ?? "";
}

// --- the lines -------------------------------------------------------------------------------------------------------

async function readLines() {
  setState("idle");
  const wanted = new URLSearchParams(location.search).get("trunk");
  const where = new URL("phone/lines", document.baseURI);
  if (wanted) where.searchParams.set("trunk", wanted);
  try {
    const response = await fetch(where);
    const said = await response.json();
    if (!response.ok) {
      notice(response.status === 403 ? "This page may not call" : "No calls from here", sentence(said.error));
      $("lines").replaceChildren(make("p", "quiet", "No lines to show."));
      $("call").disabled = true;
      return;
    }
    state.trunk = said.trunk;
    state.lines = said.lines;
  } catch {
    notice("The box cannot be reached", `Nothing answers at ${location.host}. Is it running? Reload the page when it is.`);
    $("lines").replaceChildren(make("p", "quiet", "No lines to show."));
    $("call").disabled = true;
    return;
  }
  $("trunk").textContent = `trunk ${state.trunk}`;
  showLines();
  const problem = unusable();
  if (problem) {
    notice(problem.title, problem.message);
    $("call").disabled = true;
  }
}

function showLines() {
  if (!state.lines.length) {
    $("lines").replaceChildren(make("p", "quiet", "The dialplan has no lines. Add a file to dialplans/."));
    return;
  }
  $("lines").replaceChildren(...state.lines.map((line, at) => {
    const label = make("label", `line${line.number ? "" : " unreachable"}`);
    const radio = make("input");
    Object.assign(radio, { type: "radio", name: "line", value: String(at), disabled: !line.number });
    radio.addEventListener("change", () => choose(line));
    const words = make("span", "words");
    words.append(make("strong", "", line.name));
    if (line.description) words.append(make("span", "quiet small", line.description));
    if (!line.number) words.append(make("span", "quiet small", `Not reachable from here: ${line.why || "no number leads to it"}.`));
    label.append(radio, words, make("span", "number", line.number));
    return label;
  }));
  const first = state.lines.findIndex((line) => line.number);
  if (first >= 0) {
    $("lines").querySelectorAll("input")[first].checked = true;
    choose(state.lines[first]);
  }
}

function choose(line) {
  $("called").value = line.number;
  $("privacy").textContent = "The microphone is on during a call only. What is said is in the box's record of calls"
    + (line.record ? ", and this line records the sound." : ".");
}

function lineOf(number) {
  const chosen = state.lines[Number($("lines").querySelector("input:checked")?.value ?? -1)];
  return chosen && chosen.number === number ? chosen.name : "";
}

// --- a call ----------------------------------------------------------------------------------------------------------

async function dial() {
  const called = $("called").value.trim();
  if (!called || state.call || $("call").disabled) return;
  notice(null);
  transcript.clear();
  Object.assign(state, { recordId: "", answeredAt: 0, ending: null });
  setMuted(false);
  showKeypad(false);
  $("who-line").textContent = lineOf(called) || called;
  $("who-number").textContent = lineOf(called) ? called : "";
  $("timer").textContent = "0:00";
  doing("microphone");
  setState("call");
  $("who").focus(); // not a button: whoever dialled with Enter would press it at once
  const call = state.call = new Call(state.trunk, called, { told, level, again, over: (problem) => ended(call, problem) });
  try {
    await call.start();
  } catch (error) {
    if (state.call !== call) return;
    state.call = null;
    stopTimer();
    setState("idle");
    notice(error.title ?? "The call failed", error.title ? error.message : `${error.name}: ${error.message}`);
    transcript.doing("");
    $("call").focus();
  }
}

function told(event) {
  switch (event.type) {
    case "started":
      state.recordId = event.call_id;
      if (event.line) { $("who-line").textContent = event.line; $("who-number").textContent = event.called; }
      break;
    case "ringing":
      doing("ringing");
      break;
    case "answered":
      doing("answered");
      startTimer();
      break;
    case "progress":
      doing(event.doing);
      transcript.hearing(event.doing === "caller_speaks" ? event.hearing : "");
      transcript.show(event.turn, false, event.doing === "agent_speaks");
      break;
    case "turn":
      transcript.show(event.turn, true);
      break;
    case "ended":
      state.ending = event;
      break;
  }
}

function again(trying) {
  $("doing").classList.toggle("broken", trying);
  if (trying) $("doing-text").textContent = "Connecting again …";
  else doing(state.doing);
}

function ended(call, problem) {
  if (state.call !== call) return;
  state.call = null;
  stopTimer();
  doing("");
  level("you", 0);
  level("agent", 0);
  const ending = state.ending;
  if (problem) notice(problem.title, problem.text);
  const words = ending && ENDINGS[ending.disposition]?.[ending.by];
  $("after-title").textContent = words ?? (ending ? "The call has ended" : "Hung up");
  const length = state.answeredAt ? `It lasted ${$("timer").textContent}.` : "It was not answered.";
  const why = ending?.text && !["the caller hung up", "BYE"].includes(ending.text) ? ` ${sentence(ending.text.replaceAll("_", " "))}` : "";
  $("after-text").textContent = length + why;
  $("slots").replaceChildren(...Object.entries(ending?.slots ?? {}).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", String(value))]));
  const record = $("after-record");
  record.replaceChildren();
  if (state.recordId) record.append("On the box: ", make("code", "", `appliance calls show ${state.recordId}`));
  setState("after");
  $("after-title").focus();
}

function doing(what) {
  state.doing = what;
  $("doing").dataset.doing = what;
  $("doing").classList.remove("broken");
  $("doing-text").textContent = DOING[what] ?? "";
  transcript.doing(what);
}

function startTimer() {
  if (state.answeredAt) return;
  state.answeredAt = performance.now();
  state.timer = setInterval(() => {
    const seconds = Math.floor((performance.now() - state.answeredAt) / 1000);
    $("timer").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }, 250);
}

function stopTimer() { clearInterval(state.timer); }

const meters = { you: 0, agent: 0 };

function level(who, value) {
  const db = value > 0 ? 20 * Math.log10(value) : -100;
  const share = Math.max(0, Math.min(1, (db + 60) / 55));
  meters[who] = share >= meters[who] ? share : Math.max(share, meters[who] - 0.06);
  const meter = $(`meter-${who}`);
  meter.firstElementChild.style.transform = `scaleX(${meters[who].toFixed(2)})`;
  meter.setAttribute("aria-valuenow", String(Math.round(meters[who] * 100)));
}

function setMuted(muted) {
  state.muted = muted;
  $("mute").setAttribute("aria-pressed", String(muted));
  $("mute").querySelector("span").textContent = muted ? "Muted" : "Mute";
  state.call?.mute(muted);
}

function showKeypad(shown) {
  $("keys").setAttribute("aria-expanded", String(shown));
  $("keypad").classList.toggle("shown", shown);
}

function press(key) {
  if (!state.call) return;
  state.call.press(key);
  const button = $("keypad").querySelector(`[data-key="${CSS.escape(key)}"]`);
  button?.classList.add("down");
  setTimeout(() => button?.classList.remove("down"), 150);
}

function sentence(text) {
  const trimmed = (text ?? "").trim();
  return trimmed && trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

// --- buttons and keys ------------------------------------------------------------------------------------------------

$("keypad").append(...KEYS.map((key) => {
  const button = make("button", "key");
  button.type = "button";
  button.dataset.key = key;
  button.append(make("span", "", key), make("small", "", LETTERS[key] ?? ""));
  button.setAttribute("aria-label", key === "*" ? "star" : key === "#" ? "hash" : key);
  button.addEventListener("click", () => press(key));
  return button;
}));

$("dial").addEventListener("submit", (event) => { event.preventDefault(); dial(); });
$("called").addEventListener("input", () => {
  const number = $("called").value.trim();
  for (const radio of $("lines").querySelectorAll("input")) radio.checked = state.lines[Number(radio.value)].number === number && number !== "";
});
$("mute").addEventListener("click", () => setMuted(!state.muted));
$("keys").addEventListener("click", () => showKeypad($("keys").getAttribute("aria-expanded") !== "true"));
$("hangup").addEventListener("click", () => { doing("ending"); state.call?.hangUp(); });
$("again").addEventListener("click", () => { setState("idle"); dial(); });
$("back").addEventListener("click", () => { notice(null); setState("idle"); $("called").focus(); });

document.addEventListener("keydown", (event) => {
  if (!state.call || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (KEYS.includes(event.key)) { press(event.key); event.preventDefault(); }
  else if (event.key === "m" || event.key === "M") setMuted(!state.muted);
});
window.addEventListener("pagehide", () => state.call?.hangUp());

readLines();
