// What the explorer says: sentences made from a setting and its runs. Plain functions that return text.

const METHODS = { gd: "gradient descent", sam: "SAM", upsampled: "upsampled data" };

// Return a number with three significant digits, in plain notation.
function digits(value) {
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

// Return a count with thin spaces between thousands.
function counted(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

// Return a number with its sign.
function signed(value) {
  const text = digits(Math.abs(value));
  return text === "0" ? text : `${value < 0 ? "−" : "+"}${text}`;
}

function endOf(run) {
  return run.time[run.time.length - 1];
}

// Return the learning time of a feature (0 is the first), or that it is not learned by the end of the run.
function timeText(run, feature) {
  const time = run.learned[feature];
  return time < Infinity ? digits(time) : `not learned by t = ${digits(endOf(run))}`;
}

// Return t_d/t_1 as text, or why there is none.
function ratioText(run, feature) {
  for (const needed of [0, feature])
    if (run.learned[needed] === Infinity) return `feature ${needed + 1} not learned by t = ${digits(endOf(run))}`;
  if (run.learned[0] === 0) return "feature 1 is learned at the start";
  return digits(run.learned[feature] / run.learned[0]);
}

// Return the sentences that tell what the runs show.
function summary(setting, runs) {
  const said = [];
  if (Object.values(runs).every((run) => ratio(run) > 0)) {
    const [gd, sam, upsampled] = Object.values(runs).map((run) => digits(ratio(run)));
    said.push(`t₂/t₁ is ${gd} under gradient descent, ${sam} under SAM and ${upsampled} on upsampled data.`);
  } else {
    const each = Object.entries(runs).map(([name, run]) => `${METHODS[name]}: ${ratioText(run, 1)}`);
    said.push(`t₂/t₁: ${each.join("; ")}.`);
  }
  said.push(...aboutSam(setting, runs));
  said.push(...aboutUpsampling(setting, runs));
  for (const [name, run] of Object.entries(runs))
    if (run.diverged) said.push(`Training diverges with ${METHODS[name]} at t = ${digits(endOf(run))}: lower η.`);
  return said;
}

function aboutSam(setting, { gd, sam }) {
  if (isAtSaddle(sam, gd)) {
    const trapped = isTrapped({ gd, sam });
    return [
      `${trapped ? "SAM is trapped" : "SAM waits"}: by t = ${digits(endOf(sam))} it has not left the saddle at zero` +
        `${trapped ? "" : ", though it moves away from it faster and faster"}. Gradient descent learned its first ` +
        `feature at t = ${digits(Math.min(...gd.learned))}. ρ is ${digits(setting.rho / startNorm(setting))} times ‖θ(0)‖.`,
    ];
  }
  const said = [];
  const known = Array.from(gd.learned.keys()).filter((d) => gd.learned[d] < Infinity && sam.learned[d] < Infinity);
  if (setting.rho > 0 && known.length && known.every((d) => sam.learned[d] > gd.learned[d]))
    said.push(known.length === gd.learned.length ? "SAM learns every feature later." : "What SAM learns, it learns later.");
  said.push(...orderSentence("Under SAM", sam));
  const like = setting.eigenvalues.every((value) => value === setting.eigenvalues[0]);
  if (setting.start === "aligned" && !like && setting.rho > startNorm(setting) / 2)
    said.push("From an aligned start unlike features are not trapped: for a trap try equal eigenvalues or a random start.");
  const last = Math.max(...Array.from(sam.learned).filter((time) => time < Infinity), 0);
  if (!sam.diverged && (sam.oscillates < last || (sam.oscillates < Infinity && last < endOf(sam) / 2)))
    said.push(
      `From t = ${digits(sam.oscillates)} on its steps swing about what it has learned; ` +
        "when it learns the rest then depends on η.",
    );
  return said;
}

// Return that another feature than the first is learned first, if it is not a tie within rounding.
function orderSentence(where, { learned }) {
  const first = learned.indexOf(Math.min(...learned));
  return learned[first] < learned[0] * (1 - 1e-6) ? [`${where} feature ${first + 1} comes first.`] : [];
}

function aboutUpsampling(setting, { gd, upsampled }) {
  const last = gd.learned.length - 1;
  const [before, after] = [gd.learned[last], upsampled.learned[last]];
  const said = [];
  if (before < Infinity && after < Infinity && digits(before) !== digits(after))
    said.push(
      `Upsampled, the slowest feature is learned ${after < before ? "sooner" : "later"} ` +
        `(t = ${digits(after)}, not ${digits(before)}).`,
    );
  if (setting.start === "random" && setting.factor > 1) {
    const more = (4 * setting.factor) / (1 + 3 * setting.factor);
    said.push(
      `Features 2 to 4 are all upsampled here, so that each has only ${digits(more)} times its prompts; ` +
        "claim C's random starts upsample 3 and 4 alone, and learn 4 sooner.",
    );
  }
  return [...said, ...orderSentence("On upsampled data", upsampled)];
}

// Return the sentence on the κ that `findFactor` found. `runs` are those with that κ.
function factorSentence(setting, found, runs) {
  const { ratio: target = NaN, factor = NaN } = found;
  const between = `between ${FACTORS[0]} and ${FACTORS[1]}`;
  const none = {
    trap: "There is no such κ: SAM is trapped at the saddle and has no t₂/t₁ within the steps shown.",
    sam: "There is no such κ: SAM does not learn features 1 and 2 within the steps shown.",
    gd: "Not found: gradient descent does not learn features 1 and 2 within the steps shown.",
    below: `There is no such κ ${between}: SAM's t₂/t₁ is ${digits(target)}, more than κ = ${FACTORS[0]} gives.`,
    above: `There is no such κ ${between}: SAM's t₂/t₁ is ${digits(target)}, less than κ = ${FACTORS[1]} gives.`,
    jump: `There is no such κ ${between}: at κ = ${digits(factor)} t₂/t₁ jumps past SAM's ${digits(target)}.`,
  };
  if (found.none) return none[found.none];
  if (Math.abs(factor - 1) < 1e-3)
    return `κ = 1: SAM leaves gradient descent's t₂/t₁ at ${digits(target)}, so nothing needs to be upsampled.`;
  const below = factor > 1 - 1e-6 ? "" : " (below 1, as SAM raises t₂/t₁ here)";
  const said =
    `κ = ${digits(factor)}${below}: if the prompts of features 2 to 4 are drawn that many times as often, ` +
    `gradient descent has SAM's t₂/t₁ of ${digits(target)}.`;
  const [plain, sharp] = [runs.upsampled, runs.sam].map((run) => Math.max(...run.learned) / run.rate);
  if (!(plain < Infinity && sharp < Infinity)) return said;
  return (
    `${said} All four features are learned after ${counted(plain)} gradients; ` +
    `SAM, with two a step, takes ${counted(2 * sharp)}.`
  );
}
