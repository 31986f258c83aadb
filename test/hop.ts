/** A next hop that a test scripts line by line, SMTP or LMTP, with STARTTLS when it has a key. */
import type { Socket, SocketHandler, TCPSocketListener } from 'bun'
import type { Clock, Timer } from '../src/base/clock.ts'

/** One message as it came over the wire: dots still stuffed, without the final dot. */
export type Arrival = {
  readonly mail: string
  readonly recipients: readonly string[]
  readonly wire: Buffer
  readonly tls: boolean
}

/**
 * What to answer to `line` (without CRLF; `.` for the end of a message, '' for a connection).
 * A string goes out as it stands. `close` ends the connection, `silence` says nothing;
 * undefined: the usual answer.
 */
export type Script = (line: string, session: HopSession) => string | undefined

export type HopOptions = {
  readonly protocol?: 'smtp' | 'lmtp'
  /** Keywords of EHLO. */
  readonly offers?: readonly string[]
  readonly script?: Script
  readonly tls?: { readonly key: string; readonly cert: string }
}

const CAPABLE = ['PIPELINING', '8BITMIME', 'SMTPUTF8', 'DSN', 'SIZE 0']
const TLS_1_2 = 0x0303

class HopSession {
  /** Counts from 1 in the order of connections. */
  readonly number: number
  /** Lines that came, in order. */
  readonly lines: string[] = []
  /** Bytes that came behind the line that is being answered: what was pipelined. */
  buffered = Buffer.alloc(0)
  mail = ''
  recipients: string[] = []
  isData = false
  isTls = false
  socket: Socket<Seat>

  constructor(number: number, socket: Socket<Seat>) {
    this.number = number
    this.socket = socket
  }

  say(text: string): void {
    this.socket.write(text)
  }
}

type Seat = { session: HopSession; isCiphertext: boolean }

export class Hop {
  readonly sessions: HopSession[] = []
  readonly arrivals: Arrival[] = []
  /** Sessions that have ended. */
  ended = 0
  readonly #options: HopOptions
  readonly #listener: TCPSocketListener<Seat>
  #watchers: (() => void)[] = []

  constructor(options: HopOptions = {}) {
    this.#options = options
    this.#listener = Bun.listen<Seat>({ hostname: '127.0.0.1', port: 0, socket: this.#sockets() })
  }

  get port(): number {
    return this.#listener.port
  }

  get route() {
    const protocol = this.#options.protocol ?? 'smtp'
    return { kind: 'hops', hops: [{ protocol, host: '127.0.0.1', port: this.port }] } as const
  }

  /** Every line of every session, in order of sessions. */
  get lines(): string[] {
    return this.sessions.flatMap(({ lines }) => lines)
  }

  stop(): void {
    this.#listener.stop(true)
  }

  /** Resolves when `holds` is true; it is asked again whenever something reached the hop. */
  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve()
    return new Promise((resolve) => {
      const watch = (): void => {
        if (!holds()) return
        this.#watchers = this.#watchers.filter((one) => one !== watch)
        resolve()
      }
      this.#watchers.push(watch)
    })
  }

  #sockets(): SocketHandler<Seat> {
    return {
      open: (socket) => {
        // Called again for the TLS socket, which has its seat already.
        if (socket.data !== undefined) return
        const session = new HopSession(this.sessions.length + 1, socket)
        socket.data = { session, isCiphertext: false }
        this.sessions.push(session)
        this.#answer(session, '', '220 hop.example\r\n')
        this.#notify()
      },
      data: ({ data: { session, isCiphertext } }, chunk) => {
        if (isCiphertext) return
        session.buffered = Buffer.concat([session.buffered, chunk])
        this.#read(session)
        this.#notify()
      },
      close: (socket) => {
        if (socket.data.isCiphertext) return
        this.ended += 1
        this.#notify()
      },
      drain: () => {},
      error: () => {},
    }
  }

  #notify(): void {
    for (const watch of [...this.#watchers]) watch()
  }

  #read(session: HopSession): void {
    for (;;) {
      const mark = session.isData ? endOf(session.buffered) : session.buffered.indexOf('\r\n')
      if (mark < 0) return
      const block = session.buffered.subarray(0, mark)
      session.buffered = session.buffered.subarray(mark + (session.isData ? 3 : 2))
      if (session.isData) this.#message(session, Buffer.from(block))
      else this.#command(session, block.toString())
    }
  }

  #message(session: HopSession, wire: Buffer): void {
    const { mail, recipients, isTls: tls } = session
    session.isData = false
    session.lines.push('.')
    this.arrivals.push({ mail, recipients, wire, tls })
    const count = this.#options.protocol === 'lmtp' ? recipients.length : 1
    this.#answer(session, '.', '250 2.0.0 taken\r\n'.repeat(count))
  }

  #command(session: HopSession, line: string): void {
    session.lines.push(line)
    const verb = line.slice(0, 4).toUpperCase()
    if (verb === 'MAIL') {
      session.mail = line
      session.recipients = []
    }
    const offers = ['hop.example', ...(this.#options.offers ?? CAPABLE)]
    if (this.#options.tls !== undefined && !session.isTls) offers.push('STARTTLS')
    const hello = offers.map((text, at) => `250${at === offers.length - 1 ? ' ' : '-'}${text}\r\n`)
    const usual: Readonly<Record<string, string>> = {
      EHLO: hello.join(''),
      LHLO: hello.join(''),
      DATA: '354 go\r\n',
      STAR: '220 go\r\n',
      QUIT: '221 bye\r\n',
    }
    const said = this.#answer(session, line, usual[verb] ?? '250 2.1.0 ok\r\n')
    if (verb === 'RCPT' && said.startsWith('25')) session.recipients.push(line)
    if (verb === 'DATA' && /^354/m.test(said)) session.isData = true
    if (verb === 'STAR' && said.startsWith('220')) this.#secure(session)
    if (verb === 'QUIT') session.socket.end()
  }

  #answer(session: HopSession, line: string, usual: string): string {
    const said = this.#options.script?.(line, session) ?? usual
    if (said === 'close') session.socket.end()
    else if (said !== 'silence') session.say(said)
    return said
  }

  #secure(session: HopSession): void {
    const { tls } = this.#options
    if (tls === undefined) return
    session.socket.data.isCiphertext = true
    session.isTls = true
    session.socket = session.socket.upgradeTLS<Seat>({
      data: { session, isCiphertext: false },
      tls: Object.assign({ minVersion: TLS_1_2 }, tls),
      socket: this.#sockets(),
    })[1]
  }
}

/** Where the final dot begins, or -1. */
function endOf(bytes: Buffer): number {
  if (bytes.subarray(0, 3).toString() === '.\r\n') return 0
  const found = bytes.indexOf('\r\n.\r\n')
  return found < 0 ? -1 : found + 2
}

/** A clock that stands still until the test moves it. */
export class ManualClock implements Clock {
  #nowMs = 1_000
  #timers: { readonly atMs: number; readonly run: () => void }[] = []

  wallMs(): number {
    return 1_795_309_200_000 + this.#nowMs
  }

  monoMs(): number {
    return this.#nowMs
  }

  bootMs(): number {
    return this.monoMs()
  }

  after(delayMs: number, run: () => void): Timer {
    const entry = { atMs: this.#nowMs + delayMs, run }
    this.#timers.push(entry)
    const cancel = (): void => {
      this.#timers = this.#timers.filter((one) => one !== entry)
    }
    return { cancel }
  }

  /** Timers that wait. */
  get pending(): number {
    return this.#timers.length
  }

  /** Moves on by `ms` and fires what became due, in order. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms
    for (;;) {
      const next = this.#timers.toSorted((one, other) => one.atMs - other.atMs)[0]
      if (next === undefined || next.atMs > untilMs) break
      this.#timers = this.#timers.filter((one) => one !== next)
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      next.run()
    }
    this.#nowMs = untilMs
  }
}
