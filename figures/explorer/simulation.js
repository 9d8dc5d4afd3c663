// Runs of gradient descent, SAM and gradient descent on upsampled data, step by step; the saddle trap; the κ that stands
// in for SAM's ρ. Plain functions, without a page.

const SETTLED = 0.95; // share of the optimum at which a run may end
const POINTS_PER_E_FOLD = 60; // snapshots while the time grows by a factor e
const SPREAD = 1.25; // how much longer than the last learning time a run goes on
const BLOWN_UP = 1000; // a loss of this many times its start has diverged
const AT_REST = 1e-6; // relative distance from the optimum at which a run may stop and be drawn as flat
const MOST_STEPS = { aligned: 300_000, random: 100_000 };
const OSCILLATION = 1e-4; // change of a strength, as a share of half its optimum, that counts as a swing
const TURNS = 20; // swings in a row that count as an oscillation
const FACTORS = [0.25, 16]; // range of κ

// Return a run that has not begun. `features` are those of the data that are trained on, `measured` those of the data
// that losses are measured on; both have one optimum.
function newRun(setting, { rho = 0, factor = 1 }) {
  const measured = groupFeatures(setting);
  const features = factor === 1 ? measured : groupFeatures(setting, factor);
  const model =
    setting.start === "random"
      ? randomModel(features, randomStart(setting, setting.eigenvalues.length), setting.rate, rho)
      : alignedModel(features, new Float64Array(setting.eigenvalues.length).fill(setting.size), setting.rate, rho);
  return runOf(model, measured, setting.rate);
}

// Return the run of a model: snapshots at steps that grow by a factor, and the time at which each feature is learned,
// interpolated between two steps; Infinity where it is not.
function runOf(model, features, rate) {
  const run = { model, features, rate, step: 0, next: 0, ended: false, diverged: false, oscillates: Infinity };
  run.half = Float64Array.from(features.optimum, (value) => LEARNED * value);
  run.learned = Float64Array.from(run.half, (half, d) => (model.strength[d] >= half ? 0 : Infinity));
  run.last = Float64Array.from(model.strength); // strengths one step before
  run.change = new Float64Array(run.half.length); // and their change
  run.turns = 0; // steps in a row at which some strength turned round
  Object.assign(run, { time: [], loss: [], strength: [] });
  record(run);
  return run;
}

function record(run) {
  const loss = lossOf(run.features, run.model.strength);
  run.time.push(run.step * run.rate);
  run.loss.push(loss);
  run.strength.push(Array.from(run.model.strength));
  run.next = Math.max(run.step + 1, Math.round(run.step * Math.exp(1 / POINTS_PER_E_FOLD)));
  if (!(loss < BLOWN_UP * run.features.energy)) run.diverged = run.ended = true;
}

// Go on until `steps` steps are taken, until the run diverges or, where `enough(run)` is given, until that is true.
function goOn(run, steps, enough = () => false) {
  const { model, last, learned } = run;
  while (run.step < steps && !run.ended) {
    model.advance();
    run.step++;
    follow(run, model.strength, run.half, last, run.change, learned);
    if (run.step === run.next) {
      record(run);
      if (enough(run)) break;
    }
  }
  if (!run.ended && run.time[run.time.length - 1] !== run.step * run.rate) record(run);
  return run;
}

// Note which features this step has learned, and whether steps turn round again and again (they oscillate).
function follow(run, strength, half, last, change, learned) {
  let turned = false;
  for (let d = 0; d < half.length; d++) {
    const moved = strength[d] - last[d];
    if (learned[d] === Infinity && strength[d] >= half[d])
      learned[d] = (run.step - 1 + (half[d] - last[d]) / moved) * run.rate;
    if (moved * change[d] < 0 && Math.abs(moved) > OSCILLATION * half[d]) turned = true;
    change[d] = moved;
    last[d] = strength[d];
  }
  run.turns = turned ? run.turns + 1 : 0;
  if (run.turns === TURNS && run.oscillates === Infinity) run.oscillates = run.step * run.rate;
}

// Tell whether all features are learned, have settled, and some time has passed.
function isDone(run) {
  const last = Math.max(...run.learned);
  const settled = run.features.optimum.every((value, d) => run.model.strength[d] >= SETTLED * value);
  return settled && run.step * run.rate >= SPREAD * last;
}

// Tell whether all features are at their optimum.
function isAtRest({ features, model }) {
  return features.optimum.every((value, d) => Math.abs(model.strength[d] / value - 1) < AT_REST);
}

// Return the runs of gradient descent, SAM and gradient descent on upsampled data, all of the same length: until all
// three have learned everything, or as many steps as there may be. Runs that are at rest stop before.
function simulate(setting, mostSteps = MOST_STEPS[setting.start]) {
  const runs = {
    gd: newRun(setting, {}),
    sam: newRun(setting, { rho: setting.rho }),
    upsampled: newRun(setting, { factor: setting.factor }),
  };
  for (const run of Object.values(runs)) goOn(run, mostSteps, isDone);
  const steps = Math.max(...Object.values(runs).map((run) => run.step));
  for (const run of Object.values(runs)) goOn(run, steps, isAtRest);
  return runs;
}

// Tell whether a run has learned nothing, where gradient descent had learned a feature in a fifth of the time.
function isAtSaddle(run, gd) {
  const until = run.step * run.rate;
  return !run.diverged && Math.min(...run.learned) === Infinity && Math.min(...gd.learned) < until / 5;
}

// Tell whether SAM rests at the saddle at zero: it is there still, and in the second half of the run its strengths no
// longer grow, or less and less.
function isTrapped({ gd, sam }) {
  if (!isAtSaddle(sam, gd)) return false;
  const sizes = sam.strength.map((w) => w.reduce((sum, each) => sum + Math.abs(each), 0));
  const from = (share) => sam.time.findIndex((time) => time >= share * sam.time[sam.time.length - 1]);
  const [half, middle, last] = [from(0.5), from(0.75), sizes.length - 1];
  const grows = sizes.slice(half).every((size, i, all) => i === 0 || size > all[i - 1]);
  return !(grows && pace(half, middle) < pace(middle, last));
  function pace(start, stop) {
    return (sizes[stop] - sizes[start]) / (sam.time[stop] - sam.time[start]);
  }
}

// Return t_2/t_1, or NaN where one of the two is not learned.
function ratio(run, feature = 1) {
  return run.learned[0] > 0 && run.learned[feature] < Infinity ? run.learned[feature] / run.learned[0] : NaN;
}

function knowsRatio({ learned }) {
  return learned[0] < Infinity && learned[1] < Infinity;
}

// Return ‖θ(0)‖, the ρ at which SAM stalls at the saddle where features are equal (notes §6).
function startNorm(setting) {
  if (setting.start === "aligned") return Math.sqrt(3 * setting.eigenvalues.length) * setting.size;
  return Math.hypot(...randomStart(setting, setting.eigenvalues.length));
}

// Find the κ at which gradient descent on upsampled data has SAM's t_2/t_1, by bisection in ln κ.
// Returns {factor, ratio, achieved} or, where there is none, {none: "trap" | "sam" | "gd" | "below" | "above" | "jump"}.
function findFactor(setting, runs = simulate(setting)) {
  const target = ratio(runs.sam);
  if (isTrapped(runs)) return { none: "trap" };
  if (!(target > 0)) return { none: "sam" };
  const achieved = (factor) => {
    const { learned } = goOn(newRun(setting, { factor }), MOST_STEPS[setting.start], knowsRatio);
    return learned[1] / learned[0]; // infinite or 0 where one of the two comes after the last step
  };
  let [low, high] = FACTORS.map(Math.log);
  const [most, least] = FACTORS.map(achieved);
  if (Number.isNaN(most + least)) return { none: "gd" };
  if (target > most) return { none: "below", ratio: target };
  if (target < least) return { none: "above", ratio: target };
  for (let i = 0; i < 32; i++) {
    const middle = (low + high) / 2;
    [low, high] = achieved(Math.exp(middle)) > target ? [middle, high] : [low, middle];
  }
  const factor = Math.exp((low + high) / 2);
  const found = achieved(factor);
  return Math.abs(found / target - 1) < 1e-3
    ? { factor, ratio: target, achieved: found }
    : { none: "jump", factor, ratio: target };
}
