// How the tables came to be what they are: one step for each version, in the order of their names, each taken once and
// whole. A step that was released is never changed.
import type { Kysely, Migration } from 'kysely';

/** A step knows no tables of today. */
async function first(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('reviews')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('at', 'bigint', (c) => c.notNull())
    .addColumn('state', 'text', (c) => c.notNull())
    .addColumn('request', 'text', (c) => c.notNull())
    .addColumn('owner', 'text')
    .addColumn('model', 'text', (c) => c.notNull())
    .addColumn('channel', 'text', (c) => c.notNull())
    .addColumn('choice', 'integer', (c) => c.notNull())
    .addColumn('content', 'text', (c) => c.notNull())
    .addColumn('bytes', 'integer', (c) => c.notNull())
    .addColumn('content_sha256', 'text', (c) => c.notNull())
    .addColumn('context', 'text', (c) => c.notNull())
    .addColumn('context_cut', 'integer', (c) => c.notNull())
    .addColumn('verdict', 'text', (c) => c.notNull())
    .addColumn('policy', 'text', (c) => c.notNull())
    .addColumn('policy_digest', 'text', (c) => c.notNull())
    .addColumn('rule', 'text')
    .addColumn('cause', 'text')
    .addColumn('rationale', 'text', (c) => c.notNull())
    .addColumn('verdicts', 'text', (c) => c.notNull())
    .addColumn('judge', 'text', (c) => c.notNull())
    .addColumn('score', 'double precision')
    .addColumn('receipt', 'text')
    .addColumn('two_persons', 'integer', (c) => c.notNull())
    .addColumn('waits', 'integer', (c) => c.notNull())
    .addColumn('wait_until', 'bigint')
    .addColumn('first_by', 'text')
    .addColumn('decided_at', 'bigint')
    .addColumn('decided_by', 'text')
    .addColumn('released_at', 'bigint')
    .addColumn('label', 'text')
    .addColumn('label_rule', 'text')
    .addColumn('labelled_by', 'text')
    .execute();
  // Pages of the queue go on from a time and an id.
  await db.schema.createIndex('reviews_by_state').on('reviews').columns(['state', 'at', 'id']).execute();
  await db.schema.createIndex('reviews_by_decision').on('reviews').columns(['decided_at', 'id']).execute();
  await db.schema
    .createTable('review_actions')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('review', 'text', (c) => c.notNull().references('reviews.id').onDelete('cascade'))
    .addColumn('number', 'integer', (c) => c.notNull())
    .addColumn('at', 'bigint', (c) => c.notNull())
    .addColumn('who', 'text', (c) => c.notNull())
    .addColumn('action', 'text', (c) => c.notNull())
    .addColumn('note', 'text', (c) => c.notNull())
    .addColumn('label', 'text')
    .addColumn('rule', 'text')
    .addColumn('counts', 'integer', (c) => c.notNull())
    .addColumn('receipt', 'text')
    .addUniqueConstraint('review_actions_once', ['review', 'number'])
    .execute();
  await db.schema
    .createTable('review_sessions')
    .addColumn('token_sha256', 'text', (c) => c.primaryKey())
    .addColumn('name', 'text', (c) => c.notNull())
    .addColumn('key_sha256', 'text', (c) => c.notNull())
    .addColumn('csrf', 'text', (c) => c.notNull())
    .addColumn('began_at', 'bigint', (c) => c.notNull())
    .addColumn('seen_at', 'bigint', (c) => c.notNull())
    .execute();
  await db.schema
    .createTable('documents')
    .addColumn('id', 'text', (c) => c.primaryKey())
    .addColumn('owner', 'text')
    .addColumn('body', 'text', (c) => c.notNull())
    .addColumn('bytes', 'bigint', (c) => c.notNull())
    .addColumn('at', 'bigint', (c) => c.notNull())
    .addColumn('expires_at', 'bigint', (c) => c.notNull())
    .execute();
  await db.schema.createIndex('documents_by_age').on('documents').columns(['at', 'id', 'bytes']).execute();
  await db.schema
    .createTable('verdicts')
    .addColumn('key', 'text', (c) => c.primaryKey())
    .addColumn('body', 'text', (c) => c.notNull())
    .addColumn('mac', 'text', (c) => c.notNull())
    .addColumn('outcome', 'text', (c) => c.notNull())
    .addColumn('at', 'bigint', (c) => c.notNull())
    .addColumn('expires_at', 'bigint', (c) => c.notNull())
    .execute();
  await db.schema.createIndex('verdicts_by_expiry').on('verdicts').columns(['expires_at']).execute();
}

export const MIGRATIONS: Readonly<Record<string, Migration>> = { '2026-11-29-1': { up: first } };
