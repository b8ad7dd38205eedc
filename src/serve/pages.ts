// Lists by pages: what a URL may ask for, and what it is answered.
import { z } from 'zod';
import { type ApiError, badRequest } from './api-error.js';

type Order = 'asc' | 'desc';

/** @param order where none is asked for */
export const pageQuery = (order: Order) => ({
  limit: z
    .string()
    .regex(/^([1-9]\d?|100)$/, 'wanted 1 to 100')
    .optional()
    .describe('default 20'),
  order: z
    .enum(['asc', 'desc'], { error: 'wanted asc or desc' })
    .optional()
    .describe(`asc: the oldest first; default ${order}`),
  after: z.string().optional().describe('id of one: those after it'),
});
export type PageQuery = z.infer<z.ZodObject<ReturnType<typeof pageQuery>>>;

export const limitOf = ({ limit }: PageQuery): number => Number(limit ?? 20);
/** @param what one of the list is */
export const afterError = (what: string): ApiError => badRequest('invalid_value', `after: names no ${what}`, 'after');

/** @param ids of `data` @param more there are others after it */
export const pageOf = (data: readonly unknown[], ids: readonly unknown[], more: boolean): Record<string, unknown> => ({
  object: 'list',
  data,
  first_id: ids[0] ?? null,
  last_id: ids.at(-1) ?? null,
  has_more: more,
});
/**
 * A page of a list that is all there, the oldest first.
 * @param order where the query says none · @param what one of the list is · @throws {ApiError} 400
 */
export function pageOfList(
  list: readonly { readonly id?: unknown }[],
  query: PageQuery,
  order: Order,
  what: string,
): Record<string, unknown> {
  const ordered = (query.order ?? order) === 'asc' ? list : list.toReversed(),
    { after } = query;
  const from = after === undefined ? 0 : ordered.findIndex((one) => one.id === after) + 1;
  if (after !== undefined && from === 0) throw afterError(what);
  const to = from + limitOf(query),
    data = ordered.slice(from, to);
  return pageOf(
    data,
    data.map((one) => one.id),
    to < ordered.length,
  );
}
