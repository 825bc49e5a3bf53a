"use strict";
(() => {
  const film = document.getElementById("film");
  const { films } = JSON.parse(film.dataset.start);
  const [canvas, told, name, step, stepTold, play] =
    ["canvas", "told", "name", "step", "step-told", "play"].map((id) => document.getElementById(`film-${id}`));
  const pen = canvas.getContext("2d");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const PAUSE_MS = 500;
  let timer = 0, printing = false;

  const draw = () => {
    const { reach, cloud, frames, steps } = films[name.selectedIndex];
    const number = Number(step.value), size = canvas.width;
    const place = ([x, y]) => [(x / reach + 1) * size / 2, (1 - y / reach) * size / 2];
    pen.clearRect(0, 0, size, size);
    const onDark = dark.matches && !printing;
    pen.fillStyle = onDark ? "#F0883E" : "#D55E00";
    for (const point of cloud) {
      pen.beginPath();
      pen.arc(...place(point), 3, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.strokeStyle = onDark ? "#56B4E9" : "#0072B2";
    pen.lineWidth = 2.5;
    for (const line of frames[number]) {
      pen.beginPath();
      for (const point of line) pen.lineTo(...place(point));
      pen.stroke();
    }
    stepTold.textContent = `step ${steps[number]}`;
    step.setAttribute("aria-valuetext", stepTold.textContent);
    told.textContent = `${name.value}: after ${steps[number]} of ${steps[steps.length - 1]} steps.`;
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const next = () => {
    step.value = Number(step.value) + 1;
    draw();
    if (step.value === step.max) stop();
  };
  const choose = () => {
    stop();
    step.max = films[name.selectedIndex].frames.length - 1;
    step.value = 0;
    draw();
  };

  for (const each of films) name.add(new Option(each.name));
  name.addEventListener("change", choose);
  step.addEventListener("input", () => { stop(); draw(); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (step.value === step.max) step.value = 0;
    draw();
    play.textContent = "Stop";
    timer = setInterval(next, PAUSE_MS);
  });
  dark.addEventListener("change", draw);
  for (const [moment, begins] of [["beforeprint", true], ["afterprint", false]])
    window.addEventListener(moment, () => { printing = begins; draw(); });
  choose();
})();
