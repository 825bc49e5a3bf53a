"use strict";

const at = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let facts = null;
let over = false;
let seen = 0;
let last = null;

function complain(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
}

async function post(path, body, headers) {
  try {
    const answer = await fetch(path, { method: "POST", body, headers });
    const said = await answer.json();
    complain(said.error || "");
    return answer.ok;
  } catch {
    complain("labctl does not answer: its guard makes the bench dark by itself.");
    return false;
  }
}

const ask = (command) => post("do", JSON.stringify(command), { "Content-Type": "application/json" });
const number = (id) => at(id).valueAsNumber;

// The exposure's slider is logarithmic: what matters is its ratio.
const stretch = () => facts.exposure_s.map((s) => Math.log(Math.max(s, 1e-6)));
function fromSlider(part) {
  const [low, high] = stretch();
  return Math.exp(low + part * (high - low));
}
function toSlider(seconds) {
  const [low, high] = stretch();
  return high > low ? (Math.log(seconds) - low) / (high - low) : 0;
}
const short = (value) => Number(value.toPrecision(4));

function expose() {
  if (![number("exposure"), number("gain")].every(Number.isFinite)) return null;
  at("exposure-range").value = toSlider(number("exposure") / 1000);
  return ask({ do: "expose", exposure_s: number("exposure") / 1000, gain_db: number("gain"), view: at("view").value });
}

function show() {
  const kind = document.querySelector("[name=pattern]:checked").value;
  for (const row of document.querySelectorAll("[data-for]")) row.hidden = row.dataset.for !== kind;
  if (kind === "flat") return ask({ do: "flat", level: number("level") });
  if (kind === "grating") return ask({ do: "grating", period_px: number("period"), angle_deg: number("angle") });
  if (kind === "checker") return ask({ do: "checker", size_px: number("size") });
  const [file] = at("file").files;
  return file ? post("file", file, { "X-Name": encodeURIComponent(file.name) }) : null;
}

// Small sensors are drawn larger, so that a line is thin whatever is behind it.
const FINE = 768;
const sheet = document.createElement("canvas");

function drawFrame(pixels, [rows, columns]) {
  [sheet.width, sheet.height] = [columns, rows];
  const pen = sheet.getContext("2d");
  const picture = pen.createImageData(columns, rows);
  const log = at("log").checked;
  for (let i = 0; i < pixels.length; i += 1) {
    const value = pixels[i];
    const gray = log ? Math.round((255 * Math.log1p(value)) / Math.log(256)) : value;
    picture.data.set(value === 255 ? [230, 40, 40, 255] : [gray, gray, gray, 255], 4 * i);
  }
  pen.putImageData(picture, 0, 0);
  const scale = Math.max(1, Math.floor(FINE / Math.max(rows, columns)));
  const canvas = at("frame");
  const [width, height] = [scale * columns, scale * rows];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const shown = canvas.getContext("2d");
  shown.imageSmoothingEnabled = false;
  shown.drawImage(sheet, 0, 0, width, height);
  drawMarks(shown, width, height, scale);
}

function drawMarks(pen, width, height, scale) {
  const thin = Math.max(1, Math.round(Math.max(width, height) / 400));
  pen.lineWidth = thin;
  pen.fillStyle = pen.strokeStyle = "#56b4e9";
  if (at("cross").checked) {
    pen.fillRect(0, Math.floor(height / 2), width, thin);
    pen.fillRect(Math.floor(width / 2), 0, thin, height);
  }
  if (at("outline").checked && last.view === "sensor") {
    const [row, column, tall, wide] = facts.region.map((size) => (scale * size) / last.picture.block);
    pen.strokeRect(column - thin / 2, row - thin / 2, wide + thin, tall + thin);
  }
}

function drawHistogram(bars) {
  const canvas = at("histogram");
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  const most = Math.log1p(Math.max(...bars));
  const step = width / bars.length;
  bars.forEach((count, i) => {
    const tall = most ? (Math.log1p(count) / most) * (height - 6) : 0;
    pen.fillStyle = i === bars.length - 1 && last.picture.saturated ? css("--stop") : css("--focus");
    pen.fillRect(i * step + 1, height - tall, step - 2, tall);
  });
  pen.fillStyle = css("--line");
  pen.fillRect(0, height - 1, width, 1);
}

function percent(part) {
  if (!part) return "none";
  return part < 1e-4 ? "< 0.01 %" : `${(100 * part).toFixed(2)} %`;
}

let times = [];
function tell(state) {
  const now = performance.now();
  times = [...times.filter((time) => now - time < 3000), now];
  const seconds = (now - times[0]) / 1000;
  at("rate").textContent = times.length > 2 ? `${((times.length - 1) / seconds).toFixed(1)} /s` : "–";
  at("median").textContent = short(state.picture.median);
  at("most").textContent = state.picture.most;
  at("saturated").textContent = percent(state.picture.saturated);
  at("saturated").classList.toggle("bad", state.picture.saturated > 0);
  at("warning").textContent = state.warning;
  at("warning").hidden = !state.warning;
  const rests = state.rest_s ? `, rests ${Math.ceil(state.rest_s)} s` : "";
  at("lamp").textContent = state.lit ? `lit, ${short(state.measured_mw)} mW` : `dark${rests}`;
  at("lamp").classList.toggle("lit", state.lit);
  at("light").textContent = state.lit ? "Set power" : "Light on";
  at("shown").textContent = state.pattern;
  const rejected = state.rejected ? `, ${state.rejected} refused` : "";
  at("told").textContent = `frame ${state.number}${rejected}: ${short(1000 * state.exposure_s)} ms, ${short(state.gain_db)} dB`;
}

function fill() {
  at("exposure").value = short(1000 * last.exposure_s);
  at("exposure-range").value = toSlider(last.exposure_s);
  at("gain").value = last.gain_db;
}

function draw(message) {
  const size = new DataView(message).getUint32(0, true);
  last = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, size)));
  if (!seen) fill();
  seen = last.number;
  tell(last);
  drawFrame(new Uint8Array(message, 4 + size), last.picture.shape);
  drawHistogram(last.picture.histogram);
}

function end(text) {
  over = true;
  complain(text);
  at("lamp").textContent = "closed";
  at("lamp").classList.remove("lit");
  for (const each of document.querySelectorAll("button, input, select")) each.disabled = true;
}

async function look() {
  while (!over) {
    try {
      const answer = await fetch(`frame?after=${seen}`);
      if (answer.status === 410) {
        const { why } = await answer.json();
        end(why ? `labctl live has ended: ${why}` : "The bench was given back.");
      } else if (answer.status === 200) draw(await answer.arrayBuffer());
    } catch {
      end("labctl no longer answers: the bench is dark, or its guard makes it so.");
    }
  }
}

function prepare() {
  document.title = `${facts.bench} · labctl live`;
  at("bench").textContent = facts.bench;
  at("note").textContent = facts.note;
  const doubts = Object.entries(facts.doubts).map(([kind, why]) => `${kind}: ${why}`);
  const notices = [facts.simulated ? "SIMULATED: no light, no device." : "", facts.notice, ...doubts];
  at("simulated").textContent = notices.filter(Boolean).join(" ");
  at("simulated").hidden = !at("simulated").textContent;
  const [, most] = facts.power_mw;
  at("power-range").max = at("power").max = most;
  at("power-range").value = at("power").value = Math.min(facts.suggested_mw, most);
  at("limit").textContent = `at most ${short(most)} mW; dark by itself when nobody looks for ${facts.unwatched_s} s`;
  at("gain").max = facts.gain_db[1];
  at("level").max = 2 ** facts.panel.bits - 1;
  for (const [role, who] of Object.entries(facts.devices)) {
    const row = at("devices").insertRow();
    row.insertCell().textContent = role;
    row.insertCell().textContent = [who.vendor, who.model, who.serial].filter(Boolean).join(" ");
  }
}

function listen() {
  at("power-range").addEventListener("input", () => { at("power").value = short(at("power-range").valueAsNumber); });
  at("power").addEventListener("input", () => { at("power-range").value = at("power").value; });
  at("light").addEventListener("click", () => ask({ do: "light", power_mw: number("power") }));
  at("dark").addEventListener("click", () => ask({ do: "dark" }));
  at("leave").addEventListener("click", () => ask({ do: "leave" }));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") ask({ do: "dark" }); });
  at("exposure-range").addEventListener("input", () => { at("exposure").value = short(1000 * fromSlider(at("exposure-range").valueAsNumber)); });
  at("exposure-range").addEventListener("change", expose);
  for (const id of ["exposure", "gain", "view"]) at(id).addEventListener("change", expose);
  for (const id of ["level", "period", "angle", "size", "file"]) at(id).addEventListener("change", show);
  for (const each of document.getElementsByName("pattern")) each.addEventListener("change", show);
}

async function start() {
  facts = await (await fetch("facts")).json();
  prepare();
  listen();
  await look();
}

start();
