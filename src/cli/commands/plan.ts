// `temper plan`: memory and time of a recipe, or memory of serving, before anything is loaded.

import { ConfigError } from '../../base/errors.js';
import { formatRate, formatSeconds, formatBytes as size } from '../../base/units.js';
import type { GateWork } from '../../compose/gate-work.js';
import type { TrainPlan } from '../../train/plan.js';
import { type Command, collect, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { Option } from '../commander.js';
import { print } from '../terminal.js';

interface Options {
  readonly set: readonly string[];
  readonly out?: string;
  readonly shape?: string;
  readonly time: boolean;
  readonly json?: boolean;
  readonly model?: string;
  readonly context: number;
  readonly sequences: number;
  readonly denseDtype: 'bf16' | 'q8';
  readonly kvDtype: 'f32' | 'bf16';
  readonly speculation: boolean;
  readonly draft?: string;
}
const category = ([name, bytes]: readonly [string, number]): string =>
  `  ${name.padEnd(12)}${size(bytes).padStart(12)}`;
/** Where a run keeps what. */
function layoutLines({ moments: place, layers, kept }: TrainPlan['layout'], moments: TrainPlan['moments']): string[] {
  const some = kept.attention + kept.experts > 0;
  const of = `attention of ${kept.attention} and experts of ${kept.experts} of ${layers} layers`;
  const { optimizer, bytes, bytesIn8Bits } = moments;
  const shorter =
    optimizer === 'adamw' ? `, ${size(bytesIn8Bits)} with train.optimizer.name: adamw_8bit` : ' in 8 bits';
  return [
    `kept for the backward pass: ${some ? of : 'the inputs of layers alone'}; ` +
      `moments of AdamW: ${place}, ${size(bytes)}${shorter}`,
  ];
}

async function serving(dir: string, o: Options): Promise<void> {
  const { planServing } = await import('../../infer/planning.js');
  const plan = await planServing(dir, {
    context: o.context,
    sequences: o.sequences,
    denseDtype: o.denseDtype,
    kvDtype: o.kvDtype,
    speculation: o.speculation,
    ...(o.draft === undefined ? {} : { draft: o.draft }),
    signal: interruptSignal(),
  });
  if (o.json) printJson(plan);
  else {
    print(
      ...plan.notes,
      `serving ${o.sequences} sequence${o.sequences > 1 ? 's' : ''} of up to ${o.context} ` +
        `tokens: ${size(plan.kvBytesPerSequence)} of keys and values each`,
      'peak memory, by category (each at its own peak):',
      ...Object.entries(plan.peakBytes)
        .filter(([, bytes]) => bytes > 0)
        .map(category),
      `${category(['together', plan.totalPeakBytes])}   beside ${size(plan.mappedBytes)} of ` +
        `mapped files; ${size(plan.availableBytes)} available`,
      ...(plan.offloadedBytes > 0
        ? [
            `${category(['offloaded', plan.offloadedBytes])}   8-bit weights, in a file without a ` +
              'name beside the model',
          ]
        : []),
      plan.fits ? 'fits' : `does not fit: ${plan.advice}`,
    );
  }
  if (!plan.fits) process.exitCode = 2;
}

/** What the gate that a recipe names will ask; null: it names none. */
async function gateOf(recipe: string, set: readonly string[]): Promise<GateWork | null> {
  const [{ loadRecipe }, { gateWork }] = await Promise.all([
    import('../../recipe/load.js'),
    import('../../compose/gate-work.js'),
  ]);
  const { gate } = loadRecipe(recipe, { set, checkPaths: false }).recipe;
  return gate === undefined || gate === 'off' ? null : gateWork(gate.suite);
}

export const command: Command = {
  name: 'plan',
  summary: 'memory and time of a recipe, or memory of serving a model, before anything is loaded',
  register(program) {
    program
      .command('plan')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nMemory comes from a dry run of the training code itself; the time of a step ` +
          'from running each of its distinct operations once\non made-up data. What the gate of the recipe will ask ' +
          'is counted. With --model instead of a recipe: the memory of serving that checkpoint. Exits with 2 when it ' +
          'does not fit, saying what to change. Weights need not be at hand: a base that is not there is planned by ' +
          "its folder's name (gpt-oss-20b), by --shape, or by the config.json that lies there.",
      )
      .argument('[recipe]', 'YAML file')
      .option('--model <dir>', 'plan serving this checkpoint; a preset (20b, 120b) or a config.json is enough')
      .option('--shape <shape>', 'preset (20b, 120b) or config.json of a base whose weights are not at hand')
      .option('--context <tokens>', 'serving: most tokens of a sequence', integerIn(2, 1 << 20), 4096)
      .option('--sequences <n>', 'serving: sequences at once', integerIn(1, 4096), 1)
      .addOption(
        new Option('--dense-dtype <t>', 'serving: attention and head as stored, or in 8 bits')
          .choices(['bf16', 'q8'])
          .default('bf16'),
      )
      .addOption(
        new Option('--kv-dtype <t>', 'serving: keys and values of full layers in f32 or bf16')
          .choices(['f32', 'bf16'])
          .default('f32'),
      )
      .option('--draft <dir>', 'serving: a smaller checkpoint that guesses')
      .option('--no-speculation', 'serving: no tokens are guessed')
      .option('--set <a.b=c>', 'edit a field of the recipe; may be given several times', collect, [])
      .option('--out <dir>', 'run folder, on whose disk activations may be put; default: as for train')
      .option('--no-time', 'memory only; needs no measuring')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper plan recipes/nano-lora.yaml',
          'temper plan recipe.yaml --set adapter.rank=8 --no-time --json',
          'temper plan recipe.yaml --shape 20b',
          'temper plan --model 20b --context 32768 --sequences 4',
        ),
      )
      .action(async (recipe: string | undefined, options: Options) => {
        if ((recipe === undefined) === (options.model === undefined))
          throw new ConfigError('plan_what', 'plan: give a recipe, or --model DIR for serving, one of the two');
        if (recipe === undefined) return serving(options.model ?? '', options);
        const { planTraining } = await import('../../train/train.js');
        const plan = await planTraining(recipe, {
          set: options.set,
          ...(options.out === undefined ? {} : { out: options.out }),
          ...(options.shape === undefined ? {} : { shape: options.shape }),
          measure: options.time,
          signal: interruptSignal(),
        });
        const gate = await gateOf(recipe, options.set);
        if (options.json) printJson({ ...plan, gate });
        else {
          const parts = Object.entries(plan.peakBytes)
            .filter(([, bytes]) => bytes > 0)
            .map(category);
          print(
            ...plan.notes,
            `${plan.steps} steps of about ${plan.tokensPerStep} tokens; ` +
              `${plan.trainedParameters.toLocaleString('en')} trained parameters`,
            `device: ${plan.computesOn}`,
            ...layoutLines(plan.layout, plan.moments),
            'peak memory, by category (each at its own peak):',
            ...parts,
            `  ${'together'.padEnd(12)}${size(plan.totalPeakBytes).padStart(12)}   beside ` +
              `${size(plan.mappedBytes)} of mapped files and ${size(plan.runtimeBytes)} of the runtime; ` +
              `${size(plan.availableBytes)} available`,
            ...(plan.rereadBytes > 0
              ? [
                  '  the mapped files do not stay in memory beside it: each pass, forward or backward, may ' +
                    `read ${size(plan.rereadBytes)} from disk`,
                ]
              : []),
            ...(plan.offloadedBytes > 0
              ? [
                  `  ${'offloaded'.padEnd(12)}${size(plan.offloadedBytes).padStart(12)}   on disk beside ` +
                    `the run, ${size(plan.diskFreeBytes)} free`,
                ]
              : []),
            ...(plan.device
              ? [
                  'device memory, by category (each at its own peak):',
                  ...Object.entries(plan.device.peakBytes)
                    .filter(([, bytes]) => bytes > 0)
                    .map(category),
                  `${category(['together', plan.device.totalPeakBytes])}   ` +
                    `${size(plan.device.heldPeakBytes)} with rounding and gaps, ` +
                    (Number.isNaN(plan.device.limitBytes)
                      ? 'how much it has is not known; '
                      : `of a limit of ${size(plan.device.limitBytes)}; `) +
                    'beside it the driver takes about half a GiB',
                ]
              : []),
            ...(options.time && !plan.device
              ? [
                  `time: ${plan.stepSeconds.toFixed(plan.stepSeconds < 10 ? 2 : 0)} s a step, ` +
                    `${formatRate(plan.tokensPerSecond)} tokens/s, ${formatSeconds(plan.totalSeconds)} in all` +
                    (plan.referenceSeconds > 0
                      ? `, ${formatSeconds(plan.referenceSeconds)} of it for the base without the adapter`
                      : '') +
                    (plan.evaluations > 0
                      ? `, ${formatSeconds(plan.evalSeconds)} of it for ${plan.evaluations} evaluations`
                      : ''),
                ]
              : []),
            ...(gate
              ? [
                  `gate: ${gate.prompts} prompts, at most ${gate.answers} answers of base and adapter, ` +
                    `${gate.mostTokens} tokens and ${gate.texts} texts judged; temper gate RUN --dry-run says how long`,
                ]
              : []),
            plan.fits ? 'fits' : `does not fit: ${plan.advice}`,
          );
        }
        if (!plan.fits) process.exitCode = 2;
      });
  },
};
