// The difference of two methods in held-out loss over training, from saved measurements.

// Return medians, lower and upper ends of the change in per cent, of one method against another.
function changeOf(saved, data, first, second) {
  const [low, high] = [Math.min(first, second), Math.max(first, second)];
  const count = saved.methods.length;
  const place = (low * (2 * count - low - 1)) / 2 + high - low - 1; // among all pairs, in order
  const rows = saved.changes[data][place].map((row) => row.map((value) => value * saved.unit));
  const [median, from, to] =
    first < second ? rows : [rows[0], rows[2], rows[1]].map((row) => row.map((value) => -value));
  return [median, from, to].map((row) => row.map((value) => 100 * Math.expm1(value)));
}

// Return a sentence on where the interval leaves zero out.
function changeSentence(saved, data, first, second) {
  const names = [first, second].map((each) => saved.methods[each]);
  if (first === second) return "Choose two different methods.";
  const [median, low, high] = changeOf(saved, data, first, second);
  const last = median.length - 1;
  const clear = (side) => {
    const at = Array.from(median.keys()).filter((i) => (side < 0 ? high[i] < 0 : low[i] > 0));
    if (!at.length) return [];
    const peak = at.reduce((best, i) => (Math.abs(median[i]) > Math.abs(median[best]) ? i : best));
    return [
      `${side < 0 ? "lower" : "higher"} at ${at.length} of ${last + 1} times, ` +
        `by up to ${digits(Math.abs(median[peak]))} % (t = ${digits(saved.time[peak])})`,
    ];
  };
  const found = [...clear(-1), ...clear(1)].join("; ") || "not clearly different at any time";
  return (
    `At equal steps (${saved.data[data]}) the held-out loss of ${names[0]} against ${names[1]} is ${found}. At the end ` +
    `it changes by ${signed(median[last])} % (${signed(low[last])} to ${signed(high[last])}). ` +
    `Medians of ${saved.seeds} seeds, 99 % intervals.`
  );
}

function changePicture(saved, data, first, second, box) {
  const [median, low, high] = changeOf(saved, data, first, second);
  const [least, most] = [Math.min(...low, -0.1), Math.max(...high, 0.1)];
  const room = (most - least) / 20;
  const times = [saved.time[0], saved.time[saved.time.length - 1]];
  const about = {
    ...box,
    times,
    values: [least - room, most + room],
    title: "Change of the held-out loss at equal steps, %",
    label: "Change of the held-out loss over time",
  };
  return picture(about, (place, width) => {
    const edge = [low, [...high].reverse()];
    const around = edge
      .map((row, i) => points(i ? [...saved.time].reverse() : saved.time, row, place, times[0]))
      .join("");
    return (
      `<line class="axis" x1="0" x2="${width}" y1="${place.y(0)}" y2="${place.y(0)}"/>` +
      `<polygon class="band ${saved.kinds[first]}" points="${around}"/>` +
      curve(saved.time, median, place, times[0], saved.kinds[first])
    );
  });
}

function mountGeneralisation(root, saved) {
  const pick = (name) => root.querySelector(`[data-pick=${name}]`);
  const [first, second, data] = ["first", "second", "data"].map(pick);
  for (const each of [first, second]) each.append(...saved.methods.map((name, i) => new Option(name, i)));
  data.append(...saved.data.map((name, i) => new Option(name, i)));
  [first.value, second.value, data.value] = [2, 0, saved.data.length - 1]; // late upsampled against gradient descent
  const target = root.querySelector("[data-picture=change]");
  function show() {
    const chosen = [data, first, second].map((each) => Number(each.value));
    root.querySelector(".compared").textContent = changeSentence(saved, ...chosen);
    const box = { width: Math.max(240, target.clientWidth), height: 220 };
    target.innerHTML = chosen[1] === chosen[2] ? "" : changePicture(saved, ...chosen, box);
  }
  for (const each of [first, second, data]) each.addEventListener("change", show);
  new ResizeObserver(show).observe(root);
}
