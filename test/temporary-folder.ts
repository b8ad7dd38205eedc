// All temporary folders of the tests lie in one, which goes when they are done: os.tmpdir() follows TMPDIR, also in the
// processes they start. What Temper remembers between runs lies there as well.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export default function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), 'temper-tests-'));
  process.env.TMPDIR = folder;
  process.env.TEMPER_CACHE = join(folder, 'cache');
  return () => rmSync(folder, { recursive: true, force: true });
}
