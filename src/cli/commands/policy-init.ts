// `temper policy init`: a new policy from the template, which passes check as it is.
import { type Command, examples, group, printJson } from '../command.js';
import { print } from '../terminal.js';

export const command: Command = {
  name: 'policy init',
  summary: 'begin a policy: a folder with policy.md and golden.jsonl, from the template or another policy that ships',
  register(program) {
    group(program, 'policy', 'write, test and calibrate policies')
      .command('init')
      .summary(this.summary)
      .description(`${this.summary}.`)
      .argument('<folder>', 'is made; its name is the name of the policy')
      .option('--from <name>', 'a policy that ships: contact, secrets, …', 'template')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        `${examples('temper policy init my-policies/refunds', 'temper policy init house-secrets --from secrets')}\n` +
          'Exit codes: 0 it is there, 2 the folder exists, or the name is of no policy.\n',
      )
      .action(async (folder: string, options: { readonly from: string; readonly json?: boolean }) => {
        const { initPolicy } = await import('../../safeguard/policies/init.js');
        const made = await initPolicy(folder, options.from);
        if (options.json) printJson(made);
        else
          print(
            `policy ${made.name} in ${folder}: ${made.files.join(', ')}`,
            'next: temper policy check, temper policy test',
          );
      });
  },
};
