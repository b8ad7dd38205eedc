// node bench/gpu-day.mjs [--out DIR] [--seconds 570] [--only A,B] [--from NAME] [--list] [--emulated]: all that is
// asked when a GPU is at hand for a few minutes, the most worth first: is it right, how fast is it, does it keep to a
// limit of memory. Each step is a process with a time limit of its own; as it ends, a row is printed and written to
// DIR/gpu-day.jsonl (DIR/NAME.log has its whole output), so what was measured before the time ran out is kept. A step
// that the rest of --seconds is too short for is not begun. Exit 1: a step failed; one that was not run is no failure.
// --emulated: the same steps on the emulated device with tiny shapes, which say nothing about speed.
// Needs npm run build, npm run build:cuda -- --architectures=90a (or the card's) and build/temper_native_test.
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = resolve(fileURLToPath(import.meta.url), '../..');
const inRoot = (...p) => join(root, ...p);
const GIB = 2 ** 30;

// ---- what a step's output says ----

/** The last line that is a JSON object, or the whole text where it is one. */
export function lastJson(text) {
  try {
    return JSON.parse(text);
  } catch {}
  for (const line of text.trim().split('\n').reverse()) {
    if (!line.startsWith('{')) continue;
    try {
      return JSON.parse(line);
    } catch {}
  }
  return null;
}
const gib = (bytes) => `${(bytes / GIB).toFixed(2)} GiB`;
/**
 * Rows of what `temper bench` prints, those before it was stopped too, against what is wanted of them; null: none.
 * @param wanted tokens/s by row
 */
export function benchRows(stdout, wanted = {}) {
  const rows = [];
  for (const line of stdout.split('\n')) {
    const row = /^(\S.{0,19}?)\s{2,}([\d.]+)\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+(\d+) (?:ari|mem)\s+([\d.]+)/.exec(line);
    if (row) {
      const [, name, rate, percent, mib] = row,
        goal = wanted[name];
      const verdict = goal === undefined ? '' : ` (${goal} wanted: ${Number(rate) >= goal ? 'met' : 'missed'})`;
      rows.push(`${name}: ${rate} tokens/s${verdict}, ${percent} % of limit, ${mib} MiB`);
    } else if (rows.length > 0 && line.startsWith('  copied ')) rows.push(`${rows.pop()}, ${line.trim()}`);
  }
  return rows.length > 0 ? rows.join('; ') : null;
}
const ofBench = (wanted) => (stdout) => benchRows(stdout, wanted);
const ofTests = (_stdout, all) => all.match(/\d+ passed(?:, \d+ failed| \(\d+\))?/g)?.at(-1) ?? null;
const ofSanitizer = (_stdout, all) => {
  const errors = all.match(/ERROR SUMMARY: .*|RACECHECK SUMMARY: .*/g)?.at(-1),
    tests = ofTests('', all);
  return errors && tests ? `${errors}; ${tests}` : null;
};
/** Of a run's metrics: the last step, and what it took of the device against the limit. */
const ofRun = (run, limit) => () => {
  const file = join(run, 'metrics.jsonl');
  const steps = existsSync(file)
    ? readFileSync(file, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
    : [];
  const m = steps.at(-1);
  if (!m) return null;
  const copies = m.copiedBytes ? `, ${gib(m.copiedBytes)} copied, ${m.copiesHidden.toFixed(0)} % hidden` : '';
  return (
    `${steps.length} steps, the last ${m.tokensPerSecond.toFixed(0)} tokens/s, ${gib(m.peakBytes)} of a limit of ` +
    `${limit}${m.ranOut ? ', begun anew with less kept' : ''}${copies}`
  );
};

// ---- a checkpoint of the released shapes that takes little disk ----

/** Weights that decide where tokens go are random, expert codes are holes in the file: times and memory are as ever. */
async function hollowCheckpoint(dir, preset) {
  const { PRESETS } = await import('../dist/model/init.js');
  const { checkpointTensors } = await import('../dist/model/layout.js');
  const { layoutFile } = await import('../dist/native/safetensors.js');
  const config = PRESETS[preset],
    path = join(dir, 'model.safetensors'),
    tensors = checkpointTensors(config);
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
  const { header, total } = layoutFile(
    path,
    tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape, data: new Uint8Array(0) })),
    {},
  );
  const size = 1 << 20,
    random = new Uint16Array(size / 2),
    ones = new Uint16Array(size / 2).fill(0x3f80);
  for (let i = 0; i < random.length; i++) {
    const x = Math.fround((Math.random() + Math.random() + Math.random() - 1.5) * 0.04);
    random[i] = new Uint32Array(Float32Array.of(x).buffer)[0] >>> 16;
  }
  const fd = openSync(path, 'w');
  writeSync(fd, header);
  ftruncateSync(fd, total);
  const entries = JSON.parse(Buffer.from(header.subarray(8)).toString());
  for (const [name, { dtype, data_offsets: at }] of Object.entries(entries)) {
    if (dtype !== 'BF16' || /experts.*(blocks|scales)/.test(name)) continue;
    const from = Buffer.from((/norm/.test(name) ? ones : random).buffer);
    const begin = header.length + at[0],
      bytes = at[1] - at[0];
    for (let done = 0; done < bytes; done += size) writeSync(fd, from, 0, Math.min(size, bytes - done), begin + done);
  }
  closeSync(fd);
}

// ---- the steps ----

/** @param emulated tiny shapes on the emulated device */
export function steps({ emulated, work }) {
  const pick = (real, tiny) => (emulated ? tiny : real);
  const temper = (...args) => [process.execPath, inRoot('dist/cli/main.js'), ...args];
  const native = inRoot('build/temper_native_test'),
    backend = pick('cuda', 'emulation');
  const bench = (preset, limit, parts) =>
    temper(
      ...['bench', '--device', 'cuda', '--preset', pick(preset, 'nano'), '--seconds', pick('2', '0.01')],
      ...(limit ? ['--memory-limit', pick(limit, '256MiB')] : []),
      ...Object.entries({ prefill: '', depths: '', batches: '1', lora: '', ...parts }).flatMap(([k, v]) => [
        `--${k}`,
        v,
      ]),
    );
  const long = pick('4096', '48');
  /** `temper train` itself, under a limit that the device's allocator keeps to. */
  const trains = (preset, tokens, limit) => {
    const name = `${preset}-${tokens}`,
      dir = join(work, pick(preset, 'nano')),
      run = join(work, `run-${name}`);
    const n = Number(pick(tokens, '48')),
      most = pick(limit, '256MiB');
    return {
      async prepare() {
        if (!existsSync(join(dir, 'config.json'))) await hollowCheckpoint(dir, pick(preset, 'nano'));
        const rows = Array.from({ length: 2 }, (_, r) =>
          JSON.stringify({ tokens: Array.from({ length: n + 1 }, (_, i) => (i * 7919 + r) % pick(200_000, 1000)) }),
        );
        writeFileSync(join(work, `${name}.jsonl`), `${rows.join('\n')}\n`);
        writeFileSync(
          join(work, `${name}.yaml`),
          `model: { base: ${dir} }\nadapter: { rank: ${pick(16, 2)}, alpha: 32, targets: [attention, experts] }\n` +
            `data: { train: [{ path: ${name}.jsonl, format: tokens }], maxTokens: ${n + 1} }\n` +
            `train: { steps: 3, rowsPerStep: 1, checkpointEvery: 100 }\ndevice: cuda\nmemoryLimit: ${most}\n`,
        );
      },
      command: temper('train', join(work, `${name}.yaml`), '--out', run),
      says: ofRun(run, most),
    };
  };
  const sanitizer = (tool, filter) => ({
    command: ['compute-sanitizer', '--tool', tool, native, '--backend', backend, '--quick', '--filter', filter],
    says: ofSanitizer,
    needs: 'compute-sanitizer',
  });
  const all = [
    {
      name: 'cases',
      what: 'every kernel right: case tables and hostile calls',
      seconds: 120,
      command: [native, '--backend', backend, ...pick([], ['--quick', '--filter', 'rmsnorm'])],
      says: ofTests,
      files: [native],
    },
    {
      name: 'lora',
      what: '20b LoRA r16, 4,096 tokens, as much memory as there is',
      seconds: 60,
      command: bench('20b', null, { lora: long }),
      says: ofBench({ 'LoRA step 4096': 15_000 }),
    },
    {
      name: 'decode',
      what: '20b prefill 4,096, decode 1, 8 and 32',
      seconds: 60,
      command: bench('20b', null, { prefill: long, depths: '0', batches: pick('1,8,32', '1,2') }),
      says: ofBench({ 'prefill 4096': 50_000, 'decode 1 at 0': 600, 'decode 32 at 0': 8_000 }),
    },
    {
      name: 'model',
      what: 'model and graph tests, and copies beside the ops, on the GPU',
      seconds: 90,
      command: [
        ...[process.execPath, inRoot('node_modules/vitest/vitest.mjs'), 'run'],
        ...pick(
          ['model', 'graph', 'copies'].map((name) => `test/cuda/${name}.test.ts`),
          ['test/cuda/graph.test.ts'],
        ),
      ],
      says: ofTests,
      files: [inRoot('node_modules/vitest/vitest.mjs')],
    },
    {
      name: 'forward',
      what: "whether attention's forward pass by warpgroups has decode's bits",
      seconds: 40,
      command: [
        ...['env', 'TEMPER_CUDA_ATTENTION=wgmma', native, '--backend', backend],
        ...pick(['--filter', 'attention'], ['--quick', '--filter', 'rmsnorm']),
      ],
      says: ofTests,
      files: [native],
    },
    {
      name: 'train-16gb',
      what: '20b trained within 15.2 GiB, 4,096 tokens',
      seconds: 60,
      ...trains('20b', '4096', '15.2GiB'),
    },
    {
      name: 'ops',
      what: 'each large op of a 20b layer, alone',
      seconds: 60,
      command: [process.execPath, inRoot('bench/cuda-ops.mjs'), '--preset', pick('20b', 'nano'), '--tokens', long],
      says: (stdout) => {
        const ops = stdout
          .split('\n')
          .filter((l) => l.startsWith('{"op"'))
          .map((line) => JSON.parse(line));
        return ops.length ? ops.map((o) => `${o.op} ${o.ms} ms ${o.percentOfLimit} %`).join('; ') : null;
      },
    },
    {
      name: '120b',
      what: '120b LoRA, 8,192 tokens, within 76 GiB, moments in 8 bits; decode',
      seconds: 90,
      command: bench('120b', '76GiB', { lora: pick('8192', '48'), depths: '0', optimizer: 'adamw_8bit' }),
      says: ofBench({ 'LoRA step 8192': 7_000, 'decode 1 at 0': 400 }),
    },
    {
      name: 'train-24gb',
      what: '20b trained within 23 GiB, 32,768 tokens: layer inputs go to host memory and back',
      seconds: 90,
      ...trains('20b', '32768', '23GiB'),
    },
    {
      name: '32k',
      what: '20b LoRA, 32,768 tokens',
      seconds: 60,
      command: bench('20b', null, { lora: pick('32768', '96') }),
      says: ofBench({ 'LoRA step 32768': 9_000 }),
    },
    {
      name: 'streamed',
      what: '120b trained within 22 GiB, 8,192 tokens: experts come from host memory',
      seconds: 150,
      ...trains('120b', '8192', '22GiB'),
    },
    {
      name: 'tune',
      what: 'doctor --tune: which tiles are fastest on this card',
      seconds: 90,
      command: temper(
        'doctor',
        '--tune',
        '--device',
        'cuda',
        '--json',
        ...pick([], ['--preset', 'nano', '--seconds', '1']),
      ),
      says: (stdout) => {
        const tiles = lastJson(stdout);
        return tiles ? `${JSON.stringify(tiles).length} bytes of answer, kept` : null;
      },
    },
    { name: 'memcheck', what: 'compute-sanitizer: memory', seconds: 90, ...sanitizer('memcheck', 'attention') },
    {
      name: 'racecheck',
      what: 'compute-sanitizer: shared memory',
      seconds: 90,
      ...sanitizer('racecheck', 'attention'),
    },
    {
      name: 'racecheck-few',
      what: "compute-sanitizer: shared memory of decode's router",
      seconds: 60,
      ...sanitizer('racecheck', 'linear_router_fwd'),
    },
    { name: 'synccheck', what: 'compute-sanitizer: barriers', seconds: 60, ...sanitizer('synccheck', 'linear') },
  ];
  return all;
}

// ---- running them ----

/** @returns its output, exit status (null: killed) and seconds; the whole group of processes ends with the limit */
function run([program, ...args], seconds, env) {
  const began = performance.now();
  return new Promise((done) => {
    const child = spawn(program, args, { cwd: root, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const out = { stdout: '', all: '', timedOut: false };
    child.stdout.on('data', (b) => {
      out.stdout += b;
      out.all += b;
    });
    child.stderr.on('data', (b) => {
      out.all += b;
    });
    const end = (code) => {
      clearTimeout(timer);
      done({ ...out, code, seconds: (performance.now() - began) / 1000 });
    };
    const timer = setTimeout(() => {
      out.timedOut = true;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {}
    }, seconds * 1000);
    child.on('error', (e) => {
      out.all += `${e.message}\n`;
      end('code' in e && e.code === 'ENOENT' ? 'missing' : 1);
    });
    child.on('close', end);
  });
}

/** One row: what came of a step. `status`: passed, failed, timeout or not run. */
async function runStep(step, seconds, out, env) {
  const missing = step.files?.find((f) => !existsSync(f));
  if (missing) return { status: 'not run', says: `${missing} is missing` };
  const began = performance.now();
  try {
    await step.prepare?.();
  } catch (e) {
    return { status: 'failed', says: `prepared: ${e.message}` };
  }
  const prepared = (performance.now() - began) / 1000;
  const left = Math.max(1, seconds - prepared);
  const ran = await run(step.command, left, env);
  writeFileSync(join(out, `${step.name}.log`), `$ ${step.command.join(' ')}\n${ran.all}`);
  if (ran.code === 'missing') return { status: 'not run', says: `${step.command[0]} is not installed` };
  const last = ran.all.trim().split('\n').at(-1) ?? '';
  // What was measured before the limit came is worth as much.
  const says = step.says(ran.stdout, ran.all);
  const took = { prepareSeconds: +prepared.toFixed(1), seconds: +ran.seconds.toFixed(1) };
  if (ran.timedOut) return { status: 'timeout', says: says ?? `nothing within ${left.toFixed(0)} s`, ...took };
  if (ran.code !== 0 || says === null) return { status: 'failed', says: says ?? last, ...took };
  return { status: 'passed', says, ...took };
}

async function main() {
  const { values: o } = parseArgs({
    options: {
      out: { type: 'string' },
      seconds: { type: 'string', default: '570' },
      only: { type: 'string' },
      from: { type: 'string' },
      list: { type: 'boolean', default: false },
      emulated: { type: 'boolean', default: false },
    },
  });
  const work = mkdtempSync(join(tmpdir(), 'temper-gpu-day-')),
    out = resolve(o.out ?? work);
  let chosen = steps({ emulated: o.emulated, work });
  const names = chosen.map((s) => s.name),
    wanted = o.only?.split(',') ?? [],
    unknown = [...wanted, ...(o.from ? [o.from] : [])].find((n) => !names.includes(n));
  if (unknown !== undefined || !(Number(o.seconds) > 0)) {
    console.error(
      `gpu-day: got ${unknown === undefined ? `--seconds ${o.seconds}` : unknown}, wanted seconds above 0 and steps ` +
        `of ${names.join(', ')}`,
    );
    process.exit(2);
  }
  if (o.only) chosen = chosen.filter((s) => wanted.includes(s.name));
  if (o.from) chosen = chosen.slice(chosen.findIndex((s) => s.name === o.from));
  if (o.list) {
    for (const s of chosen) console.log(`${s.name.padEnd(12)}${String(s.seconds).padStart(4)} s  ${s.what}`);
    return;
  }
  mkdirSync(out, { recursive: true });
  const library = inRoot('build', o.emulated ? 'temper_cuda_emulated.so' : 'temper_cuda.so');
  const env = { ...process.env, TEMPER_CUDA_LIBRARY: process.env.TEMPER_CUDA_LIBRARY ?? library };
  const until = performance.now() + Number(o.seconds) * 1000;
  let failed = 0;
  for (const step of chosen) {
    const left = (until - performance.now()) / 1000;
    const row =
      left < Math.min(15, step.seconds)
        ? { status: 'not run', says: `${left.toFixed(0)} s were left` }
        : await runStep(step, Math.min(step.seconds, left), out, env);
    if (row.status === 'failed' || row.status === 'timeout') failed++;
    const line = { step: step.name, ...row, at: new Date().toISOString(), emulated: o.emulated };
    appendFileSync(join(out, 'gpu-day.jsonl'), `${JSON.stringify(line)}\n`);
    const took = 'seconds' in row ? `${row.seconds} s  ` : '';
    console.log(`${step.name.padEnd(12)}${row.status.padEnd(9)}${took}${row.says}`);
  }
  console.log(`rows and outputs: ${out}`);
  process.exitCode = failed > 0 ? 1 : 0;
}
if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) await main();
