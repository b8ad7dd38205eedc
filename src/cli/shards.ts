// Which shard a command works on: as its flag says, or by the variables of a scheduler.
import { ConfigError } from '../base/errors.js';
import type { Shard } from '../safeguard/batch/shard.js';
import { tell } from './terminal.js';

/** That of a scheduler's variables, which is said on stderr. @throws {ConfigError} shard_variables */
async function scheduled(): Promise<Shard | undefined> {
  const { shardName, shardOf } = await import('../safeguard/batch/shard.js');
  const found = shardOf(process.env);
  if (found) tell(`temper: shard ${shardName(found.shard)}, by the variables of ${found.scheduler}`);
  return found?.shard;
}

/** The shard that the flag names, else a scheduler's. @throws {ConfigError} bad_option, shard_variables */
export async function shardFor(flag: string | undefined): Promise<Shard | undefined> {
  if (flag === undefined) return scheduled();
  const { parseShard } = await import('../safeguard/batch/shard.js');
  return parseShard(flag) ?? undefined;
}

/**
 * For what decides nothing where it is a shard: a scheduler counts where the flag says `auto` alone.
 * @throws {ConfigError} bad_option: no scheduler says which · shard_variables
 */
export async function shardAsked(flag: string | undefined): Promise<Shard | undefined> {
  if (flag !== 'auto') return flag === undefined ? undefined : shardFor(flag);
  const found = await scheduled();
  if (found) return found;
  throw new ConfigError(
    'bad_option',
    '--shard auto: no variables of Slurm, Kubernetes, AWS Batch or GitLab say which shard this is; say --shard i/n',
  );
}
