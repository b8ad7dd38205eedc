// `temper plan`: memory and time of a recipe before anything is loaded.
import { collect, type Command, examples, interruptSignal, printJson } from '../command.js';
import { formatRate, formatSeconds } from '../progress.js';

const MIB = 2 ** 20;
const size = (bytes: number): string => (bytes >= 1024 * MIB ? `${(bytes / 1024 / MIB).toFixed(2)} GiB` : `${(bytes / MIB).toFixed(1)} MiB`);

export const command: Command = {
  name: 'plan',
  summary: 'memory and time of a recipe, before anything is loaded',
  register(program) {
    program.command('plan').summary(this.summary)
      .description(`${this.summary}.\n\nMemory comes from a dry run of the training code itself; the time of a step from running each of its distinct operations once\non made-up data. Exits with 2 when the recipe does not fit, saying what to change.`)
      .argument('<recipe>', 'YAML file')
      .option('--set <a.b=c>', 'edit a field of the recipe; may be given several times', collect, [])
      .option('--out <dir>', 'run folder, on whose disk activations may be put; default: as for train')
      .option('--no-time', 'memory only; needs no measuring')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper plan recipes/nano-lora.yaml', 'temper plan recipe.yaml --set adapter.rank=8 --no-time --json'))
      .action(async (recipe: string, options: { set: readonly string[]; out?: string; time: boolean; json?: boolean }) => {
        const { planTraining } = await import('../../train/plan.js');
        const plan = await planTraining(recipe, { set: options.set, ...(options.out === undefined ? {} : { out: options.out }), measure: options.time, signal: interruptSignal() });
        if (options.json) printJson(plan);
        else {
          const parts = Object.entries(plan.peakBytes).filter(([, bytes]) => bytes > 0).map(([name, bytes]) => `  ${name.padEnd(12)}${size(bytes).padStart(12)}`);
          process.stdout.write([
            `${plan.steps} steps of about ${plan.tokensPerStep} tokens; ${plan.trainedParameters.toLocaleString('en')} trained parameters`,
            'peak memory, by category (each at its own peak):', ...parts,
            `  ${'together'.padEnd(12)}${size(plan.totalPeakBytes).padStart(12)}   beside ${size(plan.mappedBytes)} of mapped files and ${size(plan.runtimeBytes)} of the runtime; ${size(plan.availableBytes)} available`,
            ...(plan.rereadBytes > 0 ? [`  the mapped files do not stay in memory beside it: each pass, forward or backward, may read ${size(plan.rereadBytes)} from disk`] : []),
            ...(plan.offloadedBytes > 0 ? [`  ${'offloaded'.padEnd(12)}${size(plan.offloadedBytes).padStart(12)}   on disk beside the run, ${size(plan.diskFreeBytes)} free`] : []),
            ...(options.time ? [`time: ${plan.stepSeconds.toFixed(plan.stepSeconds < 10 ? 2 : 0)} s a step, ${formatRate(plan.tokensPerSecond)} tokens/s, ${formatSeconds(plan.totalSeconds)} in all`] : []),
            plan.fits ? 'fits' : `does not fit: ${plan.advice}`, '',
          ].join('\n'));
        }
        if (!plan.fits) process.exitCode = 2;
      });
  },
};
