// The options that generate, chat and screen share, and the wiring of engine, policies and judge behind them.
import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';
import type { Engine } from '../infer/engine.js';
import type { GenerateRequest } from '../infer/protocol.js';
import { ConfigError } from '../base/errors.js';
import type { Screen } from '../safeguard/screen.js';
import type { Judge } from '../safeguard/types.js';
import { collect, integerIn, numberIn } from './command.js';

export interface ModelOptions {
  readonly model: string;
  readonly adapter?: string;
  readonly threads?: number;
  readonly device?: string;
  readonly memoryLimit?: string;
  readonly precision?: 'f32' | 'bf16';
  readonly denseDtype?: 'bf16' | 'q8';
  readonly denseCache?: boolean;
  readonly context?: number;
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
export interface ScreenOptions {
  readonly policy: readonly string[];
  readonly judge?: string;
  readonly judgeModel?: string;
  readonly judgeEffort?: 'low' | 'medium' | 'high';
  readonly judgeTimeout: number;
  readonly judgeMaxTokens: number;
  readonly judgeContext?: number;
  readonly judgeConcurrency: number;
  readonly threads?: number;
}
/** The name under which --adapter is loaded. */
export const ADAPTER = 'adapter';
/** Read for judges behind a URL; other services' keys are never sent there. */
export const JUDGE_KEY_VARIABLE = 'TEMPER_JUDGE_API_KEY';

export function addModelOptions(command: Command): Command {
  return command
    .requiredOption('--model <dir>', 'checkpoint folder')
    .option('--adapter <dir>', 'PEFT adapter folder')
    .option('--threads <n>', 'CPU threads', integerIn(1, 1024))
    .option('--device <name>', 'cpu, cuda or cuda:N', 'cpu')
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
    .option('--dense-cache', 'with q8: keep the 8-bit weights beside the model and use them next time');
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
export function addScreenOptions(command: Command): Command {
  return command
    .option('--policy <file>', 'policy the answer must pass; may be given several times', collect, [])
    .option(
      '--judge <dir|url>',
      'who judges: a checkpoint folder, or an OpenAI-compatible base URL such as http://127.0.0.1:8000/v1',
    )
    .option('--judge-model <name>', `model name behind the URL; its key is read from ${JUDGE_KEY_VARIABLE}`)
    .addOption(new Option('--judge-effort <level>', 'reasoning effort of the judge').choices(['low', 'medium', 'high']))
    .option('--judge-timeout <seconds>', 'a verdict later than this does not count', numberIn(0.001, 86400), 60)
    .option('--judge-max-tokens <n>', 'room for reasoning and verdict', integerIn(16, 1 << 17), 4096)
    .option(
      '--judge-context <tokens>',
      'most tokens of a local judge, prompt and verdict together; what does not fit is unjudged',
      integerIn(2, 1 << 20),
    )
    .option('--judge-concurrency <n>', 'verdicts asked for at once', integerIn(1, 256), 8);
}
function fraction(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 1)) throw new InvalidArgumentError('wanted a number above 0, at most 1.');
  return value;
}

export async function openModel(options: ModelOptions): Promise<Engine> {
  const [{ openEngine }, { parseBytes }] = await Promise.all([
    import('../infer/engine.js'),
    import('../native/device.js'),
  ]);
  return openEngine({
    // One conversation at a time: no room for more than that.
    model: options.model,
    slots: 1,
    prefixes: 0,
    ...(options.adapter === undefined ? {} : { adapters: { [ADAPTER]: options.adapter } }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.device === undefined ? {} : { device: options.device }),
    ...(options.memoryLimit === undefined ? {} : { memoryLimit: parseBytes(options.memoryLimit) }),
    ...(options.precision === undefined ? {} : { precision: options.precision }),
    ...(options.denseDtype === undefined ? {} : { denseDtype: options.denseDtype }),
    ...(options.denseCache === undefined ? {} : { denseCache: options.denseCache }),
    ...(options.context === undefined ? {} : { contextTokens: options.context }),
  });
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

export interface OpenScreen {
  readonly screen: Screen;
  readonly judge: Judge;
  close(): Promise<void>;
}
/**
 * Policies and judge of the command line as a screen; null if there is no --policy.
 * @throws {ConfigError} --policy without --judge or the reverse, a judge that is neither folder nor URL
 */
export async function openScreen(options: ScreenOptions): Promise<OpenScreen | null> {
  if (options.policy.length === 0) {
    if (options.judge !== undefined)
      throw new ConfigError(
        'policy_missing',
        '--judge without --policy: a judge needs a policy to judge by; add --policy FILE',
      );
    return null;
  }
  if (options.judge === undefined)
    throw new ConfigError(
      'judge_missing',
      '--policy without --judge: nothing would pass unjudged; add --judge DIR or --judge URL',
    );
  const [{ loadPolicy }, { createScreen }] = await Promise.all([
    import('../safeguard/policy.js'),
    import('../safeguard/screen.js'),
  ]);
  const policies = await Promise.all(options.policy.map(loadPolicy));
  const names = policies.map((p) => p.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new ConfigError(
      'policy_twice',
      `--policy: two policies are called ${twice}; rename one, as verdicts go by the name`,
    );
  const { judge, close } = await openJudge(options.judge, options);
  const screen = createScreen({
    policies,
    judge,
    timeoutMs: options.judgeTimeout * 1000,
    concurrency: options.judgeConcurrency,
  });
  return { screen, judge, close };
}

async function openJudge(where: string, options: ScreenOptions): Promise<{ judge: Judge; close(): Promise<void> }> {
  if (/^[a-z]+:\/\//i.test(where)) {
    if (!options.judgeModel)
      throw new ConfigError('judge_model_missing', `--judge ${where}: a URL needs --judge-model NAME`);
    const { createEndpointJudge } = await import('../safeguard/judges/endpoint.js');
    const apiKey = process.env[JUDGE_KEY_VARIABLE];
    const judge = createEndpointJudge({
      url: where,
      model: options.judgeModel,
      maxTokens: options.judgeMaxTokens,
      ...(apiKey ? { apiKey } : {}),
      ...(options.judgeEffort ? { effort: options.judgeEffort } : {}),
    });
    return { judge, close: async () => {} };
  }
  if (!(await stat(where).catch(() => null))?.isDirectory())
    throw new ConfigError(
      'judge_unreadable',
      `--judge ${where}: neither a folder nor a URL; wanted a checkpoint folder or e.g. http://127.0.0.1:8000/v1`,
    );
  const [{ openEngine }, { createEngineJudge }] = await Promise.all([
    import('../infer/engine.js'),
    import('../compose/engine-judge.js'),
  ]);
  const engine = await openEngine({
    // Each policy heads its own kind of conversation.
    model: where,
    slots: options.judgeConcurrency,
    prefixes: options.policy.length,
    ...(options.judgeContext === undefined ? {} : { contextTokens: options.judgeContext }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  try {
    const judge = await createEngineJudge(engine, {
      name: where,
      maxTokens: options.judgeMaxTokens,
      ...(options.judgeEffort ? { effort: options.judgeEffort } : {}),
    });
    return { judge, close: () => engine.close() };
  } catch (error) {
    await engine.close();
    throw error;
  }
}
