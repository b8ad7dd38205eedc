// `temper gate revoke`: an adapter that nobody may use any more, on a signed list.
import { existsSync } from 'node:fs';
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { print } from '../terminal.js';

interface Options {
  readonly key: string;
  readonly reason: string;
  readonly list: string;
  readonly model?: string;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'gate revoke',
  summary: 'put an adapter on a signed list of those that nobody may use any more',
  register(program) {
    group(program, 'gate', 'the release gate')
      .command('revoke')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nServers that were started with --revocations LIST --revocation-key KEY.pub read it on ` +
          'SIGHUP: requests for the adapter are refused then, and those under way end. The list is numbered; a ' +
          'server takes none with a lower number than it has seen.',
      )
      .argument('<what>', 'adapter folder, or sha256:HEX as /v1/models, a decision or temper.json say it')
      .requiredOption('--key <file>', 'private key that signs the list, as temper key new makes one')
      .requiredOption('--reason <text>', 'why; it stands in the list')
      .requiredOption('--list <file>', 'the list; made where it is not there')
      .option('--model <dir>', 'base of an adapter made elsewhere')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples(
          "temper gate revoke out/tickets --key revoker.pem --reason 'Leaks room numbers' --list revoked.json",
          "temper gate revoke sha256:… --key revoker.pem --reason 'Withdrawn' --list revoked.json",
        ) + '\nExit codes: 0 revoked, 2 to be mended, 40 the list there is not of this key.\n',
      )
      .action(async (what: string, { key, reason, list, model, json }: Options) => {
        const { revokeAdapter } = await import('../../compose/gate-revoke.js');
        const isNew = !existsSync(list);
        const result = await revokeAdapter({ what, key, reason, list, model }, interruptSignal());
        if (json) printJson({ ...result, list });
        else
          print(
            `${result.digest} is revoked`,
            `${list}: number ${result.sequence}, ${result.revoked} ${result.revoked === 1 ? 'adapter' : 'adapters'}` +
              `${isNew ? ', new' : ''}`,
          );
      });
  },
};
