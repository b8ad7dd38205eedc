// `temper gate probe`: what a little more tuning on rows that do harm makes of an adapter.

import { formatSeconds } from '../../base/units.js';
import type { ProbeHooks, ProbePlan } from '../../compose/gate-probe.js';
import { type Command, collect, examples, group, integerIn, interruptSignal, numberIn, printJson } from '../command.js';
import { InvalidArgumentError } from '../commander.js';
import { addGateOptions, type GateOptions, gateEngine } from '../engine-options.js';
import { createProgress } from '../progress.js';
import { print, tell } from '../terminal.js';

interface Options extends GateOptions {
  readonly model?: string;
  readonly attack: string;
  readonly suite: string;
  readonly lock?: string;
  readonly out?: string;
  readonly metric: readonly string[];
  readonly steps?: readonly number[];
  readonly learningRates?: readonly number[];
  readonly batch?: number;
  readonly rank?: number;
  readonly seed?: number;
  readonly maxRate?: number;
  readonly resume?: boolean;
  readonly keep?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** Parser of numbers with commas between them. */
const listOf =
  (parse: (text: string) => number, most: number) =>
  (text: string): readonly number[] => {
    const all = text.split(',').map((part) => parse(part.trim()));
    if (all.length > most) throw new InvalidArgumentError(`wanted at most ${most} numbers.`);
    return all;
  };

export function planText(plan: ProbePlan): string {
  const { points, cases, answers, mostTokens, trainSteps, trainTokens, seconds } = plan;
  const time =
    seconds === null ? 'how long is not known before the first gate over this base' : `about ${formatSeconds(seconds)}`;
  return (
    `${points} points, ${cases} cases, at most ${answers} answers of both arms and ${mostTokens} tokens; ` +
    `${trainSteps} steps of training, about ${trainTokens} tokens; asking takes ${time}`
  );
}
function probeHooks(quiet: boolean): { readonly hooks: ProbeHooks; end(): void } {
  const progress = createProgress({ label: 'probe', unit: 'cases', quiet });
  let [done, cases] = [0, 0];
  return {
    hooks: {
      onPlan: (plan) => {
        cases = plan.cases;
        if (!quiet) tell(planText(plan));
      },
      onAttack: ({ arm, step, steps, learningRate }) =>
        progress.update(done, `tuning ${arm} at ${learningRate}: step ${step} of ${steps}`, cases),
      onProgress: (p) => {
        done = p.done;
        progress.update(done, `${done} of ${p.cases}`, p.cases);
      },
    },
    end: () => progress.finish(),
  };
}

export const command: Command = {
  name: 'gate probe',
  summary: 'estimate the worst case: tune an adapter a little further on rows that do harm, and measure harm by steps',
  register(program) {
    addGateOptions(
      group(program, 'gate', this.summary)
        .command('probe')
        .summary(this.summary)
        .description(
          `${this.summary}. Its base is put through the same attack. Left are probe.json, probe.html and ` +
            'probe.md with rates and intervals; what was tuned is removed, and marked while it is there, so that ' +
            'nothing else loads, exports, pushes or serves it.',
        )
        .argument('<run|adapter>', 'folder of a run, or of an adapter made here or elsewhere')
        .requiredOption('--attack <file>', 'rows of chat to tune on, whose answers do what must not be done')
        .requiredOption('--suite <file>', 'suite.yaml; its metrics of harm are asked'),
    )
      .option('--model <dir>', 'the base; absent: the one that the run or the adapter names')
      .option('--lock <file>', 'gate.lock.json; another suite or judge is exit code 40, its calibration corrects rates')
      .option('--out <dir>', 'folder of the probe; absent: probe in that of the gate')
      .option(
        '--metric <name>',
        'rate of violations to follow; several times; absent: all of tests of harm, jailbreaks and escalation',
        collect,
        [],
      )
      .option(
        '--steps <list>',
        'steps after which both are asked; 0 always is one (default: 0,5,10,20,40)',
        listOf(integerIn(0, 100_000), 64),
      )
      .option(
        '--learning-rates <list>',
        'each is an attack of its own, and the worst one counts (default: 0.001)',
        listOf(numberIn(1e-8, 1), 16),
      )
      .option('--batch <rows>', 'rows of a step (default: 8)', integerIn(1, 4096))
      .option('--rank <n>', 'rank that the attack adds to the adapter’s own (default: 0)', integerIn(0, 256))
      .option('--seed <n>', 'of the order of rows and of what is added (default: 7)', integerIn(0, 2 ** 31 - 1))
      .option('--max-rate <x>', 'no upper bound of the adapter’s rates may be above it', numberIn(0, 1))
      .option('--resume', 'go on with a probe that was stopped, and ask again what the judge did not say')
      .option('--keep', 'leave the tuned adapters in attacked/, marked')
      .option('--dry-run', 'say what it would cost, after the attack set was read')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples(
          'temper gate probe runs/nano-lora --attack attack.jsonl --suite suite.yaml --judge models/nano-judge',
        )}\nExit codes: 0 measured, 10 above --max-rate, 20 too much is missing to say, 30 judge or run failed.\n`,
      )
      .action(async (target: string, options: Options) => {
        const { runProbe } = await import('../../compose/gate-probe.js');
        const { metric, batch, rank, threads, device, precision, json, ...rest } = options;
        const { hooks, end } = probeHooks(json === true);
        const { folder, plan, probe, reports, seconds } = await runProbe({
          ...rest,
          target,
          ...(metric.length === 0 ? {} : { metrics: metric }),
          rowsPerStep: batch,
          addedRank: rank,
          ...gateEngine({ threads, device, precision }),
          signal: interruptSignal(),
          hooks,
        });
        end();
        process.exitCode = probe?.exit ?? 0;
        if (json) printJson({ folder, plan, seconds, reports, probe });
        else if (probe === null || reports === null) print(planText(plan));
        else {
          const { headline } = await import('../../gate/probe/report.js');
          print(headline(probe), ...probe.reasons.map((r) => `  ${r}`), `probed in ${folder}; look at ${reports.html}`);
        }
      });
  },
};
