// Verdicts of a store as `temper screen` shares them: by digests of text, policy and judge, with how it was asked and
// by which version of Temper. A store that was written to by others than who has the key says nothing.

import { ConfigError } from '../base/errors.js';
import { versions } from '../base/machine.js';
import type { SharedVerdicts } from '../safeguard/batch/shared.js';
import type { Asked } from '../safeguard/batch/verdict-index.js';
import { isPostgres } from '../store/place.js';
import { createVerdictStore, verdictKey } from '../store/verdicts.js';

export interface SharedVerdictsOptions {
  /** A file of SQLite, or postgres://USER@HOST/DATABASE. */
  readonly store: string;
  /** Private key of `temper key new`, the same for all that share; absent: one that is made beside a file. */
  readonly storeKey?: string | undefined;
}
export interface OpenSharedVerdicts {
  readonly shared: SharedVerdicts;
  /** Where they are, without a password. */
  readonly shown: string;
  /** To be told. */
  readonly notices: readonly string[];
  close(): Promise<void>;
}

const keyOf = ({ policy, channel, digests }: Asked): string =>
  verdictKey({
    kind: 'verdict/1',
    temper: versions().temper,
    policy,
    channel,
    content: digests.content,
    text: digests.policy,
    judge: digests.judge,
    judging: digests.judging ?? null,
  });

/**
 * @throws {ConfigError} bad_option: a store that others reach, without a key; log_key, bad_store, store_newer
 * @throws {StoreError} store_failed, store_busy
 */
export async function openSharedVerdicts(
  { store: where, storeKey }: SharedVerdictsOptions,
  signal?: AbortSignal,
): Promise<OpenSharedVerdicts> {
  if (storeKey === undefined && isPostgres(where))
    throw new ConfigError(
      'bad_option',
      '--store: verdicts of a database need --store-key FILE, the same for all that share them; ' +
        '`temper key new FILE` makes one',
    );
  const [{ openStore }, { makeKey, readSigner }, { existsSync }] = await Promise.all([
    import('../store/store.js'),
    import('../verdict-log/keys.js'),
    import('node:fs'),
  ]);
  const file = storeKey ?? `${where}.key`;
  const store = await openStore(where, signal ? { signal } : {});
  try {
    const signer = storeKey === undefined && !existsSync(file) ? makeKey(file) : readSigner(file);
    const verdicts = createVerdictStore(store, { secret: signer.secret('kept verdicts') });
    await verdicts.sweep();
    return {
      shown: store.shown,
      notices:
        storeKey === undefined
          ? [`store ${store.shown}: its verdicts are bound by ${file}, which lies beside it; --store-key takes another`]
          : [],
      shared: {
        async get(asked) {
          const found = await verdicts.get(asked.map(keyOf));
          return found.map((one) => (one ? { outcome: one.outcome, line: one.body } : null));
        },
        put: (all) => verdicts.put(all.map(({ asked, outcome, line }) => ({ key: keyOf(asked), outcome, body: line }))),
      },
      close: () => store.close(),
    };
  } catch (error) {
    await store.close();
    throw error;
  }
}
