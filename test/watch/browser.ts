// Headless Chromium over its DevTools pipe: a page, what it logs, its picture. Debian's package is `chromium`.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];
/** null: there is none on this machine. */
export const CHROMIUM: string | null =
  NAMES.find((name) => {
    try {
      execFileSync(name, ['--version'], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  }) ?? null;

type Json = Readonly<Record<string, unknown>>;
interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Json;
  readonly result?: Json;
  readonly error?: { readonly message: string };
}

export class Browser {
  readonly #child: ChildProcess;
  readonly #profile = mkdtempSync(join(tmpdir(), 'temper-chromium-'));
  readonly #waiting = new Map<number, (m: Message) => void>();
  #next = 1;
  #session: string | undefined;
  /** What the page complained of, and every address it asked for. */
  readonly complaints: string[] = [];
  readonly requests: string[] = [];

  private constructor(program: string) {
    this.#child = spawn(
      program,
      [
        ...['--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--hide-scrollbars'],
        ...['--no-first-run', '--disable-background-networking', '--disable-extensions', '--disable-dev-shm-usage'],
        ...[`--user-data-dir=${this.#profile}`, 'about:blank'],
      ],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
    );
    let rest = '';
    (this.#child.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop() ?? '';
      for (const m of messages) this.#receive(JSON.parse(m) as Message);
    });
    (this.#child.stdio[3] as Writable).on('error', () => {});
  }

  static async start(size = { width: 1200, height: 900 }): Promise<Browser> {
    const browser = new Browser(CHROMIUM ?? 'chromium');
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    browser.#session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await browser.send(`${domain}.enable`);
    await browser.send('Emulation.setDeviceMetricsOverride', { ...size, deviceScaleFactor: 1, mobile: false });
    return browser;
  }

  #receive({ id, method, params = {}, ...rest }: Message): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.(rest);
      this.#waiting.delete(id);
    } else if (method === 'Runtime.exceptionThrown') this.complaints.push(JSON.stringify(params.exceptionDetails));
    else if (method === 'Log.entryAdded') this.complaints.push((params.entry as { readonly text: string }).text);
    else if (method === 'Network.requestWillBeSent')
      this.requests.push((params.request as { readonly url: string }).url);
  }

  send(method: string, params: Json = {}): Promise<Json> {
    const id = this.#next++;
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) =>
        error ? reject(new Error(`${method}: ${error.message}`)) : resolve(result ?? {}),
      );
      (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
  }

  async open(url: string): Promise<void> {
    await this.send('Page.navigate', { url });
    await this.until('document.readyState === "complete"');
  }
  /** The value of an expression in the page, as JSON. */
  async ask<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { readonly value: T }).value;
  }
  /** @throws {Error} it does not become true in 10 s */
  async until(expression: string): Promise<void> {
    for (let i = 0; i < 200; i++) {
      if (await this.ask<boolean>(`!!(${expression})`)) return;
      await new Promise((later) => setTimeout(later, 50));
    }
    throw new Error(`${expression} does not become true; the page says: ${await this.ask('document.body.innerText')}`);
  }
  async dark(on: boolean): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value: on ? 'dark' : 'light' }];
    await this.send('Emulation.setEmulatedMedia', { features });
  }
  /** Presses at one place of the window and lets go at another. */
  async drag(from: readonly [number, number], to: readonly [number, number]): Promise<void> {
    const event = (type: string, [x, y]: readonly [number, number], clickCount: number) =>
      this.send('Input.dispatchMouseEvent', { type, x, y, button: 'left', buttons: 1, clickCount });
    await event('mouseMoved', from, 0);
    await event('mousePressed', from, 1);
    await event('mouseMoved', [(from[0] + to[0]) / 2, to[1]], 1);
    await event('mouseMoved', to, 1);
    await event('mouseReleased', to, 1);
  }
  /** A PNG of all of the page. */
  async picture(): Promise<Buffer> {
    const height = await this.ask<number>('document.documentElement.scrollHeight');
    const width = await this.ask<number>('innerWidth');
    const clip = { x: 0, y: 0, width, height, scale: 1 };
    const { data } = await this.send('Page.captureScreenshot', { captureBeyondViewport: true, clip });
    return Buffer.from(data as string, 'base64');
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('close', resolve));
    this.#session = undefined;
    this.send('Browser.close').catch(() => {});
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 3000);
    await ended;
    clearTimeout(timer);
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 3 });
  }
}
