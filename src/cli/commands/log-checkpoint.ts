// `temper log checkpoint`: what is to be kept elsewhere, so that nobody can cut off the end of a log unseen.
import { type Command, examples, group, interruptSignal } from '../command.js';
import { print, tell } from '../terminal.js';
import { LOG_GROUP } from './log-verify.js';

export const command: Command = {
  name: 'log checkpoint',
  summary: 'the last signed checkpoint of each stream, to be kept elsewhere: --since takes it',
  register(program) {
    group(program, ...LOG_GROUP)
      .command('checkpoint')
      .summary(this.summary)
      .description(`${this.summary}.\nThey are signed notes (C2SP tlog-checkpoint), which witnesses can sign too.`)
      .argument('<dir>', 'folder that --log wrote')
      .option('--out <file>', 'where to; absent: stdout')
      .addHelpText('after', examples('temper log checkpoint verdict-log --out checkpoint.txt'))
      .action(async (dir: string, { out }: { readonly out?: string }) => {
        const { logCheckpoints } = await import('../../verdict-log/threads.js');
        const text = await logCheckpoints({ dir }, { signal: interruptSignal() });
        if (out === undefined) {
          print(...text.split('\n').slice(0, -1));
          return;
        }
        const { writeFileAtomic } = await import('../../base/files.js');
        writeFileAtomic(out, text);
        tell(`temper: checkpoints in ${out}`);
      });
  },
};
