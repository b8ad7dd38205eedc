// What is wrong with a recipe: all of it at once, unknown keys first, each with its place and the nearest known key.
import type { z } from 'zod';
import { ConfigError } from '../base/errors.js';
import { dotted, type Path, type Positions } from './positions.js';
import { conflictsOf, recipeJsonSchema } from './schema.js';

export interface Problem {
  readonly code: 'unknown_key' | 'bad_recipe' | 'path_not_found';
  readonly message: string;
  /** Field, dotted. */
  readonly path: string;
}

/** Every field there is: its dotted path, `*` for an index. */
function knownFields(): readonly string[] {
  const found: string[] = [];
  const walk = (s: Record<string, unknown>, at: string): void => {
    for (const [key, value] of Object.entries((s.properties ?? {}) as Record<string, Record<string, unknown>>)) {
      const path = at === '' ? key : `${at}.${key}`;
      found.push(path);
      walk(value, path);
    }
    if (s.items) walk(s.items as Record<string, unknown>, `${at}.*`);
    for (const branch of (s.anyOf ?? []) as Record<string, unknown>[]) walk(branch, at);
  };
  walk(recipeJsonSchema(), '');
  return [...new Set(found)];
}

/** Of what other trainers call it. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  learningrate: 'train.lr',
  batchsize: 'train.rowsPerStep',
  perdevicetrainbatchsize: 'train.rowsPerStep',
  numtrainepochs: 'train.epochs',
  numepochs: 'train.epochs',
  maxsteps: 'train.steps',
  maxgradnorm: 'train.clipGradNorm',
  maxseqlength: 'data.maxTokens',
  maxseqlen: 'data.maxTokens',
  maxlength: 'data.maxTokens',
  loraalpha: 'adapter.alpha',
  lorar: 'adapter.rank',
  r: 'adapter.rank',
  loradropout: 'adapter.dropout',
  targetmodules: 'adapter.targets',
  weightdecay: 'train.optimizer.weightDecay',
  warmupratio: 'train.warmup',
  lrscheduler: 'train.schedule',
  lrschedulertype: 'train.schedule',
  savesteps: 'train.checkpointEvery',
  savetotallimit: 'train.keepCheckpoints',
  evalsteps: 'train.evalEvery',
  earlystopping: 'train.patience',
  dataset: 'data.train',
  modelname: 'model.base',
  basemodel: 'model.base',
};

const plain = (key: string): string => key.toLowerCase().replaceAll(/[_\s-]/g, '');
const lastOf = (field: string): string => field.slice(field.lastIndexOf('.') + 1);

/** Letters to put in, take out, change or swap. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((rows[i - 1]?.[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (rows[i - 1]?.[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, (rows[i - 2]?.[j - 2] ?? 0) + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? 0;
}
/** The nearest of the candidates, or null when none is near. */
export function nearest(word: string, candidates: readonly string[], nameOf = (c: string): string => c): string | null {
  const found = candidates
    .map((c) => ({ c, d: distance(plain(word), plain(nameOf(c))) }))
    .filter(({ c, d }) => d <= Math.max(1, Math.min(3, Math.floor(Math.max(word.length, nameOf(c).length) / 3))))
    .sort((a, b) => a.d - b.d);
  return found[0]?.c ?? null;
}

/** What an unknown key may have meant, as the end of a sentence. */
function suggestion(path: Path, key: string): string {
  const fields = knownFields();
  const parent = dotted(path.map((p) => (typeof p === 'number' ? '*' : p)));
  const siblings = fields.filter((f) => f.slice(0, Math.max(0, f.lastIndexOf('.'))) === parent);
  const meant =
    nearest(key, siblings, lastOf) ??
    ELSEWHERE[plain(key)] ??
    fields.filter((f) => plain(lastOf(f)) === plain(key) && !f.startsWith('model.init.'))[0];
  const shown = meant && siblings.includes(meant) ? dotted([...path, lastOf(meant)]) : meant;
  if (shown) return `did you mean ${shown}?`;
  return siblings.length > 0 && siblings.length <= 16
    ? `known here: ${siblings.map(lastOf).join(', ')}`
    : 'see docs/recipe.md for the fields';
}

/** The branch of a union the author meant: the one that got furthest. */
export function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== 'invalid_union' || issue.errors.length === 0) return issue;
  const depth = (branch: z.core.$ZodIssue[]): number =>
    Math.max(...branch.map((i) => i.path.length + (i.code === 'invalid_type' ? 0 : 1)));
  const best = issue.errors.reduce((a, b) => (depth(b) > depth(a) ? b : a))[0];
  return best ? innermost({ ...best, path: [...issue.path, ...best.path] }) : issue;
}

function describe(issue: z.core.$ZodIssue, positions: Positions): readonly Problem[] {
  const i = innermost(issue);
  const path = i.path as Path;
  if (i.code === 'unrecognized_keys')
    return i.keys.map((key) => ({
      code: 'unknown_key',
      message: `${positions.at(path, key)}: unknown key ${dotted([...path, key])}; ${suggestion(path, key)}`,
      path: dotted([...path, key]),
    }));
  const name = dotted(path) || 'recipe';
  const what = i.message.replace(/^Invalid (input|option): /, '');
  const missing = /^expected (.+), received undefined$/.exec(what)?.[1];
  const text =
    i.code === 'custom'
      ? `${dotted(path)} ${i.message}`
      : missing
        ? `${name} is missing; wanted ${missing === 'object' ? 'a section' : `a ${missing}`}, see docs/recipe.md`
        : `${name} is not valid: ${what}`;
  return [{ code: 'bad_recipe', message: `${positions.at(path)}: ${text}`, path: dotted(path) }];
}

/** @param written the recipe as it was read, before defaults */
export function schemaProblems(
  issues: readonly z.core.$ZodIssue[],
  written: unknown,
  positions: Positions,
): readonly Problem[] {
  const found = issues.flatMap((i) => describe(i, positions));
  // The schema looks at fields together only when each is right by itself.
  if (issues.length > 0 && issues.every((i) => i.code !== 'custom') && typeof written === 'object' && written)
    if (!Array.isArray(written))
      for (const { path, message } of conflictsOf(written)) {
        const at = dotted(path);
        if (found.some((p) => p.path === at || at.startsWith(`${p.path}.`))) continue;
        found.push({ code: 'bad_recipe', message: `${positions.at(path)}: ${at} ${message}`, path: at });
      }
  return found;
}

/** One error of all problems, unknown keys first: a key with a slip of the pen is often why another one is missing. */
export function problemsError(file: string, problems: readonly Problem[]): ConfigError {
  const rank = (p: Problem): number => (p.code === 'unknown_key' ? 0 : 1);
  const sorted = [...problems].sort((a, b) => rank(a) - rank(b));
  const first: Problem = sorted[0] ?? { code: 'bad_recipe', message: `${file}: not a recipe`, path: '' };
  const message = sorted.map((p) => p.message).join('; also ');
  const details = { file, [first.code === 'unknown_key' ? 'key' : 'path']: first.path, problems: sorted };
  if (first.code === 'unknown_key') return new ConfigError('unknown_key', message, details);
  if (first.code === 'path_not_found') return new ConfigError('path_not_found', message, details);
  return new ConfigError('bad_recipe', message, details);
}
