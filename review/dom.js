// Elements. All text goes in as text: nothing in this page reads markup, and its Content-Security-Policy forbids it.

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export const byId = (id) => /** @type {T} */ (document.getElementById(id));

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

/**
 * A button that does something.
 * @param {string} text
 * @param {string} key shown beside it; '': none
 * @param {() => void} does
 * @param {string} [className]
 */
export function button(text, key, does, className) {
  const e = make('button', className, text);
  if (key) e.append(' ', make('kbd', '', key));
  e.type = 'button';
  e.addEventListener('click', does);
  return e;
}

/**
 * @param {Node} e
 * @param {string} text
 */
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

const CHANNELS = ['analysis', 'commentary', 'final'];
/** A channel's colour. @param {string} channel */
export const channelChip = (channel) =>
  make('span', `channel ${CHANNELS.find((c) => channel.startsWith(c)) ?? 'call'}`, channel);

/**
 * How long ago, or how long still.
 * @param {number} ms
 */
export function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 2 * 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}
