// Kept answers as files, one each: written beside their place, flushed, renamed, so that a server that dies leaves each
// whole or absent. Read again by the next server that is given the folder.
import { readdirSync, statSync } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { removeTemporaries } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { asWriteError } from '../base/system-error.js';
import { temporaryName } from '../base/temporary.js';
import { DEFAULT_STORE, type ResponseStore, type StoredResponse, type StoreLimits } from './response-store.js';

const NAME = /^(resp_[0-9a-f]{32})\.json$/;

interface Kept {
  readonly bytes: number;
  /** ms since 1970 */
  readonly since: number;
}
/** What of a folder is kept answers, the oldest first. */
function survey(folder: string): Map<string, Kept> {
  const found = readdirSync(folder).flatMap((name): [string, Kept][] => {
    const id = NAME.exec(name)?.[1];
    const s = id === undefined ? undefined : statSync(join(folder, name), { throwIfNoEntry: false });
    return id === undefined || !s?.isFile() ? [] : [[id, { bytes: s.size, since: s.mtimeMs }]];
  });
  return new Map(found.sort(([, a], [, b]) => a.since - b.since));
}

/**
 * @param folder made where it is not there, for its owner alone; one server at a time
 * @param now    for tests
 * @throws {ConfigError} output_unwritable
 */
export function createFileStore(
  folder: string,
  limits: StoreLimits = DEFAULT_STORE,
  now: () => number = Date.now,
): ResponseStore {
  let kept: Map<string, Kept>;
  try {
    makeFolders(folder, 0o700);
    removeTemporaries(folder);
    kept = survey(folder);
  } catch (e) {
    throw asWriteError(e, folder);
  }
  let bytes = [...kept.values()].reduce((sum, k) => sum + k.bytes, 0);
  const fileOf = (id: string): string => join(folder, `${id}.json`);
  const drop = async (id: string): Promise<void> => {
    bytes -= kept.get(id)?.bytes ?? 0;
    kept.delete(id);
    await rm(fileOf(id), { force: true });
  };
  const isOver = ({ since }: Kept): boolean => since + limits.keepMs <= now();
  const get = async (id: string, owner: string | null): Promise<StoredResponse | null> => {
    // Only what is there by its name becomes a path.
    const found = kept.get(id);
    if (!found || isOver(found)) return null;
    let response: StoredResponse;
    try {
      response = JSON.parse(await readFile(fileOf(id), 'utf8')) as StoredResponse;
    } catch {
      return null; // taken away, or written over, by somebody else
    }
    return response.id === id && response.owner === owner ? response : null;
  };
  return {
    async put(response) {
      const text = Buffer.from(JSON.stringify(response));
      if (text.length > limits.bytes || !NAME.test(`${response.id}.json`)) return;
      for (const [id, k] of kept) {
        if (!isOver(k) && kept.size < limits.entries && bytes + text.length <= limits.bytes) break;
        await drop(id);
      }
      const file = fileOf(response.id);
      const temporary = temporaryName(file);
      try {
        const handle = await open(temporary, 'wx', 0o600);
        try {
          await handle.writeFile(text);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, file);
      } catch (e) {
        await rm(temporary, { force: true });
        throw asWriteError(e, file);
      }
      bytes += text.length - (kept.get(response.id)?.bytes ?? 0);
      kept.delete(response.id); // the last that came stands last
      kept.set(response.id, { bytes: text.length, since: now() });
    },
    get,
    async delete(id, owner) {
      if ((await get(id, owner)) === null) return false;
      await drop(id);
      return true;
    },
  };
}
