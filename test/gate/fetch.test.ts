// Public sets: what of a file becomes prompts of a suite. Whole sets are not shipped; a few rows of the form of theirs
// are, and XSTest itself where TEMPER_XSTEST names a copy.
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../src/base/digest.js';
import { fetchPublicSet } from '../../src/compose/gate-fetch.js';
import { fetchSet } from '../../src/gate/fetch/fetch-set.js';
import { PUBLIC_SETS, publicSet } from '../../src/gate/fetch/sets.js';
import { readPrompts } from '../../src/gate/run/prompts.js';
import { scorerOf } from '../../src/gate/scorers/index.js';
import { parseSuite } from '../../src/gate/suite.js';
import { readCsv } from '../../src/safeguard/batch/csv.js';

const root = mkdtempSync(join(tmpdir(), 'temper-gate-fetch-'));
const signal = new AbortController().signal;
let made = 0;
const folder = (): string => join(root, `out-${made++}`);

/** A file of the form of each set, with rows of our own. */
const LIKE: Readonly<Record<string, string>> = {
  xstest:
    'id,prompt,type,label,focus,note\n1,How can I end a process?,homonyms,safe,end,\n' +
    '2,"How do I, say, end one?",contrast_homonyms,unsafe,end,\n',
  ailuminate: 'release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash\na_1,What is it?,vcr,normal,en,x\n',
  harmbench:
    'Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\nSay it,standard,misc,,,say_it\n' +
    'Go on,contextual,misc,,Once upon a time,go_on\n',
  strongreject: 'category,source,forbidden_prompt\nmisc,own,Say it\n',
  advbench: 'Say it\nSay it again\n',
  jailbreakbench: JSON.stringify({
    jailbreaks: [
      { index: 0, category: 'misc', prompt: 'In a story, say it', behavior: 'b' },
      { index: 1, category: 'misc', prompt: null },
    ],
  }),
  monitorability: [
    { id: 7, problem: 'What is it?', type: 'unperturbed', category: 'a hint', answer: 'B', perturbation: 'It is B.' },
    { id: 7, problem: 'What is it? It is B.', type: 'perturbed', category: 'a hint', answer: 'B', perturbation: null },
    { id: 7, problem: 'What is it? They say B.', type: 'perturbed', category: 'others', answer: 'B' },
    { id: 8, problem: 'A row of another kind', type: 'summary' },
  ]
    .map((row) => `${JSON.stringify(row)}\n`)
    .join(''),
};
const fetched = (set: string, out: string): ReturnType<typeof fetchSet> =>
  fetchSet({ set, out, bytes: async () => Buffer.from(LIKE[set] ?? ''), csv: readCsv, anyDigest: true });

describe('public sets', () => {
  it.each(PUBLIC_SETS.map((s) => s.name))('%s becomes tests of a suite', async (name) => {
    const out = folder();
    const result = await fetched(name, out);
    expect(result.prompts).toBe({ xstest: 2, harmbench: 2, advbench: 2, monitorability: 3 }[name] ?? 1);
    const set = publicSet(name);
    if (name === 'monitorability') expect(set?.pinned).toBeNull();
    else {
      expect(set?.pinned?.sha256).toMatch(/^[0-9a-f]{64}$/);
      expect(set?.url).toMatch(/^https:\/\/raw\.githubusercontent\.com\/[^/]+\/[^/]+\/[0-9a-f]{40}\//);
    }
    const tests = readFileSync(join(out, `${name}.tests.yaml`), 'utf8');
    const { suite } = parseSuite(
      `name: s\nversion: '1'\ntests:\n${tests.replaceAll(/^/gm, '  ')}`,
      join(out, 'suite.yaml'),
    );
    for (const test of suite.tests) {
      const scorer = scorerOf(test.scorer);
      if (!scorer) throw new Error(test.scorer);
      expect((await readPrompts(join(out, test.prompts ?? ''), scorer, 'low')).length).toBeGreaterThan(0);
    }
    const source = JSON.parse(readFileSync(join(out, `${name}.source.json`), 'utf8')) as Record<string, unknown>;
    expect(source).toMatchObject({ set: name, licence: set?.licence, digest: result.digest });
  });

  it('takes no other bytes than those that they were, unless told to', async () => {
    const file = join(root, 'other.csv');
    writeFileSync(file, LIKE.xstest ?? '');
    await expect(fetchPublicSet({ set: 'xstest', out: folder(), from: file, signal })).rejects.toMatchObject({
      code: 'hub_digest',
      exitCode: 40,
    });
    const { prompts } = await fetchPublicSet({ set: 'xstest', out: folder(), from: file, anyDigest: true, signal });
    expect(prompts).toBe(2);
    await expect(fetchPublicSet({ set: 'none', out: folder(), signal })).rejects.toMatchObject({ code: 'bad_option' });
    for (const text of ['<html>', 'null', '[]', '{"jailbreaks": {}}', '{"jailbreaks": [null]}']) {
      writeFileSync(file, text);
      const given = { set: 'jailbreakbench', out: folder(), from: file, anyDigest: true, signal };
      await expect(fetchPublicSet(given)).rejects.toMatchObject({ code: 'not_json' });
    }
  });

  it('questions without and with a cue are what a monitor has to tell apart, each question a family', async () => {
    const out = folder();
    const file = join(root, 'gpqa.jsonl');
    writeFileSync(file, LIKE.monitorability ?? '');
    const { digest, files } = await fetchPublicSet({ set: 'monitorability', out, from: file, signal });
    expect(digest).toBe(`sha256:${sha256(LIKE.monitorability ?? '')}`);
    expect(files).toContain(join(out, 'monitored.jsonl'));
    const scorer = scorerOf('monitor');
    if (!scorer) throw new Error('monitor');
    const prompts = await readPrompts(join(out, 'monitored.jsonl'), scorer, 'low');
    expect(prompts.map((p) => [p.id, p.family, p.expect])).toEqual([
      ['7/a-hint/unperturbed', '7', { covert: false }],
      ['7/a-hint/perturbed', '7', { covert: true }],
      ['7/others/perturbed', '7', { covert: true }],
    ]);
  });

  it('a set that has no file of its own is given as a copy, every line of which is an object', async () => {
    await expect(fetchPublicSet({ set: 'monitorability', out: folder(), signal })).rejects.toMatchObject({
      code: 'bad_option',
      message: expect.stringMatching(/unpack its environments.*--from FILE/),
    });
    const file = join(root, 'broken.jsonl');
    for (const line of ['{"id": 1', '[1]', 'null', '3']) {
      writeFileSync(file, `${LIKE.monitorability}${line}\n`);
      const given = fetchPublicSet({ set: 'monitorability', out: folder(), from: file, signal });
      await expect(given).rejects.toMatchObject({ code: 'not_json', message: expect.stringMatching(/:5: /) });
    }
    writeFileSync(file, '{"problem": "no arm"}\n');
    const none = fetchPublicSet({ set: 'monitorability', out: folder(), from: file, signal });
    await expect(none).rejects.toMatchObject({ code: 'no_rows' });
  });

  it('says what the network said', async () => {
    const server = createServer((_request, response) => {
      response.writeHead(503).end();
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const { port } = server.address() as { port: number };
    const given = publicSet('advbench');
    if (!given) throw new Error('advbench');
    const changed = given as { url: string };
    const url = changed.url;
    try {
      changed.url = `http://127.0.0.1:${port}/x.csv`;
      await expect(fetchPublicSet({ set: 'advbench', out: folder(), signal })).rejects.toMatchObject({
        code: 'hub_answer',
        exitCode: 30,
      });
      await new Promise((done) => server.close(done));
      await expect(fetchPublicSet({ set: 'advbench', out: folder(), signal })).rejects.toMatchObject({
        code: 'hub_unreachable',
        exitCode: 30,
      });
    } finally {
      changed.url = url;
    }
  });

  it.skipIf(!existsSync(process.env.TEMPER_XSTEST ?? ''))('XSTest itself: 250 harmless, 200 not', async () => {
    const out = folder();
    const from = process.env.TEMPER_XSTEST ?? '';
    expect((await fetchPublicSet({ set: 'xstest', out, from, signal })).prompts).toBe(450);
    const lines = (name: string): number =>
      readFileSync(join(out, `${name}.jsonl`), 'utf8')
        .trim()
        .split('\n').length;
    expect([lines('xstest-safe'), lines('xstest-unsafe')]).toEqual([250, 200]);
  });
});
