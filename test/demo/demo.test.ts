// `temper demo` as a newcomer runs it, in full: every claim of the story is measured and holds.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import type { DemoResult } from '../../src/demo/story.js';

describe('temper demo', () => {
  const folder = mkdtempSync(join(tmpdir(), 'temper-demo-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('trains, compares, screens, gates, exports, verifies and signs; the figures reach what is claimed', () => {
    const out = join(folder, 'demo');
    const child = spawnSync(
      process.execPath,
      [join(packageRoot, 'dist', 'cli', 'main.js'), 'demo', '--json', '--out', out],
      { encoding: 'utf8', maxBuffer: 1 << 26 },
    );
    expect(child.stderr).toBe('');
    const r = JSON.parse(child.stdout) as DemoResult;
    expect(r.checks.filter((c) => !c.ok)).toEqual([]);
    expect(r.checks.length).toBe(12);
    expect(child.status).toBe(0);
    expect(r.base.share).toBeLessThanOrEqual(0.1);
    expect(r.tuned.share).toBeGreaterThanOrEqual(0.9);
    expect([r.base.rows, r.tuned.rows]).toEqual([100, 100]);
    expect(Math.min(r.judge.final.f1 ?? 0, r.judge.analysis.f1 ?? 0)).toBeGreaterThanOrEqual(0.95);
    expect(new Set(r.screened.map((s) => `${s.policy} ${s.kind}`))).toEqual(
      new Set(['contact clean', 'contact violating-final', 'contact violating-trace', 'respect clean']),
    );
    expect([r.verified.ok, r.gate.decision, r.signed]).toEqual([true, 'PASS', true]);
    for (const file of ['adapter_config.json', 'adapter_model.safetensors', 'model.sig', 'gate/decision.json'])
      expect(existsSync(join(r.adapter, file))).toBe(true);
    const report = readFileSync(r.report, 'utf8');
    expect(report).toContain('Temper demo');
    expect(report).not.toMatch(/https?:\/\//u);
    // What is withheld must not stand in the report.
    for (const s of r.screened)
      for (const c of [s.analysis, s.final]) if (c.withheld) expect(c.text).toMatch(/withheld/u);
  }, 900_000);
});
