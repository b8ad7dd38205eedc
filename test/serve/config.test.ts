// The configuration file: what it says, where it is wrong, and that editors are told the same.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/base/machine.js';
import { type CommandOptions, serveOptions } from '../../src/cli/serve-options.js';
import { readServeConfig, serveJsonSchema } from '../../src/serve/config.js';

const root = mkdtempSync(join(tmpdir(), 'serve-config-'));
afterAll(() => rmSync(root, { recursive: true }));
const file = join(root, 'serve.yaml');
const write = (text: string): string => {
  writeFileSync(file, text);
  return file;
};
const KEY = 'a-key-of-the-tests-1';
const WHOLE = `
model: models/nano
adapters:
  tickets: runs/tickets
  next: { path: /abs/next, status: candidate }
policy: [policies/a.md]
judge: http://127.0.0.1:9/v1
tls: { cert: cert.pem, key: key.pem }
port: 9000
queueSeconds: 5
keys:
  - { name: app, key: ${KEY}, models: [nano], requestsPerMinute: 60, priority: 2 }
  - { name: dev, key: 'sha256:${'0'.repeat(64)}', candidates: true }
`;

describe('a configuration file', () => {
  it('has its paths from its own folder', () => {
    const config = readServeConfig(write(WHOLE));
    expect(config).toMatchObject({
      model: join(root, 'models/nano'),
      adapters: { tickets: join(root, 'runs/tickets'), next: { path: '/abs/next', status: 'candidate' } },
      policy: [join(root, 'policies/a.md')],
      judge: 'http://127.0.0.1:9/v1',
      tls: { cert: join(root, 'cert.pem'), key: join(root, 'key.pem') },
    });
    expect(readServeConfig(write('model: hf://openai/gpt-oss-20b')).model).toBe('hf://openai/gpt-oss-20b');
    expect(readServeConfig(write(''))).toEqual({});
  });
  it.each([
    ['no YAML', 'model: [', /serve\.yaml:1:\d+: not YAML/],
    ['a slip of the pen', 'model: x\nprot: 80', /serve\.yaml:2:1: prot is not known; did you mean port\?/],
    ['a list', '- model', /serve\.yaml:1:1: the file is not valid/],
    ['out of range', 'port: 70000', /serve\.yaml:1:1: port is not valid/],
    ['a short key', 'keys:\n  - { name: a, key: abc }', /serve\.yaml:2:\d+: keys\.0\.key is no key: a key of fewer/],
    ['a name twice', `keys: [{name: a, key: ${KEY}}, {name: a, key: ${KEY}}]`, /keys have one name twice/],
    ['a status that is none', 'adapters: { a: { path: x, status: fine } }', /adapters\.a\.status is not valid/],
    ['two faults', 'port: a\nslots: 0', /port is not valid.*; also .*serve\.yaml:2:1: slots/],
  ])('is refused with the place: %s', (_, text, message) => {
    expect(() => readServeConfig(write(text))).toThrow(expect.objectContaining({ code: 'bad_serve_config' }));
    expect(() => readServeConfig(file)).toThrow(message);
  });
  it('never shows a key', () => {
    for (const text of [`keys: [{name: a, key: ${KEY}, x: 1}]`, `keys: {a: ${KEY}}`, `model: "${KEY}\nkeys: [`])
      try {
        readServeConfig(write(text));
        expect.unreachable();
      } catch (e) {
        expect((e as Error).message).not.toContain(KEY);
      }
  });
  it('is under the command line, and over the defaults', async () => {
    const defaults = { adapter: ['b=dir'], policy: [], host: '127.0.0.1', port: 8080, slots: 16, queue: 64 };
    const options = (given: object): CommandOptions =>
      ({ ...defaults, queueSeconds: 60, config: file, ...given }) as unknown as CommandOptions;
    write(WHOLE);
    const got = await serveOptions(
      options({ port: 1 }),
      (name) => name === 'port' || name === 'adapter',
      () => {},
    );
    expect(got).toMatchObject({
      port: 1,
      host: '127.0.0.1',
      queueMs: 5000,
      engine: { slots: 16, adapters: { tickets: join(root, 'runs/tickets'), next: '/abs/next', b: 'dir' } },
      adapterStatus: { tickets: 'approved', next: 'candidate', b: 'approved' },
      screening: { policy: [join(root, 'policies/a.md')] },
      keys: [{ name: 'app', requestsPerMinute: 60 }, { name: 'dev' }],
    });
    write('model: m\npolicy: [p.md]\njudgeContract: label\ndetectors: { secrets: off, personal: [card] }\n');
    const looked = await serveOptions(
      options({ detector: ['control'] }),
      (name) => name === 'detector',
      () => {},
    );
    expect(looked.screening).toMatchObject({
      judgeContract: 'label',
      detector: ['control'],
      detectors: { choices: { secrets: false, personal: ['card'] } },
    });
    write('detectors: { secret: off }');
    expect(() => readServeConfig(file)).toThrow(expect.objectContaining({ code: 'bad_serve_config' }));
    write('port: 9');
    await expect(
      serveOptions(
        options({}),
        () => false,
        () => {},
      ),
    ).rejects.toThrow(/--model DIR/);
  });
  it('editors are told the same schema', () => {
    const stored: unknown = JSON.parse(readFileSync(join(packageRoot, 'docs', 'serve.schema.json'), 'utf8'));
    expect(stored).toEqual(JSON.parse(JSON.stringify(serveJsonSchema())));
  });
});
