// The theory behind the explorer: features, plateaus, hitting times, and the two models in discrete steps. Plain functions
// of numbers, without a page.
//
// Data: one group of prompts for each feature, all with the same share, so that the drives are λ_d². Time is learning
// rate × step. "Notes" are icl_theory/theory/NOTES.md; tests/figures/test_explorer.py holds all of this against the
// Python package.

const EPS = Number.EPSILON;
const LEARNED = 0.5; // share of the optimum at which a feature counts as learned

// Return λ_d ∝ ratio^−d with trace one.
function geometricSpectrum(ratio, size = 4) {
  const values = Array.from({ length: size }, (_, d) => ratio ** -d);
  const total = values.reduce((sum, value) => sum + value);
  return values.map((value) => value / total);
}

// Return the features when all groups but the first are drawn κ times as often (notes §1, §3 and §8):
// a_d = π_d λ'², c_d = π_d λ'³ (1 + 2/N) with λ' = √D λ_d, and energy Σ_d π_d λ'. Their optimum does not depend on κ.
function groupFeatures({ eigenvalues, context }, factor = 1) {
  const size = eigenvalues.length;
  const total = 1 + factor * (size - 1);
  const share = eigenvalues.map((_, d) => (d ? factor : 1) / total);
  const inner = eigenvalues.map((value) => Math.sqrt(size) * value);
  return makeFeatures(
    inner.map((value, d) => share[d] * value ** 2),
    inner.map((value, d) => share[d] * value ** 3 * (1 + 2 / context)),
    inner.reduce((sum, value, d) => sum + share[d] * value, 0),
  );
}

// Return drives a_d, curvatures c_d, optima a_d/c_d and the loss of the zero model.
function makeFeatures(drive, curvature, energy) {
  const optimum = drive.map((value, d) => value / curvature[d]);
  return { drive: Float64Array.from(drive), curvature: Float64Array.from(curvature), optimum, energy };
}

// Return the loss of strengths w, energy + Σ_d w_d (c_d w_d − 2 a_d).
function lossOf({ drive, curvature, energy }, strength) {
  let loss = energy;
  for (let d = 0; d < drive.length; d++) loss += strength[d] * (curvature[d] * strength[d] - 2 * drive[d]);
  return loss;
}

// Return the losses with 0, 1, …, D features learned, in the order of `drive` (notes §4).
function nestedPlateaus(features, drive = features.drive) {
  const order = Array.from(drive.keys()).sort((a, b) => drive[b] - drive[a]);
  const levels = [features.energy];
  for (const d of order) levels.push(levels[levels.length - 1] - features.drive[d] * features.optimum[d]);
  return levels;
}

// Return the time at which gradient flow from u_d(0) = start learns each feature (notes §5).
function hittingTimes({ drive, optimum }, start, fraction = LEARNED) {
  const inner = (z) =>
    -1 / z - Math.log1p(-z) / 3 + Math.log(z * z + z + 1) / 6 - Math.atan((2 * z + 1) / Math.sqrt(3)) / Math.sqrt(3);
  return Array.from(drive, (a, d) => {
    const limit = Math.cbrt(optimum[d]);
    const z = Math.cbrt(fraction);
    return (inner(z) - inner(Math.min(start / limit, z))) / (2 * a * limit);
  });
}

// Return the reduced system in discrete steps, under gradient descent (ρ = 0) or normalised SAM (notes §6).
// As in the Python theory every step carries one rounding unit, or the map may rest on an unstable fixed point.
function alignedModel(features, start, rate, rho) {
  const { drive, curvature } = features;
  const size = drive.length;
  const u = Float64Array.from(start);
  const r = new Float64Array(size);
  const strength = u.map((value) => value ** 3);
  let step = 0;
  function advance() {
    let sum = 0;
    for (let d = 0; d < size && rho > 0; d++) {
      const square = u[d] * u[d];
      r[d] = square * (drive[d] - curvature[d] * square * u[d]);
      sum += 3 * r[d] * r[d];
    }
    const scale = sum > 0 ? rho / Math.sqrt(sum) : 0;
    const rounding = 1 + EPS * (1 - 2 * (step++ % 2));
    for (let d = 0; d < size; d++) {
      const moved = u[d] - scale * r[d];
      const square = moved * moved;
      u[d] = (u[d] + rate * 2 * square * (drive[d] - curvature[d] * square * moved)) * rounding;
      strength[d] = u[d] * u[d] * u[d];
    }
  }
  return { strength, advance };
}

// Return a random start of H heads of rank one: [v (H), k (H × D), q (H × D)], normal with standard deviation
// `scale` for values and scale/√D for keys and queries.
function randomStart({ seed, heads, scale }, size = 4) {
  const normal = normals(seed);
  const inner = scale / Math.sqrt(size);
  return Float64Array.from({ length: heads * (1 + 2 * size) }, (_, i) => normal() * (i < heads ? scale : inner));
}

// Return a source of normal numbers: Box and Muller's transform of a 32-bit generator (mulberry32).
function normals(seed) {
  let state = seed >>> 0;
  function uniform() {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

// Return H heads of rank one with separate keys and queries, trained on the population loss. In groups with one
// feature each this depends on the diagonal of W alone, W_dd = Σ_h v_h k_hd q_hd.
function randomModel(features, start, rate, rho) {
  const { drive, curvature } = features;
  const size = drive.length;
  const heads = start.length / (1 + 2 * size);
  const params = Float64Array.from(start);
  const moved = new Float64Array(params.length);
  const slope = new Float64Array(params.length);
  const strength = new Float64Array(size);
  const force = new Float64Array(size);
  function strengths(at, out) {
    out.fill(0);
    for (let h = 0, k = heads, q = heads * (1 + size); h < heads; h++)
      for (let d = 0; d < size; d++, k++, q++) out[d] += at[h] * at[k] * at[q];
  }
  function gradient(at) {
    strengths(at, force);
    for (let d = 0; d < size; d++) force[d] = 2 * (curvature[d] * force[d] - drive[d]);
    for (let h = 0, k = heads, q = heads * (1 + size); h < heads; h++) {
      let ofValue = 0;
      for (let d = 0; d < size; d++, k++, q++) {
        ofValue += force[d] * at[k] * at[q];
        slope[k] = at[h] * force[d] * at[q];
        slope[q] = at[h] * force[d] * at[k];
      }
      slope[h] = ofValue;
    }
  }
  function advance() {
    gradient(params);
    if (rho > 0) {
      let square = 0;
      for (let i = 0; i < slope.length; i++) square += slope[i] * slope[i];
      const scale = square > 0 ? rho / Math.sqrt(square) : 0;
      for (let i = 0; i < slope.length; i++) moved[i] = params[i] + scale * slope[i];
      gradient(moved);
    }
    for (let i = 0; i < slope.length; i++) params[i] -= rate * slope[i];
    strengths(params, strength);
  }
  strengths(params, strength);
  return { strength, advance };
}
