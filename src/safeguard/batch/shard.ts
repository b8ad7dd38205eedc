// Which rows a run is to judge where several share the work: a flag, or what Slurm, Kubernetes, AWS Batch and GitLab
// say to the tasks of an array.
import { ConfigError } from '../../base/errors.js';

/** One of `of` shards, from 1: rows i − 1, i − 1 + n, … */
export interface Shard {
  readonly index: number;
  readonly of: number;
}
const MAX_SHARDS = 100_000;

export const isOwn = (shard: Shard | undefined, row: number): boolean =>
  shard === undefined || row % shard.of === shard.index - 1;
export const shardName = ({ index, of }: Shard): string => `${index}/${of}`;

/** @returns null: `off` · @throws {ConfigError} bad_option */
export function parseShard(text: string): Shard | null {
  if (text === 'off') return null;
  const [, index = '', of = ''] = /^([0-9]{1,6})\/([0-9]{1,6})$/.exec(text) ?? [];
  const shard = { index: Number(index), of: Number(of) };
  if (of === '' || shard.index < 1 || shard.index > shard.of || shard.of > MAX_SHARDS)
    throw new ConfigError('bad_option', `--shard ${text}: wanted i/n with 1 ≤ i ≤ n ≤ ${MAX_SHARDS}, as 3/8, or off`);
  return shard;
}

type Variables = Readonly<Record<string, string | undefined>>;

/** Of a scheduler: the shard that its variables name. */
interface Scheduler {
  readonly name: string;
  /** What says which task this is, and of how many; any of them alone is an error. */
  readonly variables: readonly string[];
  /** Tells of variables that are always there, where nothing is shared. */
  readonly idle?: (values: Variables) => boolean;
  readonly shard: (numbers: readonly number[], fail: (why: string) => ConfigError) => Shard;
}
const SCHEDULERS: readonly Scheduler[] = [
  {
    name: 'Slurm',
    variables: ['SLURM_ARRAY_TASK_ID', 'SLURM_ARRAY_TASK_MIN', 'SLURM_ARRAY_TASK_MAX', 'SLURM_ARRAY_TASK_COUNT'],
    shard([id = 0, min = 0, max = 0, count = 0], fail) {
      const step = count === 1 ? 1 : (max - min) / (count - 1);
      // Of --array=1,3,9 nobody can tell which comes second.
      if (!Number.isInteger(step) || (count > 1 && step < 1) || (id - min) % step !== 0 || id < min || id > max)
        throw fail('the tasks are not at equal distances, as in --array=1-8');
      return { index: (id - min) / step + 1, of: count };
    },
  },
  {
    name: 'Kubernetes',
    // The count is no variable of Kubernetes itself: the Job's manifest sets it beside `completions`.
    variables: ['JOB_COMPLETION_INDEX', 'JOB_COMPLETIONS'],
    shard: ([index = 0, of = 0]) => ({ index: index + 1, of }),
  },
  {
    name: 'AWS Batch',
    variables: ['AWS_BATCH_JOB_ARRAY_INDEX', 'AWS_BATCH_JOB_ARRAY_SIZE'],
    shard: ([index = 0, of = 0]) => ({ index: index + 1, of }),
  },
  {
    name: 'GitLab',
    variables: ['CI_NODE_INDEX', 'CI_NODE_TOTAL'],
    // A job that is not parallel has a total of 1 and no index.
    idle: ({ CI_NODE_INDEX: index, CI_NODE_TOTAL: total }) => !index && total === '1',
    shard: ([index = 0, of = 0]) => ({ index, of }),
  },
];

/**
 * The shard that the variables of a scheduler name; null where none does.
 * @throws {ConfigError} shard_variables: some of a scheduler's are set, or two schedulers name different shards
 */
export function shardOf(variables: Variables): { readonly shard: Shard; readonly scheduler: string } | null {
  const found = SCHEDULERS.flatMap(({ name, variables: names, idle, shard }) => {
    const set = names.filter((v) => (variables[v] ?? '') !== '');
    if (set.length === 0 || idle?.(variables)) return [];
    const fail = (why: string): ConfigError =>
      new ConfigError(
        'shard_variables',
        `${name}: ${names.map((v) => `${v}=${variables[v] ?? ''}`).join(' ')}: ${why}; ` +
          'set them all, or say --shard i/n or --shard off',
      );
    if (set.length < names.length)
      throw fail(`${names.filter((v) => !set.includes(v)).join(', ')} not set beside ${set.join(', ')}`);
    const numbers = names.map((v) => (/^[0-9]{1,9}$/.test(variables[v] ?? '') ? Number(variables[v]) : Number.NaN));
    if (numbers.some(Number.isNaN)) throw fail('not whole numbers');
    const one = shard(numbers, fail);
    if (!(one.index >= 1 && one.index <= one.of && one.of <= MAX_SHARDS)) throw fail('no task of so many');
    return [{ shard: one, scheduler: name }];
  });
  const [first, ...others] = found;
  const other = others.find((o) => shardName(o.shard) !== shardName(first?.shard ?? o.shard));
  if (first && other)
    throw new ConfigError(
      'shard_variables',
      `${first.scheduler} says shard ${shardName(first.shard)}, ${other.scheduler} ${shardName(other.shard)}; ` +
        'say which with --shard i/n',
    );
  return first ?? null;
}
