// node bench/cuda-ops.mjs [--preset 20b] [--tokens 4096] [--rank 16] [--filter TEXT]: every large op of one gpt-oss
// layer and of the head on a GPU, alone: milliseconds, rate, share of the device's own limit (its best dense product,
// copying memory; both measured first). Ops are queued in a row and waited for once, so launches overlap as in a step.
// --activations f32: products read f32 and round copies of it, where training stores bf16 for them.
// TEMPER_CUDA_MATMUL=mma|wgmma|cublaslt and TEMPER_CUDA_ATTENTION=mma|wgmma choose the kernels for comparison. One JSON
// object per line. Needs npm run build and npm run build:cuda.
import { parseArgs } from 'node:util';
import { createAdapter } from '../dist/lora/adapter.js';
import { adapterSpec } from '../dist/lora/spec.js';
import { madeUpModel, PRESETS } from '../dist/model/init.js';
import { openDevice, synchronize } from '../dist/native/device.js';
import { measureDeviceLimits } from '../dist/native/device-limits.js';
import { ops } from '../dist/native/ops.js';
import { Scope } from '../dist/native/tensor.js';

const { values: o } = parseArgs({
  options: {
    preset: { type: 'string', default: '20b' },
    tokens: { type: 'string', default: '4096' },
    rank: { type: 'string', default: '16' },
    activations: { type: 'string', default: 'bf16' },
    filter: { type: 'string', default: '' },
  },
});
const T = Number(o.tokens),
  R = Number(o.rank);
if (!(o.preset in PRESETS) || !(T >= 1) || !(R >= 1) || !['bf16', 'f32'].includes(o.activations)) {
  console.error(
    `cuda-ops: got --preset ${o.preset} --tokens ${o.tokens} --rank ${o.rank} --activations ${o.activations}, wanted ` +
      `one of ${Object.keys(PRESETS).join(', ')}, numbers from 1, bf16 or f32`,
  );
  process.exit(2);
}
openDevice('cuda');
const limits = measureDeviceLimits('cuda', 1, o.preset === 'nano' ? 64 : 8192);
const { TEMPER_CUDA_MATMUL: matmul = 'auto', TEMPER_CUDA_ATTENTION: attention = 'auto' } = process.env;
console.log(
  JSON.stringify({ limits, matmul, attention, preset: o.preset, tokens: T, rank: R, activations: o.activations }),
);

const config = { ...PRESETS[o.preset], num_hidden_layers: 2, layer_types: ['sliding_attention', 'full_attention'] };
const {
  num_local_experts: E,
  hidden_size: D,
  intermediate_size: F,
  num_attention_heads: H,
  num_key_value_heads: Hkv,
  head_dim: Dh,
  num_experts_per_tok: K,
  vocab_size: V,
  sliding_window: W,
} = config;
const model = madeUpModel(config, { seed: 5, place: 'cuda', embed: 'cpu' });
const adapter = createAdapter(
  config,
  adapterSpec(config, { rank: R, alpha: 2 * R, targets: ['attention', 'experts'], rsLora: false, dropout: 0 }),
  { seed: 1, trainable: true, place: 'cuda' },
);
ops.random_normal(adapter.params, 3, 0.02);
const w = model.layers[1],
  a = adapter.model.layers[1];
const s = new Scope('workspace', 'cuda');
let seed = 100;
const normal = (shape, scale = 1) => {
  const t = s.empty('f32', shape);
  ops.random_normal(t, seed++, scale);
  return t;
};
const P = T * K;
/** What products alone read. */
const activation = (shape) => s.empty(o.activations === 'bf16' ? 'bf16' : 'f32', shape);
const size = o.activations === 'bf16' ? 2 : 4;
const input = (shape) => {
  const t = activation(shape);
  ops.random_normal(t, seed++, 1);
  return t;
};

const dense = (name, w, lora, inputs, outputs) => {
  const x = input([T, inputs]),
    y = s.empty('f32', [T, outputs]),
    h = lora ? s.empty('f32', [T, R]) : null,
    dy = normal([T, outputs]),
    dx = s.empty('f32', [T, inputs]);
  const flops = 2 * T * inputs * outputs + (lora ? 2 * T * R * (inputs + outputs) : 0),
    bytes = T * (size * inputs + 4 * outputs) + 2 * inputs * outputs;
  time(`linear_fwd ${name}`, flops, bytes, () =>
    ops.linear_fwd(y, h, x, w.w, w.bias, lora?.A ?? null, lora?.B ?? null, 2, 0, 0, 1, 0),
  );
  time(
    `linear_bwd ${name}`,
    flops + (lora ? 2 * T * R * (inputs + outputs) : 0),
    bytes + (4 - size) * T * inputs + (lora ? size * T * inputs : 0),
    () =>
      ops.linear_bwd(
        dx,
        null,
        null,
        lora?.dA ?? null,
        lora?.dB ?? null,
        dy,
        x,
        h,
        w.w,
        lora?.A ?? null,
        lora?.B ?? null,
        2,
        0,
        0,
        0,
        1,
      ),
  );
};
function time(name, flops, bytes, run) {
  if (!name.includes(o.filter)) return;
  run();
  synchronize();
  const once = () => {
    const from = performance.now();
    run();
    synchronize();
    return performance.now() - from;
  };
  const first = once(),
    n = Math.max(3, Math.min(50, Math.round(20 / first)));
  const rounds = Array.from({ length: 5 }, () => {
    const from = performance.now();
    for (let i = 0; i < n; i++) run();
    synchronize();
    return (performance.now() - from) / n;
  }).sort((p, q) => p - q);
  const ms = rounds[2],
    least = Math.max(flops / limits.gflops / 1e6, bytes / limits.gbPerSecond / 1e6);
  console.log(
    JSON.stringify({
      op: name,
      ms: +ms.toFixed(4),
      tflops: +(flops / ms / 1e9).toFixed(1),
      gbps: +(bytes / ms / 1e6).toFixed(0),
      percentOfLimit: +((100 * least) / ms).toFixed(1),
    }),
  );
}

dense('q', w.q, a.q, D, H * Dh);
dense('k', w.k, a.k, D, Hkv * Dh);
dense('o', w.o, a.o, H * Dh, D);
dense('router', w.router, null, D, E);
// Decode's last product, whose time is that of its weights: from 17 rows on they are to be read once, as below.
for (const rows of [1, 8, 16, 32]) {
  const x = normal([rows, D]),
    logits = s.empty('f32', [rows, V]);
  time(`linear_fwd head, ${rows} rows`, 2 * rows * D * V, 2 * D * V + 4 * rows * (D + V), () =>
    ops.linear_fwd(logits, null, x, model.head, null, null, null, 2, 0, 0, 1, 0),
  );
}

// Experts: routed at random, as after a router of random weights.
{
  const logits = normal([T, E]),
    weights = s.empty('f32', [T, K]),
    ids = s.empty('i32', [T, K]),
    offsets = s.empty('i32', [E + 1]),
    rowToken = s.empty('i32', [P]),
    slotRow = s.empty('i32', [T, K]),
    rowWeight = s.empty('f32', [P]);
  time('topk_fwd', 0, 4 * T * (E + 2 * K), () => ops.topk_fwd(weights, ids, logits));
  ops.topk_fwd(weights, ids, logits);
  time('moe_plan', 0, 4 * P * 6, () => ops.moe_plan(offsets, rowToken, slotRow, rowWeight, ids, weights));
  ops.moe_plan(offsets, rowToken, slotRow, rowWeight, ids, weights);
  const xn = input([T, D]),
    z = s.empty('f32', [P, 2 * F]),
    act = activation([P, F]),
    y = s.empty('f32', [P, D]),
    h1 = s.empty('f32', [P, R]),
    h2 = s.empty('f32', [P, R]);
  const g = w.gateUp,
    d = w.down,
    lg = a.gateUp,
    ld = a.down;
  const codes = (n, k) => (E * n * k * 17) / 32;
  const low = 2 * P * R;
  time(
    'grouped_linear_fwd gate_up',
    2 * P * D * 2 * F + low * (D + 2 * F),
    size * T * D + 4 * P * 2 * F + codes(2 * F, D),
    () =>
      ops.grouped_linear_fwd(z, h1, xn, rowToken, offsets, g.w, g.scales, g.bias, lg.A, lg.B, lg.scale, g.layout, 1, 0),
  );
  time('grouped_linear_fwd gate_up, no LoRA', 2 * P * D * 2 * F, size * T * D + 4 * P * 2 * F + codes(2 * F, D), () =>
    ops.grouped_linear_fwd(z, null, xn, rowToken, offsets, g.w, g.scales, g.bias, null, null, 0, g.layout, 1, 0),
  );
  ops.grouped_linear_fwd(z, h1, xn, rowToken, offsets, g.w, g.scales, g.bias, lg.A, lg.B, lg.scale, g.layout, 1, 0);
  for (const to of [null, z])
    time(
      `grouped_linear_swiglu_fwd${to ? ', z kept' : ''}`,
      2 * P * D * 2 * F + low * (D + 2 * F),
      size * (T * D + P * F) + (to ? 4 * P * 2 * F : 0) + codes(2 * F, D),
      () =>
        ops.grouped_linear_swiglu_fwd(
          act,
          to,
          h1,
          xn,
          rowToken,
          offsets,
          g.w,
          g.scales,
          g.bias,
          lg.A,
          lg.B,
          lg.scale,
          1.702,
          7,
          g.layout,
          1,
          0,
        ),
    );
  time('swiglu_fwd', 0, (8 + size) * P * F, () => ops.swiglu_fwd(act, z, 1.702, 7));
  ops.swiglu_fwd(act, z, 1.702, 7);
  time('grouped_linear_fwd down', 2 * P * D * F + low * (D + F), P * (size * F + 4 * D) + codes(D, F), () =>
    ops.grouped_linear_fwd(y, h2, act, null, offsets, d.w, d.scales, d.bias, ld.A, ld.B, ld.scale, d.layout, 1, 0),
  );
  ops.grouped_linear_fwd(y, h2, act, null, offsets, d.w, d.scales, d.bias, ld.A, ld.B, ld.scale, d.layout, 1, 0);
  const out = s.empty('f32', [T, D]);
  ops.fill(out, 0);
  time('moe_combine', 0, 4 * (P * D + 2 * T * D), () => ops.moe_combine(out, y, weights, slotRow, 1));
  const dout = normal([T, D]),
    dact = s.empty('f32', [P, F]),
    rowDot = s.empty('f32', [P]),
    dz = activation([P, 2 * F]),
    dRows = s.empty('f32', [P, D]);
  time(
    'grouped_linear_bwd down',
    2 * P * D * F + 2 * low * (D + F),
    4 * (T * D + P * F) + size * P * F + codes(D, F),
    () =>
      ops.grouped_linear_bwd(
        dact,
        null,
        null,
        ld.dA,
        ld.dB,
        dout,
        rowToken,
        rowWeight,
        act,
        null,
        h2,
        offsets,
        d.w,
        d.scales,
        ld.A,
        ld.B,
        ld.scale,
        d.layout,
        1,
      ),
  );
  time('grouped_linear_bwd down, dx alone, no LoRA', 2 * P * D * F, 4 * (T * D + P * F) + codes(D, F), () =>
    ops.grouped_linear_bwd(
      dact,
      null,
      null,
      null,
      null,
      dout,
      rowToken,
      rowWeight,
      act,
      null,
      null,
      offsets,
      d.w,
      d.scales,
      null,
      null,
      0,
      d.layout,
      1,
    ),
  );
  time('swiglu_bwd', 0, (12 + 2 * size) * P * F, () => ops.swiglu_bwd(dz, rowDot, dact, z, rowWeight, 1.702, 7));
  time(
    'grouped_linear_bwd gate_up',
    2 * P * D * 2 * F + 2 * low * (D + 2 * F),
    size * (P * 2 * F + T * D) + 4 * P * D + codes(2 * F, D),
    () =>
      ops.grouped_linear_bwd(
        dRows,
        null,
        null,
        lg.dA,
        lg.dB,
        dz,
        null,
        null,
        xn,
        rowToken,
        h1,
        offsets,
        g.w,
        g.scales,
        lg.A,
        lg.B,
        lg.scale,
        g.layout,
        1,
      ),
  );
  time(
    'grouped_linear_bwd gate_up, dx alone, no LoRA',
    2 * P * D * 2 * F,
    size * P * 2 * F + 4 * P * D + codes(2 * F, D),
    () =>
      ops.grouped_linear_bwd(
        dRows,
        null,
        null,
        null,
        null,
        dz,
        null,
        null,
        xn,
        rowToken,
        null,
        offsets,
        g.w,
        g.scales,
        null,
        null,
        0,
        g.layout,
        1,
      ),
  );
  const dweights = s.empty('f32', [T, K]),
    dlogits = s.empty('f32', [T, E]);
  time('moe_weight_bwd', 0, 4 * T * D, () => ops.moe_weight_bwd(dweights, rowDot, dout, d.bias, ids, slotRow));
  time('topk_bwd', 0, 4 * T * E, () => ops.topk_bwd(dlogits, dweights, weights, ids));
}
{
  const q = normal([T, H, Dh]),
    k = normal([T, Hkv, Dh]),
    v = normal([T, Hkv, Dh]),
    out = s.empty('f32', [T, H, Dh]),
    lse = s.empty('f32', [T, H]),
    dout = normal([T, H, Dh]);
  const dq = s.empty('f32', [T, H, Dh]),
    dk = s.zeros('f32', [T, Hkv, Dh]),
    dv = s.zeros('f32', [T, Hkv, Dh]);
  const start = s.from(Int32Array.of(0, T)),
    key = s.from(Int32Array.of(0)),
    length = s.from(Int32Array.of(T));
  for (const window of [0, W]) {
    const pairs = window && T > window ? (window * (window + 1)) / 2 + (T - window) * window : (T * (T + 1)) / 2,
      name = window ? 'window' : 'full';
    time(`attention_fwd ${name}`, 4 * pairs * H * Dh, 4 * T * (2 * H + 2 * Hkv) * Dh, () =>
      ops.attention_fwd(out, lse, q, k, v, w.sinks, start, key, length, null, window, 0, 0, Dh ** -0.5, 1),
    );
    time(`attention_bwd ${name}`, 10 * pairs * H * Dh, 4 * T * (4 * H + 4 * Hkv) * Dh, () =>
      ops.attention_bwd(dq, dk, dv, null, dout, q, k, v, out, lse, w.sinks, start, key, length, window, Dh ** -0.5, 1),
    );
  }
}
{
  const x = normal([T, D]),
    y = s.empty('f32', [T, D]),
    rstd = s.empty('f32', [T]),
    res = normal([T, D]);
  time('rmsnorm_fwd', 0, 8 * T * D, () => ops.rmsnorm_fwd(y, rstd, null, x, null, w.inputNorm, 1e-5));
  time('rmsnorm_bwd', 0, 16 * T * D, () => ops.rmsnorm_bwd(y, null, res, res, x, w.inputNorm, rstd));
  const dx = s.empty('f32', [T, D]),
    nll = s.empty('f32', [T]),
    targets = s.from(Int32Array.from({ length: T }, (_, i) => (i * 7919) % V)),
    weights = s.empty('f32', [T]);
  ops.fill(weights, 1 / T);
  time('linear_cross_entropy', 4 * T * V * D, 2 * V * D, () =>
    ops.linear_cross_entropy(nll, dx, null, x, model.head, targets, weights, 1),
  );
}
model.close();
