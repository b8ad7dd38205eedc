// The files of deploy/ through the programs that read them, where those are installed.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { deploy, names, program, read } from './files.js';

const root = mkdtempSync(join(tmpdir(), 'deploy-'));
afterAll(() => rmSync(root, { recursive: true }));
/** What a program says; throws it where it fails. */
function said(name: string, args: readonly string[], cwd = deploy): string {
  try {
    return execFileSync(program(name) ?? name, args, { cwd, encoding: 'utf8', stdio: 'pipe' });
  } catch (e) {
    const { stdout, stderr } = e as { stdout: string; stderr: string };
    throw new Error(`${name} ${args.join(' ')}: ${stdout}${stderr}`);
  }
}
const has = (name: string): boolean => program(name) !== null;

describe.skipIf(!has('systemd-analyze'))('the unit (needs systemd-analyze)', () => {
  /** As it lies in /etc, but for the program, which is not installed there. */
  const place = (extra: string | null): string => {
    const folder = mkdtempSync(join(root, 'unit-'));
    const here = (text: string): string => text.replaceAll('/opt/temper/node_modules/.bin/temper', process.execPath);
    writeFileSync(join(folder, 'temper.service'), here(read('systemd/temper.service')));
    if (extra !== null) {
      mkdirSync(join(folder, 'temper.service.d'));
      writeFileSync(join(folder, 'temper.service.d', 'gpu.conf'), here(extra));
    }
    return join(folder, 'temper.service');
  };
  it.each([
    ['alone', null],
    ['on a GPU', read('systemd/gpu.conf')],
  ])('is understood as a whole, %s', (_, extra) => {
    const file = place(extra);
    try {
      execFileSync(program('systemd-analyze') ?? '', ['verify', '--man=no', file], { encoding: 'utf8', stdio: 'pipe' });
    } catch (e) {
      expect.unreachable(String((e as { stderr: string }).stderr));
    }
  });
  it('leaves little open', () => {
    expect(said('systemd-analyze', ['security', '--offline=yes', '--threshold=20', '--no-pager', place(null)])).toMatch(
      /exposure level[^:]*: [01]\.\d/,
    );
  });
});

describe.skipIf(!has('promtool'))('Prometheus (needs promtool)', () => {
  it('takes settings and rules, which fire when they should', () => {
    said('promtool', ['check', 'config', '--syntax-only', 'prometheus/prometheus.yml']);
    said('promtool', ['check', 'rules', 'prometheus/alerts.yml']);
    said('promtool', ['test', 'rules', 'alerts.test.yml'], join(deploy, 'prometheus'));
  });
});

describe.skipIf(!has('yamllint'))('YAML (needs yamllint)', () => {
  it('is in order', () => {
    const files = names.filter((n) => /\.ya?ml$/.test(n));
    expect(files.length).toBeGreaterThan(15);
    const rules = JSON.stringify({
      extends: 'default',
      rules: {
        'document-start': 'disable',
        'line-length': { max: 120 },
        braces: { 'max-spaces-inside': 1 },
        comments: { 'min-spaces-from-content': 1 },
      },
    });
    expect(said('yamllint', ['--strict', '-d', rules, ...files])).toBe('');
  });
});

describe.skipIf(!has('kubectl'))('manifests (needs kubectl)', () => {
  it.each(['kubernetes/base', 'kubernetes/gpu'])('%s is put together', (folder) => {
    const all = said('kubectl', ['kustomize', folder]);
    expect(all.match(/^kind: /gm)).toHaveLength(7);
    if (folder.endsWith('gpu')) expect(all).toMatch(/nvidia\.com\/gpu: 1/);
  });
});
