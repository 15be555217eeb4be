// Truth, forecast and error of one sample, with a slider through time. Truth and error are 16-bit steps of a
// range, and the forecast is their sum.
"use strict";

function numbers(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Uint16Array(bytes.buffer);
}

function colours(text) {
  return text.match(/.{6}/g).map(hex => [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16)));
}

function short(value, digits) {
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small ? value.toExponential(digits - 1) : value.toPrecision(digits);
}

function gradient(table) {
  const stops = [0, 32, 64, 96, 128, 160, 192, 224, 255].map(i => "rgb(" + table[i].join(",") + ")");
  return "linear-gradient(to right, " + stops.join(", ") + ")";
}

function viewer(root, data) {
  const panels = ["truth", "forecast", "error"];
  const made = tag => document.createElement(tag);
  const controls = made("div"), row = made("div"), button = made("button"), slider = made("input");
  const clock = made("output"), choice = made("select");
  controls.className = "controls";
  row.className = "panels";
  button.textContent = "play";
  slider.type = "range";
  slider.min = 0;
  slider.max = data.leads.length - 1;
  slider.value = 0;
  slider.setAttribute("aria-label", "lead time");
  choice.setAttribute("aria-label", "variable");
  for (const variable of data.variables) choice.append(new Option(variable.name));
  if (data.variables.length > 1) controls.append(choice);
  controls.append(button, slider, clock);
  const views = panels.map(name => {
    const figure = made("figure"), caption = made("figcaption"), canvas = made("canvas");
    const bar = made("div"), ends = made("div");
    bar.className = "bar";
    ends.className = "ends";
    canvas.width = data.columns;
    canvas.height = data.rows;
    canvas.style.aspectRatio = data.aspect;
    figure.append(caption, canvas, bar, ends);
    row.append(figure);
    return {name, caption, canvas, bar, ends, at: null};
  });
  root.append(controls, row);

  const size = data.rows * data.columns;
  const unpacked = data.variables.map(v => ({
    ...v, table: colours(v.colours), errorTable: colours(v.error_colours),
    values: {truth: numbers(v.truth), error: numbers(v.error)},
  }));

  function value(variable, name, index) {
    if (name === "forecast") return value(variable, "truth", index) + value(variable, "error", index);
    const [low, high] = name === "error" ? variable.error_range : variable.range;
    return low + (high - low) * variable.values[name][index] / 65535;
  }

  function draw() {
    const variable = unpacked[choice.selectedIndex < 0 ? 0 : choice.selectedIndex];
    const frame = Number(slider.value), unit = variable.unit === "1" ? "" : " " + variable.unit;
    clock.textContent = "lead time " + Number(data.leads[frame].toPrecision(5)) + (data.clock === "1" ? "" : " " + data.clock);
    for (const view of views) {
      const [low, high] = view.name === "error" ? variable.error_range : variable.range;
      const table = view.name === "error" ? variable.errorTable : variable.table;
      const context = view.canvas.getContext("2d"), image = context.createImageData(data.columns, data.rows);
      for (let j = 0; j < data.rows; j++) for (let i = 0; i < data.columns; i++) {
        const from = frame * size + (data.rows - 1 - j) * data.columns + i, to = 4 * (j * data.columns + i);
        const share = (value(variable, view.name, from) - low) / (high - low);
        const [r, g, b] = table[Math.max(0, Math.min(255, Math.floor(256 * share)))];
        image.data[to] = r; image.data[to + 1] = g; image.data[to + 2] = b; image.data[to + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      let words = view.name === "error" ? "forecast − truth, relative L2 " + short(variable.errors[frame], 2) : view.name;
      if (view.at !== null) words += " · here " + short(value(variable, view.name, frame * size + view.at), 4) + unit;
      view.caption.textContent = words;
      view.bar.style.background = gradient(table);
      view.ends.replaceChildren(...[low, high].map(v => {
        const end = made("span");
        end.textContent = short(v, 3) + unit;
        return end;
      }));
    }
  }

  function look(event, inside) {
    const box = event.target.getBoundingClientRect();
    const i = Math.floor((event.clientX - box.left) / box.width * data.columns);
    const j = data.rows - 1 - Math.floor((event.clientY - box.top) / box.height * data.rows);
    const known = inside && i >= 0 && j >= 0 && i < data.columns && j < data.rows;
    for (const view of views) view.at = known ? j * data.columns + i : null;
    draw();
  }

  let timer = null;
  button.onclick = () => {
    if (timer !== null) { clearInterval(timer); timer = null; button.textContent = "play"; return; }
    button.textContent = "pause";
    timer = setInterval(() => { slider.value = (Number(slider.value) + 1) % data.leads.length; draw(); }, 250);
  };
  slider.oninput = draw;
  choice.onchange = draw;
  for (const view of views) {
    view.canvas.onmousemove = event => look(event, true);
    view.canvas.onmouseleave = event => look(event, false);
  }
  draw();
}

for (const root of document.querySelectorAll(".viewer"))
  viewer(root, JSON.parse(root.querySelector("script[type='application/json']").textContent));
