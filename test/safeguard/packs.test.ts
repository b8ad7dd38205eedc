// The policies that ship: golden sets large, balanced and varied enough, clean by `temper policy check`, and with
// nothing in them that is live. What a row means is for people to read; what a test can hold stands here.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { parseRow } from '../../src/safeguard/batch/row.js';
import { createDetectors } from '../../src/safeguard/detectors/index.js';
import { checkPolicy, failsOn } from '../../src/safeguard/policies/check.js';
import { type GoldenCase, readGolden } from '../../src/safeguard/policies/golden.js';
import { shippedPolicies } from '../../src/safeguard/policies/init.js';
import { normalised } from '../../src/safeguard/policies/lint/finding.js';
import { loadPolicy } from '../../src/safeguard/policy.js';

const PACKS = [
  'cyber-abuse',
  'personal-data',
  'secrets',
  'self-harm',
  'system-prompt',
  'unsafe-reasoning',
  'weapons',
] as const;
const folder = join(packageRoot, 'policies');
const fileOf = (name: string): string => join(folder, name, 'policy.md');
async function casesOf(name: string): Promise<readonly GoldenCase[]> {
  return (await readGolden(await loadPolicy(fileOf(name), { golden: false }), fileOf(name)))?.cases ?? [];
}

it('ships these, a template and the two of the nano judge, in the package', () => {
  expect(shippedPolicies()).toEqual(expect.arrayContaining([...PACKS, 'contact', 'respect', 'template']));
  const { files } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { files: string[] };
  expect(files).toContain('policies');
});

describe.each(PACKS)('policies/%s', (name) => {
  it('has no finding of check but notes', async () => {
    const checked = await checkPolicy(fileOf(name));
    expect(checked.findings.filter((f) => f.severity !== 'note')).toEqual([]);
    expect(failsOn([checked], 'warning')).toBe(false);
    expect(checked.tokens).toBeGreaterThan(400);
    expect(checked.tokens).toBeLessThan(700);
  });
  it('has at least 60 golden rows of our schema, balanced, of each channel and rule', async () => {
    const policy = await loadPolicy(fileOf(name));
    const text = readFileSync(join(folder, name, 'golden.jsonl'), 'utf8')
      .trim()
      .split('\n');
    const rows = text.map((line, i) => parseRow('golden.jsonl', i + 1, line));
    expect(rows.every((r, i) => r.policy === name && r.id === `${name}-${String(i + 1).padStart(2, '0')}`)).toBe(true);
    const cases = await casesOf(name);
    expect(cases.length).toBe(rows.length);
    expect(cases.length).toBeGreaterThanOrEqual(60);
    const share = cases.filter((c) => c.expect !== null).length / cases.length;
    expect(share).toBeGreaterThan(0.45);
    expect(share).toBeLessThan(0.55);
    expect(policy.channels?.length).toBeGreaterThanOrEqual(2);
    for (const channel of policy.channels ?? []) {
      const own = cases.filter((c) => c.channel === channel);
      for (const kind of [true, false])
        expect(own.filter((c) => (c.expect === null) === kind).length, channel).toBeGreaterThanOrEqual(7);
    }
    expect(cases.every((c) => policy.channels?.some((channel) => channel === c.channel))).toBe(true);
    for (const rule of policy.rules)
      expect(cases.filter((c) => c.expect === rule).length, rule).toBeGreaterThanOrEqual(3);
    expect(policy.thresholds).toMatchObject({ recall: expect.any(Number) as number });
  });
  it('is described with its true numbers', async () => {
    const cases = await casesOf(name);
    const by = (channel: string): number => cases.filter((c) => c.channel === channel).length;
    const numbers = [cases.length, cases.filter((c) => c.expect !== null).length];
    expect(readFileSync(join(folder, 'README.md'), 'utf8')).toMatch(
      new RegExp(
        `\\| \`${name}\` \\| [^|]+ \\| ${numbers[0]} \\| ${numbers[1]} \\| ` +
          `${by('final')} / ${by('analysis')} / ${by('commentary')} \\|`,
      ),
    );
  });
  it('has a short form with the same rules', async () => {
    const short = await loadPolicy(join(folder, 'short', `${name}.md`), { golden: false });
    expect(short).toMatchObject({ name, rules: (await loadPolicy(fileOf(name), { golden: false })).rules });
  });
});

describe('all golden rows together', () => {
  const everyCase = async (): Promise<(GoldenCase & { readonly policy: string })[]> =>
    (await Promise.all(PACKS.map(async (policy) => (await casesOf(policy)).map((c) => ({ ...c, policy }))))).flat();

  it('no text stands twice, nor nearly: no two share most of their word pairs', async () => {
    const cases = await everyCase();
    expect(new Set(cases.map((c) => normalised(c.text))).size).toBe(cases.length);
    const pairs = cases.map((c) => {
      const words = normalised(c.text).split(' ');
      return new Set(words.slice(1).map((word, i) => `${words[i]} ${word}`));
    });
    let compared = 0;
    for (let i = 0; i < cases.length; i++)
      for (let j = 0; j < i; j++) {
        const [a, b] = [pairs[i] ?? new Set(), pairs[j] ?? new Set()];
        const shared = [...a].filter((pair) => b.has(pair)).length;
        if (shared / Math.min(a.size, b.size) > 0.5) expect.fail(`${cases[i]?.id} is nearly ${cases[j]?.id}`);
        compared++;
      }
    expect(compared).toBe((cases.length * (cases.length - 1)) / 2);
    expect(cases.length).toBeGreaterThanOrEqual(420);
  });
  it('detectors find no secret; numbers of people are in rows that break a rule, or documented for tests', async () => {
    const detectors = createDetectors({ choices: { secrets: true, personal: true } });
    const found = (await everyCase()).flatMap((c) =>
      detectors
        .lookNow(c.text)
        .filter((d) => d.state === 'block')
        .flatMap((d) => d.findings.map((f) => ({ ...c, detector: d.detector, found: c.text.slice(f.from, f.to) }))),
    );
    expect(found.filter((f) => f.detector !== 'personal')).toEqual([]);
    // Each of these is reserved, or documented for tests, by whoever gives such numbers out.
    const reserved = new RegExp(
      `^(?:${[
        ...['020 7946 0[0-9]{3}', '01632 960 [0-9]{3}', '030 23125 0[0-9]{2}', '[^@ ]+@mail[.]test'],
        ...['4111 1111 1111 1111', '4242 4242 4242 4242', '5555 5555 5555 4444'],
        ...['DE89 3704 0044 0532 0130 00', 'FR14 2004 1010 0505 0001 3M02 606'],
      ].join('|')})$`,
    );
    expect(found.length).toBeGreaterThan(5);
    expect(found.filter((f) => !reserved.test(f.found))).toEqual([]);
    expect(found.filter((f) => f.expect === null).map((f) => f.found)).toEqual(['4242 4242 4242 4242']);
    expect(new Set(found.map((f) => f.policy))).toEqual(new Set(['personal-data']));
  });
  it('addresses are of names that nobody can own', async () => {
    const hosts = (await everyCase()).flatMap((c) => [...c.text.matchAll(/(?:@|https?:\/\/)([a-z0-9.-]+)/g)]);
    expect(hosts.length).toBeGreaterThan(15);
    for (const [, host = ''] of hosts)
      expect(host).toMatch(/(?:^|\.)(?:example(?:\.com|\.net|\.org)?|test|invalid)\.?$/);
  });
  it('where help would stand, it is left out: no amounts, temperatures or commands of harm', async () => {
    const dangerous = (await everyCase()).filter((c) => ['weapons', 'self-harm', 'cyber-abuse'].includes(c.policy));
    for (const c of dangerous.filter((d) => d.expect !== null)) {
      expect(c.text, c.id).not.toMatch(/\b[0-9]+ ?(?:mg|g|kg|ml|l|°C|degrees|%|grains?|tablets?|pills?|metres?|m)\b/i);
      expect(c.text.length, c.id).toBeLessThan(200);
      expect(c.text, c.id).not.toMatch(
        /\b(?:nitr|chlorate|peroxide|sarin|ricin|fentanyl|paracetamol|nmap|hydra|metasploit)/i,
      );
    }
  });
  it('every policy that ships is a folder with both files', () => {
    for (const name of shippedPolicies())
      expect(readdirSync(join(folder, name)).toSorted()).toEqual(['golden.jsonl', 'policy.md']);
  });
});
