// The page's part: controls, the link, and when to draw. One call of `mount` for each explorer on a page.

const DEFAULTS = {
  start: "aligned",
  eigenvalues: geometricSpectrum(1.5),
  context: 31,
  factor: 2,
  rate: 0.02,
  rho: 0.04,
  size: 0.05,
  scale: 0.1,
  seed: 0,
  heads: 5,
};

const evenly = (from, to, step) =>
  Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => Number((from + i * step).toPrecision(12)));

// Sliders step through values. `when` is the start for which a slider is shown, `note` what is shown beside the value
// and `unit` before it.
const SLIDERS = {
  ratio: { place: "data", name: "eigenvalue ratio λ_d/λ_(d+1)", values: evenly(1, 2.5, 0.05) },
  context: { place: "data", name: "context length N", values: [1, 2, 4, 8, 16, 31, 63, 127, 255, 511, 1023] },
  factor: {
    place: "data",
    name: "κ, upsampling of features 2 to 4",
    values: evenly(-16, 32, 1).map((i) => 2 ** (i / 8)),
    unit: "×\u00a0",
  },
  rho: { place: "optimizer", name: "ρ, SAM's radius", values: evenly(0, 0.3, 0.005), note: radiusNote },
  rate: { place: "optimizer", name: "learning rate η", values: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2] },
  size: {
    place: "start",
    name: "initial scale u₀",
    values: [0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2],
    when: "aligned",
  },
  scale: {
    place: "start",
    name: "initial scale of values",
    values: [0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3],
    when: "random",
  },
  seed: { place: "start", name: "seed", values: evenly(0, 99, 1), when: "random" },
  heads: { place: "start", name: "heads H", values: evenly(1, 8, 1), when: "random" },
};
for (let d = 0; d < 4; d++)
  SLIDERS[`eigenvalue${d}`] = { place: "eigenvalues", name: `λ_${d + 1}`, values: evenly(0.01, 1, 0.01), index: d };

function radiusNote(state) {
  if (state.start === "aligned") return `δ = ρ/(√3 u₀) = ${digits(state.rho / Math.sqrt(3) / state.size)}`;
  return `${digits(state.rho / startNorm(state))} times ‖θ(0)‖`;
}

// Return a label with its subscripts: "λ_1" has one, "λ_(d+1)" too.
function subscripts(text) {
  return text.replace(/_(\w|\(.*?\))/g, (_, low) => `<sub>${low.replace(/[()]/g, "")}</sub>`);
}

// Return the ratio of neighbouring eigenvalues, or NaN where it is not one number.
function commonRatio(eigenvalues) {
  const ratios = eigenvalues.slice(1).map((value, d) => eigenvalues[d] / value);
  return ratios.every((value) => Math.abs(value / ratios[0] - 1) < 1e-3) ? ratios[0] : NaN;
}

function valueOf(state, key) {
  const { index } = SLIDERS[key];
  if (index !== undefined) return state.eigenvalues[index];
  return key === "ratio" ? commonRatio(state.eigenvalues) : state[key];
}

// Return the state with a slider at a value. Eigenvalues do not pass their neighbours, so features keep their order.
function changed(state, key, value) {
  if (key === "ratio") return { ...state, eigenvalues: geometricSpectrum(value) };
  const { index } = SLIDERS[key];
  if (index === undefined) return { ...state, [key]: value };
  const [above, below] = [state.eigenvalues[index - 1] ?? Infinity, state.eigenvalues[index + 1] ?? 0];
  const eigenvalues = state.eigenvalues.map((old, d) => (d === index ? Math.min(above, Math.max(below, value)) : old));
  return { ...state, eigenvalues };
}

const PREFIX = "#explorer:";

// Return the link's part after the address.
function asHash(state) {
  const parts = Object.entries(state).map(
    ([key, value]) =>
      `${key}=${[value]
        .flat()
        .map((x) => (x === +x ? +x.toPrecision(6) : x))
        .join(",")}`,
  );
  return PREFIX + parts.join("&");
}

// Return the state that a link carries; what is missing or out of range is as in the default. Null for other links.
function fromHash(hash) {
  if (!hash.startsWith(PREFIX)) return null;
  const given = new Map(
    hash
      .slice(PREFIX.length)
      .split("&")
      .map((part) => part.split("=")),
  );
  const state = { ...DEFAULTS, start: given.get("start") === "random" ? "random" : "aligned" };
  for (const key of Object.keys(DEFAULTS)) {
    const values = SLIDERS[key]?.values;
    const value = Number(given.get(key) ?? NaN);
    if (!values || !(value >= values[0] && value <= values[values.length - 1])) continue;
    state[key] = ["context", "seed", "heads"].includes(key) ? Math.round(value) : value;
  }
  const eigenvalues = (given.get("eigenvalues") ?? "").split(",").map(Number);
  if (eigenvalues.length === 4 && eigenvalues.every((value) => value >= 0.01 && value <= 1))
    state.eigenvalues = eigenvalues.sort((a, b) => b - a);
  return state;
}

function mount(root) {
  const find = (query) => root.querySelector(query);
  let state = fromHash(location.hash) ?? { ...DEFAULTS };
  let runs = null;
  let planned = false;
  const later = {};

  const inputs = Object.fromEntries(Object.entries(SLIDERS).map(([key, slider]) => [key, addSlider(key, slider)]));
  function addSlider(key, { place, name, values }) {
    const label = document.createElement("label");
    const range = `<input type="range" min="0" max="${values.length - 1}" data-key="${key}">`;
    label.innerHTML = `<span>${subscripts(name)}</span> <span class="value"></span>${range}`;
    find(`[data-sliders=${place}]`).append(label);
    const input = label.querySelector("input");
    input.setAttribute("aria-label", name.replace(/_\(?|\)/g, " ").trim());
    input.addEventListener("input", () => set(changed(state, key, values[Number(input.value)])));
    return { label, input, output: label.querySelector(".value") };
  }

  function set(next) {
    state = next;
    find(".found").textContent = "";
    after("link", 300, () => history.replaceState(null, "", asHash(state)));
    plan();
  }

  // Do something once, a while after the last call with this name.
  function after(name, milliseconds, action) {
    clearTimeout(later[name]);
    later[name] = setTimeout(action, milliseconds);
  }

  function plan() {
    showControls();
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      if (planned) redraw();
    });
  }

  function redraw() {
    planned = false;
    const began = performance.now();
    runs = simulate(state);
    paint();
    root.dataset.redrawn = (performance.now() - began).toFixed(1);
    after("summary", 250, () => (find(".summary").textContent = summary(state, runs).join(" ")));
  }

  function showControls() {
    for (const radio of root.querySelectorAll("[name=start]")) radio.checked = radio.value === state.start;
    for (const [key, { label, input, output }] of Object.entries(inputs)) {
      const { values, when, note, unit = "" } = SLIDERS[key];
      const value = valueOf(state, key);
      label.hidden = when !== undefined && when !== state.start;
      const nearest = values.reduce(
        (best, each, i) => (Math.abs(each - value) < Math.abs(values[best] - value) ? i : best),
        0,
      );
      if (value === value) input.value = nearest;
      const text = value === value ? unit + digits(value) : "set one by one";
      output.textContent = note ? `${text}, ${note(state)}` : text;
      input.setAttribute("aria-valuetext", output.textContent);
    }
  }

  function paint() {
    const size = (name, height) => ({ width: Math.max(240, find(`[data-picture=${name}]`).clientWidth), height });
    const show = (name, svg) => (find(`[data-picture=${name}]`).innerHTML = svg);
    const { features } = runs.gd;
    const own = nestedPlateaus(features, groupFeatures(state, state.factor).drive);
    show("loss", lossPicture(runs, nestedPlateaus(features), own, size("loss", 270)));
    show("ratio", ratioPicture(runs, size("ratio", 270)));
    const times = timeRange(Object.values(runs));
    for (const [name, run] of Object.entries(runs)) show(name, strengthPicture(name, run, times, size(name, 190)));
    find(".times tbody").innerHTML = timeRows(runs);
  }

  function findKappa() {
    const found = findFactor(state, runs);
    if (!found.none) {
      set({ ...state, factor: found.factor });
      redraw();
    }
    find(".found").textContent = factorSentence(state, found, runs);
  }

  async function copyLink() {
    history.replaceState(null, "", asHash(state));
    const field = find(".link");
    try {
      await navigator.clipboard.writeText(location.href);
      find(".found").textContent = "The link is copied.";
    } catch {
      field.hidden = false; // no clipboard here: show the link to be copied by hand
      field.value = location.href;
      field.select();
      find(".found").textContent = "Copy the link from the field.";
    }
  }

  find("[data-action=find]").addEventListener("click", findKappa);
  find("[data-action=copy]").addEventListener("click", copyLink);
  find("[data-action=reset]").addEventListener("click", () => set({ ...DEFAULTS }));
  find(".controls").addEventListener("submit", (event) => event.preventDefault());
  for (const radio of root.querySelectorAll("[name=start]"))
    radio.addEventListener("change", () => set({ ...state, start: radio.value }));
  addEventListener("hashchange", () => {
    const linked = fromHash(location.hash);
    if (linked) set(linked);
  });
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (runs && root.clientWidth !== width) paint();
    width = root.clientWidth;
  }).observe(root);
  showControls();
  redraw();
  if (location.hash.startsWith(PREFIX)) root.scrollIntoView();
}
