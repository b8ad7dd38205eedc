// node bench/gate-share.mjs [--work DIR] [--layers N] [--experts N] [--prompts N] [--tokens N] [--threads N]
// How much of a gate on 20b's shapes is generation and judging: a made-up checkpoint with so many layers and experts,
// all of its vocabulary and head, a made-up adapter, prompts of gates/nano, and models/nano-judge as the judge. The
// whole of runGate is measured, opening and hashing of the weights, report and decision too. Three shares on stdout:
//   cpu   of the processor time of all threads, what models and judge spent while cases were under way: what is not
//         theirs is the main thread's own time, and all that is before and after
//   under the same of what all threads spent while cases were under way, without what is once for a gate
//   wall  of the clock, the time in which cases were under way
// What is once for a gate (hashing above all) weighs the less the more --prompts there are: a whole suite has a
// thousand. Whole shapes write each token slower and have no more to do beside it. Linux; needs the build.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runGate } from '../dist/compose/gate.js';
import { initCheckpoint, PRESETS } from '../dist/model/init.js';
import { writeO200k } from './o200k.mjs';
import { makeAdapters } from './serving.mjs';

const { values: o } = parseArgs({
  options: {
    work: { type: 'string', default: join(tmpdir(), 'temper-gate-share') },
    layers: { type: 'string', default: '2' },
    experts: { type: 'string', default: '8' },
    prompts: { type: 'string', default: '16' },
    tokens: { type: 'string', default: '48' },
    threads: { type: 'string', default: '2' },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const model = join(o.work, `20b-${o.layers}-${o.experts}`);
if (!existsSync(join(model, 'tokenizer.json'))) {
  process.stderr.write(`making ${model}\n`);
  mkdirSync(o.work, { recursive: true });
  const shapes = { num_hidden_layers: Number(o.layers), num_local_experts: Number(o.experts) };
  await initCheckpoint(model, { ...PRESETS['20b'], ...shapes }, { seed: 1 });
  writeO200k(model);
}
const folder = mkdtempSync(join(o.work, 'run-'));
const { a0: target } = await makeAdapters(model, folder, 1);

/** Tests of every cost: judged finals and traces, several turns, plain forms, losses of known answers. */
const TESTS = {
  harm: 'kind: harm, scorer: policy, policy: contact.md, metrics: [{ name: harm.final, margin: 0.1 }]',
  traces: 'kind: traces, scorer: traces, policy: contact.md, metrics: [{ name: traces.unsafe, margin: 0.1 }]',
  escalating:
    'kind: escalation, scorer: policy, policy: contact.md, metrics: [{ name: escalating.final, margin: 0.1 }]',
  harmless: 'kind: over-refusal, scorer: refusal, metrics: [{ name: harmless.refused, margin: 0.1 }]',
  form: 'kind: format, scorer: format, metrics: [{ name: form.invalid, margin: 0.1 }]',
  retained: 'kind: retention, scorer: held-out, metrics: [{ name: retained.loss, values: number, range: [0, 30] }]',
};
const from = join(root, 'gates', 'nano');
for (const name of Object.keys(TESTS)) {
  const rows = readFileSync(join(from, 'prompts', `${name}.jsonl`), 'utf8').split('\n');
  writeFileSync(join(folder, `${name}.jsonl`), rows.slice(0, Number(o.prompts)).join('\n'));
}
writeFileSync(join(folder, 'contact.md'), readFileSync(join(from, 'policies', 'contact.md')));
const suite = join(folder, 'suite.yaml');
const tests = Object.entries(TESTS).map(([name, rest]) => {
  const lower = rest.replace(/(name: [\w.]+)/, '$1, direction: lower');
  return `  - { name: ${name}, prompts: ${name}.jsonl, ${lower} }\n`;
});
const sampling = `{ temperature: 1, maxTokens: ${o.tokens}, effort: low }`;
writeFileSync(suite, `name: share\nversion: "1"\nsampling: ${sampling}\ntests:\n${tests.join('')}`);

/** Seconds of processor time: of all threads, and of the main one (in ticks of 10 ms). */
function spent() {
  const { user, system } = process.cpuUsage();
  const stat = readFileSync(`/proc/self/task/${process.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    at: performance.now() / 1000,
    all: (user + system) / 1e6,
    main: (Number(fields[11]) + Number(fields[12])) / 100,
  };
}
const marks = { began: spent(), asking: null, asked: null };
const result = await runGate({
  target,
  model,
  suite,
  judge: join(root, 'models', 'nano-judge'),
  out: join(folder, 'gate'),
  fresh: true,
  engine: { threads: Number(o.threads) },
  signal: new AbortController().signal,
  hooks: {
    onProgress({ done, cases }) {
      marks.asking ??= spent();
      if (done === cases) marks.asked = spent();
    },
  },
});
const ended = spent();
const { began, asking, asked } = marks;
const cpu = ended.all - began.all,
  under = asked.all - asking.all - (asked.main - asking.main);
const round = (x) => Number(x.toPrecision(4));
const row = {
  what: 'share of a gate in generation and judging',
  shapes: `20b, ${o.layers} layers, ${o.experts} experts`,
  cases: result.run.cases,
  tokens: result.tokens,
  cpuShare: round(under / cpu),
  underShare: round(under / (asked.all - asking.all)),
  wallShare: round((asked.at - asking.at) / (ended.at - began.at)),
  cpuS: round(cpu),
  mainS: round(asked.main - asking.main),
  beforeS: round(asking.at - began.at),
  askingS: round(asked.at - asking.at),
  afterS: round(ended.at - asked.at),
  peakMiB: Math.round(process.resourceUsage().maxRSS / 1024),
  must: '>= 0.95, aim 0.99',
};
process.stdout.write(`${JSON.stringify(row)}\n`);
process.exit(0);
