// The store of a server and what it makes of it: kept answers, the queue of reviews, the console.
import type { HeldItem, ReviewLog, Ticket } from '../../store/review-types.js';
import { Reviews } from '../../store/reviews.js';
import { openStore } from '../../store/store.js';
import type { ApiRequest } from '../api.js';
import type { KeyEntry } from '../keys.js';
import { createDocumentStore } from '../response-documents.js';
import type { ResponseStore } from '../response-store.js';
import { createReviewConsole, type ReviewConsole } from './console.js';

export interface ReviewSettings {
  /** A file, or postgres://USER@HOST/DATABASE. */
  readonly where: string;
  readonly twoPersons: boolean;
  /** How long a held request waits for a decision, ms; 0: what is decided later is recorded. */
  readonly waitMs: number;
  /** As they are now; null: there is no console. */
  readonly keys: () => readonly KeyEntry[] | null;
  readonly tls: boolean;
  readonly readBody: (c: ApiRequest) => Promise<unknown>;
  /** Takes each action before it counts. */
  readonly log: ReviewLog | null;
  readonly note: (line: string) => void;
  readonly fault: (e: unknown) => void;
}
export interface OpenReview {
  readonly responses: ResponseStore;
  readonly reviews: Reviews;
  readonly console: ReviewConsole;
  /** Puts a text that did not pass before people. @throws {StoreError} then nothing of it may leave */
  onHeld(item: HeldItem): Promise<Ticket>;
  /** Requests that wait for people are told that nobody decides any more, those to come too. */
  endWaiting(): Promise<void>;
  close(): Promise<void>;
}

/** @throws what opening the store refuses */
export async function openReview(settings: ReviewSettings, signal?: AbortSignal): Promise<OpenReview> {
  const { where, twoPersons, waitMs, keys, tls, readBody, log, note, fault } = settings;
  const store = await openStore(where, { signal, log: note });
  const reviews = new Reviews(store, { twoPersons, log, fault });
  return {
    reviews,
    responses: createDocumentStore(store),
    console: createReviewConsole({ reviews, keys, tls, readBody, note, log: fault }),
    onHeld: (item) => reviews.hold(waitMs > 0 ? { waitUntil: Date.now() + waitMs, ...item } : item),
    endWaiting: () => reviews.close(),
    async close() {
      await reviews.close();
      await store.close();
    },
  };
}
