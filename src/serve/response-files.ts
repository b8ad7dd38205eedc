// Kept answers as files, one each: written beside their place, flushed, renamed, so that a server that dies leaves each
// whole or absent. Read again by the next server that is given the folder.
import { readdirSync, rmSync, statSync } from 'node:fs';
import { open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../base/errors.js';
import { removeTemporaries } from '../base/files.js';
import { makeFolders } from '../base/folders.js';
import { lockFolder } from '../base/lock.js';
import { asWriteError } from '../base/system-error.js';
import { temporaryName } from '../base/temporary.js';
import { JsonBytes } from './json-pieces.js';
import {
  byKind,
  CHAT_PREFIX,
  chatsOf,
  DEFAULT_STORE,
  type ResponseStore,
  type StoredAnswer,
  type StoreLimits,
} from './response-store.js';
import { answerOf, recordOf } from './stored-record.js';

const NAME = /^((?:resp_|chatcmpl-)[0-9a-f]{32})\.json$/;

interface Kept {
  readonly bytes: number;
  /** ms since 1970 */
  readonly since: number;
  /** Of whom it is; undefined: it was not read yet. */
  readonly owner?: string | null;
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

class Elsewhere extends Error {}
/**
 * Keeps other servers of this machine from a folder of answers until it is disposed of. One of another host or
 * container is taken for gone: a server that died in one must find its answers again.
 * @throws {ConfigError} bad_option: another one has it · output_unwritable
 */
export function holdFolder(folder: string): Disposable | null {
  try {
    makeFolders(folder, 0o700);
    return lockFolder(join(folder, 'server'), ({ who, elsewhere }) =>
      elsewhere
        ? new Elsewhere()
        : new ConfigError('bad_option', `--state ${folder}: ${who} keeps its answers there; name another folder`),
    );
  } catch (e) {
    if (e instanceof Elsewhere) return null;
    throw asWriteError(e, folder);
  }
}

/**
 * @param folder made where it is not there, for its owner alone; one server at a time (`holdFolder`)
 * @param now    for tests
 * @throws {ConfigError} output_unwritable
 */
export function createFileStore(
  folder: string,
  limits: StoreLimits = DEFAULT_STORE,
  now: () => number = Date.now,
): ResponseStore {
  const fileOf = (id: string): string => join(folder, `${id}.json`);
  const isOver = ({ since }: Kept): boolean => since + limits.keepMs <= now();
  let kept: Map<string, Kept>;
  try {
    makeFolders(folder, 0o700);
    removeTemporaries(folder);
    kept = survey(folder);
    for (const [id, k] of kept) {
      if (!isOver(k)) continue;
      rmSync(fileOf(id), { force: true });
      kept.delete(id);
    }
  } catch (e) {
    throw asWriteError(e, folder);
  }
  let bytes = [...kept.values()].reduce((sum, k) => sum + k.bytes, 0);
  const drop = async (id: string): Promise<void> => {
    bytes -= kept.get(id)?.bytes ?? 0;
    kept.delete(id);
    await rm(fileOf(id), { force: true });
  };
  const { get, chat } = byKind(async (id, owner) => {
    // Only what is there by its name becomes a path.
    const found = kept.get(id);
    if (!found || isOver(found)) return null;
    let answer: StoredAnswer;
    try {
      answer = answerOf(new JsonBytes([await readFile(fileOf(id))]));
    } catch {
      return null; // taken away, written by another version, or over by somebody else
    }
    if (answer.id !== id) return null;
    if (kept.get(id) === found) kept.set(id, { ...found, owner: answer.owner });
    return answer.owner === owner ? answer : null;
  });
  /** @param since of the file, ms */
  const write = async (id: string, record: JsonBytes, since: number): Promise<void> => {
    const file = fileOf(id),
      temporary = temporaryName(file);
    try {
      const handle = await open(temporary, 'wx', 0o600);
      try {
        await writeFile(handle, record.pieces);
        await handle.utimes(since / 1000, since / 1000);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, file);
    } catch (e) {
      await rm(temporary, { force: true });
      throw asWriteError(e, file);
    }
  };
  const note = (id: string, as: Kept): void => {
    bytes += as.bytes - (kept.get(id)?.bytes ?? 0);
    kept.set(id, as);
  };
  return {
    get,
    chat,
    async put(answer) {
      const record = await recordOf(answer);
      if (record.length > limits.bytes || !NAME.test(`${answer.id}.json`)) return;
      for (const [id, k] of kept) {
        if (!isOver(k) && kept.size < limits.entries && bytes + record.length <= limits.bytes) break;
        await drop(id);
      }
      const since = now();
      await write(answer.id, record, since);
      note(answer.id, { bytes: 0, since });
      kept.delete(answer.id); // the last that came stands last
      note(answer.id, { bytes: record.length, since, owner: answer.owner });
    },
    chats(owner, order) {
      const may = (k: Kept): boolean => !isOver(k) && (k.owner === undefined || k.owner === owner);
      const ids = [...kept].filter(([id, k]) => id.startsWith(CHAT_PREFIX) && may(k)).map(([id]) => id);
      return chatsOf(ids, order, (id) => chat(id, owner));
    },
    async replace(answer) {
      const before = kept.get(answer.id);
      if (!before || isOver(before)) return;
      const record = await recordOf(answer);
      await write(answer.id, record, before.since);
      if (kept.has(answer.id)) note(answer.id, { ...before, bytes: record.length });
      else await rm(fileOf(answer.id), { force: true }); // forgotten meanwhile
    },
    async delete(id, owner) {
      if ((await get(id, owner)) === null && (await chat(id, owner)) === null) return false;
      await drop(id);
      return true;
    },
  };
}
