// A request as a command line, to be run elsewhere. It names a variable where the key goes and never holds it.

/** As one word of a POSIX shell. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** What could change the order of what stands on a terminal, escaped as JSON has it. @param {string} json */
const plain = (json) =>
  json.replaceAll(/[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (c) => {
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });

/**
 * @param {string} url
 * @param {unknown} body
 * @param {boolean} withKey
 */
export function curlOf(url, body, withKey) {
  const words = [
    `curl -N ${quoted(url)}`,
    "-H 'content-type: application/json'",
    ...(withKey ? ['-H "authorization: Bearer $TEMPER_API_KEY"'] : []),
    `-d ${quoted(plain(JSON.stringify(body, null, 2)))}`,
  ];
  return `${words.join(' \\\n  ')}\n`;
}
