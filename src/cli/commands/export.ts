// `temper export`: what a run trained, or an adapter made elsewhere, for others to load.

import { ConfigError } from '../../base/errors.js';
import { formatBytes } from '../../base/units.js';
import type { ReleaseResult } from '../../compose/release.js';
import type { ExportProgress } from '../../export/export.js';
import { type Command, collect, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { InvalidArgumentError, Option } from '../commander.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

interface Options {
  readonly adapter?: string;
  readonly model?: string;
  readonly format: readonly string[];
  readonly for?: readonly string[];
  readonly out: string;
  readonly baseModel?: string;
  readonly checkpoint?: 'last' | 'best' | number;
  readonly expertLayout?: 'natural' | 'swapped';
  readonly rows?: string;
  readonly evalTokens?: number;
  readonly gate?: readonly string[];
  readonly candidate?: boolean;
  readonly overrideGate?: boolean;
  readonly signer?: string;
  readonly reason?: string;
  readonly sign?: string;
  readonly json?: boolean;
}

function checkpointName(text: string): 'last' | 'best' | number {
  if (text === 'last' || text === 'best') return text;
  const step = Number(text);
  if (Number.isInteger(step) && step > 0) return step;
  throw new InvalidArgumentError('wanted last, best or the number of a step.');
}
const list = (text: string): readonly string[] =>
  text
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');

/** One line for each format, made anew when the next one begins. */
function reporter(quiet: boolean): { readonly tell: (p: ExportProgress) => void; readonly end: () => void } {
  let line: ReturnType<typeof createProgress> | null = null,
    of = '';
  return {
    tell(p) {
      if (of !== p.format) {
        line?.finish();
        line = createProgress({ label: p.format, total: p.totalBytes, unit: 'bytes', quiet });
        of = p.format;
      }
      line?.update(p.doneBytes, p.stage);
    },
    end: () => line?.finish(),
  };
}

/** @throws {ConfigError} bad_option: one without the others */
function overrideOf({ overrideGate, signer, reason }: Options): { signer: string; reason: string } | undefined {
  if (overrideGate !== true && signer === undefined && reason === undefined) return undefined;
  if (overrideGate === true && signer !== undefined && reason !== undefined) return { signer, reason };
  throw new ConfigError(
    'bad_option',
    '--override-gate, --signer KEY and --reason TEXT go together: who releases against the gate says who and why',
  );
}

function gateLine({ status, reasons, override }: ReleaseResult['gate'][string]): readonly string[] {
  if (status === 'passed') return ['release gate: passed, with its evidence in gate/'];
  if (status === 'off') return reasons.length > 0 ? [`release gate: none (${reasons.join('; ')})`] : [];
  if (status === 'absent') return [`release gate: ${reasons.join('; ')}; it cannot be pushed`];
  return [`WARNING: released against the gate by key ${override?.signer.slice(0, 12)}: ${reasons.join('; ')}`];
}

const signedLine = (signed: ReleaseResult['signed'][string] | undefined): readonly string[] =>
  signed
    ? [
        `signed by key ${signed.key.slice(0, 12)}: ${signed.files} files, ${signed.statements.length} statements; ` +
          'temper audit checks them',
      ]
    : [];

function show(result: ReleaseResult): void {
  for (const e of result.exports) {
    const gate = result.gate[e.format];
    print(
      `${e.folder}  (${e.format}, ${formatBytes(e.bytes)}${result.step === null ? '' : `, step ${result.step}`})`,
      ...Object.entries(e.files).map(([name, digest]) => `  ${name}  ${digest}`),
      ...e.warnings.map((w) => `WARNING: ${w}`),
      ...(gate ? gateLine(gate) : []),
      ...signedLine(result.signed[e.format]),
      `prove it with: temper verify ${e.folder}`,
    );
  }
}

export const command: Command = {
  name: 'export',
  summary: 'write what a run trained in a form others load',
  register(program) {
    program
      .command('export')
      .summary(this.summary)
      .description(
        `${this.summary}; or an adapter made elsewhere, with --adapter and --model.\n\n` +
          'Formats (several make subfolders):\n' +
          '  peft           the adapter, as peft 0.17 and later read it (f32)\n' +
          '  merged-bf16    the whole model, experts dequantised, for transformers and others\n' +
          '  merged-mxfp4   the whole model in the released layout; says what rounding cost\n' +
          '  gguf           one file for llama.cpp and Ollama; gguf-f32: nothing rounded\n' +
          '  gguf-lora      the adapter for llama.cpp, experts included\n\n' +
          'Each folder has a model card and the digests of its files; temper verify proves it. The folder appears ' +
          'whole or not at all.\n\n' +
          'An adapter leaves with a PASS of the release gate for exactly these digests (adapter, base, tokenizer, ' +
          'chat format, merge), whose evidence goes with it into gate/. A recipe that says `gate: off` wants none, ' +
          'and the card says so. Whoever releases one all the same signs for it.',
      )
      .argument('[run]', 'run folder')
      .option('--adapter <dir>', 'PEFT folder made elsewhere, in place of a run; needs --model')
      .option('--model <dir>', 'base checkpoint of --adapter; alone: the checkpoint itself is exported')
      .addOption(
        new Option('--format <names>', 'forms of the export, by commas').argParser(list).default(['peft'], 'peft'),
      )
      .requiredOption('--out <dir>', 'new folder')
      .addOption(
        new Option(
          '--for <names>',
          'who is to load it, by commas: what one of them would load wrong is refused before anything is written',
        ).argParser(list),
      )
      .option(
        '--base-model <name>',
        "what the base is called abroad, e.g. openai/gpt-oss-20b (default: its folder's name)",
      )
      .option(
        '--checkpoint <which>',
        'a checkpoint in place of the finished run: last, best (of train.evalEvery), or a step',
        checkpointName,
      )
      .addOption(
        new Option(
          '--expert-layout <which>',
          'how stacked experts of --adapter lie, where neither shapes nor its config tell',
        ).choices(['natural', 'swapped']),
      )
      .option(
        '--rows <file>',
        "held-out rows to measure with, in place of the run's own; their format is told by the first ones",
      )
      .option('--eval-tokens <n>', 'held-out tokens to measure with at most; 0: none', integerIn(0, 1e9))
      .option(
        '--gate <dir>',
        'folder of the gate that judged it; several times (default: gate/ in the run, or beside the adapter)',
        collect,
      )
      .option('--candidate', 'for a gate to judge (temper gate --merged): nothing is asked, and it cannot be pushed')
      .option('--override-gate', 'release it without a PASS; with --signer and --reason, which the card states')
      .option('--signer <key>', 'private key of who answers for it, as temper key new makes one')
      .option('--reason <text>', 'why')
      .option('--sign <key>', 'private key that signs each folder, with statements of its gate and training in it')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper export runs/nano-lora --out out/nano-lora',
          'temper export runs/nano-lora --sign signer.pem --out out/signed',
          'temper export runs/nano-lora --checkpoint best --out out/nano-lora-best',
          'temper export runs/tickets --format peft --for vllm --base-model openai/gpt-oss-20b --out out/tickets',
          'temper export --adapter theirs --model models/gpt-oss-20b --format peft --out out/theirs',
          "temper export runs/tickets --out out/tickets --override-gate --signer me.pem --reason 'Demo for one client'",
        ) + '\nExit codes: 0 exported, 2 to be mended, 10 the gate did not pass it, 40 not what the gate judged.\n',
      )
      .action(async (run: string | undefined, options: Options) => {
        const { exportReleased } = await import('../../compose/release.js');
        const { json, for: consumers, overrideGate: _, signer: _s, reason: _r, ...rest } = options;
        const override = overrideOf(options);
        const progress = reporter(json === true);
        const result = await exportReleased(
          { ...rest, run, consumers, override },
          { signal: interruptSignal(), onProgress: progress.tell },
        );
        progress.end();
        if (json) printJson(result);
        else show(result);
      });
  },
};
