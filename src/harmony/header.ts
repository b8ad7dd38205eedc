// A message's header from its text: role or tool name, recipient, channel, content type, in whatever order a model
// wrote them (facts E2).
import { CONSTRAIN } from './render.js';
import type { Message, Role } from './types.js';

export type Header = Omit<Message, 'content'>;
/** What the header began with: the generation prompt (so it is the assistant's), <|start|>, or neither. */
export type Began = 'prompt' | 'start' | 'nothing';
/** Text before <|channel|>, after it, and after <|constrain|>; null where that token did not come. */
export interface HeaderParts {
  readonly role: string;
  readonly channel: string | null;
  readonly constrain: string | null;
}

/** A tool speaks under its own name: the bare word `tool` is one. */
const ROLES: readonly string[] = ['system', 'developer', 'user', 'assistant'];
const CHANNELS: readonly string[] = ['analysis', 'commentary', 'final'];
const MAX_CHANNEL_CHARS = 32;

export const words = (text: string): string[] => text.split(/\s+/).filter((w) => w !== '');
const isRecipient = (word: string): boolean => word.startsWith('to=') && word.length > 3;

/** A header that came to its <|message|>. Words that are no other field are the content type. */
export function readHeader(parts: HeaderParts, began: Began, recipients: readonly string[]): Header {
  const role = words(parts.role);
  const channel = words(parts.channel ?? '');
  const who = author(role[0], role[1], began);
  if (who.known) role.shift();
  let name = channel[0] !== undefined && !channel[0].startsWith('to=') ? channel.shift() : undefined;
  let recipient: string | undefined;
  const glued = name === undefined ? null : /^(analysis|commentary|final)to=(.+)$/.exec(name);
  if (glued) [, name, recipient] = glued;
  const rest: string[] = [];
  const all = [...role, ...channel, ...words(parts.constrain ?? '')];
  for (const [i, word] of all.entries()) {
    if (isRecipient(word)) recipient = word.slice(3);
    else if (word !== 'to=') {
      if (all[i - 1] === 'to=') recipient = word;
      else rest.push(word);
    }
  }
  if (name === undefined && rest[0] !== undefined && CHANNELS.includes(rest[0])) name = rest.shift();
  let contentType: string | undefined = rest.join(' ').replaceAll(CONSTRAIN, '').trim() || undefined;
  if (parts.constrain !== null) contentType = `${CONSTRAIN}${rest.at(-1) ?? ''}`;
  else if (
    recipient === undefined &&
    rest.length === 1 &&
    (rest[0]!.includes('.') || rest[0] === 'python' || recipients.includes(rest[0]!))
  )
    [recipient, contentType] = [rest[0], undefined];
  return header(who.author, name, recipient, contentType, recipients);
}

/**
 * A header that ended or went on as plain text without <|message|>: its fields are taken off the front of each part,
 * the rest is the message.
 */
export function readCutHeader(
  parts: HeaderParts,
  began: Began,
  recipients: readonly string[],
): { readonly header: Header; readonly text: string } {
  let recipient: string | undefined;
  const take = (part: { text: string }, wanted: (word: string) => boolean): string | undefined => {
    const word = /^\s*(\S+)/.exec(part.text);
    if (!word || !wanted(word[1]!)) return undefined;
    part.text = part.text.slice(word[0].length).trimStart();
    return word[1];
  };
  const takeRecipient = (part: { text: string }): void => {
    recipient = take(part, isRecipient)?.slice(3) ?? recipient;
  };
  const [role, channel, constrain] = [parts.role, parts.channel ?? '', parts.constrain ?? ''].map((text) => ({
    text,
  })) as [{ text: string }, { text: string }, { text: string }];
  const [first, second] = words(role.text);
  // Without <|message|> an unknown word is rather text than a tool, unless it looks like one.
  const who = author(first, second, began === 'start' ? 'nothing' : began);
  if (who.known) take(role, () => true);
  takeRecipient(role);
  const name = take(channel, (w) => !w.startsWith('to=') && w.length <= MAX_CHANNEL_CHARS);
  takeRecipient(channel);
  const type = take(constrain, (w) => !w.startsWith('to='));
  takeRecipient(constrain);
  const text = [role.text, channel.text, constrain.text].filter((t) => t !== '').join(' ');
  return {
    header: header(
      who.author,
      name,
      recipient,
      parts.constrain === null ? undefined : `${CONSTRAIN}${type ?? ''}`,
      recipients,
    ),
    text,
  };
}

/** Who speaks, and whether the first word says so. */
function author(
  first: string | undefined,
  second: string | undefined,
  began: Began,
): { readonly author: { role: Role; name?: string }; readonly known: boolean } {
  const assistant = { author: { role: 'assistant' as Role }, known: false };
  if (first === undefined || isRecipient(first)) return assistant;
  // Models have been seen to write it twice: the prompt ends in it, and they begin with it.
  if (/^(?:assistant){1,3}$/.test(first)) return { ...assistant, known: true };
  if (began === 'prompt') return assistant;
  const colon = first.indexOf(':');
  const role = colon < 0 ? first : first.slice(0, colon);
  if (ROLES.includes(role)) {
    const name = colon < 0 ? '' : first.slice(colon + 1);
    return { author: name === '' ? { role: role as Role } : { role: role as Role, name }, known: true };
  }
  if (CHANNELS.includes(first)) return assistant;
  if (began === 'nothing' && !first.includes('.') && !(second ?? '').startsWith('to=')) return assistant;
  return { author: { role: 'tool', name: first }, known: true };
}

function header(
  author: { role: Role; name?: string },
  channel: string | undefined,
  recipient: string | undefined,
  contentType: string | undefined,
  recipients: readonly string[],
): Header {
  return {
    ...author,
    ...(channel === undefined ? {} : { channel }),
    ...(recipient === undefined ? {} : { recipient: declared(recipient, recipients) }),
    ...(contentType === undefined ? {} : { contentType }),
  };
}

/** A content type that models glue to a name. */
const GLUED_TYPE = /^(?:<\|constrain\|>)?(?:json|code)$/i;
/**
 * A declared tool with something glued to its end is that tool, the longest that fits; so is its bare name, without the
 * namespace, with nothing but a content type after it.
 */
function declared(recipient: string, recipients: readonly string[]): string {
  if (recipients.includes(recipient)) return recipient;
  const longest = (fits: (r: string) => boolean): string | undefined =>
    recipients.filter((r) => r !== '' && fits(r)).sort((a, b) => b.length - a.length)[0];
  const isBare = (name: string): boolean =>
    recipient.startsWith(name) && (recipient === name || GLUED_TYPE.test(recipient.slice(name.length)));
  return (
    longest((r) => recipient.startsWith(r)) ??
    longest((r) => r.startsWith('functions.') && isBare(r.slice('functions.'.length))) ??
    recipient
  );
}
