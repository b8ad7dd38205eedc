// The peer: llama.cpp's llama-bench on a GGUF of the same shapes, run between our own rows so that both meet the same machine.
import { spawnSync } from 'node:child_process';
import { ConfigError } from '../native/errors.js';

export interface Peer { readonly llamaBench: string; readonly gguf: string; readonly threads: number; readonly repetitions?: number }
/** What llama-bench can run of our rows: a prompt, or decoding one sequence at a depth. */
export type PeerTest = { readonly prefill: number } | { readonly decode: number; readonly depth: number };

/** @returns tokens/s, mean over the repetitions as llama-bench reports it @throws {ConfigError} peer_failed */
export function runPeer(peer: Peer, test: PeerTest): number {
  const args = ['-m', peer.gguf, '-t', String(peer.threads), '-r', String(peer.repetitions ?? 3), '-o', 'json', '-ngl', '0',
    ...('prefill' in test ? ['-p', String(test.prefill), '-n', '0'] : ['-p', '0', '-n', String(test.decode), '-d', String(test.depth)])];
  const run = spawnSync(peer.llamaBench, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  const fail = (what: string): ConfigError => new ConfigError('peer_failed', `${peer.llamaBench} ${args.join(' ')}: ${what}; check --peer-llama-bench and --peer-gguf`);
  if (run.error) throw fail(run.error.message);
  if (run.status !== 0) throw fail(`exit code ${run.status}: ${run.stderr.trim().split('\n').at(-1) ?? ''}`);
  let rate: unknown;
  try { rate = (JSON.parse(run.stdout) as { avg_ts?: unknown }[])[0]?.avg_ts; } catch { throw fail('its output is not JSON'); }
  if (typeof rate !== 'number' || !(rate > 0)) throw fail('its output has no avg_ts');
  return rate;
}
