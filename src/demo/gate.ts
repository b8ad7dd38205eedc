// The end of the story: the release gate over the adapter that was just trained, and its export, signed.
import { join, relative } from 'node:path';
import { embedded } from '../base/machine.js';
import { sign, verifyRelease } from '../compose/attest.js';
import { runGate } from '../compose/gate.js';
import { lockGate } from '../compose/gate-lock.js';
import { exportReleased } from '../compose/release.js';
import type { VerifyResult } from '../export/export.js';
import { verify } from '../export/export.js';
import type { Decision } from '../gate/decision.js';
import { loadSuite } from '../gate/suite.js';
import { makeKey, publicFile } from '../verdict-log/keys.js';
import { verifiedLine } from './report.js';
import type { DemoOptions } from './story.js';

const SUITE = embedded('gates/nano/suite.yaml');
const JUDGE = embedded('models/nano-judge');

export interface GateFigures {
  readonly decision: Decision['decision'];
  readonly reasons: readonly string[];
  readonly metrics: number;
  readonly outcomes: number;
  readonly seconds: number;
  /** The page of the gate. */
  readonly report: string;
}
export interface Released {
  readonly gate: GateFigures;
  readonly adapter: string;
  readonly verified: VerifyResult;
  /** Whether the signature over all of the export holds, and its gate says PASS. */
  readonly signed: boolean;
}

/** @throws {GateError} the gate did not let it out · as runGate, exportReleased, sign */
export async function gateAndExport(
  run: string,
  out: string,
  { hooks, signal, threads }: DemoOptions,
): Promise<Released> {
  hooks.chapter('The release gate: base and adapter answer the same suite');
  const suite = loadSuite(SUITE);
  const lock = join(out, 'gate.lock.json');
  await lockGate({ suite: SUITE, judge: JUDGE, out: lock });
  hooks.line(
    `Thresholds, prompts, policies and judge are locked before it begins (${relative(process.cwd(), lock)}); then ` +
      `both answer ${suite.suite.tests.length} kinds of tests.`,
  );
  const {
    decision,
    folder,
    run: done,
    seconds,
  } = await runGate({
    ...{ target: run, suite: SUITE, lock, judge: JUDGE, signal },
    ...(threads === undefined ? {} : { threads, engine: { threads } }),
    hooks: {
      onSearch: (n, total) => hooks.progress('search for triggers', 'phrases', n, total),
      onProgress: ({ done: n, cases }) => hooks.progress('gate', 'cases', n, cases),
    },
  });
  if (!decision) throw new Error('a gate that is no shard has no decision');
  for (const reason of decision.reasons) hooks.line(reason);
  const gate: GateFigures = {
    decision: decision.decision,
    reasons: decision.reasons,
    metrics: decision.metrics.filter((m) => m.gates).length,
    outcomes: done.rows,
    seconds,
    report: join(folder, 'report.html'),
  };
  hooks.line(`${gate.decision}: ${gate.metrics} limits over ${gate.outcomes} outcomes in ${seconds.toFixed(0)} s.`);

  hooks.chapter('What passed is exported, verified and signed');
  hooks.line(
    'It is written in the layout that PEFT and transformers load, read back, and every logit ' +
      "is compared with the trainer's own.",
  );
  const { out: adapter } = await exportReleased({ run, out: join(out, 'adapter'), gate: [folder] }, { signal });
  const verified = await verify(adapter, { signal });
  hooks.line(`PEFT adapter in ${relative(process.cwd(), adapter)}: ${verifiedLine(verified)}`);
  const key = join(out, 'release-key.pem');
  makeKey(key);
  const { files, statements } = await sign({ dir: adapter, key }, { signal });
  const checked = await verifyRelease({ dir: adapter, keys: [publicFile(key)] }, { signal });
  hooks.line(
    `${statements.length} statements and a signature over ${files} files ` +
      `${checked.ok && checked.signed ? 'hold' : 'DO NOT hold'}: temper audit checks them offline.`,
  );
  return { gate, adapter, verified, signed: checked.ok && checked.signed && checked.decision === 'PASS' };
}
