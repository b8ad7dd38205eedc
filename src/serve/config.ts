// The configuration file of a server: every option of `temper serve` under its name in camelCase, and what needs more
// words than a command line has: keys with their limits, statuses of adapters, TLS. This schema is the only source of
// what may stand in it; docs/serve.schema.json, for editors, is generated of it.
import { dirname, isAbsolute, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { readInputText } from '../base/inputs.js';
import { isReference } from '../hub/reference.js';
import { dotted, type Path, Positions } from '../recipe/positions.js';
import { innermost, nearest } from '../recipe/problems.js';
import { CONTRACT_NAMES } from '../safeguard/contracts/contract.js';
import { DetectorsConfig } from '../safeguard/detectors/options.js';
import { keyFault } from './keys.js';
import { ADAPTER_STATUSES } from './served.js';

const count = (most: number): z.ZodNumber => z.int().min(1).max(most);
const keyText = z.string().superRefine((key, context) => {
  const fault = keyFault(key);
  if (fault !== null) context.addIssue({ code: 'custom', message: `is no key: ${fault}` });
});
const Key = z.strictObject({
  name: z.string().min(1).max(128).describe('what logs and metrics call it'),
  key: keyText.describe('the key, or sha256: and its digest in hexadecimal'),
  models: z.array(z.string()).optional().describe('base and adapters that it may use; absent: all'),
  policies: z.array(z.string()).min(1).optional().describe('those that its answers must pass; absent: all'),
  candidates: z.boolean().optional().describe('may use adapters that are candidates'),
  requestsPerMinute: count(1e9).optional(),
  tokensPerMinute: count(1e12).optional().describe('read and written together'),
  concurrent: count(1e6).optional().describe('requests at once'),
  maxTokens: count(1 << 20)
    .optional()
    .describe('most tokens of one answer'),
  priority: z.int().min(-100).max(100).optional().describe('who waits with a higher one goes first; absent: 0'),
});
const AdminKey = z.strictObject({ name: z.string().min(1).max(128), key: keyText });
const Adapter = z.union([
  z.string(),
  z.strictObject({
    path: z.string().describe('PEFT adapter folder'),
    status: z
      .enum(ADAPTER_STATUSES)
      .default('approved')
      .describe('approved: everybody may use it; candidate: keys that say so; quarantined: nobody'),
  }),
]);

const once = <T extends { readonly name: string }>(list: readonly T[]): boolean =>
  new Set(list.map((k) => k.name)).size === list.length;

export const ServeConfig = z.strictObject({
  model: z.string().optional().describe('checkpoint folder, or hf://OWNER/NAME[@REVISION]'),
  name: z.string().optional().describe('name of the base in requests; absent: its folder’s'),
  adapters: z.record(z.string(), Adapter).optional().describe('folders by the names that requests give'),
  threads: count(1024).optional(),
  device: z.string().optional(),
  memoryLimit: z.string().optional().describe('most device memory, as in 15.2GiB'),
  context: count(1 << 20)
    .optional()
    .describe('most tokens of prompt and answer together'),
  cacheTokens: count(2 ** 40)
    .optional()
    .describe('tokens that the cache holds of all requests together'),
  prefixes: z.int().min(0).max(4096).optional().describe('beginnings of conversations that are kept computed'),
  prefixCache: z.string().optional().describe('folder where they outlive the server; absent: in memory alone'),
  prefixCacheBytes: z.string().optional().describe('most bytes of that folder, as in 4GiB'),
  precision: z.enum(['bf16', 'f32']).optional(),
  denseDtype: z.enum(['bf16', 'q8']).optional(),
  denseCache: z.boolean().optional(),
  kvDtype: z.enum(['f32', 'bf16']).optional(),
  speculation: z
    .enum(['auto', 'always', 'off'])
    .optional()
    .describe('tokens are guessed and several checked at a time, where that is faster; answers are the same'),
  draft: z.string().optional().describe('a smaller checkpoint with the same tokenizer, which guesses too'),
  policy: z.array(z.string()).optional().describe('policies that every answer must pass'),
  judge: z.string().optional(),
  judgeModel: z.string().optional(),
  judgeEffort: z.enum(['low', 'medium', 'high']).optional(),
  judgeTimeout: z.number().positive().optional(),
  judgeMaxTokens: count(1 << 17).optional(),
  judgeContext: count(1 << 20).optional(),
  judgeUnchecked: z.boolean().optional(),
  judgeConcurrency: count(256).optional(),
  judgeCheck: z.boolean().optional().describe('try a judge behind a URL as a local one is'),
  judgeContract: z.enum(CONTRACT_NAMES).optional().describe('how the judge is asked and read'),
  votes: count(15).optional().describe('votes on each text; every second one is asked the other way round'),
  judgeViews: z.enum(['all', 'raw']).optional().describe('all: texts also made plain, decoded and turned back'),
  judgeWindow: z
    .int()
    .min(256)
    .max(1 << 20)
    .optional()
    .describe('most characters judged at once; longer texts in overlapping windows'),
  judgeHedge: z.number().min(0).max(1).optional().describe('share of the calls to a URL that may be sent twice'),
  judgeCanaries: z
    .int()
    .min(0)
    .max(1 << 20)
    .optional()
    .describe('verdicts of a batch, which has a text in it that the judge blocked before; 0: none'),
  judgeProbe: z.boolean().optional().describe('try a judge behind a URL with forged verdicts; absent: yes'),
  shadow: z
    .boolean()
    .optional()
    .describe('judge, log, and release WHATEVER THE VERDICT; every answer, log line and metric says so'),
  holdAhead: z
    .union([
      z.literal('off'),
      z
        .int()
        .min(0)
        .max(1 << 20),
    ])
    .optional()
    .describe(
      'characters written beyond those that are being judged before a stream waits for the verdict; off: it never ' +
        'waits; absent: 0 with a local judge, off with one behind a URL',
    ),
  detectors: DetectorsConfig.optional(),
  log: z.string().optional().describe('folder of signed records: every verdict is in it before anything leaves by it'),
  logKey: z.string().optional().describe('private key that signs it, as `temper key new` makes one'),
  reasoning: z.enum(['auto', 'allowed', 'never']).optional().describe('when the model’s thoughts leave'),
  host: z.string().optional(),
  port: z.int().min(0).max(65535).optional(),
  tls: z
    .strictObject({
      cert: z.string().describe('PEM file of the certificate and those that signed it'),
      key: z.string().describe('PEM file of its private key'),
    })
    .optional(),
  slots: count(256).optional().describe('requests that run at once'),
  queue: z.int().min(0).max(100_000).optional().describe('requests that may wait'),
  queueSeconds: z.number().positive().max(86_400).optional().describe('longest wait'),
  drainSeconds: z
    .number()
    .positive()
    .max(86_400)
    .optional()
    .describe('longest time that requests under way may take when it ends; absent: all they need'),
  maxTokens: count(1 << 20)
    .optional()
    .describe('most tokens of an answer where a request does not say'),
  maxBodyBytes: count(2 ** 30).optional(),
  state: z.string().optional().describe('folder that keeps the answers of /v1/responses; absent: in memory'),
  store: z
    .string()
    .optional()
    .describe('what outlives the server: a file of SQLite, or postgres://USER@HOST/DATABASE for several servers'),
  playground: z.boolean().optional().describe('a page at / to talk to it; absent: there is one'),
  requireGate: z.boolean().optional().describe('load only adapters with a PASS of the release gate'),
  allowOverride: z
    .array(z.string())
    .optional()
    .describe('with requireGate: public keys of those whose signed overrides are honoured'),
  revocations: z.string().optional().describe('signed list of adapters that nobody may use any more'),
  revocationKey: z.string().optional().describe('public key of who signs it'),
  keys: z.array(Key).min(1).refine(once, 'have one name twice').optional(),
  adminKeys: z.array(AdminKey).min(1).refine(once, 'have one name twice').optional().describe('who may use /admin'),
  reviewKeys: z
    .array(AdminKey)
    .min(1)
    .refine(once, 'have one name twice')
    .optional()
    .describe('who may review at /review what was held; needs a store'),
  reviewTwoPersons: z.boolean().optional().describe('two people must approve each item; absent: one'),
  reviewWaitSeconds: z
    .number()
    .min(0)
    .max(86_400)
    .optional()
    .describe('how long a held request waits for a decision; absent: 0, what is decided is recorded alone'),
});
export type ServeConfig = z.infer<typeof ServeConfig>;

/** For editors. */
export const serveJsonSchema = (): Record<string, unknown> => ({
  ...(z.toJSONSchema(ServeConfig, { io: 'input' }) as Record<string, unknown>),
  title: 'temper serve --config',
});

function problem(issue: z.core.$ZodIssue, positions: Positions): string {
  const i = innermost(issue),
    path = i.path as Path;
  if (i.code === 'unrecognized_keys') {
    const key = i.keys[0] ?? '';
    const near = path.length === 0 ? nearest(key, Object.keys(ServeConfig.shape)) : null;
    const what = near ? `did you mean ${near}?` : 'docs/serve.schema.json has those that are';
    return `${positions.at(path, key)}: ${dotted([...path, key])} is not known; ${what}`;
  }
  const what = i.message.replace(/^Invalid (input|option): /, '');
  return `${positions.at(path)}: ${dotted(path) || 'the file'} ${i.code === 'custom' ? what : `is not valid: ${what}`}`;
}

/**
 * Reads one; its paths are made absolute, from its own folder.
 * @throws {ConfigError} bad_serve_config: all that is wrong, each with file:line:column; never shows a key
 */
export function readServeConfig(file: string): ServeConfig {
  const lines = new LineCounter();
  const doc = parseDocument(readInputText(file, 'config'), { lineCounter: lines, prettyErrors: false });
  const positions = new Positions(file, doc, lines, new Map());
  const bad = (text: string): ConfigError => new ConfigError('bad_serve_config', text, { file });
  const [fault] = doc.errors;
  if (fault) {
    const { line, col } = lines.linePos(fault.pos[0]);
    throw bad(`${file}:${line}:${col}: not YAML (${fault.code})`);
  }
  let value: unknown;
  try {
    value = doc.toJS({ maxAliasCount: 100 }) ?? {};
  } catch {
    throw bad(`${file}:1:1: not YAML that can be read`);
  }
  const parsed = ServeConfig.safeParse(value);
  if (!parsed.success) throw bad(parsed.error.issues.map((i) => problem(i, positions)).join('; also '));
  return absolute(parsed.data, dirname(resolve(file)));
}

const URL_LIKE = /^https?:\/\//i;
function absolute(config: ServeConfig, folder: string): ServeConfig {
  const at = (path: string): string =>
    isAbsolute(path) || isReference(path) || URL_LIKE.test(path) ? path : resolve(folder, path);
  const { model, draft, judge, adapters, policy, tls, state, store, prefixCache, log, logKey } = config;
  const { allowOverride, revocations, revocationKey } = config;
  return {
    ...config,
    ...(model === undefined ? {} : { model: at(model) }),
    ...(draft === undefined ? {} : { draft: at(draft) }),
    ...(state === undefined ? {} : { state: at(state) }),
    ...(store === undefined ? {} : { store: /^[a-z]+:\/\//i.test(store) ? store : at(store) }),
    ...(log === undefined ? {} : { log: at(log) }),
    ...(logKey === undefined ? {} : { logKey: at(logKey) }),
    ...(allowOverride === undefined ? {} : { allowOverride: allowOverride.map(at) }),
    ...(revocations === undefined ? {} : { revocations: at(revocations) }),
    ...(revocationKey === undefined ? {} : { revocationKey: at(revocationKey) }),
    ...(prefixCache === undefined ? {} : { prefixCache: at(prefixCache) }),
    ...(judge === undefined ? {} : { judge: at(judge) }),
    ...(policy === undefined ? {} : { policy: policy.map(at) }),
    ...(tls === undefined ? {} : { tls: { cert: at(tls.cert), key: at(tls.key) } }),
    ...(adapters === undefined
      ? {}
      : {
          adapters: Object.fromEntries(
            Object.entries(adapters).map(([name, a]) => [
              name,
              typeof a === 'string' ? at(a) : { ...a, path: at(a.path) },
            ]),
          ),
        }),
  };
}
