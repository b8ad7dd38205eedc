// `temper watch`: the curves of a run in a browser, as it goes on.
import { openBrowser } from '../browser.js';
import { type Command, examples, integerIn, interruptSignal, printJson } from '../command.js';
import { print, tell } from '../terminal.js';

interface Options {
  readonly port?: number;
  readonly open?: boolean;
  readonly json?: boolean;
}

export const command: Command = {
  name: 'watch',
  summary: 'the curves of a run in a browser, while it goes on',
  register(program) {
    program
      .command('watch')
      .summary(this.summary)
      .description(
        `${this.summary}.\n\nServes one page on 127.0.0.1, which browsers of this machine reach and nobody else ` +
          'does. It reads the folder of\nthe run and changes nothing. The run may begin later, stop, be resumed or ' +
          'be over. Ctrl-C closes it.',
      )
      .argument('<run>', 'folder of the run, as in runs/NAME')
      .option('--port <n>', 'of 127.0.0.1 (default: one that is free)', integerIn(0, 65_535))
      .option('--open', 'open it in a browser')
      .option('--json', 'its address as one machine-readable line on stdout')
      .addHelpText(
        'after',
        `${examples('temper watch runs/nano-lora', 'temper watch runs/nano-lora --port 6060 --open')}\n` +
          'From another machine: ssh -L 6060:127.0.0.1:6060 HOST, and --port 6060.\n',
      )
      .action(async (run: string, options: Options) => {
        const { watchRun } = await import('../../watch/watch.js');
        const signal = interruptSignal('closing');
        const watch = await watchRun(run, { signal, ...(options.port === undefined ? {} : { port: options.port }) });
        if (options.json) printJson({ url: watch.url, run });
        else print(watch.url);
        tell(`watching ${run}; Ctrl-C closes it`);
        if (options.open) openBrowser(watch.url);
        await watch.closed;
      });
  },
};
