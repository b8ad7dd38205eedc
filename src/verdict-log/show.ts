// Records of a log, to be read.
import { IntegrityError } from '../base/errors.js';
import { readLog } from './key-ring.js';
import { lanesOf, parseLine, parseReceipt, receiptText, segmentsOf, shortOrigin } from './layout.js';
import { LaneScan } from './scan.js';
import type { ShownRecord, ShowRequest } from './threads.js';
import type { Watch } from './verify.js';

/** @throws as showLog */
export function showRecords(request: ShowRequest, watch: Watch = {}): readonly ShownRecord[] {
  const { dir, last, kind } = request;
  const { descriptor, ring } = readLog(dir);
  const log = shortOrigin(descriptor.origin);
  const asked = request.receipt === undefined ? null : parseReceipt(request.receipt);
  const found: { readonly at: string; readonly shown: ShownRecord }[] = [];
  for (const lane of lanesOf(dir)) {
    if (asked && Number(lane) !== asked.lane) continue;
    const segments = segmentsOf(dir, lane);
    const own: (typeof found)[number][] = [];
    // The newest files first, until there are enough.
    for (const segment of [...segments].reverse()) {
      const here: (typeof found)[number][] = [];
      const scan = new LaneScan(descriptor.origin, lane, ring, {
        all: true,
        pause: (bytes) => {
          watch.signal?.throwIfAborted();
          watch.onProgress?.(bytes);
        },
        record: (r) => {
          if (asked && r.index !== asked.index) return;
          const line = parseLine(r.text());
          if (kind !== undefined && line.kind !== kind) return;
          const record = line.record ?? {};
          const at = String(record.at ?? '');
          const receipt = receiptText({ log, lane: Number(lane), index: r.index, hash: r.hash });
          here.push({ at, shown: { receipt, kind: line.kind ?? '', record } });
          if (here.length > 2 * last) here.splice(0, here.length - last);
        },
      });
      const fault = scan.scan(segment, true);
      if (fault && fault.kind !== 'unsigned')
        throw new IntegrityError('log_altered', `${fault.file}:${fault.line ?? ''}: ${fault.message}`, { file: dir });
      own.unshift(...here);
      if (own.length >= last) break;
    }
    found.push(...own.slice(-last));
  }
  // By time; what one stream says stays in its order.
  return found
    .sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0))
    .slice(-last)
    .map((f) => f.shown);
}
