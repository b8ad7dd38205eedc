// The peer: llama.cpp's llama-bench and llama-batched-bench on a GGUF of the same shapes, run between our own rows so
// that both meet the same machine.
import { spawnSync } from 'node:child_process';
import { ConfigError } from '../base/errors.js';

/** Either program may be missing: rows that need it then have no peer. */
export interface Peer {
  readonly llamaBench?: string;
  readonly llamaBatchedBench?: string;
  readonly gguf: string;
  readonly threads: number;
  readonly repetitions?: number;
}
/** What they can run of our rows: a prompt, or decoding `sequences` at once, each at a depth. */
export type PeerTest =
  | { readonly prefill: number }
  | { readonly decode: number; readonly depth: number; readonly sequences: number };

/**
 * @returns tokens/s of all sequences together, mean over the repetitions; undefined without a program that can run the
 * test @throws {ConfigError} peer_failed
 */
export function runPeer(peer: Peer, test: PeerTest): number | undefined {
  const batched = 'sequences' in test && test.sequences > 1;
  const program = batched ? peer.llamaBatchedBench : peer.llamaBench;
  if (program === undefined) return undefined;
  const args = [
    '-m',
    peer.gguf,
    '-t',
    String(peer.threads),
    '-ngl',
    '0',
    ...(batched ? batchedArgs(test) : singleArgs(peer, test)),
  ];
  const run = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 26 });
  const fail = (what: string): ConfigError =>
    new ConfigError(
      'peer_failed',
      `${program} ${args.join(' ')}: ${what}; check --peer-llama-bench, --peer-llama-batched-bench and --peer-gguf`,
    );
  if (run.error) throw fail(run.error.message);
  if (run.status !== 0) throw fail(`exit code ${run.status}: ${run.stderr.trim().split('\n').at(-1) ?? ''}`);
  let rates: unknown[];
  try {
    rates = batched
      ? run.stdout
          .split('\n')
          .filter((l) => l.startsWith('{'))
          .map((l) => (JSON.parse(l) as { speed_tg?: unknown }).speed_tg)
      : [(JSON.parse(run.stdout) as { avg_ts?: unknown }[])[0]?.avg_ts];
  } catch {
    throw fail('its output is not JSON');
  }
  const good = rates.filter((r): r is number => typeof r === 'number' && r > 0);
  if (good.length === 0 || good.length !== rates.length)
    throw fail(`its output has no ${batched ? 'speed_tg' : 'avg_ts'}`);
  return good.reduce((a, b) => a + b, 0) / good.length;
}

const singleArgs = (peer: Peer, test: PeerTest): string[] => [
  '-r',
  String(peer.repetitions ?? 3),
  '-o',
  'json',
  ...('prefill' in test
    ? ['-p', String(test.prefill), '-n', '0']
    : ['-p', '0', '-n', String(test.decode), '-d', String(test.depth)]),
];

/**
 * It takes no empty prompt, and its context is shared out evenly: 256 tokens are its unit. One load, one repetition.
 */
function batchedArgs(test: { readonly decode: number; readonly depth: number; readonly sequences: number }): string[] {
  const prompt = Math.max(1, test.depth),
    each = Math.ceil((prompt + test.decode) / 256) * 256;
  return [
    '-npp',
    String(prompt),
    '-ntg',
    String(test.decode),
    '-npl',
    String(test.sequences),
    '-c',
    String(each * test.sequences),
    '--output-format',
    'jsonl',
  ];
}
