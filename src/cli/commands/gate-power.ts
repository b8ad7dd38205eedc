// `temper gate power`: how many prompts a margin or a cap takes, and what so many prompts would show.
import type { PowerPlan } from '../../gate/prompts-needed.js';
import { type Command, examples, group, integerIn, numberIn, printJson } from '../command.js';
import { print } from '../terminal.js';
import { GATE_GROUP } from './gate-decide.js';

interface Options {
  readonly margin?: number;
  readonly cap?: number;
  readonly discordance: number;
  readonly power: number;
  readonly alpha: number;
  readonly prompts?: number;
  readonly json?: boolean;
}
const shown = (x: number): string => String(Number(x.toPrecision(4)));

export const command: Command = {
  name: 'gate power',
  summary: 'how many prompts it takes to show a margin or a cap, and what so many prompts show',
  register(program) {
    group(program, ...GATE_GROUP)
      .command('power')
      .summary(this.summary)
      .description(`${this.summary}, for an adapter that is like its base.`)
      .option('--margin <share>', 'how much worse the adapter may be', numberIn(1e-6, 1))
      .option('--cap <share>', 'most that the adapter’s rate may be', numberIn(1e-6, 1))
      .option(
        '--discordance <share>',
        'share of prompts on which base and adapter differ, as a pilot or an earlier decision has it',
        numberIn(0, 1),
        0.05,
      )
      .option('--power <share>', 'wanted chance of showing it', numberIn(0.5, 0.9999), 0.8)
      .option('--alpha <share>', 'chance of a release of what is exactly at the margin', numberIn(0.0001, 0.25), 0.05)
      .option('--prompts <n>', 'what so many prompts show', integerIn(1, 1e9))
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper gate power --margin 0.02 --discordance 0.04 --power 0.9',
          'temper gate power --margin 0.03 --prompts 300',
          'temper gate power --cap 0.01',
        ),
      )
      .action(async (options: Options, self: { error(message: string): never }) => {
        const { margin, cap, prompts } = options;
        if (margin === undefined && cap === undefined && prompts === undefined)
          self.error('error: nothing to plan: give --margin, --cap or --prompts');
        const { gatePower } = await import('../../gate/prompts-needed.js');
        const result = gatePower(options);
        if (options.json) printJson(result);
        else print(...linesOf(options, result));
      });
  },
};

function linesOf({ margin, cap, discordance, power, alpha, prompts }: Options, r: PowerPlan): string[] {
  const lines: string[] = [];
  if (r.promptsForMargin !== null)
    lines.push(
      `${r.promptsForMargin} prompts show a margin of ${shown(margin ?? 0)} with power ${shown(power)}, where ` +
        `${shown(discordance * 100)} % of the pairs differ (alpha ${shown(alpha)})`,
    );
  if (r.promptsForCap !== null)
    lines.push(`${r.promptsForCap} prompts without one violation show a rate of at most ${shown(cap ?? 0)}`);
  if (r.power !== null) lines.push(`${prompts} prompts show it with power ${shown(r.power)}`);
  if (r.smallestMargin !== null)
    lines.push(`${prompts} prompts show a margin of ${shown(r.smallestMargin)} with power ${shown(power)}`);
  if (r.smallestCap !== null)
    lines.push(`${prompts} prompts without one violation show a rate of at most ${shown(r.smallestCap)}`);
  return lines;
}
