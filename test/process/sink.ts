/** The existing mail server of a test: an SMTP server that records exactly what reached it. */
import type { Socket, TCPSocketListener } from 'bun'
import { type Clock, SystemClock } from '../../src/base/clock.ts'

/** One message that the sink said 2xx to, or was about to (`replied` tells). */
export type Arrival = {
  readonly sender: string
  /** MAIL parameters as written, e.g. `SIZE=12 BODY=8BITMIME`. */
  readonly senderParameters: string
  readonly recipients: readonly { readonly address: string; readonly parameters: string }[]
  /** Bytes between DATA and the end mark as they were on the wire, dots still stuffed. Null unless kept. */
  readonly wire: Buffer | null
  /** The message: dots un-stuffed. Null unless kept. */
  readonly body: Buffer | null
  /** First 16 KB of the message as latin1: enough for headers and tokens. */
  readonly head: string
  /** SHA-256 of the message from the first `X-Token:` on (all of it when there is none). */
  readonly sha256: string
  readonly sizeBytes: number
  /** Bare CR, bare LF, NUL, or a line that begins with an unstuffed dot: what must never leave a gateway. */
  readonly dirt: readonly string[]
  /**
   * Monotonic ms: our 354, the final dot, and our reply (null: the connection was gone or the reply
   * withheld). When this process was held up the dot is seen late; who sent it lived at the 354.
   */
  readonly askedMs: number
  readonly dotMs: number
  repliedMs: number | null
  /** The reply that was given to the dot. */
  reply: string
}

/** How a sink answers. Everything absent is the polite default. */
export type SinkManners = {
  readonly banner?: string
  /** EHLO keywords; without them a full modern list. */
  readonly keywords?: readonly string[]
  readonly sender?: (address: string, parameters: string) => string
  readonly recipient?: (address: string, parameters: string) => string
  /** Reply to the final dot after an optional wait; null: drop the connection without a word. */
  readonly dot?: (arrival: Arrival) => { readonly reply: string | null; readonly waitMs?: number }
  /** Raw answer in place of the usual one, by verb in upper case (`EHLO`, `MAIL`, …, `.`). */
  readonly raw?: Readonly<Record<string, string>>
  /** Keep the bytes of each message. Off for floods. */
  readonly keep?: boolean
}

const KEYWORDS = [
  'PIPELINING',
  'SIZE 104857600',
  '8BITMIME',
  'SMTPUTF8',
  'DSN',
  'ENHANCEDSTATUSCODES',
]
const HEAD_BYTES = 16_384
const CR = 13
const LF = 10
const DOT = 0x2e
const END = Buffer.from('\r\n.\r\n')
const TOKEN_HEADER = Buffer.from('X-Token:')

type Session = {
  mode: 'command' | 'data' | 'dead'
  line: string
  pieces: Buffer[]
  tail: Buffer
  sender: string | null
  senderParameters: string
  recipients: { address: string; parameters: string }[]
  askedMs: number
  /** Bytes that the kernel did not take yet. */
  pending: Buffer | null
  busy: boolean
  input: Buffer[]
}

export class Sink {
  readonly arrivals: Arrival[] = []
  /** Connections that are open now, and the most at once. */
  open = 0
  openMost = 0
  connections = 0
  manners: SinkManners
  readonly #clock: Clock
  readonly #listener: TCPSocketListener<Session>
  readonly #sockets = new Set<Socket<Session>>()
  #watchers: (() => void)[] = []

  constructor(
    manners: SinkManners = {},
    port = 0,
    clock: Clock = new SystemClock(),
    host = '127.0.0.1',
  ) {
    this.manners = manners
    this.#clock = clock
    this.#listener = Bun.listen<Session>({
      hostname: host,
      port,
      socket: {
        open: (socket) => this.#open(socket),
        data: (socket, bytes) => this.#data(socket, Buffer.from(bytes)),
        drain: (socket) => flush(socket),
        close: (socket) => this.#close(socket),
        error: (socket) => this.#close(socket),
      },
    })
  }

  get port(): number {
    return this.#listener.port
  }

  /** `smtp://HOST:PORT`, as `domain add --next-hop` takes it. */
  get nextHop(): string {
    return `smtp://${this.#listener.hostname}:${this.port}`
  }

  stop(): void {
    this.#listener.stop(true)
  }

  /** Ends every open connection, as a next hop does that crashes. */
  dropAll(): void {
    for (const socket of this.#sockets) socket.terminate()
  }

  /** Messages whose envelope or head contains `token`. */
  with(token: string): Arrival[] {
    return this.arrivals.filter(
      (arrival) =>
        arrival.sender.includes(token) ||
        arrival.recipients.some(({ address }) => address.includes(token)) ||
        arrival.head.includes(token),
    )
  }

  /** Resolves true as soon as `test` holds, asked again at each arrival; false after `timeoutMs`. */
  until(test: () => boolean, timeoutMs: number): Promise<boolean> {
    if (test()) return Promise.resolve(true)
    return new Promise((resolve) => {
      const watch = () => {
        if (!test()) return
        timer.cancel()
        this.#watchers = this.#watchers.filter((one) => one !== watch)
        resolve(true)
      }
      const timer = this.#clock.after(timeoutMs, () => {
        this.#watchers = this.#watchers.filter((one) => one !== watch)
        resolve(test())
      })
      this.#watchers.push(watch)
    })
  }

  #open(socket: Socket<Session>): void {
    socket.data = {
      mode: 'command',
      line: '',
      pieces: [],
      tail: Buffer.from('\r\n'),
      sender: null,
      senderParameters: '',
      askedMs: 0,
      recipients: [],
      pending: null,
      busy: false,
      input: [],
    }
    this.#sockets.add(socket)
    this.connections += 1
    this.open += 1
    this.openMost = Math.max(this.openMost, this.open)
    write(socket, this.manners.banner ?? '220 sink.example ESMTP\r\n')
  }

  #close(socket: Socket<Session>): void {
    if (!this.#sockets.delete(socket)) return
    this.open -= 1
    socket.data.mode = 'dead'
    socket.data.pieces = []
  }

  #data(socket: Socket<Session>, bytes: Buffer): void {
    const session = socket.data
    // A reply is being awaited: order is kept by queueing what was pipelined after it.
    if (session.busy) {
      session.input.push(bytes)
      return
    }
    let rest: Buffer | null = bytes
    while (rest !== null && rest.length > 0 && session.mode !== 'dead') {
      rest = session.mode === 'data' ? this.#body(socket, rest) : this.#commands(socket, rest)
      if (session.busy && rest !== null) {
        session.input.unshift(rest)
        return
      }
    }
  }

  #commands(socket: Socket<Session>, bytes: Buffer): Buffer | null {
    const session = socket.data
    let from = 0
    for (;;) {
      const end = bytes.indexOf(10, from)
      if (end < 0) {
        session.line += bytes.toString('latin1', from)
        return null
      }
      const line = session.line + bytes.toString('latin1', from, end + 1)
      session.line = ''
      from = end + 1
      this.#command(socket, line.replace(/\r?\n$/, ''))
      if (session.mode !== 'command') return bytes.subarray(from)
    }
  }

  #command(socket: Socket<Session>, line: string): void {
    const session = socket.data
    const verb = line.split(/[ :]/, 1)[0]?.toUpperCase() ?? ''
    const raw = this.manners.raw?.[verb]
    if (raw !== undefined) {
      write(socket, raw)
      if (raw === '') this.#end(socket)
      return
    }
    switch (verb) {
      case 'EHLO': {
        const lines = ['sink.example', ...(this.manners.keywords ?? KEYWORDS)]
        const last = lines.length - 1
        write(socket, lines.map((text, at) => `250${at === last ? ' ' : '-'}${text}\r\n`).join(''))
        return
      }
      case 'HELO':
        return write(socket, '250 sink.example\r\n')
      case 'MAIL': {
        const [, address = '', parameters = ''] = /^MAIL FROM:<([^>]*)> ?(.*)$/i.exec(line) ?? []
        const answer = this.manners.sender?.(address, parameters) ?? '250 2.1.0 Ok'
        if (answer.startsWith('2')) {
          session.sender = address
          session.senderParameters = parameters
          session.recipients = []
        }
        return write(socket, `${answer}\r\n`)
      }
      case 'RCPT': {
        if (session.sender === null) return write(socket, '503 5.5.1 MAIL first\r\n')
        const [, address = '', parameters = ''] = /^RCPT TO:<(.*?)>(?: (.*))?$/i.exec(line) ?? []
        const answer = this.manners.recipient?.(address, parameters ?? '') ?? '250 2.1.5 Ok'
        if (answer.startsWith('2'))
          session.recipients.push({ address, parameters: parameters ?? '' })
        return write(socket, `${answer}\r\n`)
      }
      case 'DATA':
        if (session.recipients.length === 0) return write(socket, '503 5.5.1 RCPT first\r\n')
        session.mode = 'data'
        session.askedMs = this.#clock.monoMs()
        session.pieces = []
        session.tail = Buffer.from('\r\n')
        return write(socket, '354 Go on\r\n')
      case 'RSET':
        session.sender = null
        session.recipients = []
        return write(socket, '250 2.0.0 Ok\r\n')
      case 'NOOP':
        return write(socket, '250 2.0.0 Ok\r\n')
      case 'QUIT':
        write(socket, '221 2.0.0 Bye\r\n')
        session.mode = 'dead'
        socket.end()
        return
      default:
        return write(socket, '500 5.5.2 What\r\n')
    }
  }

  /** Takes body bytes; returns what follows the end mark, null when the mark has not come. */
  #body(socket: Socket<Session>, bytes: Buffer): Buffer | null {
    const session = socket.data
    const joined = Buffer.concat([session.tail, bytes])
    const at = joined.indexOf(END)
    if (at < 0) {
      session.pieces.push(bytes)
      session.tail = joined.subarray(Math.max(0, joined.length - 4))
      return null
    }
    // Up to and with the CRLF of the end mark; it belongs to the message, the dot does not.
    const used = at + 2 - session.tail.length
    const parts = used >= 0 ? [...session.pieces, bytes.subarray(0, used)] : session.pieces
    let wire = Buffer.concat(parts)
    if (used < 0) wire = wire.subarray(0, wire.length + used)
    session.pieces = []
    session.mode = 'command'
    const arrival = this.#record(session, wire)
    const { reply, waitMs } = this.manners.dot?.(arrival) ?? { reply: '250 2.0.0 Kept' }
    session.sender = null
    session.recipients = []
    const answer = () => {
      session.busy = false
      const raw = this.manners.raw?.['.']
      if (session.mode === 'dead') return
      if (reply === null) return this.#end(socket)
      arrival.repliedMs = this.#clock.monoMs()
      arrival.reply = reply
      write(socket, raw ?? `${reply}\r\n`)
      const queued = session.input
      session.input = []
      for (const piece of queued) this.#data(socket, piece)
    }
    if (waitMs === undefined || waitMs === 0) answer()
    else {
      session.busy = true
      this.#clock.after(waitMs, answer)
    }
    for (const watch of [...this.#watchers]) watch()
    return joined.subarray(at + END.length)
  }

  #record(session: Session, wire: Buffer): Arrival {
    const body = unstuff(wire)
    const token = body.indexOf(TOKEN_HEADER)
    const arrival: Arrival = {
      sender: session.sender ?? '',
      senderParameters: session.senderParameters,
      recipients: session.recipients,
      wire: this.manners.keep === true ? wire : null,
      body: this.manners.keep === true ? body : null,
      head: body.toString('latin1', 0, HEAD_BYTES),
      sha256: sha256(token > 0 ? body.subarray(token) : body),
      sizeBytes: body.length,
      dirt: dirtOf(wire),
      askedMs: session.askedMs,
      dotMs: this.#clock.monoMs(),
      repliedMs: null,
      reply: '',
    }
    this.arrivals.push(arrival)
    return arrival
  }

  #end(socket: Socket<Session>): void {
    socket.data.mode = 'dead'
    socket.terminate()
  }
}

export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher('sha256').update(bytes).digest('hex')
}

/** RFC 5321 section 4.5.2: the first dot at the begin of a line goes. */
export function unstuff(wire: Buffer): Buffer {
  const out = Buffer.allocUnsafe(wire.length)
  let length = 0
  let lineBegins = true
  for (let at = 0; at < wire.length; at += 1) {
    const byte = wire[at] as number
    if (lineBegins && byte === DOT) {
      lineBegins = false
      continue
    }
    out[length] = byte
    length += 1
    lineBegins = byte === LF && wire[at - 1] === CR
  }
  return out.subarray(0, length)
}

/** What is on the wire and must not be: `CR`, `LF`, `NUL`, `dot` (one that was not stuffed). */
export function dirtOf(wire: Buffer): string[] {
  const dirt = new Set<string>()
  let before = LF
  let lineBegins = true
  for (let at = 0; at < wire.length; at += 1) {
    const byte = wire[at] as number
    if (byte === 0) dirt.add('NUL')
    else if (byte === CR && wire[at + 1] !== LF) dirt.add('CR')
    else if (byte === LF && before !== CR) dirt.add('LF')
    else if (byte === DOT && lineBegins && wire[at + 1] !== DOT) dirt.add('dot')
    lineBegins = byte === LF && before === CR
    before = byte
  }
  return [...dirt]
}

function write(socket: Socket<Session>, text: string): void {
  const bytes = Buffer.from(text, 'latin1')
  const pending = socket.data.pending
  socket.data.pending = pending === null ? bytes : Buffer.concat([pending, bytes])
  flush(socket)
}

function flush(socket: Socket<Session>): void {
  const pending = socket.data.pending
  if (pending === null) return
  const taken = Math.max(0, socket.write(pending))
  socket.data.pending = taken >= pending.length ? null : pending.subarray(taken)
}
