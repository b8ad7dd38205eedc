// `temper bench`: the headline numbers of one checkpoint on this machine.

import { ConfigError } from '../../base/errors.js';
import type { Preset } from '../../model/init.js';
import { DEVICE_NAMES } from '../../native/backends.js';
import { type Command, examples, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { Option } from '../commander.js';
import { print, tell } from '../terminal.js';

interface Options {
  readonly model?: string;
  readonly preset?: Preset;
  readonly device: string;
  readonly memoryLimit?: string;
  readonly ops?: boolean;
  readonly precision: 'f32' | 'bf16';
  readonly denseDtype: 'bf16' | 'q8';
  readonly denseCache?: boolean;
  readonly prefill: string;
  readonly depths: string;
  readonly batches: string;
  readonly lora: string;
  readonly rank: number;
  readonly recompute: 'auto' | 'always' | 'never';
  readonly optimizer: 'adamw' | 'adamw_8bit';
  readonly seconds: number;
  readonly threads?: number;
  readonly peerLlamaBench?: string;
  readonly peerLlamaBatchedBench?: string;
  readonly peerGguf?: string;
  readonly json?: boolean;
}
const list = (text: string): number[] =>
  text
    .split(',')
    .filter((t) => t !== '')
    .map((t) => integerIn(0, 1 << 20)(t));

export const command: Command = {
  name: 'bench',
  summary: "prefill, decode, LoRA step, load time and memory of a checkpoint, with the share of this machine's limits",
  register(program) {
    program
      .command('bench')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nThe limits (multiply-adds and read bandwidth) are measured first. An ` +
          'empty list leaves a part out.',
      )
      .option('--model <dir>', 'checkpoint')
      .addOption(
        new Option(
          '--preset <shape>',
          'in place of a checkpoint: a random model of that shape, made in memory',
        ).choices(['nano', 'slice', '20b', '120b']),
      )
      .option('--device <name>', `${DEVICE_NAMES}; auto: a GPU that is usable, else cpu`, 'auto')
      .option('--memory-limit <size>', 'most device memory to take, as in 15.2GiB')
      .option('--ops', 'also the time of each kind of op, and its share of the limit')
      .option('--precision <p>', 'bf16 or f32', 'bf16')
      .addOption(
        new Option('--dense-dtype <t>', 'attention and head in 8 bits (q8): prefill and decode only, no LoRA steps')
          .choices(['bf16', 'q8'])
          .default('bf16'),
      )
      .option('--dense-cache', 'with q8: keep the 8-bit weights beside the model and use them next time')
      .option('--prefill <tokens>', 'prompt lengths', '128,512,2048')
      .option('--depths <tokens>', 'decode at these depths', '0,2048')
      .option('--batches <n>', 'decode with these many sequences', '1,4,16')
      .option('--lora <tokens>', 'tokens of a LoRA step (attention and experts)', '512,2048,8192')
      .option('--rank <r>', 'rank of the adapters', integerIn(1, 1024), 16)
      .addOption(
        new Option('--recompute <mode>', 'LoRA steps: as train.recompute of a recipe')
          .choices(['auto', 'always', 'never'])
          .default('auto'),
      )
      .addOption(
        new Option('--optimizer <name>', 'LoRA steps: as train.optimizer.name of a recipe')
          .choices(['adamw', 'adamw_8bit'])
          .default('adamw'),
      )
      .option('--seconds <s>', 'time for each row', numberIn(0.01, 3600), 3)
      .option('--threads <n>', 'threads of the pool', integerIn(1, 1024))
      .option('--peer-llama-bench <path>', "llama.cpp's llama-bench, run after each row that it can run")
      .option(
        '--peer-llama-batched-bench <path>',
        "llama.cpp's llama-batched-bench, for decoding several sequences at once",
      )
      .option('--peer-gguf <file>', 'GGUF of the same shapes for them')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper bench --model models/nano --lora 512,2048',
          'temper bench --model models/gpt-oss-20b --prefill 512 --depths 0 --batches 1 --lora "" --json',
          'temper bench --preset 20b --device cuda --memory-limit 15.2GiB --prefill 4096 --depths 0 ' +
            '--batches 1,8,32 --lora 4096,8192 --ops',
          'temper bench --model models/gpt-oss-20b --peer-llama-bench ' +
            'llama.cpp/build/bin/llama-bench --peer-gguf gpt-oss-20b.gguf',
        ),
      )
      .action(async (o: Options) => {
        if ((o.model === undefined) === (o.preset === undefined))
          throw new ConfigError('bench_what', 'bench: give --model DIR or --preset SHAPE, one of the two');
        const { benchInThread } = await import('../../bench/threads.js');
        const { PRESETS } = await import('../../model/init.js');
        const { describeDevice, useDevice } = await import('../../native/device.js');
        const { parseBytes } = await import('../../base/units.js');
        const programs = {
          ...(o.peerLlamaBench ? { llamaBench: o.peerLlamaBench } : {}),
          ...(o.peerLlamaBatchedBench ? { llamaBatchedBench: o.peerLlamaBatchedBench } : {}),
        };
        if ((Object.keys(programs).length === 0) !== (o.peerGguf === undefined))
          throw new ConfigError(
            'peer_incomplete',
            '--peer-gguf goes with --peer-llama-bench, --peer-llama-batched-bench or both; give file and program',
          );
        const peer = o.peerGguf ? { peer: { ...programs, gguf: o.peerGguf } } : {};
        const line = (cells: readonly string[]): string =>
          cells.map((c, i) => (i === 0 ? c.padEnd(20) : c.padStart(12))).join('');
        const head = ['', 'tokens/s', 'ms', 'GFLOP/s', 'GB/s', '% of limit', 'peak MiB', 'RssAnon MiB', 'of runtime'];
        const memoryLimit = o.memoryLimit === undefined ? undefined : parseBytes(o.memoryLimit);
        const device = useDevice(o.device, memoryLimit ?? 0);
        if (!o.json) {
          tell(`device: ${describeDevice(device)}`);
          print(line([...head, ...(o.peerGguf ? ['peer tok/s', 'ratio'] : [])]));
        }
        const result = await benchInThread(o.model ?? PRESETS[o.preset ?? 'nano'], {
          device: o.device,
          ...(memoryLimit === undefined ? {} : { memoryLimit }),
          ...(o.threads === undefined ? {} : { threads: o.threads }),
          ops: o.ops ?? false,
          precision: o.precision,
          denseDtype: o.denseDtype,
          denseCache: o.denseCache ?? false,
          prefill: list(o.prefill),
          depths: list(o.depths),
          batches: list(o.batches),
          lora: list(o.lora),
          rank: o.rank,
          recompute: o.recompute,
          optimizer: o.optimizer,
          secondsPerRow: o.seconds,
          signal: interruptSignal(),
          ...peer,
          onRow(r) {
            if (!o.json)
              print(
                line([
                  r.name,
                  r.tokensPerSecond.toFixed(1),
                  (r.seconds * 1000).toFixed(1),
                  r.gflops.toFixed(0),
                  r.gbPerSecond.toFixed(1),
                  `${r.percentOfLimit.toFixed(0)} ${r.bound === 'arithmetic' ? 'ari' : 'mem'}`,
                  ...[r.peakBytes, r.privateBytes, r.runtimeBytes].map((b) => (b / 2 ** 20).toFixed(1)),
                  ...(r.ratio === undefined ? [] : [(r.peerTokensPerSecond ?? 0).toFixed(1), r.ratio.toFixed(2)]),
                ]),
              );
            if (!o.json && r.expertImbalance !== undefined)
              print(`  busiest expert: ${r.expertImbalance.toFixed(2)} times the rows of the mean one`);
            if (!o.json && r.copiedBytes !== undefined)
              print(
                `  copied beside the ops: ${(r.copiedBytes / 2 ** 20).toFixed(1)} MiB, ` +
                  `${(r.copiesHidden ?? Number.NaN).toFixed(0)} % of the time hidden`,
              );
            if (!o.json && r.deviceBytes)
              print(
                `  device memory: ${Object.entries(r.deviceBytes)
                  .filter(([, b]) => b > 0)
                  .map(([c, b]) => `${c} ${(b / 2 ** 20).toFixed(1)}`)
                  .join(', ')} MiB`,
              );
            if (!o.json)
              for (const p of r.byOp ?? [])
                print(
                  `  ${p.op.padEnd(24)}${String(p.calls).padStart(6)} ` +
                    `calls${(p.seconds * 1000).toFixed(2).padStart(12)} ` +
                    `ms${p.percentOfLimit.toFixed(0).padStart(6)} % of limit`,
                );
          },
        });
        if (o.json) printJson(result);
        else
          print(
            `limits: ${result.limits.gflops.toFixed(0)} GFLOP/s and ` +
              `${result.limits.gbPerSecond.toFixed(1)} GB/s with ${result.limits.threads} threads ` +
              `(${result.isa}); loaded in ${result.loadSeconds.toFixed(2)} s`,
          );
      });
  },
};
