// How the body of each route becomes a request: without anything of the server, so that large ones are read in a thread
// of their own (body-thread.ts).
import { readChatRequest, readLabels } from './chat-request.js';
import { readCompletionRequest } from './completions-request.js';
import { readCountRequest, readMessagesRequest } from './messages-request.js';
import { readResponsesRequest } from './responses-request.js';

/** @param tokens most of an answer where the request does not say */
export const READERS = {
  chat: (json: unknown, tokens: number) => readChatRequest(json, tokens),
  completions: (json: unknown) => readCompletionRequest(json),
  count: (json: unknown) => readCountRequest(json),
  labels: (json: unknown) => readLabels(json),
  messages: (json: unknown) => readMessagesRequest(json),
  responses: (json: unknown) => readResponsesRequest(json),
};
export type ReaderName = keyof typeof READERS;
export type ReadBody<K extends ReaderName> = ReturnType<(typeof READERS)[K]>;
