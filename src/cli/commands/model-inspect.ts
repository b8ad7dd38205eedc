// `temper model inspect`: what a checkpoint holds, and what is odd about it.
import { type Command, examples, group, interruptSignal, printJson } from '../command.js';
import { createProgress } from '../progress.js';
import { print } from '../terminal.js';

export const command: Command = {
  name: 'model inspect',
  summary: 'tensors, sizes, digests of a checkpoint, and what is odd about it',
  register(program) {
    group(program, 'model', 'make and look at checkpoints')
      .command('inspect')
      .summary(this.summary)
      .description(this.summary)
      .argument('<dir>', 'checkpoint folder')
      .option('--full', 'read every byte: SHA-256, NaN and infinite weights')
      .option('--tensors', 'list every tensor')
      .option('--json', 'one machine-readable result on stdout')
      .addHelpText(
        'after',
        examples('temper model inspect models/nano', 'temper model inspect /data/gpt-oss-20b --full --json'),
      )
      .action(async (dir: string, options: { full?: boolean; tensors?: boolean; json?: boolean }) => {
        const { inspectInThread } = await import('../../model/threads.js');
        const progress = createProgress({ label: 'digest', unit: 'bytes', quiet: options.json === true });
        const r = await inspectInThread(dir, {
          full: options.full === true,
          signal: interruptSignal(),
          onProgress: (bytes) => progress.update(bytes),
        });
        progress.finish();
        if (options.json) {
          printJson(r);
          return;
        }
        const c = r.config;
        const lines = [
          `${r.dir}: ${c.num_hidden_layers} layers, hidden ${c.hidden_size}, ${c.num_local_experts} ` +
            `experts (${c.num_experts_per_tok} per token), vocabulary ${c.vocab_size}, window ` +
            `${c.sliding_window ?? 128}`,
          `parameters ${r.parameters.toLocaleString('en')}, ` +
            `${r.activeParameters.toLocaleString('en')} active per token`,
          `experts    ${r.layout === 'mxfp4' ? 'MXFP4, as released' : 'dequantised'}`,
          `weights    ${r.weightBytes.toLocaleString('en')} bytes in ${r.tensors.length} tensors, ` +
            `${r.files.length} file${r.files.length === 1 ? '' : 's'}`,
          ...r.files.map((f) => `  ${f.name}  ${f.bytes.toLocaleString('en')} bytes, ${f.tensors} tensors`),
          ...(r.digest ? [`sha256     ${r.digest}`] : []),
          ...(options.tensors
            ? r.tensors.map((t) => `  ${t.name}  ${t.dtype} [${t.shape.join(', ')}]  ${t.bytes.toLocaleString('en')}`)
            : []),
          ...(r.odd.length ? ['odd:', ...r.odd.map((o) => `  ${o}`)] : ['nothing odd']),
        ];
        print(...lines);
      });
  },
};
