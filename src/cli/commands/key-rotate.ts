// `temper key rotate`: the key of a log is handed over to another one.
import { type Command, examples, group, printJson } from '../command.js';
import { print } from '../terminal.js';

interface Options {
  readonly logKey?: string;
  readonly to: string;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'key rotate',
  summary: 'hand a log over to another key: the old one signs for the new one, which signs from there on',
  register(program) {
    group(program, 'key', 'keys that sign logs of verdicts')
      .command('rotate')
      .summary(this.summary)
      .description(
        `${this.summary}.\nNobody may be writing the log. What the old key signed still counts, and nothing that it ` +
          'signs later.',
      )
      .argument('<dir>', 'folder that --log wrote')
      .requiredOption('--to <file>', 'private key that is to sign from now on (`temper key new`)')
      .option('--log-key <file>', 'private key that signs it now; absent: the one in the folder')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper key rotate verdict-log --log-key log-key.pem --to new-key.pem'))
      .action(async (dir: string, { logKey, to, json }: Options) => {
        const { rotateLogKey } = await import('../../verdict-log/rotate.js');
        const { versions } = await import('../../base/machine.js');
        const result = await rotateLogKey({
          dir,
          to,
          ...(logKey === undefined ? {} : { key: logKey }),
          version: versions().temper,
        });
        if (json) printJson(result);
        else
          print(
            `handover ${result.number} of ${dir}: ${to} signs from now on; writers need --log-key ${to}`,
            `public key ${result.to}`,
          );
      });
  },
};
