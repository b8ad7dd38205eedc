// Texts as both databases keep them.

/** PostgreSQL has no NUL in texts, and UTF-8 no half of a surrogate pair; what is looked for is changed alike. */
export const storable = (text: string): string => text.toWellFormed().replaceAll('\0', '\u2400');
