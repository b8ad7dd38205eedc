// `temper gate report`: the reports of a gate that was held, made again.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { print } from '../terminal.js';

interface Options {
  readonly content: boolean;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'gate report',
  summary: 'make the reports of a gate that was held: a page, Markdown, JSON, JUnit and SARIF',
  register(program) {
    group(program, 'gate', 'the release gate')
      .command('report')
      .summary(this.summary)
      .description(
        `${this.summary}.\nThey are made of decision, suite and outcomes in the folder, and lie beside them.`,
      )
      .argument('<dir>', 'folder of a gate, as gate/ in a run or in an export')
      .option('--no-content', 'the page shows no prompts and answers')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper gate report runs/nano-lora/gate --no-content'))
      .action(async (dir: string, { content, json }: Options) => {
        const [{ reportGate }, { requireDecidedOn }] = await Promise.all([
          import('../../compose/gate-report.js'),
          import('../../compose/gate-tools.js'),
        ]);
        const signal = interruptSignal();
        await requireDecidedOn(dir, signal);
        const reports = await reportGate({ folder: dir, content }, signal);
        if (json) printJson(reports);
        else print(...Object.values(reports));
      });
  },
};
