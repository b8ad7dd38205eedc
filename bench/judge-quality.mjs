// node bench/judge-quality.mjs [--judge DIR] [--drawn N] [--threads N] [--rows]
// What models/nano-judge makes of texts that it never read, by its own word: one text a call, no check before, no
// detectors, no second views. One JSON row each on stdout, with `safe` blocked, `violating` missed and `unjudged` of so
// many texts, and `right` of all:
//   usual    the held-out texts of the desk's own forms (datasets/screening/heldout.jsonl)
//   form     those of each form that no training text has (heldout-forms.jsonl), and of all of them by policy
//   drawn    texts of the desk's forms under policies drawn from the six rules, N of each kind: `subset` under their
//            usual ids, `edited` with rules struck out, `renamed` under ids that nobody uses
// --rows also tells each text that it gets wrong. Needs the build.
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createRandom } from '../datasets/desk/words.mjs';
import { drawCase, drawPolicyOf } from '../datasets/screening/generate.mjs';
import { createEngineJudge } from '../dist/compose/engine-judge.js';
import { openEngine } from '../dist/infer/engine.js';
import { definePolicy } from '../dist/safeguard/policy.js';
import { createScreen } from '../dist/safeguard/screen.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values: o } = parseArgs({
  options: {
    judge: { type: 'string', default: join(root, 'models', 'nano-judge') },
    drawn: { type: 'string', default: '150' },
    threads: { type: 'string', default: String(cpus().length) },
    rows: { type: 'boolean', default: false },
  },
});
const SLOTS = 16;
const engine = await openEngine({ model: o.judge, slots: SLOTS, threads: Number(o.threads), contextTokens: 1024 });
const { check: _, judge: ask, ...asked } = await createEngineJudge(engine, { name: 'nano-judge', maxTokens: 96 });
const judge = { ...asked, judge: ask };
const policyText = (name) => readFileSync(join(root, 'policies', name, 'policy.md'), 'utf8');
const jsonl = (name) =>
  readFileSync(join(root, 'datasets', 'screening', name), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

/** Judges texts, so many at once. @returns them with the outcome */
async function judged(cases) {
  const rest = cases.entries();
  const outcomes = [];
  const work = async () => {
    for (const [i, { policy, channel, text }] of rest) {
      const judging = /** @type {const} */ ({ views: 'raw', retries: 0 });
      const screen = createScreen({ policies: [definePolicy('p', policy)], judge, concurrency: 1, judging });
      const { verdicts } = await screen.screen({ [channel]: text });
      outcomes[i] = verdicts[0];
    }
  };
  await Promise.all(Array.from({ length: SLOTS }, work));
  return cases.map((row, i) => ({ ...row, outcome: outcomes[i].outcome, rule: outcomes[i].rule }));
}
const isRight = ({ expect, outcome, rule }) =>
  expect === null ? outcome === 'allow' : outcome === 'block' && rule === expect;
function tell(what, rows) {
  const of = (some, outcome) => `${some.filter((r) => r.outcome === outcome).length} of ${some.length}`;
  const safe = rows.filter((r) => r.expect === null);
  const violating = rows.filter((r) => r.expect !== null);
  console.log(
    JSON.stringify({
      ...what,
      safe: of(safe, 'block'),
      violating: of(violating, 'allow'),
      unjudged: of(rows, 'unjudged'),
      right: `${rows.filter(isRight).length} of ${rows.length}`,
    }),
  );
  if (!o.rows) return;
  for (const { text, expect, outcome, rule } of rows.filter((r) => !isRight(r)))
    console.log(JSON.stringify({ ...what, text, expect, outcome, rule }));
}
const named = (name) => judged(jsonl(name).map((row) => ({ ...row, of: row.policy, policy: policyText(row.policy) })));

const usual = await named('heldout.jsonl');
for (const channel of ['final', 'analysis'])
  tell(
    { what: 'usual', channel },
    usual.filter((r) => r.channel === channel),
  );
const forms = await named('heldout-forms.jsonl');
for (const form of new Set(forms.map((r) => r.form)))
  tell(
    { what: 'form', form },
    forms.filter((r) => r.form === form),
  );
for (const policy of ['contact', 'respect'])
  tell(
    { what: 'forms', policy },
    forms.filter((r) => r.of === policy),
  );
const none = { contact: 0, respect: 0, subset: 0, edited: 0 };
for (const [kind, mix] of Object.entries({
  subset: { ...none, subset: 1 },
  edited: { ...none, edited: 1 },
  renamed: none,
})) {
  const random = createRandom(4711);
  const cases = Array.from({ length: Number(o.drawn) }, () => drawCase(random, 'heldout', drawPolicyOf(mix)));
  tell({ what: 'drawn', kind }, await judged(cases.map((c) => ({ ...c, policy: c.policy.text }))));
}
await engine.close();
