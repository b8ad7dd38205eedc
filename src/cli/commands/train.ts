// `temper train`: runs a recipe in its own thread and shows how it goes.
import { relative, resolve } from 'node:path';
import { formatRate, formatSeconds } from '../../base/units.js';
import { DEVICE_NAMES } from '../../native/backends.js';
import type { StepMetrics } from '../../runs/metrics.js';
import { openBrowser } from '../browser.js';
import { type Command, collect, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { interruptedExitCode } from '../interrupt.js';
import { createProgress } from '../progress.js';
import { goOnWithoutReader } from '../streams.js';
import { print, tell } from '../terminal.js';
import { pullProgress } from './pull.js';

interface Options {
  readonly set: readonly string[];
  readonly resume?: boolean;
  readonly out?: string;
  readonly threads?: number;
  readonly device?: string;
  readonly memoryLimit?: string;
  readonly tensorboard?: boolean;
  readonly watch?: boolean;
  readonly port?: number;
  readonly open?: boolean;
  readonly json?: boolean;
}

/** Of methods on pairs: those that are preferred as wanted, and by how much. */
const pairsText = (accuracy: number | undefined, margin: number | undefined): string =>
  accuracy === undefined ? '' : `pairs ${(100 * accuracy).toFixed(0)}% margin ${(margin ?? Number.NaN).toFixed(3)}  `;
const heldOutText = (loss: number, match: number | undefined): string =>
  `${loss.toFixed(4)}${match === undefined ? '' : ` ${(100 * match).toFixed(0)}%`}`;

export const command: Command = {
  name: 'train',
  summary: 'train an adapter, or a new model, by a recipe',
  register(program) {
    program
      .command('train')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nWrites runs/NAME: recipe, digests, metrics.jsonl, checkpoints, ` +
          'adapter and report.html. Ctrl-C saves a checkpoint; --resume goes on from the\nlast one ' +
          'and gives the same bits as a run that was never stopped.',
      )
      .argument('<recipe>', 'YAML file')
      .option('--set <a.b=c>', 'edit a field of the recipe; may be given several times', collect, [])
      .option('--resume', 'go on from the last checkpoint')
      .option('--out <dir>', 'run folder (default runs/NAME of the recipe)')
      .option('--threads <n>', 'CPU threads; changes no bit of the result', integerIn(1, 1024))
      .option('--device <name>', `${DEVICE_NAMES}, in place of the recipe's`)
      .option('--memory-limit <bytes>', "most device memory to take, as in 15.2GiB, in place of the recipe's")
      .option('--tensorboard', 'also write an event file of TensorBoard into the run folder (train.tensorBoard)')
      .option('--watch', 'serve the curves to browsers of this machine while it trains')
      .option('--port <n>', 'of --watch, on 127.0.0.1 (default: one that is free)', integerIn(0, 65_535))
      .option('--open', 'open --watch in a browser')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper train recipes/nano-lora.yaml',
          'temper train recipe.yaml --set train.lr=1e-4 --set train.epochs=2 --out runs/second',
          'temper train recipe.yaml --resume',
          'temper train recipe.yaml --resume --set train.epochs=3',
          'temper train recipe.yaml --set train.evalEvery=50 --set train.patience=3',
          'temper train recipe.yaml --watch --open',
        ),
      )
      .action(async (recipe: string, options: Options) => {
        const signal = interruptSignal('saving after this step');
        if (!options.watch && options.port === undefined && !options.open) return run(recipe, options, signal);
        const [{ openWatch }, { recipeName }, { defaultRunFolder }] = await Promise.all([
          import('../../watch/watch.js'),
          import('../../recipe/recipe-name.js'),
          import('../../runs/run-folder.js'),
        ]);
        const folder = options.out === undefined ? defaultRunFolder(recipeName(recipe)) : resolve(options.out);
        // The signal ends the training, and the page shows how it ended.
        const watch = await openWatch(folder, options.port === undefined ? {} : { port: options.port });
        tell(`watch: ${watch.url}`);
        watch.closed.catch((e: Error) => tell(`note: nobody can watch any more: ${e.message}`));
        if (options.open) openBrowser(watch.url);
        try {
          await run(recipe, options, signal);
        } finally {
          await watch.close();
        }
      });
  },
};

/**
 * Of a step on a GPU: how near it came to what the device can do, how unevenly its experts were used, and how much of
 * the copies from and to host memory it did not wait for.
 */
const speedText = ({ percentOfLimit, expertImbalance, copiesHidden }: StepMetrics): string =>
  percentOfLimit === undefined
    ? ''
    : `, ${percentOfLimit.toFixed(0)} % of limit${
        expertImbalance === undefined ? '' : `, busiest expert ${expertImbalance.toFixed(1)}×`
      }${copiesHidden === undefined ? '' : `, ${copiesHidden.toFixed(0)} % of copies hidden`}`;

async function run(recipe: string, options: Options, signal: AbortSignal): Promise<void> {
  const { train } = await import('../../train/train.js');
  goOnWithoutReader();
  let progress: ReturnType<typeof createProgress> | undefined;
  const pulling = pullProgress(options.json === true);
  let heldOut = '';
  let reference: ReturnType<typeof createProgress> | undefined;
  const result = await train(recipe, {
    set: [
      ...options.set,
      ...(options.tensorboard ? ['train.tensorBoard=true'] : []),
      ...(options.device === undefined ? [] : [`device=${options.device}`]),
      ...(options.memoryLimit === undefined ? [] : [`memoryLimit=${JSON.stringify(options.memoryLimit)}`]),
    ],
    resume: options.resume === true,
    ...(options.out === undefined ? {} : { out: options.out }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    signal,
    onPull: pulling.update,
    onNotice: (notice) => tell(`note: ${notice}`),
    onReference(p) {
      pulling.finish();
      reference ??= createProgress({
        label: 'reference',
        total: p.total,
        unit: 'pairs',
        quiet: options.json === true,
      });
      reference.update(p.done, 'by the base, before the first step');
    },
    onProgress(p) {
      pulling.finish();
      reference?.finish();
      reference = undefined;
      if (!progress && !options.json) tell(`device: ${p.device}`);
      progress ??= createProgress({
        label: 'train',
        total: p.steps,
        unit: 'steps',
        quiet: options.json === true,
      });
      if (p.evalLoss !== undefined) heldOut = `  held-out ${heldOutText(p.evalLoss, p.evalMatch ?? p.evalAccuracy)}`;
      progress.update(
        p.step,
        `step ${p.step}/${p.steps}  loss ${p.loss.toFixed(4)}${heldOut}  ${pairsText(p.accuracy, p.margin)}` +
          `${formatRate(p.tokensPerSecond)} tokens/s${speedText(p)}  lr ${p.lr.toExponential(1)}  ` +
          `norm ${p.gradNorm.toFixed(2)}`,
      );
    },
  });
  reference?.finish();
  progress?.finish();
  if (result.status === 'stopped') process.exitCode = interruptedExitCode();
  if (options.json) {
    printJson(result);
    return;
  }
  const at = (path: string): string => relative(process.cwd(), path) || '.';
  const { best, endedEarly } = result;
  if (endedEarly !== null) print(`ended after step ${endedEarly} of ${result.steps}: train.patience`);
  if (best)
    print(
      `best held-out loss ${heldOutText(best.evalLoss, best.evalMatch ?? best.evalAccuracy)} after step ` +
        `${best.step}: ${at(best.checkpoint)}`,
    );
  if (result.status === 'done')
    print(
      `${result.step} steps, ${result.tokens} tokens in ${formatSeconds(result.seconds)}; loss ` +
        `${result.firstLoss.toFixed(4)} → ${result.lastLoss.toFixed(4)}`,
      ...(result.output ? [at(result.output)] : []),
      at(result.report),
    );
  else
    print(
      `stopped after step ${result.step} of ${result.steps}; go on with: temper train ${recipe} ` +
        `--resume${options.out ? ` --out ${options.out}` : ''}`,
    );
}
