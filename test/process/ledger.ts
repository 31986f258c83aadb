/**
 * The ledger: a client that sends mail and remembers of each one exactly what it was told, and the
 * checker that holds this against what reached the next hop. The tokens are the truth: each mail
 * has its own in recipient, header and body.
 */
import type { Socket } from 'bun'
import { type Clock, pause, SystemClock } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { type Arrival, sha256 } from './sink.ts'

/**
 * What the client knows of a mail: `acked` 250 to the dot; `refused` a 4xx or 5xx at any point, or
 * the connection gone before the dot was sent; `indeterminate` the dot was sent and no reply came.
 */
export type Fate = 'refused' | 'acked' | 'indeterminate'

export type Entry = {
  readonly token: string
  /** SHA-256 of the message as sent, from its `X-Token:` line on. */
  readonly sha256: string
  readonly sizeBytes: number
  fate: Fate
  /** The last reply, or what broke. */
  reply: string
  /** Monotonic ms: the dot went out, its reply came. */
  dotMs: number | null
  repliedMs: number | null
}

export class Ledger {
  readonly entries = new Map<string, Entry>()
  acked = 0
  refused = 0
  indeterminate = 0
  #watchers: (() => void)[] = []

  add(entry: Entry): void {
    this.entries.set(entry.token, entry)
  }

  settle(entry: Entry, fate: Fate, reply: string): void {
    entry.fate = fate
    entry.reply = reply
    this[fate] += 1
    for (const watch of [...this.#watchers]) watch()
  }

  /** Resolves true when at least `count` mails were acked, false after `timeoutMs`. */
  untilAcked(count: number, timeoutMs: number, clock: Clock = new SystemClock()): Promise<boolean> {
    if (this.acked >= count) return Promise.resolve(true)
    return new Promise((resolve) => {
      const end = (met: boolean) => {
        timer.cancel()
        this.#watchers = this.#watchers.filter((one) => one !== watch)
        resolve(met)
      }
      const watch = () => {
        if (this.acked >= count) end(true)
      }
      const timer = clock.after(timeoutMs, () => end(false))
      this.#watchers.push(watch)
    })
  }
}

export type LoadOptions = {
  /** 127.0.0.1 without it. */
  readonly host?: string
  readonly port: number
  readonly domain: string
  readonly connections: number
  readonly seed: number
  /** Sizes in bytes to choose from. */
  readonly sizes: readonly number[]
  /** Mails on one connection, at most. */
  readonly perConnection?: number
  /** Ends after this many mails; without it only `stop` ends it. */
  readonly mails?: number
  readonly replyMs?: number
  /** Mails begin so often, all connections together; without it as fast as they are answered. */
  readonly perSecond?: number
}

/** Sends mail over several connections until stopped; connects again when a connection is gone. */
export class Load {
  readonly ledger: Ledger
  readonly #options: LoadOptions
  readonly #random: SeededRandom
  readonly #clock: Clock
  readonly #done: Promise<unknown>
  #count = 0
  #stopping = false

  constructor(options: LoadOptions, ledger = new Ledger(), clock: Clock = new SystemClock()) {
    this.#options = options
    this.ledger = ledger
    this.#clock = clock
    this.#random = new SeededRandom(options.seed)
    this.#done = Promise.all(Array.from({ length: options.connections }, () => this.#worker()))
  }

  /** No further mail begins; resolves when the ones under way are settled. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#done
  }

  /** Resolves when all of `mails` are settled. */
  async finished(): Promise<void> {
    await this.#done
  }

  get #isOver(): boolean {
    return this.#stopping || this.#count >= (this.#options.mails ?? Number.POSITIVE_INFINITY)
  }

  async #worker(): Promise<void> {
    while (!this.#isOver) {
      const { host = '127.0.0.1', port, replyMs = 60_000 } = this.#options
      const line = await SmtpLine.open({ host, port }, replyMs, this.#clock)
      if (line === null) {
        // Nobody listens in the moments between a kill and the next start.
        await pause(this.#clock, 5)
        continue
      }
      try {
        const greeting = await line.ask('')
        if (!greeting.startsWith('220')) continue
        await line.ask('EHLO ledger.example\r\n')
        const mails = 1 + this.#random.below(this.#options.perConnection ?? 4)
        for (let n = 0; n < mails && !this.#isOver; n += 1) {
          await this.#mail(line)
          await this.#rest()
        }
        await line.ask('QUIT\r\n')
      } catch {
        // The connection is gone; what it meant for a mail stands in the ledger already.
      } finally {
        line.end()
      }
    }
  }

  /** Until the next mail of this connection may begin. */
  async #rest(): Promise<void> {
    const { perSecond, connections } = this.#options
    if (perSecond !== undefined) await pause(this.#clock, (1_000 * connections) / perSecond)
  }

  async #mail(line: SmtpLine): Promise<void> {
    this.#count += 1
    const token = `k${this.#options.seed}n${this.#count}`
    const size = this.#options.sizes[this.#random.below(this.#options.sizes.length)] ?? 1_024
    const message = composeMail(token, size)
    const entry: Entry = {
      token,
      sha256: sha256(message),
      sizeBytes: message.length,
      fate: 'refused',
      reply: 'not sent',
      dotMs: null,
      repliedMs: null,
    }
    this.ledger.add(entry)
    try {
      for (const [command, code] of [
        [`MAIL FROM:<sender@ledger.example> SIZE=${message.length}\r\n`, '250'],
        [`RCPT TO:<${token}@${this.#options.domain}>\r\n`, '250'],
        ['DATA\r\n', '354'],
      ] as const) {
        const reply = await line.ask(command)
        if (!reply.startsWith(code)) {
          this.ledger.settle(entry, 'refused', reply)
          throw new Error(reply)
        }
      }
      const half = message.length >> 1
      line.send(message.subarray(0, half))
      await line.drained()
      line.send(message.subarray(half))
      await line.drained()
      entry.dotMs = this.#clock.monoMs()
      const reply = await line.ask('.\r\n')
      entry.repliedMs = this.#clock.monoMs()
      this.ledger.settle(entry, reply.startsWith('250') ? 'acked' : 'refused', reply)
    } catch (error) {
      if (entry.repliedMs === null && entry.reply === 'not sent') {
        const why = error instanceof Error ? error.message : String(error)
        this.ledger.settle(entry, entry.dotMs === null ? 'refused' : 'indeterminate', why)
      }
      throw error
    }
  }
}

/** A message of about `sizeBytes`, with the token in header and body; ends in CRLF. */
export function composeMail(token: string, sizeBytes: number): Buffer {
  const head = `X-Token: ${token}\r\nFrom: sender@ledger.example\r\nSubject: mail ${token}\r\nMessage-ID: <${token}@ledger.example>\r\n\r\ntoken ${token}\r\n`
  const line = `${token} 0123456789 abcdefghijklmnopqrstuvwxyz\r\n`
  const lines = Math.max(1, Math.ceil((sizeBytes - head.length) / line.length))
  return Buffer.from(head + line.repeat(lines), 'latin1')
}

/** One connection of the ledger client: asks, and awaits one reply. */
class SmtpLine {
  readonly #clock: Clock
  readonly #replyMs: number
  #socket: Socket | null = null
  #text = ''
  #pending: Buffer[] = []
  #isGone = false
  #wake: (() => void) | null = null
  #drained: (() => void) | null = null

  private constructor(replyMs: number, clock: Clock) {
    this.#replyMs = replyMs
    this.#clock = clock
  }

  /** Null when nobody listens. */
  static async open(
    { host, port }: { readonly host: string; readonly port: number },
    replyMs: number,
    clock: Clock,
  ): Promise<SmtpLine | null> {
    const line = new SmtpLine(replyMs, clock)
    const gone = () => {
      line.#isGone = true
      line.#wake?.()
      line.#drained?.()
    }
    try {
      line.#socket = await Bun.connect({
        hostname: host,
        port,
        socket: {
          data(_, bytes) {
            line.#text += Buffer.from(bytes).toString('latin1')
            line.#wake?.()
          },
          drain: () => line.#flush(),
          close: gone,
          end: gone,
          error: gone,
          connectError() {},
        },
      })
    } catch {
      return null
    }
    return line
  }

  send(bytes: Uint8Array): void {
    this.#pending.push(Buffer.from(bytes))
    this.#flush()
  }

  /** Resolves when the kernel took all bytes. @throws when the connection is gone */
  async drained(): Promise<void> {
    while (this.#pending.length > 0) {
      if (this.#isGone) throw new Error('connection lost')
      await new Promise<void>((resolve) => {
        this.#drained = resolve
      })
      this.#drained = null
    }
    if (this.#isGone) throw new Error('connection lost')
  }

  /** Sends, and gives the last line of the reply. @throws when the connection is gone or silent */
  async ask(command: string): Promise<string> {
    if (command !== '') {
      this.send(Buffer.from(command, 'latin1'))
      await this.drained()
    }
    for (;;) {
      for (let end = this.#text.indexOf('\r\n'); end >= 0; end = this.#text.indexOf('\r\n')) {
        const text = this.#text.slice(0, end)
        this.#text = this.#text.slice(end + 2)
        if (text[3] !== '-') return text
      }
      if (this.#isGone) throw new Error('connection lost')
      const woken = await this.#event()
      if (!woken) throw new Error('no reply in time')
    }
  }

  end(): void {
    this.#socket?.terminate()
  }

  #event(): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(this.#replyMs, () => resolve(false))
      this.#wake = () => {
        timer.cancel()
        this.#wake = null
        resolve(true)
      }
    })
  }

  #flush(): void {
    while (this.#pending.length > 0) {
      const first = this.#pending[0] as Buffer
      const taken = this.#socket?.write(first) ?? 0
      if (taken < 0) {
        this.#isGone = true
        break
      }
      if (taken < first.length) {
        this.#pending[0] = first.subarray(Math.max(0, taken))
        return
      }
      this.#pending.shift()
    }
    this.#drained?.()
  }
}

/** What ledger and sink say together. Each list holds tokens. */
export type Account = {
  readonly acked: number
  readonly refused: number
  readonly indeterminate: number
  /** Acked and never arrived: must be empty, always. */
  readonly lost: readonly string[]
  /** Refused, or never sent to the end, and arrived: must be empty, always. */
  readonly phantom: readonly string[]
  /** Arrived with other bytes, another token, or for another recipient: must be empty, always. */
  readonly corrupt: readonly string[]
  /** Indeterminate ones that arrived. */
  readonly resolved: number
  /** Arrivals beyond the first of each token. */
  readonly duplicates: readonly {
    readonly token: string
    readonly first: Arrival
    readonly next: Arrival
  }[]
}

/** Holds the ledger against the arrivals. Arrivals without a token of the ledger are not looked at. */
export function settleAccount(ledger: Ledger, arrivals: readonly Arrival[]): Account {
  const byToken = new Map<string, Arrival[]>()
  const corrupt: string[] = []
  for (const arrival of arrivals) {
    const token = /^X-Token: (\S+)\r$/m.exec(arrival.head)?.[1]
    const entry = token === undefined ? undefined : ledger.entries.get(token)
    if (token === undefined || entry === undefined) continue
    const list = byToken.get(token)
    if (list === undefined) byToken.set(token, [arrival])
    else list.push(arrival)
    const named =
      arrival.recipients.length === 1 && arrival.recipients[0]?.address.startsWith(`${token}@`)
    if (arrival.sha256 !== entry.sha256 || named !== true || arrival.dirt.length > 0)
      corrupt.push(token)
  }
  const all = [...ledger.entries.values()]
  const arrived = ({ token }: Entry) => byToken.has(token)
  return {
    acked: ledger.acked,
    refused: ledger.refused,
    indeterminate: ledger.indeterminate,
    lost: all
      .filter((entry) => entry.fate === 'acked' && !arrived(entry))
      .map(({ token }) => token),
    phantom: all
      .filter((entry) => entry.fate === 'refused' && arrived(entry))
      .map(({ token }) => token),
    corrupt,
    resolved: all.filter((entry) => entry.fate === 'indeterminate' && arrived(entry)).length,
    duplicates: [...byToken].flatMap(([token, [first, ...more]]) =>
      first === undefined
        ? []
        : more.map((next, at) => ({
            token,
            first: at === 0 ? first : (more[at - 1] as Arrival),
            next,
          })),
    ),
  }
}

/** One line for the log of a test. */
export function accountLine(account: Account): string {
  const { acked, refused, indeterminate, lost, phantom, corrupt, resolved, duplicates } = account
  return `acked ${acked}, refused ${refused}, indeterminate ${indeterminate} (${resolved} arrived), lost ${lost.length}, phantom ${phantom.length}, corrupt ${corrupt.length}, duplicates ${duplicates.length}`
}
