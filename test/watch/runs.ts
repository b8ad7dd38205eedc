// Runs that never trained: the files a run would have written.
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { appendMetrics, type StepMetrics } from '../../src/runs/metrics.js';
import { type RunRecord, writeRun } from '../../src/runs/run-folder.js';

export const record: RunRecord = {
  version: 1,
  name: 'a <b>',
  about: '</script><script>document.title = "owned"</script>',
  status: 'running',
  method: 'sft',
  seed: 1,
  steps: 40,
  digests: { recipe: 'r'.repeat(64), data: 'd', base: 'b', tokenizer: '' },
  data: [{ file: 'x"y.jsonl', format: 'chat', sha256: 's', rows: 1, tokens: 2, trainedTokens: 1, untrainedRows: 0 }],
  versions: { temper: '0' },
  machine: { isa: 'avx2', threads: 2 },
  trainedParameters: 1234,
  output: 'adapter',
};
export const metricsOf = (step: number, more: Partial<StepMetrics> = {}): StepMetrics => ({
  step,
  loss: 3 / step,
  lr: 1e-4,
  gradNorm: 1 + (step % 3),
  tokens: 100,
  tokensPerSecond: 1000,
  peakBytes: 2 ** 20,
  ...more,
});

/** A folder that is not there yet. */
export const newRun = (): string => join(mkdtempSync(join(tmpdir(), 'temper-watch-')), 'run');
export function begin(run: string, more: Partial<RunRecord> = {}): void {
  mkdirSync(join(run, 'checkpoints'), { recursive: true });
  writeRun(run, { ...record, ...more });
}
/** Writes steps from … to. */
export function steps(
  run: string,
  from: number,
  to: number,
  more: (step: number) => Partial<StepMetrics> = () => ({}),
) {
  for (let s = from; s <= to; s++) appendMetrics(run, metricsOf(s, more(s)));
}
export const checkpoint = (run: string, step: number): void =>
  void mkdirSync(join(run, 'checkpoints', `step-${step}`), { recursive: true });
