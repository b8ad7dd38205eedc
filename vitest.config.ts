// Each file runs in its own process: a crash of native code names the file it happened in. Three at a time: tests wait
// for servers, disks and retries, and two would leave a core without work.
//
// Two projects: `fast` takes a minute or two (npm run test:fast), `slow` the rest; both together are everything. A file
// is slow when it trains, times, emulates a GPU or reads megabytes of text.
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

export const SLOW = [
  'test/base/system-error.test.ts',
  'test/bench/**',
  'test/cli/hostile-names.test.ts',
  'test/cli/machine.test.ts',
  'test/cli/model-commands.test.ts',
  'test/cli/screen-command.test.ts',
  'test/cli/train-commands.test.ts',
  'test/compose/abort.test.ts',
  'test/cuda/**',
  'test/docs/**',
  'test/export/export.test.ts',
  'test/export/merge.test.ts',
  'test/harmony/tokenizer.test.ts',
  'test/hub/faults.test.ts',
  'test/hub/kill.test.ts',
  'test/model/large.test.ts',
  'test/model/trainable.test.ts',
  'test/demo/**',
  'test/nano/models.test.ts',
  'test/safeguard/faults.test.ts',
  'test/train/**',
];
/** They take a minute and more. Begun last, one of them would run while the other core waits. */
const LONGEST = [
  'test/docs/guides.test.ts',
  'test/demo/demo.test.ts',
  'test/bench/memory.test.ts',
  'test/cuda/model.test.ts',
  'test/base/system-error.test.ts',
  'test/gate/nano.test.ts',
  'test/train/train.test.ts',
  'test/train/recipes.test.ts',
];
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const others = await super.sort(files);
    const first = LONGEST.flatMap((file) => others.filter((f) => f.moduleId === join(this.ctx.config.root, file)));
    return [...first, ...others.filter((f) => !first.includes(f))];
  }
}
/**
 * Under TEMPER_TEST_COMPILED=1 (scripts/test.mjs, but where it counts what ran) tests import dist/, which tsc has just
 * written, in place of src/: Node reads it by itself, where vitest hands each process every file of src/ anew.
 */
const compiled = process.env.TEMPER_TEST_COMPILED === '1';
const alias = { find: /^(?:\.\.\/)+src\/(.+)$/, replacement: join(import.meta.dirname, 'dist', '$1') };
const external = /^(?!.*\/node_modules\/).*\/dist\/.*\.js$/;
const ALL = 'test/**/*.test.ts';
const slow = SLOW.map((p) => p.replace('/**', '/**/*.test.ts'));

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    globalSetup: ['test/temporary-folder.ts'],
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['json'],
      reportOnFailure: true,
      reportsDirectory: 'build/coverage',
    },
    projects: [
      { test: { name: 'fast', include: [ALL], exclude: slow } },
      { test: { name: 'slow', include: slow } },
    ].map(({ test }) => ({
      resolve: { alias: compiled ? [alias] : [] },
      test: {
        ...test,
        server: { deps: { external: compiled ? [external] : [] } },
        pool: 'forks' as const,
        setupFiles: ['test/child-coverage.ts'],
        // Against what hangs alone: on a busy machine everything may take ten times as long. expect.poll's own is 1 s.
        testTimeout: 180_000,
        hookTimeout: 240_000,
        expect: { poll: { timeout: 30_000 } },
        teardownTimeout: 20_000,
      },
    })),
  },
});
