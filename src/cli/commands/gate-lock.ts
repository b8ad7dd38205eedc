// `temper gate lock`: everything that a decision hangs on, by digest, in one file that is committed before the run.
import { type Command, examples, group, printJson } from '../command.js';
import { addDetectorOptions, addJudgeOptions, type GateOptions } from '../engine-options.js';
import { print } from '../terminal.js';
import { GATE_GROUP } from './gate-decide.js';

interface Options extends Omit<GateOptions, 'slots'> {
  readonly calibration?: string;
  readonly out: string;
  readonly json?: boolean;
}
export const command: Command = {
  name: 'gate lock',
  summary: 'write the lock of a suite: thresholds, prompts, policies, judge, seeds and sampling, by digest',
  register(program) {
    const own = group(program, ...GATE_GROUP)
      .command('lock')
      .summary(this.summary)
      .description(
        `${this.summary}. Commit it before the run: a run under another one is an integrity failure. How the judge ` +
          'is asked belongs to it: give what the run will be given.',
      )
      .argument('<suite>', 'suite.yaml');
    addDetectorOptions(addJudgeOptions(own))
      .option('--calibration <file>', 'how often that judge is right on labelled texts (JSON; docs/gate.md)')
      .requiredOption('--out <file>', 'where to write it, e.g. gate.lock.json')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          'temper gate lock gates/nano/suite.yaml --judge models/nano-judge --out gate.lock.json',
          'temper gate lock suite.yaml --judge judges/20b --calibration judge.json --out gate.lock.json',
        ),
      )
      .action(async (path: string, options: Options) => {
        const { lockGate } = await import('../../compose/gate-lock.js');
        const { json, ...rest } = options;
        const { file, digest, lock } = await lockGate({ ...rest, suite: path });
        if (json) printJson({ file, digest, lock });
        else
          print(
            `${file}: ${digest}`,
            `  suite ${lock.suite.name} ${lock.suite.version}, ${lock.files.length} files, ` +
              `${lock.thresholds.length} metrics and slices, judge ${lock.judge?.name ?? 'none'}`,
          );
      });
  },
};
