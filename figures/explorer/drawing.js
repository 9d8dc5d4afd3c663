// Pictures as SVG text. Colours are classes and variables of the style sheet, so that they follow a dark page.

const MARGIN = { left: 46, right: 18, top: 26, bottom: 34 };

// Return the functions that place a time (on a log axis) and a value in a box of this size.
function placed(width, height, [start, stop], [low, high]) {
  const [from, to] = [Math.log(start), Math.log(stop)];
  return {
    x: (time) => ((Math.log(time) - from) / (to - from)) * width,
    y: (value) => height - ((value - low) / (high - low)) * height,
  };
}

// Return the times of all runs that are worth showing: from well before the first feature is learned to the end.
function timeRange(runs) {
  const learned = runs.flatMap((run) => Array.from(run.learned)).filter((time) => time > 0 && time < Infinity);
  const stop = Math.max(...runs.map(endOf));
  const start = learned.length ? Math.min(...learned) / 5 : stop / 100;
  return [Math.max(start, runs[0].rate), stop];
}

// Return round numbers between two times: 1, 2 and 5 times powers of ten, or powers of ten alone where those are many.
function logTicks([start, stop]) {
  const steps = stop / start > 500 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(start)); power <= Math.log10(stop); power++)
    for (const step of steps)
      if (step * 10 ** power >= start && step * 10 ** power <= stop) ticks.push(step * 10 ** power);
  return ticks;
}

// Return a few round numbers between two numbers, 0 among them where it is.
function linearTicks([low, high]) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

// Return a letter with a subscript.
function low(letter, index) {
  return `${letter}<tspan class="small" dy="3">${index}</tspan><tspan dy="-3">\u200b</tspan>`;
}

// Return the `points` of a curve, leaving out what lies within less than half a pixel of the point before.
function points(time, values, { x, y }, start) {
  let text = "";
  let [lastX, lastY] = [-Infinity, -Infinity];
  for (let i = 0; i < time.length; i++) {
    if (!(time[i] >= start) || !Number.isFinite(values[i])) continue;
    const [across, down] = [x(time[i]), Math.min(1e4, Math.max(-1e4, y(values[i])))];
    if (i < time.length - 1 && Math.abs(across - lastX) + Math.abs(down - lastY) < 0.5) continue;
    text += `${across.toFixed(1)},${down.toFixed(1)} `;
    [lastX, lastY] = [across, down];
  }
  return text;
}

function curve(time, values, place, start, kind) {
  return `<polyline class="${kind}" points="${points(time, values, place, start)}"/>`;
}

// Return the time and the values of a run up to `stop`. A run that is at rest stays where it is.
function extended(run, values, stop) {
  return isAtRest(run) && endOf(run) < stop
    ? { time: [...run.time, stop], values: [...values, values[values.length - 1]] }
    : { time: run.time, values };
}

// Return a picture with axes: `inner(place, width, height)` draws inside, and nothing leaves the box.
function picture(
  { width, height, times, values, title, kind = "", label, below = "time (learning rate × step)" },
  inner,
) {
  const [across, down] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
  const place = placed(across, down, times, values);
  const rows = linearTicks(values).map(
    (tick) =>
      `<line class="grid" x1="0" x2="${across}" y1="${place.y(tick)}" y2="${place.y(tick)}"/>` +
      `<text x="-6" y="${place.y(tick) + 4}" text-anchor="end">${String(Number(tick.toPrecision(6))).replace("-", "−")}</text>`,
  );
  const columns = spaced(logTicks(times), place.x, 34).map(
    (tick) => `<text x="${place.x(tick)}" y="${down + 15}" text-anchor="middle">${Number(tick.toPrecision(3))}</text>`,
  );
  return (
    `<svg width="${width}" height="${height}" role="img" aria-label="${label}">` +
    `<text class="title ${kind}" x="4" y="15">${title}</text>` +
    `<g transform="translate(${MARGIN.left} ${MARGIN.top})">${rows.join("")}` +
    `<line class="axis" x1="0" x2="${across}" y1="${down}" y2="${down}"/>${columns.join("")}` +
    `<text x="${across}" y="${down + 30}" text-anchor="end">${below}</text>` +
    `<svg width="${across}" height="${down}">${inner(place, across, down)}</svg></g></svg>`
  );
}

// Return those ticks that have room.
function spaced(ticks, x, room) {
  let last = -Infinity;
  return ticks.filter((tick) => x(tick) - last >= room && ((last = x(tick)), true));
}

// Return the loss of all runs, with the predicted plateaus dashed.
function lossPicture(runs, levels, own, size) {
  const [all, times] = [Object.entries(runs), timeRange(Object.values(runs))];
  const about = {
    ...size,
    times,
    values: [0, levels[0] * 1.1],
    title: "Loss (mean square error)",
    label: "Loss over time",
  };
  return picture(about, (place, width) => {
    const dashed = (level, kind) =>
      `<line class="plateau ${kind}" x1="0" x2="${width}" y1="${place.y(level)}" y2="${place.y(level)}"/>`;
    const words = levels.map((level, m) =>
      m === 0 ? "nothing learned" : m === levels.length - 1 ? "all" : `${m} learned`,
    );
    const texts = levels
      .map((level, m) => `<text class="word" x="5" y="${place.y(level) - 4}">${words[m]}</text>`)
      .filter((_, m) => m === 0 || place.y(levels[m]) - place.y(levels[m - 1]) > 13);
    const others = own.filter((level) => !levels.some((each) => Math.abs(each - level) < 1e-6 * levels[0]));
    const curves = all.map(([name, run]) => {
      const { time, values } = extended(run, run.loss, times[1]);
      return curve(time, values, place, times[0], name);
    });
    return [
      ...levels.map((level) => dashed(level, "")),
      ...others.map((level) => dashed(level, "upsampled")),
      ...curves,
      ...texts,
    ].join("");
  });
}

// Return the strengths of the features in one run, as shares of their optimum.
function strengthPicture(name, run, times, size) {
  const title = `${low("w", "d")} / ${low("w", "d")}*, ${METHODS[name]}`;
  const about = {
    ...size,
    times,
    values: [0, 1.15],
    title,
    kind: name,
    label: `Strengths of the features, ${METHODS[name]}`,
  };
  return picture(about, (place, width) => {
    const half = `<line class="half" x1="0" x2="${width}" y1="${place.y(LEARNED)}" y2="${place.y(LEARNED)}"/>`;
    const curves = Array.from(run.learned, (learned, d) => {
      const { time, values } = extended(
        run,
        run.strength.map((w) => w[d] / run.features.optimum[d]),
        times[1],
      );
      const dot =
        learned < Infinity
          ? `<circle class="feature${d + 1}" cx="${place.x(learned)}" cy="${place.y(LEARNED)}" r="3"/>`
          : "";
      return curve(time, values, place, times[0], `feature${d + 1}`) + dot;
    });
    return half + curves.reverse().join("");
  });
}

// Return bars of t_d/t_1 from 1 on a log axis. What is not learned has words in place of a bar.
function ratioPicture(runs, { width, height }) {
  const [names, all] = [Object.keys(runs), Object.values(runs)];
  const features = Array.from(all[0].learned.keys()).slice(1);
  const values = all.flatMap((run) => features.map((d) => ratio(run, d))).filter((value) => value > 0);
  const range = [Math.min(0.9, ...values), Math.max(2, ...values)];
  const [across, down] = [width - MARGIN.left - 54, height - MARGIN.top - MARGIN.bottom];
  const { x } = placed(across, down, range, [0, 1]);
  const thick = Math.min(17, down / (features.length * (names.length + 0.8)));
  const rows = features.flatMap((d, group) => {
    const top = group * (down / features.length);
    const head = `<text x="-8" y="${top + 1.5 * thick + 4}" text-anchor="end">${low("t", d + 1)}/${low("t", 1)}</text>`;
    const bars = names.map((name, i) => {
      const value = ratio(runs[name], d);
      const middle = top + (i + 0.5) * thick;
      if (!(value > 0))
        return `<text class="${name} absent" x="${x(1) + 6}" y="${middle + 4}">${ratioText(runs[name], d)}</text>`;
      const [from, to] = [Math.min(x(value), x(1)), Math.max(x(value), x(1))];
      return (
        `<rect class="${name}" x="${from}" width="${Math.max(1, to - from)}" ` +
        `y="${middle - thick / 2 + 1}" height="${thick - 2}"/>` +
        `<text x="${to + 5}" y="${middle + 4}">${ratioText(runs[name], d)}</text>`
      );
    });
    return [head, ...bars];
  });
  const ticks = spaced(logTicks(range), x, 30).map(
    (tick) => `<text x="${x(tick)}" y="${down + 15}" text-anchor="middle">${Number(tick.toPrecision(3))}</text>`,
  );
  return (
    `<svg width="${width}" height="${height}" role="img" aria-label="Learning times over that of feature 1">` +
    `<text class="title" x="4" y="15">Simplicity bias: ${low("t", "d")}/${low("t", 1)} (1: at the same time)</text>` +
    `<g transform="translate(${MARGIN.left} ${MARGIN.top})">${rows.join("")}` +
    `<line class="axis" x1="${x(1)}" x2="${x(1)}" y1="-4" y2="${down}"/>${ticks.join("")}` +
    `<text x="${across}" y="${down + 30}" text-anchor="end">ratio, log scale</text></g></svg>`
  );
}

// Return the learning times as rows of a table.
function timeRows(runs) {
  return Object.entries(runs)
    .map(([name, run]) => {
      const cells = Array.from(run.learned.keys(), (d) => `<td>${timeText(run, d)}</td>`);
      return `<tr><th scope="row" class="${name}">${METHODS[name]}</th>${cells.join("")}</tr>`;
    })
    .join("");
}
