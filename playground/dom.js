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
 * Changes what is new alone, so that what is marked stays marked.
 * @param {Node} e
 * @param {string} text
 */
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

/** Text that grows: what is there stays the same node. */
export class Growing {
  #node = document.createTextNode('');
  /** @param {HTMLElement} parent */
  constructor(parent) {
    parent.append(this.#node);
  }
  /** @param {string} text begins with what was shown last */
  show(text) {
    if (text.length > this.#node.length) this.#node.appendData(text.slice(this.#node.length));
  }
}
