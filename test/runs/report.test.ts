import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { Curves, thin } from '../../src/runs/curves.js';
import type { StepMetrics } from '../../src/runs/metrics.js';
import { renderReport } from '../../src/runs/report.js';
import type { RunRecord } from '../../src/runs/run-folder.js';

interface Drawn {
  readonly data: readonly (readonly (number | null)[])[];
  readonly labels: readonly string[];
  readonly distr: number;
}
/** Runs the page's own script with a plot that only remembers. */
function draw(html: string) {
  const scripts = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map((m) => m[1] ?? '');
  expect(scripts).toHaveLength(2);
  const drawn: Drawn[] = [];
  class Plot {
    readonly series: readonly { readonly label: string }[];
    constructor(
      options: {
        readonly series: { readonly label: string }[];
        readonly scales: { readonly y: { readonly distr: number } };
      },
      data: Drawn['data'],
      box: { id: string },
    ) {
      this.series = options.series;
      drawn.push({ data, labels: options.series.map((s) => s.label), distr: options.scales.y.distr });
      expect(box).toBeDefined();
    }
    setData(data: Drawn['data']): void {
      const labels = this.series.map((s) => s.label);
      drawn.push({ data, labels, distr: 0 });
    }
    destroy(): void {}
  }
  const element = { clientWidth: 500, addEventListener() {} };
  const listeners: (() => void)[] = [];
  const addEventListener = (_: string, listener: () => void): void => void listeners.push(listener);
  const smoothing = /id="smoothing"[^>]* value="([\d.]+)"/.exec(html)?.[1] ?? expect.fail('no slider');
  const controls = {
    smoothing: { value: smoothing, addEventListener },
    log: { checked: false, addEventListener },
  };
  runInNewContext(scripts[1] ?? '', {
    uPlot: Plot,
    document: {
      documentElement: {},
      getElementById: (id: string) =>
        id === 'smoothing' || id === 'log' ? controls[id] : html.includes(`id="${id}"`) ? element : null,
    },
    getComputedStyle: () => ({ getPropertyValue: () => '#000' }),
    matchMedia: () => ({ addEventListener() {} }),
    addEventListener() {},
    clearTimeout,
    setTimeout,
  });
  return { drawn, controls, change: () => listeners[0]?.() };
}

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
    const { drawn } = draw(html);
    expect(drawn).toHaveLength(5);
    for (const d of drawn) for (const line of d.data) expect(line).toHaveLength(30);
    expect(drawn[0]?.data[1]).toEqual(metrics.map((m) => m.loss));
    expect(html).toContain('&#60;/script&#62;');
    expect(html).toContain('a &#60;b&#62;');
    for (const text of ['1234', 'avx2', 'r'.repeat(64)]) expect(html).toContain(text);
    expect(html.length).toBeLessThan(120_000);
  });
  it('shows evaluations, a logarithmic axis and as much smoothing as is asked for', () => {
    const html = renderReport(
      { ...record, best: { step: 20, evalLoss: 0.25, evalMatch: 0.875 }, endedEarly: 30 },
      metrics.map((m) => (m.step % 10 ? m : { ...m, evalLoss: 5 / m.step, evalMatch: m.step / 40 })),
    );
    for (const text of ['best held-out loss, step 20', '87.5 %', 'by train.patience']) expect(html).toContain(text);
    const { drawn, controls, change } = draw(html);
    expect(drawn).toHaveLength(6);
    const [loss, match] = drawn;
    expect(loss?.labels).toEqual(['step', 'loss', 'smoothed', 'held-out']);
    expect(loss?.data[3]?.filter((v) => v !== null)).toEqual([0.5, 0.25, 5 / 30]);
    expect(match?.data[1]?.filter((v) => v !== null)).toEqual([0.25, 0.5, 0.75]);
    expect(loss?.distr).toBe(1);
    drawn.length = 0;
    controls.log.checked = true;
    controls.smoothing.value = '0';
    change();
    expect(drawn[0]?.labels).toEqual(['step', 'loss', 'held-out']);
    // A curve that touches 0 keeps its straight axis; what stays as it is gets its values, and no new plot (0).
    expect(drawn.map((d) => d.distr)).toEqual([3, 0, 0, 3, 0, 0]);
  });
  it('thins a run that grows as one that is complete: each point the mean of its steps, up to the last one', () => {
    const curves = new Curves(8);
    let generations = 0;
    for (let n = 1; n <= 77; n++) {
      curves.add({ ...(metrics[0] as StepMetrics), step: n, loss: n, ...(n % 5 ? {} : { evalLoss: n }) });
      const all = Array.from({ length: n }, (_, i) => i + 1);
      const stride = 2 ** curves.generation;
      const parts = Array.from({ length: Math.ceil(n / stride) }, (_, i) => all.slice(i * stride, (i + 1) * stride));
      expect(curves.points.map((p) => p.loss)).toEqual(
        parts.map((part) => expect.closeTo(part.reduce((a, b) => a + b, 0) / part.length, 9)),
      );
      expect(curves.points.map((p) => p.step)).toEqual(parts.map((part) => part.at(-1)));
      expect(curves.points.map((p) => p.evalLoss)).toEqual(parts.map((part) => part.findLast((k) => k % 5 === 0)));
      expect(curves.points.length).toBeLessThanOrEqual(8);
      generations = Math.max(generations, curves.generation);
    }
    expect(generations).toBe(4);
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
