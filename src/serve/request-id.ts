// What a request is called: in a header of its answer, in errors of Anthropic's form, and in the log of faults.
import { randomUUID } from 'node:crypto';

export const REQUEST_ID = 'x-request-id';
/** Where OpenAI's clients put a name of their own. */
const CLIENT_REQUEST_ID = 'x-client-request-id';
/** What can be taken for nothing else in a header or in a line of a log. */
const NAME = /^[\w.:/@+=-]{1,128}$/;

/** @param header value of a header of the request; what is there and is no name is passed over */
export function requestIdOf(header: (name: string) => string | undefined): string {
  const given = header(REQUEST_ID) ?? header(CLIENT_REQUEST_ID);
  return given !== undefined && NAME.test(given) ? given : newRequestId();
}
export const newRequestId = (): string => `req_${randomUUID().replaceAll('-', '')}`;
