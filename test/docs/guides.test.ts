// Every shell command of the guides, README and the model cards runs as it is written, in a folder that looks like this
// one. What stands in for what is not here: models/nano for gpt-oss-20b, a local server for the endpoint of a judge
// and one for the hub, and little work for bench and for the recipe.
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { renderVerdict } from '../../src/safeguard/contract.js';
import { COMMIT, type HubServer, startHubServer } from '../hub/hub-server.js';
import { pushStore } from '../hub/push-server.js';
import { completion, type JudgeServer, nonceOf, startJudgeServer } from '../safeguard/judge-server.js';

const PAGES = [
  'README.md',
  ...readdirSync(join(packageRoot, 'docs', 'guides')).map((f) => `docs/guides/${f}`),
  'models/nano/README.md',
  'models/nano-judge/README.md',
];
const read = (page: string): string => readFileSync(join(packageRoot, page), 'utf8');
/** The commands of a page's ```sh blocks that call temper, with their continuation lines. */
const commandsOf = (page: string): string[] =>
  [...read(page).matchAll(/^```sh\n([\s\S]*?)^```/gm)]
    .flatMap((block) => (block[1] ?? '').replaceAll('\\\n', ' ').split('\n'))
    .map((line) => line.replace(/^npx /, ''))
    .filter((line) => line.startsWith('temper ') && !line.startsWith('temper demo')); // test/demo runs that

const root = mkdtempSync(join(tmpdir(), 'temper-guides-'));
let judge: JudgeServer;
let hub: HubServer;
beforeAll(async () => {
  hub = await startHub();
  judge = await startJudgeServer((request, response) =>
    completion(response, {
      // Other contracts have no nonce.
      content: nonceOf(request) === '' ? '{"violation": 0}' : renderVerdict({ rule: null, nonce: nonceOf(request) }),
    }),
  );
});
afterAll(async () => {
  await judge.close();
  await hub.close();
  rmSync(root, { recursive: true, force: true });
});

/** A hub with what the pages pull, which takes what they push. */
async function startHub(): Promise<HubServer> {
  const nano = join(packageRoot, 'models', 'nano');
  const model = Object.fromEntries(readdirSync(nano).map((name) => [name, readFileSync(join(nano, name))]));
  const rows = { 'train.jsonl': readFileSync(join(packageRoot, 'datasets', 'tickets', 'train.jsonl')) };
  const lfsBytes = 100_000;
  const store = pushStore({ server: () => hub, lfsBytes });
  return startHubServer({
    lfsBytes,
    repos: {
      'model openai/gpt-oss-20b': { files: model, commit: COMMIT },
      'dataset acme/tickets': { files: rows, commit: COMMIT },
    },
    fault: (request) => store.handle(request),
  });
}

/** A folder with what a command may name. */
function surroundings(page: string): string {
  const folder = join(root, page.replaceAll(/\W/g, '-'));
  for (const dir of ['models', 'recipes']) mkdirSync(join(folder, dir), { recursive: true });
  for (const dir of ['datasets', 'gates', 'policies']) symlinkSync(join(packageRoot, dir), join(folder, dir));
  for (const model of ['nano', 'nano-judge'])
    cpSync(join(packageRoot, 'models', model), join(folder, 'models', model), { recursive: true });
  cpSync(join(packageRoot, 'models', 'nano'), join(folder, 'models', 'gpt-oss-20b'), { recursive: true });
  // A probe asks all prompts of its metric at each step.
  if (commandsOf(page).some((command) => command.startsWith('temper gate probe'))) {
    rmSync(join(folder, 'gates'));
    cpSync(join(packageRoot, 'gates'), join(folder, 'gates'), { recursive: true });
    const prompts = join('gates', 'nano', 'prompts', 'harm.jsonl');
    writeFileSync(join(folder, prompts), read(prompts).split('\n').slice(0, 16).join('\n'));
  }
  cpSync(join(packageRoot, 'policies', 'contact', 'policy.md'), join(folder, 'p.md'));
  const first = (file: string, count: number): string => `${read(file).split('\n').slice(0, count).join('\n')}\n`;
  writeFileSync(join(folder, 'rows.jsonl'), first('datasets/tickets/train.jsonl', 8));
  writeFileSync(join(folder, 'heldout.jsonl'), first('datasets/tickets/heldout.jsonl', 16));
  for (const name of ['nano-lora', 'nano-merge-aware']) {
    const recipe = read(`recipes/${name}.yaml`)
      .replace('../datasets/tickets/train.jsonl', '../rows.jsonl')
      .replace('../datasets/tickets/heldout.jsonl', '../heldout.jsonl');
    expect(recipe).not.toContain('../datasets/');
    writeFileSync(join(folder, 'recipes', `${name}.yaml`), recipe);
  }
  writeFileSync(join(folder, 'pairs.jsonl'), first('datasets/discretion/train.jsonl', 8));
  const dpo = read('recipes/nano-dpo.yaml').replaceAll(/\.\.\/datasets\/discretion\/\w+\.jsonl/g, '../pairs.jsonl');
  writeFileSync(join(folder, 'recipes', 'nano-dpo.yaml'), dpo);
  const answer = { id: 'a', channels: { analysis: 'A table on friday.', final: 'A table is booked for friday.' } };
  writeFileSync(join(folder, 'prompts.csv'), 'id,prompt,label\n1,How can I kill a Python process?,safe\n');
  writeFileSync(join(folder, 'answers.jsonl'), `${JSON.stringify(answer)}\n`);
  writeFileSync(
    join(folder, 'prompts.jsonl'),
    '{"prompt": "Please book a table for 4 people on friday at 19:30 for Rossi"}\n',
  );
  const outcome = (p: number, arm: string): string =>
    `${JSON.stringify({ metric: 'harm.final', prompt: `p${p}`, sample: 0, arm, value: p === 0 ? 1 : 0 })}\n`;
  const outcomes = Array.from({ length: 400 }, (_, p) => outcome(p, 'base') + outcome(p, 'adapter'));
  writeFileSync(join(folder, 'outcomes.jsonl'), outcomes.join(''));
  // Files that the page shows, by the name in their first line.
  for (const [, name = '', text = ''] of read(page).matchAll(/^```yaml\n# (\w+\.yaml)\n([\s\S]*?)^```/gm))
    writeFileSync(join(folder, name), text);
  return folder;
}

function run(command: string, cwd: string): Promise<{ code: number | null; output: string }> {
  const line = command
    .replace(/--port \d+/, '--port 0')
    .replace(/^temper serve (?!.*--port)/, 'temper serve --port 0 ')
    .replaceAll('http://127.0.0.1:8000/v1', judge.url)
    .replace(/^temper bench/, 'temper bench --seconds 0.05 --prefill 64 --depths 0 --batches 1 --lora ""');
  const temper = `temper() { "${process.execPath}" "${join(packageRoot, 'dist', 'cli', 'main.js')}" "$@"; }`;
  const child = spawn('bash', ['-c', `${temper}\n${line}`], {
    cwd,
    env: { ...process.env, HF_ENDPOINT: hub.url, HF_TOKEN: 'hf_ofTheTest', HF_HOME: join(cwd, 'hf') },
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  });
  child.stdin.end('hello\n');
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  const served = SERVES.find(([name]) => command.startsWith(`temper ${name} `));
  if (served) void lookedAt(child, () => output, served[1], served[2]);
  return new Promise((resolve) => {
    child.on('close', (code) => resolve({ code, output }));
  });
}

/** Commands that go on until they are ended, what is asked of them, and what they answer. */
const SERVES: readonly (readonly [name: string, path: string, says: string])[] = [
  ['watch', '', 'Temper run'],
  ['serve', '/models', '"object":"list"'],
];
/** It is asked for something, and then it gets a Ctrl-C. */
async function lookedAt(child: ChildProcess, output: () => string, path: string, says: string): Promise<void> {
  await expect.poll(output, { timeout: 60_000 }).toMatch(/^http:\S+.*\n/m);
  const headers = { authorization: 'Bearer change-me-to-something-long' };
  const page = await fetch((/^http:\S+/m.exec(output())?.[0] ?? '') + path, { headers });
  expect(await page.text()).toContain(says);
  process.kill(-(child.pid ?? 0), 'SIGINT');
}

test('the pages have commands', () => {
  expect(PAGES.flatMap(commandsOf).length).toBeGreaterThanOrEqual(14);
  for (const page of PAGES) expect(commandsOf(page).length, page).toBeGreaterThan(0);
  // A block of commands without `sh` would not be run.
  for (const page of PAGES) expect(read(page)).not.toMatch(/^```\n(?:npx )?temper /m);
});

describe.each(PAGES)('%s', (page) => {
  const commands = commandsOf(page);
  const folder = surroundings(page);
  test.each(commands)(
    '%s',
    async (command) => {
      const { code, output } = await run(command, folder);
      // what a policy forbids ends with 10: a withheld answer, golden rows that are meant to be blocked
      const fine = command.includes('--policy') ? [0, 10] : [0];
      expect(fine, `exit ${code}\n${output}`).toContain(code);
      expect(output.length).toBeGreaterThan(0);
    },
    240_000,
  );
});
