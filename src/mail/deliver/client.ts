/** One SMTP or LMTP connection to a next hop: dial, greet, secure, ask, send. */
import type { Socket, SocketHandler } from 'bun'
import type { Clock, Timer } from '../../base/clock.ts'
import { assert, GatewayError, messageOf } from '../../base/errors.ts'
import { formatReply } from '../../message/reply.ts'
import { type HopReply, ReplyReader, toReply } from './reader.ts'
import { beginTls, describeTls, isSecured } from './tls.ts'

/** The connection could not be made, broke, or fell silent. */
export class LinkError extends GatewayError {
  override name = 'LinkError'
}

/** The host did not answer a dial at all: every dial to it costs the whole wait. */
export class DialTimeoutError extends LinkError {
  override name = 'DialTimeoutError'
}

/** The handshake after STARTTLS failed: worth one more try in clear text. */
export class TlsFailedError extends LinkError {
  override name = 'TlsFailedError'
}

/** The next hop greeted or answered EHLO with a 4xx or 5xx: it takes no mail from us now. */
export class HopRefusedError extends GatewayError {
  override name = 'HopRefusedError'
  readonly reply: HopReply

  constructor(reply: HopReply) {
    super(formatReply(toReply(reply)), { remedy: reply.code >= 500 ? 'give-up' : 'retry' })
    this.reply = reply
  }
}

/** Where one connection goes. `host` is the name that was resolved to `ip`. */
export type Address = {
  readonly protocol: 'smtp' | 'lmtp'
  readonly host: string
  readonly ip: string
  readonly port: number
}

/** As in `Outcome.host`: `host[ip]:port`. */
export function formatAddress({ host, ip, port }: Address): string {
  return `${host}[${ip}]:${port}`
}

export type ClientOptions = {
  /** Name for EHLO. */
  readonly hostname: string
  /** Longest silence in ms. */
  readonly timeoutMs: number
  /** Whether STARTTLS is used when it is offered. */
  readonly mayEncrypt: boolean
  readonly clock: Clock
}

/** What the answer to EHLO offered. After HELO: nothing. */
export type Capabilities = {
  readonly pipelining: boolean
  readonly eightBit: boolean
  readonly smtpUtf8: boolean
  readonly dsn: boolean
  readonly startTls: boolean
  /** SIZE was offered (RFC 1870). */
  readonly size: boolean
  /** Limit of SIZE in bytes; null when none was named. */
  readonly sizeMax: number | null
}

const NO_CAPABILITIES: Capabilities = {
  pipelining: false,
  eightBit: false,
  smtpUtf8: false,
  dsn: false,
  startTls: false,
  size: false,
  sizeMax: null,
}

/** A host that drops packets is given up after this; RFC 5321 section 4.5.3.2 names no time. */
const CONNECT_MS_MAX = 30_000
/** A next hop has this long to say 221; nothing depends on it. */
const QUIT_MS_MAX = 2_000

type Link = { readonly client: Client; isCiphertext: boolean }

export class Client {
  readonly address: Address
  readonly label: string
  /** Messages that ended with an answer to the final dot. */
  messages = 0
  /** A transaction was left open: RSET comes before the next MAIL. */
  needsReset = false
  /** In the current transaction. Before it, a reused connection may turn out to be dead. */
  hasAnsweredMail = false
  readonly #options: ClientOptions
  #capabilities = NO_CAPABILITIES
  #tls: string | null = null
  #handshake: 'none' | 'running' | 'done' | 'failed' = 'none'
  #link: Link
  #socket: Socket<Link> | null = null
  #reader = new ReplyReader()
  /** Bytes that the kernel did not take yet. */
  #rest: Buffer | null = null
  #lost: GatewayError | null = null
  #wake: (() => void) | null = null
  #deadlineMs = 0
  #timer: Timer | null = null
  #timerMs = 0
  #onEnd: (() => void) | null = null

  private constructor(address: Address, options: ClientOptions) {
    this.address = address
    this.label = formatAddress(address)
    this.#options = options
    this.#link = { client: this, isCiphertext: false }
  }

  /**
   * A connection that has said EHLO, secured when offered and allowed.
   * @throws LinkError, TlsFailedError, HopRefusedError, BadReplyError
   */
  static async open(address: Address, options: ClientOptions): Promise<Client> {
    const client = new Client(address, options)
    try {
      await client.#dial()
      const greeting = await client.reply()
      if (greeting.code >= 300) throw new HopRefusedError(greeting)
      await client.#hello()
      const { startTls } = client.#capabilities
      if (startTls && options.mayEncrypt && address.protocol === 'smtp') await client.#secure()
      return client
    } catch (error) {
      if (error instanceof HopRefusedError) client.quit()
      else client.abandon()
      throw error
    }
  }

  get capabilities(): Capabilities {
    return this.#capabilities
  }

  /** `TLSv1.3 TLS_AES_256_GCM_SHA384`, or null in clear text. */
  get tls(): string | null {
    return this.#tls
  }

  get timeoutMs(): number {
    return this.#options.timeoutMs
  }

  /** Whether the connection stands, with nothing unsent and nothing unasked in the buffer. */
  get isClean(): boolean {
    return this.#lost === null && this.#rest === null && this.#reader.isEmpty
  }

  /** Whether bytes given to `send` are still here: they certainly did not arrive. */
  get hasUnsent(): boolean {
    return this.#rest !== null
  }

  /** Hands bytes to the kernel; what it does not take waits for `flushed`. Never throws. */
  send(bytes: Buffer): void {
    if (this.#lost !== null) return
    assert(this.#socket !== null, 'only an open connection sends')
    if (this.#rest !== null) {
      this.#rest = Buffer.concat([this.#rest, bytes])
      return
    }
    const taken = Math.max(0, this.#socket.write(bytes))
    if (taken < bytes.length) this.#rest = bytes.subarray(taken)
  }

  /**
   * True when all bytes are with the kernel; false when a reply came first.
   * @throws LinkError, BadReplyError
   */
  async flushed(): Promise<boolean> {
    if (this.#rest === null && !this.#reader.hasReply && this.#lost === null) return true
    return await this.#until(this.timeoutMs, () => {
      if (this.#reader.hasReply) return false
      return this.#rest === null ? true : null
    })
  }

  /** The next reply. @throws LinkError, BadReplyError */
  async reply(timeoutMs = this.timeoutMs): Promise<HopReply> {
    return this.#reader.next() ?? (await this.#until(timeoutMs, () => this.#reader.next()))
  }

  /** Nobody waits for anything now; `onEnd` is called once when the connection ends. */
  park(onEnd: () => void): void {
    this.#onEnd = onEnd
  }

  unpark(): void {
    this.#onEnd = null
  }

  /** Says QUIT and closes when the next hop has answered or had time to. */
  quit(): void {
    if (this.#lost !== null) return
    this.#onEnd = null
    this.send(Buffer.from('QUIT\r\n'))
    const end = () => this.#lose(new LinkError('closed by us', { remedy: 'retry' }), true)
    this.#until(QUIT_MS_MAX, () => this.#reader.next()).then(end, end)
  }

  /** Cuts the connection off: a message that has no final dot yet is dropped by the next hop. */
  abandon(): void {
    this.#lose(new LinkError('closed by us', { remedy: 'retry' }), false)
  }

  async #dial(): Promise<void> {
    const { ip, port } = this.address
    Bun.connect<Link>({ hostname: ip, port, data: this.#link, socket: Client.#handlers }).then(
      // A dial that ends after its time still has to be closed.
      (socket) => this.#lost !== null && socket.terminate(),
      (cause) => {
        const text = `cannot connect: ${reasonOf(cause)}`
        this.#lose(new LinkError(text, { remedy: 'retry', cause }), false)
      },
    )
    await this.#until(Math.min(CONNECT_MS_MAX, this.timeoutMs), () => this.#socket)
  }

  async #hello(): Promise<void> {
    const { protocol } = this.address
    const { hostname } = this.#options
    this.send(Buffer.from(`${protocol === 'lmtp' ? 'LHLO' : 'EHLO'} ${hostname}\r\n`))
    const answer = await this.reply()
    this.#capabilities = NO_CAPABILITIES
    if (answer.code < 300) {
      this.#capabilities = readCapabilities(answer.lines)
      return
    }
    if (protocol === 'lmtp' || answer.code < 500) throw new HopRefusedError(answer)
    this.send(Buffer.from(`HELO ${hostname}\r\n`))
    const second = await this.reply()
    if (second.code >= 300) throw new HopRefusedError(second)
  }

  async #secure(): Promise<void> {
    this.send(Buffer.from('STARTTLS\r\n'))
    const answer = await this.reply()
    if (answer.code === 421) throw new HopRefusedError(answer)
    if (answer.code >= 300) return
    try {
      // What came in clear text after the 220 is not from the next hop (faults.md B09).
      this.#reader = new ReplyReader()
      this.#link.isCiphertext = true
      this.#link = { client: this, isCiphertext: false }
      assert(this.#socket !== null, 'the connection is open')
      this.#handshake = 'running'
      this.#socket = beginTls(this.#socket, this.address.host, this.#link, Client.#handlers)
      const end = await this.#until(this.timeoutMs, () =>
        this.#handshake === 'running' ? null : this.#handshake,
      )
      if (end !== 'done') throw new LinkError('the handshake failed', { remedy: 'retry' })
    } catch (cause) {
      throw new TlsFailedError(`TLS: ${messageOf(cause)}`, { remedy: 'retry', cause })
    }
    this.#tls = describeTls(this.#socket)
    await this.#hello()
  }

  /** Waits until `look` gives something; looks again whenever something happened. */
  async #until<Found>(timeoutMs: number, look: () => Found | null): Promise<Found> {
    const deadlineMs = this.#options.clock.monoMs() + timeoutMs
    for (;;) {
      const found = look()
      if (found !== null) return found
      if (this.#lost !== null) throw this.#lost
      await new Promise<void>((wake) => {
        this.#wake = wake
        this.#deadlineMs = deadlineMs
        this.#arm()
      })
    }
  }

  /** One timer serves all waits: it looks at the deadline when it fires and goes on if it moved. */
  #arm(): void {
    if (this.#timer !== null && this.#timerMs <= this.#deadlineMs) return
    this.#timer?.cancel()
    const { clock } = this.#options
    const delayMs = Math.max(0, this.#deadlineMs - clock.monoMs())
    this.#timerMs = this.#deadlineMs
    this.#timer = clock.after(delayMs, () => {
      this.#timer = null
      if (this.#wake === null || this.#lost !== null) return
      if (clock.monoMs() < this.#deadlineMs) this.#arm()
      else this.#lose(this.#silence(), false)
    })
  }

  #silence(): LinkError {
    if (this.#socket === null) {
      return new DialTimeoutError('cannot connect: no answer in time', { remedy: 'retry' })
    }
    return new LinkError('no answer in time', { remedy: 'retry' })
  }

  #happened(): void {
    const wake = this.#wake
    this.#wake = null
    wake?.()
  }

  #data(chunk: Buffer): void {
    if (this.#lost !== null) return
    try {
      this.#reader.push(chunk.toString('latin1'))
    } catch (error) {
      assert(error instanceof GatewayError, 'a reader refuses by BadReplyError')
      this.#lose(error, false)
      return
    }
    // An idle next hop that talks is about to close: what it says belongs to no command.
    if (this.#onEnd !== null) this.#lose(new LinkError('talks unasked', { remedy: 'retry' }), true)
    else this.#happened()
  }

  #drain(): void {
    if (this.#rest === null || this.#socket === null || this.#lost !== null) return
    const taken = Math.max(0, this.#socket.write(this.#rest))
    this.#rest = taken < this.#rest.length ? this.#rest.subarray(taken) : null
    if (this.#rest === null) this.#happened()
  }

  #lose(error: GatewayError, politely: boolean): void {
    if (this.#lost !== null) return
    this.#lost = error
    this.#timer?.cancel()
    this.#timer = null
    if (politely) this.#socket?.end()
    else this.#socket?.terminate()
    const onEnd = this.#onEnd
    this.#onEnd = null
    onEnd?.()
    this.#happened()
  }

  static readonly #handlers: SocketHandler<Link> = {
    open(socket) {
      const { client } = socket.data
      // Called for the TLS socket too, which `#secure` puts in place.
      client.#socket ??= socket
      client.#happened()
    },
    data({ data: { client, isCiphertext } }, chunk) {
      if (!isCiphertext) client.#data(chunk)
    },
    drain({ data: { client, isCiphertext } }) {
      if (!isCiphertext) client.#drain()
    },
    handshake(socket) {
      const { client } = socket.data
      if (client.#handshake !== 'running') return
      client.#handshake = isSecured(socket) ? 'done' : 'failed'
      client.#happened()
    },
    close({ data: { client } }) {
      client.#lose(new LinkError('the next hop closed the connection', { remedy: 'retry' }), false)
    },
    error({ data: { client } }, error) {
      client.#lose(new LinkError(messageOf(error), { remedy: 'retry', cause: error }), false)
    },
  }
}

/** The name of a system error says more than Bun's text, which is the same for all of them. */
function reasonOf(cause: unknown): string {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : messageOf(cause)
}

function readCapabilities(lines: readonly string[]): Capabilities {
  const offers = new Map<string, string>()
  for (const line of lines.slice(1)) {
    const [keyword = '', parameter = ''] = line.trim().split(/\s+/, 2)
    offers.set(keyword.toUpperCase(), parameter)
  }
  const sizeText = offers.get('SIZE') ?? ''
  // RFC 1870 section 4: zero and no number both mean that no limit is known.
  const sizeMax = /^\d{1,15}$/.test(sizeText) ? Number(sizeText) : 0
  return {
    pipelining: offers.has('PIPELINING'),
    eightBit: offers.has('8BITMIME'),
    smtpUtf8: offers.has('SMTPUTF8'),
    dsn: offers.has('DSN'),
    startTls: offers.has('STARTTLS'),
    size: offers.has('SIZE'),
    sizeMax: sizeMax > 0 ? sizeMax : null,
  }
}
