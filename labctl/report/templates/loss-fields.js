"use strict";
(() => {
  // ---- losses: of labctl.training.loss, for one vector x and one target y ------
  const EPSILON = 1e-12;
  const norm = (v) => {
    const size = Math.hypot(v[0], v[1]);
    const free = size > EPSILON;
    return { size: Math.max(size, EPSILON), slope: free ? [v[0] / size, v[1] / size] : [0, 0] };
  };
  const grown = (value, gx, gy) => ({ value, gx, gy });
  const scaled = (k, v) => [k * v[0], k * v[1]];
  const plus = (u, v) => [u[0] + v[0], u[1] + v[1]];

  // Losses that know x and y by <x, y>, |x| and |y| alone, with the three slopes.
  const turned = (slopes) => (x, y, a) => {
    const p = x[0] * y[0] + x[1] * y[1];
    const nx = norm(x), ny = norm(y);
    const [value, byP, byX, byY] = slopes(p, nx.size, ny.size, a, y);
    return grown(
      value,
      plus(scaled(byP, y), scaled(byX, nx.slope)),
      plus(scaled(byP, x), scaled(byY, ny.slope)),
    );
  };
  const logged = (inner) => (x, y, a) => {
    const { value, gx, gy } = inner(x, y, a);
    const held = Math.max(value, 0);
    const k = value < 0 ? 0 : 1 / (held + EPSILON);
    return grown(Math.log(held + EPSILON), scaled(k, gx), scaled(k, gy));
  };
  const added = (one, two) => (x, y, a) => {
    const u = one(x, y, a), v = two(x, y, a);
    return grown(u.value + v.value, plus(u.gx, v.gx), plus(u.gy, v.gy));
  };
  const mse = (x, y) => {
    const d = [x[0] - y[0], x[1] - y[1]];
    return grown(d[0] * d[0] + d[1] * d[1], scaled(2, d), scaled(-2, d));
  };
  const cos = turned((p, nx, ny) => {
    const c = p / nx / ny;
    return [1 - c, -1 / nx / ny, c / nx, c / ny];
  });
  const dot = turned((p, nx, ny) => {
    const r = p / ny / ny - 1;
    return [r * r, 2 * r / ny / ny, 0, -4 * r * (p / ny / ny) / ny];
  });
  const dotNorm = turned((p, nx, ny) => {
    const r = ny - p / ny;
    return [r * r, -2 * r / ny, 0, 2 * r * (1 + p / ny / ny)];
  });
  const gen = turned((p, nx, ny, a, y) => {
    const k = (nx / ny) ** (1 - a) / nx / ny, got = k * p;
    const goal = (y[0] * y[0] + y[1] * y[1]) / ny / ny, r = got - goal;
    return [r * r, 2 * r * k, 2 * r * (-a * got / nx), 2 * r * ((a - 2) * got / ny)];
  });
  const relu = (x, y) => {
    let value = 0;
    const gx = [0, 0], gy = [0, 0];
    for (const d of [0, 1]) {
      if (-y[d] * x[d] > 0) {
        value -= y[d] * x[d];
        gx[d] = -y[d];
        gy[d] = -x[d];
      }
    }
    return grown(value, gx, gy);
  };
  const sign = (x, y) => {
    let value = 0;
    for (const d of [0, 1]) value -= Math.max(0, 1 - Math.sign(y[d] * x[d]));
    return grown(value, [0, 0], [0, 0]);
  };
  const signMirror = (x, y) => {
    let value = 0;
    for (const d of [0, 1]) value += Math.max(0, 1 - Math.sign(y[d] * x[d]));
    return grown(value, [0, 0], [0, 0]);
  };
  const LOSSES = {
    "sign": sign, "sign-mirror": signMirror, "relu": relu, "mse": mse, "log-mse": logged(mse), "cos": cos,
    "log-cos": logged(cos), "dot": dot, "dot-norm": dotNorm, "gen": gen,
    "cos+mse": added(cos, mse), "cos+dot": added(cos, dot),
  };
  // For the console, and for the test that compares it with the training.
  window.lossField = (name, x, y, a) => LOSSES[name](x, y, a);

  // ---- the figure --------------------------------------------------------------
  const figure = document.getElementById("loss-explorer");
  const start = JSON.parse(figure.dataset.start);
  const get = (id) => document.getElementById("loss-" + id);
  const canvas = get("canvas"), scale = get("scale"), told = get("told");
  const pen = canvas.getContext("2d"), ruler = scale.getContext("2d");
  const REACH = start.reach, SIDE = canvas.width;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const SLIDERS = ["a", "grid", "length", "step", "noise", "waves", "rate"];
  const CHOICES = ["name", "side", "display", "colour"];
  // Viridis, by its corners.
  const MAP = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  const colour = (share) => {
    const at = Math.min(Math.max(share, 0), 1) * (MAP.length - 1);
    const i = Math.min(Math.floor(at), MAP.length - 2), f = at - i;
    return MAP[i].map((low, c) => low + f * (MAP[i + 1][c] - low));
  };
  for (const name of start.losses) get("name").add(new Option(name, name));
  let state, particles, dirty = true, time = 0, last = 0;

  const toPlane = (px, py) => [REACH * (2 * px / SIDE - 1), REACH * (1 - 2 * py / SIDE)];
  const toPixel = (v) => [SIDE * (v[0] / REACH + 1) / 2, SIDE * (1 - v[1] / REACH) / 2];

  const noise = (v) => {
    if (!state.noise) return [0, 0];
    const k = 2 * Math.PI * state.waves / REACH, w = 2 * Math.PI * state.rate * time;
    return [
      state.noise * Math.sin(k * (v[1] + 0.6 * v[0]) + w) * Math.cos(0.7 * k * v[0] - w),
      state.noise * Math.cos(k * (v[0] - 0.4 * v[1]) + 1.3 * w) * Math.sin(0.8 * k * v[1] + w),
    ];
  };
  const at = (v) => {
    const ring = state.target;
    const found = state.side === "x" ? LOSSES[state.name](v, ring, state.a)
      : LOSSES[state.name](ring, v, state.a);
    const g = state.side === "x" ? found.gx : found.gy;
    return { value: found.value, down: plus(scaled(-1, g), noise(v)) };
  };

  // Colours are ranks, so that a loss that explodes leaves room for the rest.
  const CELLS = 120;
  let ranks = [];
  const paint = () => {
    const values = new Float64Array(CELLS * CELLS);
    for (let i = 0; i < CELLS; i++) {
      for (let j = 0; j < CELLS; j++) {
        const v = toPlane((j + 0.5) * SIDE / CELLS, (i + 0.5) * SIDE / CELLS);
        const here = at(v);
        values[i * CELLS + j] = state.colour === "loss" ? here.value : Math.hypot(...here.down);
      }
    }
    ranks = Float64Array.from(values).sort();
    const flat = ranks[0] === ranks[ranks.length - 1];
    const small = new OffscreenCanvas(CELLS, CELLS), image = new ImageData(CELLS, CELLS);
    values.forEach((value, n) => {
      let low = 0, high = ranks.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (ranks[middle] < value) low = middle + 1; else high = middle;
      }
      const [r, g, b] = colour(flat ? 0.3 : low / (ranks.length - 1));
      image.data.set([r, g, b, 255], 4 * n);
    });
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, SIDE, SIDE);
  };

  const line = (points, width) => {
    pen.beginPath();
    points.forEach((p, n) => (n ? pen.lineTo(...p) : pen.moveTo(...p)));
    pen.strokeStyle = "rgba(0, 0, 0, .45)";
    pen.lineWidth = width + 1.6;
    pen.stroke();
    pen.strokeStyle = "rgba(255, 255, 255, .95)";
    pen.lineWidth = width;
    pen.stroke();
  };
  const arrow = (from, to) => {
    const turn = Math.atan2(to[1] - from[1], to[0] - from[0]);
    const head = Math.min(7, 0.5 * Math.hypot(to[0] - from[0], to[1] - from[1]));
    const wing = (side) => [to[0] - head * Math.cos(turn + side), to[1] - head * Math.sin(turn + side)];
    line([from, to], 1.4);
    line([wing(0.5), to, wing(-0.5)], 1.4);
  };
  const grid = (count) => {
    const points = [];
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) points.push(toPlane((j + 0.5) * SIDE / count, (i + 0.5) * SIDE / count));
    }
    return points;
  };
  const typical = (points) => {
    const sizes = points.map((v) => Math.hypot(...at(v).down)).filter((s) => s > 0).sort((a, b) => a - b);
    return sizes.length ? sizes[sizes.length >> 1] : 1;
  };
  const arrows = () => {
    const points = grid(state.grid), usual = typical(points);
    for (const v of points) {
      const { down } = at(v), size = Math.hypot(...down);
      if (!(size > 0)) continue;
      const long = state.length * (SIDE / state.grid) * size / (size + usual) * 1.3;
      const p = toPixel(v), unit = scaled(long / size, down);
      arrow([p[0] - unit[0] / 2, p[1] + unit[1] / 2], [p[0] + unit[0] / 2, p[1] - unit[1] / 2]);
    }
  };
  const follow = (v, steps, long) => {
    const path = [toPixel(v)];
    for (let n = 0; n < steps; n++) {
      const { down } = at(v), size = Math.hypot(...down);
      if (!(size > 1e-9)) break;
      v = plus(v, scaled(long / size, down));
      if (Math.abs(v[0]) > 1.1 * REACH || Math.abs(v[1]) > 1.1 * REACH) break;
      path.push(toPixel(v));
    }
    return path;
  };
  const lines = () => {
    for (const v of grid(Math.max(4, state.grid >> 1))) {
      const path = follow(v, Math.round(60 * state.length), REACH / 90);
      line(path, 1.2);
      const n = path.length - 1;
      if (n > 3) arrow(path[n - 3], path[n]);
    }
  };
  const descents = () => {
    for (let v of grid(Math.max(4, state.grid >> 1))) {
      const path = [toPixel(v)];
      for (let n = 0; n < 120; n++) {
        v = plus(v, scaled(state.step, at(v).down));
        if (!Number.isFinite(v[0] + v[1])) break;
        path.push(toPixel(v));
        if (Math.hypot(...v) > 4 * REACH) break;
      }
      line(path, 1);
      pen.fillStyle = "white";
      for (const p of path) pen.fillRect(p[0] - 1.2, p[1] - 1.2, 2.4, 2.4);
      const end = path[path.length - 1];
      pen.beginPath();
      pen.arc(end[0], end[1], 4, 0, 2 * Math.PI);
      pen.fillStyle = "#D55E00";
      pen.fill();
    }
  };
  const born = () => ({ at: [REACH * (2 * Math.random() - 1), REACH * (2 * Math.random() - 1)], tail: [], age: Math.random() * 160 });
  const drift = () => {
    const usual = typical(grid(8));
    particles.forEach((one, n) => {
      const { down } = at(one.at), size = Math.hypot(...down);
      one.tail.push(toPixel(one.at));
      if (one.tail.length > 12 * state.length) one.tail.shift();
      if (size > 0) one.at = plus(one.at, scaled(0.02 * REACH / (size + usual), down));
      one.age += 1;
      if (one.age > 200 || Math.abs(one.at[0]) > REACH || Math.abs(one.at[1]) > REACH) particles[n] = born();
    });
  };
  const flock = () => {
    for (const one of particles) if (one.tail.length > 1) line(one.tail, 1.4);
  };

  const ring = () => {
    const p = toPixel(state.target);
    for (const [width, ink] of [[6, "black"], [3, "white"]]) {
      pen.beginPath();
      pen.arc(p[0], p[1], 10, 0, 2 * Math.PI);
      pen.strokeStyle = ink;
      pen.lineWidth = width;
      pen.stroke();
    }
    const o = toPixel([0, 0]);
    line([[o[0] - 6, o[1]], [o[0] + 6, o[1]]], 1);
    line([[o[0], o[1] - 6], [o[0], o[1] + 6]], 1);
  };
  // Numbers along the edges, inside, so that the plane fills the square.
  const edges = () => {
    const write = (text, x, y, align, baseline) => {
      Object.assign(pen, { font: "17px system-ui, sans-serif", textAlign: align, textBaseline: baseline });
      Object.assign(pen, { lineJoin: "round", lineWidth: 4, strokeStyle: "black", fillStyle: "white" });
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
    };
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const value = `${Number((REACH * (2 * share - 1)).toPrecision(3))}`, last = share === 1;
      const align = share ? (last ? "right" : "center") : "left";
      write(last ? `first component ${value}` : value, Math.min(Math.max(share * SIDE, 6), SIDE - 6), SIDE - 8, align, "alphabetic");
      // The corner at the lower left has its number already.
      if (share) write(last ? `${value} second component` : value, 6, last ? 8 : (1 - share) * SIDE, "left", last ? "top" : "middle");
    }
  };
  const short = (value) => (Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-2) ? value.toExponential(1) : value.toPrecision(3));
  let printing = false;
  const rule = () => {
    const ink = printing ? "black" : getComputedStyle(figure).color;
    ruler.clearRect(0, 0, scale.width, scale.height);
    for (let n = 0; n < scale.width; n++) {
      const [r, g, b] = colour(n / (scale.width - 1));
      ruler.fillStyle = `rgb(${r} ${g} ${b})`;
      ruler.fillRect(n, 0, 1, 12);
    }
    ruler.fillStyle = ink;
    ruler.font = "15px system-ui, sans-serif";
    const last = ranks.length - 1;
    for (const [share, side] of [[0, "left"], [0.25, "center"], [0.5, "center"], [0.75, "center"], [1, "right"]]) {
      ruler.textAlign = side;
      ruler.fillText(short(ranks[Math.round(share * last)]), share * scale.width, 30);
    }
  };
  const say = () => {
    const t = state.target.map((c) => c.toFixed(2)).join(", ");
    const fixed = state.side === "x" ? "y" : "x";
    const what = state.colour === "loss" ? "loss" : "size of the gradient";
    const name = state.name === "gen" ? `gen(${state.a})` : state.name;
    told.textContent = `${name}: ${fixed} = (${t})${state.held ? ", held" : ""}; ${what} from ${short(ranks[0])} to ${short(ranks[ranks.length - 1])} in a square of ${2 * REACH} by ${2 * REACH}.`;
  };
  const draw = () => {
    pen.clearRect(0, 0, SIDE, SIDE);
    paint();
    ({ arrows, lines, particles: flock, descents })[state.display]();
    ring();
    edges();
    rule();
  };
  let speaking = 0;
  const changed = () => {
    dirty = true;
    window.clearTimeout(speaking);
    speaking = window.setTimeout(say, 250);
  };

  const tell = () => {
    for (const id of SLIDERS) get(id + "-told").textContent = get(id).value;
    get("a").disabled = state.name !== "gen";
    get("step").disabled = state.display !== "descents";
  };
  const readControls = () => {
    for (const id of SLIDERS) state[id] = Number(get(id).value);
    for (const id of CHOICES) state[id] = get(id).value;
    tell();
    changed();
  };
  const begin = () => {
    state = { target: [...start.target], held: false };
    for (const [id, value] of Object.entries(start.controls)) get(id).value = value;
    particles = Array.from({ length: 350 }, born);
    if (calm) for (let n = 0; n < 12; n++) { state = { ...state, ...start.controls }; drift(); }
    readControls();
  };
  const move = (v) => {
    state.target = v.map((c) => Math.min(Math.max(c, -REACH), REACH));
    changed();
  };
  const pointed = (event) => {
    const box = canvas.getBoundingClientRect();
    return toPlane((event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height);
  };
  const hold = () => {
    state.held = !state.held;
    changed();
  };
  canvas.addEventListener("pointermove", (event) => { if (!state.held) move(pointed(event)); });
  canvas.addEventListener("pointerdown", (event) => { move(pointed(event)); hold(); });
  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.key in KEYS) move(plus(state.target, scaled((event.shiftKey ? 0.2 : 0.04) * REACH, KEYS[event.key])));
    else if (event.key === "Home") move([...start.target]);
    else if (event.key === " ") hold();
    else return;
    event.preventDefault();
  });
  const form = figure.querySelector("form");
  for (const kind of ["input", "change"]) form.addEventListener(kind, readControls);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => { event.preventDefault(); begin(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  for (const [moment, begins] of [["beforeprint", true], ["afterprint", false]])
    window.addEventListener(moment, () => { printing = begins; rule(); });

  const frame = (now) => {
    const moving = state.display === "particles" || (state.noise > 0 && state.rate > 0);
    if (moving && !calm && now - last > 30) {
      time += Math.min((now - last) / 1000, 0.1);
      last = now;
      if (state.display === "particles") drift();
      dirty = true;
    }
    if (dirty) {
      dirty = false;
      draw();
    }
    window.requestAnimationFrame(frame);
  };
  begin();
  draw();
  say();
  window.requestAnimationFrame(frame);
})();
