// What the pages share: a socket that comes back by itself, and a log.

export const $ = (id) => document.getElementById(id);

// The address of a socket on this server; each page shares its own address with one.
export const socketUrl = (path = location.pathname) => location.origin.replace(/^http/, 'ws') + path;

export function element(name, kind = '', text = '') {
  const made = document.createElement(name);
  made.className = kind;
  made.textContent = text;
  return made;
}

// --- a socket that comes back by itself ---

const SOONEST = 500; // ms before the first new attempt, doubled with each that fails
const LATEST = 15_000;
const LASTED = 5_000; // a connection that held for so long counts as good: the next wait is short again

// Shows what it does in #state, and #retry while it waits, if the page has them.
//
//     opened()         it is open
//     received(text)   a message
//     binary(buffer)   another one
//     closed(event)    it has ended, by either side; `false` means that it shall not come back, and so
//                      does [text, tone], which is then shown in #state
//     changed(open)    whether messages can be sent, at the start and whenever that changes
//     shown()          #state has changed
export class Link {
  #url;
  #on;
  #socket = null;
  #timer = 0;
  #failures = 0;
  #isOver = true; // until it is opened, and again when it shall not come back

  // Without an address here, `open` has it.
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    $('retry')?.addEventListener('click', () => this.#again());
    // Who is back online need not wait.
    addEventListener('online', () => this.#again());
    // A page that is kept for the back button has lost its socket.
    addEventListener('pageshow', ({ persisted }) => { if (persisted && !this.#isOver && !this.isActive) this.open(); });
    on.changed?.(false);
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  // Whether there is a socket, or will be another one.
  get isActive() {
    return Boolean(this.#socket || this.#timer);
  }

  // Throws what `new WebSocket` does.
  open(url = this.#url) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (this.#socket) return;
    const socket = new WebSocket(url);
    this.#url = url;
    this.#socket = socket;
    this.#isOver = false;
    this.#show(this.#failures ? 'connecting again' : 'connecting', 'wait');
    let since = Infinity;
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('open', () => {
      since = performance.now();
      this.#show('connected', 'live');
      this.#on.changed?.(true);
      this.#on.opened?.();
    });
    socket.addEventListener('message', ({ data }) => {
      if (typeof data === 'string') this.#on.received?.(data); else this.#on.binary?.(data);
    });
    socket.addEventListener('close', (event) => {
      if (this.#socket !== socket) return; // it was closed on purpose
      this.#socket = null;
      this.#on.changed?.(false);
      if (performance.now() - since > LASTED) this.#failures = 0;
      const end = this.#on.closed?.(event) ?? true;
      if (end === true && !this.#isOver) return this.#wait();
      this.#failures = 0;
      this.#isOver = true;
      this.#show(...(Array.isArray(end) ? end : [`closed ${event.code}${event.reason ? `: ${event.reason}` : ''}`, 'bad']));
    });
  }

  send(text) {
    if (this.isOpen) this.#socket.send(text);
    return this.isOpen;
  }

  // How much has been sent and has not left this machine.
  get waiting() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  // Says goodbye; `closed` hears of the end, and it does not come back.  While there is nobody to say
  // it to, that is `close`.
  end() {
    if (!this.isOpen) return this.close();
    this.#isOver = true;
    this.#socket.close(1000);
  }

  // Ends it until the next `open`, at once: `closed` does not hear of it.
  close(code = 1000, reason = '') {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#failures = 0;
    const socket = this.#socket;
    this.#socket = null;
    // Before it is open there is nothing to close cleanly, and a code is not allowed to say so.
    if (socket?.readyState === WebSocket.OPEN) socket.close(code, reason); else socket?.close();
    this.#show('disconnected', '');
    this.#on.changed?.(false);
  }

  #wait() {
    this.#failures += 1;
    // Somewhere between half and all of it, so that the clients of a server that restarts do not
    // come back at one moment.
    const wait = Math.min(LATEST, SOONEST * 2 ** Math.min(this.#failures - 1, 10)) * (.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.open(), wait);
    this.#show(`connection lost, next attempt in ${Math.max(1, Math.round(wait / 1000))} s`, 'bad');
  }

  #again() {
    if (this.#timer) this.open();
  }

  #show(text, tone) {
    const state = $('state');
    if (state) {
      state.textContent = text;
      state.dataset.tone = tone;
    }
    const retry = $('retry');
    if (retry) {
      const focused = document.activeElement === retry;
      retry.hidden = !this.#timer;
      if (focused && retry.hidden) $('message')?.focus({ preventScroll: true });
    }
    this.#on.shown?.();
  }
}

// --- the log: #log, and #clear where the page has it ---

const ENTRIES = 1000; // older ones leave the log

export function log(kind, way, text, aside = '') {
  const all = $('log');
  const atEnd = all.scrollHeight - all.scrollTop - all.clientHeight < 40;
  const entry = element('div', `entry ${kind}`);
  const now = new Date();
  const time = element('time', '', `${now.toLocaleTimeString('en-GB')}.${String(now.getMilliseconds()).padStart(3, '0')}`);
  time.dateTime = now.toISOString();
  entry.append(time, ' ', element('span', 'way', way), ' ', element('span', 'text', text), ' ', element('small', '', aside));
  all.append(entry);
  while (all.childElementCount > ENTRIES) all.firstElementChild.remove();
  if (atEnd) all.scrollTop = all.scrollHeight;
  if ($('clear')) $('clear').disabled = false;
}

export function note(text) {
  log('note', '·', text);
}

if ($('log')) {
  $('clear')?.addEventListener('click', () => {
    $('log').replaceChildren();
    $('clear').disabled = true;
    $('log').focus();
  });
}

// --- drawing ---

// A canvas as sharp as the screen, its size in CSS pixels, and the colours of the style sheet.
export function canvas(plot) {
  const scale = devicePixelRatio || 1;
  const { width, height } = plot.getBoundingClientRect();
  plot.width = Math.round(width * scale);
  plot.height = Math.round(height * scale);
  const at = plot.getContext('2d');
  at.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  return { at, width, height, scale, colour: (name) => style.getPropertyValue(`--${name}`).trim() };
}

// Calls `draw` once before the next picture, however often it is asked to; also when the look or
// the size of `plot` changes.
export function drawing(plot, draw) {
  let due = 0;
  const redraw = () => { due ||= requestAnimationFrame(() => { due = 0; draw(); }); };
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  new ResizeObserver(redraw).observe(plot);
  return redraw;
}
