// The options that generate, chat and screen share, and how they open a model.
import type { Command } from 'commander';
import type { OpenScreen, ScreeningOptions } from '../compose/screening.js';
import type { OnRecord } from '../compose/turn.js';
import type { Engine } from '../infer/engine.js';
import type { GenerateRequest } from '../infer/protocol.js';
import { DEVICE_NAMES } from '../native/backends.js';
import { CONTRACT_NAMES } from '../safeguard/contracts/contract.js';
import { collect, integerIn, numberIn } from './command.js';
import { InvalidArgumentError, Option } from './commander.js';
import { sayDevice } from './progress.js';
import { tell } from './terminal.js';

export interface ModelOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly threads?: number;
  readonly device?: string;
  readonly memoryLimit?: string;
  readonly precision?: 'f32' | 'bf16';
  readonly denseDtype?: 'bf16' | 'q8';
  readonly denseCache?: boolean;
  readonly kvDtype?: 'f32' | 'bf16';
  readonly context?: number;
  readonly speculation?: 'auto' | 'always' | 'off';
  readonly draft?: string;
}
export interface SamplingOptions {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly seed?: number;
  readonly maxTokens: number;
  readonly effort: 'low' | 'medium' | 'high';
  readonly system?: string;
}
export type ScreenOptions = ScreeningOptions;
/** The name under which --adapter is loaded. */
export const ADAPTER = 'adapter';
/**
 * @param adapters what --adapter says where it may be given several times, and --model may stand in a file; absent: one
 * folder
 */
export function addModelOptions(command: Command, adapters?: string): Command {
  const model = ['--model <dir>', 'checkpoint folder, or hf://OWNER/NAME[@REVISION]'] as const;
  if (adapters === undefined) command.requiredOption(...model).option('--adapter <dir>', 'PEFT adapter folder');
  else command.option(...model).option('--adapter <name=dir>', adapters, collect, []);
  return command
    .option('--threads <n>', 'CPU threads', integerIn(1, 1024))
    .option('--device <name>', `${DEVICE_NAMES}; auto: a GPU that is usable, else cpu`, 'auto')
    .option('--memory-limit <bytes>', 'most device memory to take, as in 15.2GiB')
    .option('--context <tokens>', 'most tokens of prompt and answer together', integerIn(2, 1 << 20))
    .addOption(
      new Option('--precision <p>', 'matrix products in bf16, or f32 for comparisons')
        .choices(['bf16', 'f32'])
        .default('bf16'),
    )
    .addOption(
      new Option('--dense-dtype <t>', 'attention and head as stored, or in 8 bits made at load (faster, not exact)')
        .choices(['bf16', 'q8'])
        .default('bf16'),
    )
    .option('--dense-cache', 'with q8: keep the 8-bit weights beside the model and use them next time')
    .addOption(
      new Option('--kv-dtype <t>', 'keys and values of full layers in f32, or rounded to bf16 in half the memory')
        .choices(['f32', 'bf16'])
        .default('f32'),
    )
    .addOption(
      new Option('--speculation <when>', 'guess tokens and check several at a time, where that is faster; same answers')
        .choices(['auto', 'always', 'off'])
        .default('auto'),
    )
    .option('--draft <dir>', 'a smaller checkpoint with the same tokenizer, which guesses too');
}
export function addSamplingOptions(command: Command): Command {
  return command
    .option('--system <text>', 'instructions, sent as the developer message')
    .addOption(new Option('--effort <level>', 'reasoning effort').choices(['low', 'medium', 'high']).default('medium'))
    .option('--temperature <x>', '0 takes the most probable token', numberIn(0, 100), 1)
    .option('--top-k <n>', 'only the n most probable tokens, 0: all', integerIn(0, 1 << 20), 0)
    .option('--top-p <x>', 'only the smallest set of this mass, 1: all', fraction, 1)
    .option('--min-p <x>', 'only tokens of at least x times the best probability', numberIn(0, 0.999999), 0)
    .option('--seed <n>', 'makes sampling repeatable; random if absent', integerIn(0, Number.MAX_SAFE_INTEGER))
    .option('--max-tokens <n>', 'most tokens of the answer, analysis included', integerIn(1, 1 << 20), 1024);
}
/** Who judges, and how it is asked. */
export function addJudgeOptions(command: Command): Command {
  return command
    .option(
      '--judge <dir|url>',
      'who judges: a checkpoint folder, or an OpenAI-compatible base URL such as http://127.0.0.1:8000/v1',
    )
    .option('--judge-model <name>', 'model name behind the URL; its key is read from TEMPER_JUDGE_API_KEY')
    .addOption(new Option('--judge-effort <level>', 'reasoning effort of the judge').choices(['low', 'medium', 'high']))
    .option('--judge-timeout <seconds>', 'a verdict later than this does not count', numberIn(0.001, 86400), 60)
    .option('--judge-max-tokens <n>', 'room for reasoning and verdict', integerIn(16, 1 << 17), 4096)
    .option(
      '--judge-context <tokens>',
      'most tokens of a local judge, prompt and verdict together; what does not fit is unjudged',
      integerIn(2, 1 << 20),
    )
    .option('--judge-concurrency <n>', 'verdicts asked for at once', integerIn(1, 256), 8)
    .addOption(
      new Option(
        '--judge-contract <name>',
        'how the judge is asked and read, whatever the front matter of the policies says',
      ).choices([...CONTRACT_NAMES]),
    )
    .option('--votes <k>', 'votes on each text; every second one is asked the other way round', integerIn(1, 15), 1)
    .addOption(
      new Option(
        '--judge-views <which>',
        'what is judged: the text as it is alone, or also made plain, decoded and turned back where that differs',
      )
        .choices(['all', 'raw'])
        .default('all'),
    )
    .option(
      '--judge-window <characters>',
      'most characters judged at once; longer texts in overlapping windows',
      integerIn(256, 1 << 20),
      16_000,
    )
    .option(
      '--judge-hedge <share>',
      'of the calls to a URL, those that may be sent twice, as they take longer than most; 0: none',
      numberIn(0, 1),
      0.05,
    );
}
export function addScreenOptions(command: Command): Command {
  return addJudgeOptions(
    command.option('--policy <file>', 'policy the answer must pass; may be given several times', collect, []),
  )
    .option(
      '--judge-unchecked',
      "count a local judge's allow although neither golden rows nor a probe show that it can follow the policy",
    )
    .option(
      '--judge-check',
      'try a judge behind a URL as a local one is: golden rows, or the words of the rules; without it nobody does',
    )
    .option(
      '--judge-canaries <n>',
      'verdicts of a batch; each has a text in it that the judge blocked before, void if that is missed; 0: none',
      integerIn(0, 1 << 20),
      64,
    )
    .option('--no-judge-probe', 'do not try a judge behind a URL with forged verdicts and control tokens')
    .option(
      '--detector <name[=rules|off]>',
      'what looks beside the judge, can block and never allows: secrets, personal, control, invisible, repetition, ' +
        'canary=FILE; =off turns one off, off all of them; may be given several times',
      collect,
      [],
    )
    .option('--detectors <file>', 'the same as YAML, detectors: {NAME: off | all | [RULE, …]}')
    .option(
      '--log <dir>',
      'folder of signed records that cannot be altered unseen: every verdict is in it before anything leaves by it',
    )
    .option('--log-key <file>', 'private key that signs it (`temper key new`); absent: one that is made in the folder');
}
export interface GateOptions extends Partial<Omit<ScreenOptions, 'policy'>> {
  readonly slots: number;
  readonly device?: string;
  readonly precision?: 'f32' | 'bf16';
}
/** What looks beside the judge of a gate. */
export const addDetectorOptions = (command: Command): Command =>
  command
    .option('--detector <name[=rules|off]>', 'what looks beside the judge; several times', collect, [])
    .option('--detectors <file>', 'the same as YAML');
/** Who judges what the models of a gate say, how they are asked, and what looks beside the judge. */
export function addGateOptions(command: Command): Command {
  return addDetectorOptions(addJudgeOptions(command))
    .option('--slots <n>', 'answers at once', integerIn(1, 256), 16)
    .option('--threads <n>', 'CPU threads', integerIn(1, 1024))
    .option('--device <name>', 'cpu, cuda, cuda:N or auto', 'auto')
    .addOption(new Option('--precision <p>', 'matrix products').choices(['bf16', 'f32']).default('bf16'));
}
type Given<T> = { readonly [K in keyof T]?: T[K] | undefined };
/** Threads are those of the judge as well. */
export const gateEngine = ({
  threads,
  device,
  precision,
}: Given<Pick<GateOptions, 'threads' | 'device' | 'precision'>>) => ({
  ...(threads === undefined ? {} : { threads }),
  engine: {
    ...(threads === undefined ? {} : { threads }),
    ...(device === undefined ? {} : { device }),
    ...(precision === undefined ? {} : { precision }),
  },
});
/** Where a turn's verdicts go on record; nothing without --log. */
export const onRecord = (screen: OpenScreen | null, subject: OnRecord['subject'] = {}): [onRecord?: OnRecord] =>
  screen?.log ? [{ sink: screen.log, subject }] : [];
/** Of commands that release what a model says. */
export function addHoldOptions(command: Command): Command {
  return command
    .option('--shadow', 'judge, log, and release WHATEVER THE VERDICT; every answer, log line and metric says so')
    .option(
      '--hold-ahead <characters|off>',
      'written beyond those that are being judged before a stream waits for the verdict; off: it never waits ' +
        '(default: 0 with a local judge, off with one behind a URL)',
      aheadIn,
    );
}
function aheadIn(text: string): number | 'off' {
  if (text === 'off') return text;
  if (!/^\d{1,7}$/.test(text) || Number(text) > 1 << 20)
    throw new InvalidArgumentError(`wanted off, or an integer from 0 to ${1 << 20}.`);
  return Number(text);
}
/** Says on stderr what nobody checked. */
export function sayNotices(notices: readonly string[]): void {
  tell(...notices.map((notice) => `temper: ${notice}`));
}
function fraction(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 1)) throw new InvalidArgumentError('wanted a number above 0, at most 1.');
  return value;
}

/** @param slots conversations at once */
export async function openModel(options: ModelOptions, signal?: AbortSignal, slots = 1): Promise<Engine> {
  const [{ openEngine }, { parseBytes }] = await Promise.all([
    import('../infer/engine.js'),
    import('../base/units.js'),
  ]);
  const engine = await openEngine(
    {
      // No room for more than is asked for.
      model: options.model,
      slots,
      prefixes: 0,
      ...(options.adapter === undefined ? {} : { adapters: { [ADAPTER]: options.adapter } }),
      ...(options.threads === undefined ? {} : { threads: options.threads }),
      ...(options.device === undefined ? {} : { device: options.device }),
      ...(options.memoryLimit === undefined ? {} : { memoryLimit: parseBytes(options.memoryLimit) }),
      ...(options.precision === undefined ? {} : { precision: options.precision }),
      ...(options.denseDtype === undefined ? {} : { denseDtype: options.denseDtype }),
      ...(options.denseCache === undefined ? {} : { denseCache: options.denseCache }),
      ...(options.kvDtype === undefined ? {} : { kvDtype: options.kvDtype }),
      ...(options.context === undefined ? {} : { contextTokens: options.context }),
      ...(options.speculation === undefined ? {} : { speculation: options.speculation }),
      ...(options.draft === undefined ? {} : { draft: options.draft }),
    },
    signal,
  );
  sayDevice(engine.info.device);
  return engine;
}

/** The engine's request for a conversation under the command's options. */
export function requestOf(
  messages: GenerateRequest['messages'],
  options: ModelOptions & SamplingOptions,
): GenerateRequest {
  const { temperature, topK, topP, minP, maxTokens } = options;
  return {
    messages,
    maxTokens,
    sampling: { temperature, topK, topP, minP, seed: options.seed ?? Math.floor(Math.random() * 2 ** 32) },
    ...(options.adapter === undefined ? {} : { adapter: ADAPTER }),
  };
}
