// `temper gate merge`: joins the shards of a gate and decides.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { print } from '../terminal.js';
import { sayDecision } from './gate.js';

export const command: Command = {
  name: 'gate merge',
  summary: 'join the shards of a gate, and decide',
  register(program) {
    group(program, 'gate', this.summary)
      .command('merge')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nSHARDs are the folders that \`temper gate --shard i/n --out SHARD\` left, one of each; ` +
          'the outcomes are those that one run would have written.',
      )
      .argument('<shard...>', 'one folder of each shard, in any order')
      .requiredOption('--out <dir>', 'folder of the gate')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText('after', examples('temper gate merge shard-1 shard-2 --out gate'))
      .action(async (shards: string[], { out, json }: { readonly out: string; readonly json?: boolean }) => {
        const { mergeGate } = await import('../../compose/gate-merge.js');
        const { decision, next, rows, folder } = await mergeGate(shards, out, interruptSignal());
        process.exitCode = decision.exit;
        if (json) printJson({ folder, rows, decision, next });
        else {
          print(`${shards.length} shards, ${rows} outcomes`);
          sayDecision({ decision, next, folder });
        }
      });
  },
};
