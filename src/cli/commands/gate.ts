// `temper gate`: whether an adapter may leave, decided by a suite that base and adapter answer.

import { formatSeconds } from '../../base/units.js';
import type { GateHooks, GatePlan, GateResult } from '../../compose/gate.js';
import type { Asked } from '../../compose/gate-review.js';
import { type Command, collect, examples, group, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { addGateOptions, type GateOptions, gateEngine } from '../engine-options.js';
import { createProgress } from '../progress.js';
import { shardAsked } from '../shards.js';
import { print, tell } from '../terminal.js';

interface Options extends GateOptions {
  readonly model?: string;
  readonly suite: string;
  readonly lock?: string;
  readonly out?: string;
  readonly merged?: string;
  readonly mergeRecipe: string;
  readonly training: readonly string[];
  readonly resume?: boolean;
  readonly shard?: string;
  readonly content: 'full' | 'none';
  readonly store?: string;
  readonly reviewTwoPersons?: boolean;
  readonly fresh?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

function planText({ cases, prompts, answers, mostTokens, texts, estimate }: GatePlan): string {
  const time = estimate === null ? 'how long is not known: no answer began within 30 s' : estimateText(estimate);
  return (
    `${prompts} prompts, ${cases} cases, at most ${answers} answers of all arms and ${mostTokens} tokens` +
    `${texts === 0 ? '' : `, ${texts} texts judged`}; ${time}`
  );
}
const estimateText = ({ seconds, low, high }: NonNullable<GatePlan['estimate']>): string =>
  high === null
    ? `${formatSeconds(low)} at least, and what the judge takes`
    : `about ${formatSeconds(seconds)} (${formatSeconds(low)} to ${formatSeconds(high)})`;

/** What a run tells on stderr. */
export function gateHooks(quiet: boolean): { readonly hooks: GateHooks; end(): void } {
  const progress = createProgress({ label: 'gate', unit: 'cases', quiet });
  const search = createProgress({ label: 'search for triggers', unit: 'phrases', quiet });
  let began = 0;
  return {
    hooks: {
      onNote: (note) => tell(`note: ${note}`),
      onPlan: (plan) => {
        if (!quiet) tell(planText(plan));
      },
      onSearch: (done, total) => search.update(done, '', total),
      onProgress({ done, cases, tokens }) {
        if (began === 0) search.finish();
        began ||= Date.now();
        const rate = tokens / Math.max(0.001, (Date.now() - began) / 1000);
        progress.update(done, `${done} of ${cases}  ${Math.round(rate)} tokens/s`, cases);
      },
    },
    end: () => progress.finish(),
  };
}

export const askedText = ({ pairs, asked, there, mute }: Asked): string =>
  `${pairs} pairs differ: ${asked} answers wait at /review, ${there} were there before` +
  (mute === 0 ? '' : `, ${mute} pairs cannot be shown`);

export function sayDecision({ decision, next, folder }: Pick<GateResult, 'decision' | 'next' | 'folder'>): void {
  if (!decision) return;
  print(
    `${decision.decision}`,
    ...decision.reasons.map((reason) => `  ${reason}`),
    ...next.map((line) => `  next: ${line}`),
    ...decision.metrics
      .filter((m) => m.slice === null)
      .map(
        (m) =>
          `  ${m.verdict.padEnd(12)} ${m.metric}  base ${figure(m.base)}  ${m.arm ?? 'adapter'} ${figure(m.adapter)}`,
      ),
    `decided in ${folder}`,
  );
}
const figure = (x: number | null): string => (x === null ? '-' : x.toFixed(3));

export const command: Command = {
  name: 'gate',
  summary: 'decide by a suite whether an adapter may leave: it and its base answer the same prompts, and are compared',
  register(program) {
    const own = group(program, 'gate', this.summary).enablePositionalOptions();
    addGateOptions(
      own
        .description(
          `${this.summary}.\n\nPASS 0, FAIL 10, INCONCLUSIVE 20, ERROR 30; 40 where lock, suite or evidence are not ` +
            'what they were. Outcomes, suite, lock and decision are left in the folder of the gate.',
        )
        .argument('<run|adapter>', 'folder of a run, or of an adapter made here or elsewhere')
        .requiredOption('--suite <file>', 'suite.yaml with the files that it names beside it'),
    )
      .option('--model <dir>', 'the base; absent: the one that the run or the adapter names')
      .option('--lock <file>', 'gate.lock.json that was made before; another suite, judge or threshold is exit code 40')
      .option('--out <dir>', 'folder of the gate; absent: gate in that of the run or the adapter')
      .option(
        '--merged <dir>',
        'checkpoint with the adapter merged into it, where one is to leave: it is judged beside the adapter',
      )
      .option('--merge-recipe <name>', 'with --merged: how it was merged', 'mxfp4')
      .option('--training <file>', 'rows that it was trained on, where no run says so; several times', collect, [])
      .option('--resume', 'go on with a run that was stopped, and ask again what the judge did not say')
      .option(
        '--shard <i/n>',
        'every n-th case from the i-th on; temper gate merge joins them and decides; auto: what the variables of ' +
          'Slurm, Kubernetes, AWS Batch or GitLab say',
      )
      .addOption(
        new Option('--content <what>', 'whether outcomes have what was asked and said')
          .choices(['full', 'none'])
          .default('full'),
      )
      .option(
        '--store <where>',
        'put judged pairs that differ before people at /review: a file of SQLite, or postgres://USER@HOST/DATABASE',
      )
      .option('--review-two-persons', 'with --store: two people must say the same of each answer')
      .option('--fresh', 'ask the base again, whatever it answered before')
      .option('--dry-run', 'say what it would cost, in tokens and time, and ask no more than it takes to tell')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper gate runs/nano-lora --suite gates/nano/suite.yaml --judge models/nano-judge',
          'temper gate runs/nano-lora --suite gates/nano/suite.yaml --judge models/nano-judge --dry-run',
        ),
      )
      .action(async (target: string, options: Options) => {
        const { planGate, runGate } = await import('../../compose/gate.js');
        const { merged, mergeRecipe, shard, training, threads, device, precision, json, dryRun, ...rest } = options;
        const { hooks, end } = gateHooks(json === true);
        const given = {
          ...rest,
          target,
          ...(merged === undefined ? {} : { merged: { model: merged, recipe: mergeRecipe } }),
          ...(training.length === 0 ? {} : { training }),
          ...gateEngine({ threads, device, precision }),
          shard: (await shardAsked(shard)) ?? null,
          signal: interruptSignal(),
          hooks,
        };
        if (dryRun) {
          const plan = await planGate(given);
          if (json) printJson(plan);
          else print(planText(plan));
          return;
        }
        const result = await runGate(given);
        end();
        const { decision, next, folder, run, plan, runSeconds, seconds, tokens, lock, asked } = result;
        if (!json && plan?.estimate)
          tell(`asked and judged in ${formatSeconds(runSeconds)}; the plan said ${estimateText(plan.estimate)}`);
        process.exitCode = decision?.exit ?? 0;
        if (asked) tell(askedText(asked));
        if (json) printJson({ folder, run, plan, runSeconds, seconds, tokens, lock, decision, next, asked });
        else if (decision) sayDecision(result);
        else
          print(`shard of ${run.cases} cases, ${run.rows} outcomes in ${folder}; join the shards: temper gate merge`);
      });
  },
};
