import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import type { StepMetrics } from '../../src/runs/metrics.js';
import type { RunRecord } from '../../src/runs/run-folder.js';
import { renderReport, thin } from '../../src/train/report.js';

describe('report.html', () => {
  const record: RunRecord = {
    version: 1,
    name: 'a <b>',
    about: '</script><script>alert(1)</script>',
    status: 'done',
    method: 'sft',
    seed: 1,
    steps: 3,
    digests: { recipe: 'r'.repeat(64), data: 'd', base: 'b', tokenizer: '' },
    data: [{ file: 'x"y.jsonl', format: 'chat', sha256: 's', rows: 1, tokens: 2, trainedTokens: 1, untrainedRows: 0 }],
    versions: { temper: '0' },
    machine: { isa: 'avx2', threads: 2 },
    trainedParameters: 1234,
    output: 'adapter',
  };
  const metrics = Array.from(
    { length: 30 },
    (_, i): StepMetrics => ({
      step: i + 1,
      loss: 3 / (i + 1),
      lr: 1e-4 * i,
      gradNorm: 1,
      tokens: 100,
      tokensPerSecond: 1000 + i,
      peakBytes: 2 ** 20 * i,
    }),
  );

  it('draws every curve from data that lies in the file', () => {
    const html = renderReport(record, metrics);
    const scripts = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map((m) => m[1] ?? '');
    expect(scripts).toHaveLength(2);
    const drawn: { data: number[][] }[] = [];
    class Plot {
      constructor(_o: unknown, data: number[][], box: { id: string }) {
        drawn.push({ data });
        expect(box).toBeDefined();
      }
      destroy(): void {}
    }
    const element = { clientWidth: 500 };
    runInNewContext(scripts[1] ?? '', {
      uPlot: Plot,
      document: { documentElement: {}, getElementById: (id: string) => (html.includes(`id="${id}"`) ? element : null) },
      getComputedStyle: () => ({ getPropertyValue: () => '#000' }),
      matchMedia: () => ({ addEventListener() {} }),
      addEventListener() {},
      clearTimeout,
      setTimeout,
    });
    expect(drawn).toHaveLength(5);
    for (const d of drawn) for (const line of d.data) expect(line).toHaveLength(30);
    expect(drawn[0]?.data[1]).toEqual(metrics.map((m) => m.loss));
    expect(html).toContain('&#60;/script&#62;');
    expect(html).toContain('a &#60;b&#62;');
    for (const text of ['1234', 'avx2', 'r'.repeat(64)]) expect(html).toContain(text);
    expect(html.length).toBeLessThan(120_000);
  });
  it('stays small for long runs, and stands for none', () => {
    const long = Array.from(
      { length: 100_001 },
      (_, i): StepMetrics => ({ ...(metrics[0] as StepMetrics), step: i + 1, loss: i }),
    );
    const few = thin(long);
    expect(few.length).toBeLessThanOrEqual(4000);
    expect(few.at(-1)?.step).toBe(100_001);
    expect(renderReport(record, [])).toContain('0 / 3');
  });
});
