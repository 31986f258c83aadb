/** Plays one dialogue against a target and says the first thing that went otherwise. */
import { pause, SystemClock } from '../../src/base/clock.ts'
import type { Arrival } from '../process/sink.ts'
import { Wire, type WireReply } from '../process/wire.ts'
import { type Dialogue, matches, parseBytes, type Step, substitute } from './script.ts'

/** What a dialogue talks to: a node of ours, or the oracle. */
export interface Target {
  readonly port: number
  /** Only the reply code counts, not enhanced codes and texts. */
  readonly codesOnly: boolean
  /** Messages with `token` at the next hop, once at least `count` are there and nothing moves. */
  arrivals(token: string, count: number, timeoutMs: number): Promise<readonly Arrival[]>
  /** Ids of held messages whose subject, sender or recipients contain `token`. */
  held(token: string): Promise<readonly string[]>
  release(ids: readonly string[]): Promise<void>
  retry(): Promise<void>
  /** Recipients that wait, of messages whose recipients contain `token`. */
  waiting(
    token: string,
  ): Promise<
    readonly { readonly address: string; readonly attempts: number; readonly running: boolean }[]
  >
  freezeInspectors(): void
}

class DialogueError extends Error {
  override name = 'DialogueError'
}

const STEP_MS = 10_000
const clock = new SystemClock()

/** @throws DialogueError with the place, the step and what came instead */
export async function play(dialogue: Dialogue, token: string, target: Target): Promise<void> {
  const player = new Player(dialogue, token, target)
  try {
    await player.run()
  } finally {
    player.close()
  }
}

class Player {
  readonly #dialogue: Dialogue
  readonly #token: string
  readonly #target: Target
  readonly #variables: ReadonlyMap<string, string>
  #wire: Wire | null = null
  readonly #others: Wire[] = []
  #waitMs = STEP_MS
  #last: WireReply | null = null
  #continued: string[] = []

  constructor(dialogue: Dialogue, token: string, target: Target) {
    this.#dialogue = dialogue
    this.#token = token
    this.#target = target
    this.#variables = new Map([...dialogue.variables, ['T', token]])
  }

  async run(): Promise<void> {
    if (this.#dialogue.steps[0]?.verb !== 'others') await this.#connect(this.#dialogue.from)
    for (const step of this.#dialogue.steps) {
      try {
        await this.#step(step)
      } catch (error) {
        const said = error instanceof Error ? error.message : String(error)
        throw new DialogueError(
          `${this.#dialogue.where.replace(/:\d+$/, '')}:${step.line}: ${step.verb} ${step.words.slice(0, 200)}\n  ${said}`,
        )
      }
    }
  }

  close(): void {
    this.#wire?.drop()
    for (const wire of this.#others) wire.drop()
  }

  get #open(): Wire {
    if (this.#wire === null) throw new Error('no connection')
    return this.#wire
  }

  async #connect(from: string | null): Promise<void> {
    this.#wire = await this.#dial(from)
  }

  #dial(from: string | null): Promise<Wire> {
    return Wire.connect({ port: this.#target.port, ...(from === null ? {} : { from }) })
  }

  async #step({ verb, words }: Step): Promise<void> {
    switch (verb) {
      case 'C:':
        this.#open.send(`${substitute(words, this.#variables)}\r\n`)
        return
      case 'C>': {
        const segments = parseBytes(words, this.#variables)
        if (segments.length > 1) return this.#open.sendSegments(segments)
        this.#open.send(segments[0] ?? '')
        return
      }
      case 'C.': {
        const bytes = Buffer.concat(parseBytes(words, this.#variables))
        return this.#open.sendSegments([...bytes].map((byte) => Uint8Array.of(byte)))
      }
      case 'S~': {
        const [, codes = '', text = '*'] = /^(\S+)(?: (.*))?$/.exec(words) ?? []
        const reply = await this.#reply()
        if (!codes.split('|').includes(String(reply.code)))
          throw new Error(`got ${reply.lines.join(' / ')}`)
        if (!this.#target.codesOnly) this.#match(`* ${text}`.replace('* *', '*'), reply)
        return
      }
      case 'offers':
        return this.#offers(words)
      case 'last':
        return this.#lastOf(words)
      case 'quiet': {
        const said = await this.#open.rest(Number(words) * 1_000)
        if (said !== '') throw new Error(`it said ${JSON.stringify(said)}`)
        return
      }
      case 'dials':
        for (let n = 0; n < Number(words); n += 1) {
          const wire = await this.#dial(this.#dialogue.from)
          await wire.reply(this.#waitMs)
          wire.drop()
        }
        return
      case 'message':
        return this.#message()
      case 'within':
        this.#waitMs = Number(words) * 1_000
        return
      case 'closed': {
        const how = await this.#open.closed(this.#waitMs)
        if (words === 'fin' && how !== 'fin') throw new Error(`closed by ${how}`)
        return
      }
      case 'ended':
        await this.#open.rest(this.#waitMs)
        return void (await this.#open.closed(1_000))
      case 'shut':
        return this.#open.shut()
      case 'reset':
        return this.#open.reset()
      case 'drop':
        return this.#open.drop()
      case 'connect':
        this.#wire?.drop()
        return this.#connect(words === '' ? this.#dialogue.from : words)
      case 'others': {
        const [count = '0', from = this.#dialogue.from] = words.split(' ')
        for (let n = 0; n < Number(count); n += 1) {
          const wire = await this.#dial(from)
          this.#others.push(wire)
          await wire.reply(this.#waitMs)
        }
        if (this.#wire === null) await this.#connect(this.#dialogue.from)
        return
      }
      case 'tls':
        return this.#open.startTls(
          words === '1.2' ? 'TLSv1.2' : words === '1.3' ? 'TLSv1.3' : undefined,
        )
      case 'freeze':
        return this.#target.freezeInspectors()
      case 'alive': {
        const wire = await this.#dial(null)
        this.#others.push(wire)
        const { code } = await wire.reply(this.#waitMs)
        if (code !== 220) throw new Error(`greeting ${code}`)
        return
      }
      case 'expect-mail': {
        const got = await this.#target.arrivals(this.#token, Number(words), this.#waitMs)
        if (got.length !== Number(words))
          throw new Error(`${got.length} arrived: ${got.map(summary).join('; ')}`)
        const dirty = got.filter(({ dirt }) => dirt.length > 0)
        if (dirty.length > 0) throw new Error(`dirt on the wire: ${dirty[0]?.dirt.join(', ')}`)
        return
      }
      case 'expect-held':
        // The list is written behind the reply; what matters is that it gets there.
        return this.#until(async () => {
          const ids = await this.#target.held(this.#token)
          return ids.length === Number(words) ? null : `${ids.length} are held`
        })
      case 'release':
        return this.#target.release(await this.#target.held(this.#token))
      case 'retry':
        return this.#target.retry()
      case 'tried':
        return this.#until(async () => {
          const rows = await this.#target.waiting(this.#token)
          return rows.every(({ attempts, running }) => attempts > 0 && !running)
            ? null
            : JSON.stringify(rows)
        })
      case 'waiting': {
        const wanted = words.split(/\s+/).filter((word) => word !== '')
        const sorted = wanted
          .map((word) => substitute(word, this.#variables))
          .sort()
          .join(' ')
        return this.#until(async () => {
          const rows = await this.#target.waiting(this.#token)
          const got = rows
            .map(({ address }) => address)
            .sort()
            .join(' ')
          return got === sorted ? null : `waiting: ${got}`
        })
      }
      case 'mail':
        return this.#mail(words)
      default: {
        const repeated = /^S(\d*):$/.exec(verb)
        if (repeated === null) throw new Error(`no such step: ${verb}`)
        const count = repeated[1] === '' ? 1 : Number(repeated[1])
        for (let n = 0; n < count; n += 1) await this.#expect(words)
      }
    }
  }

  async #expect(words: string): Promise<void> {
    const pattern = substitute(words, this.#variables)
    if (/^\d{3}-/.test(pattern)) {
      this.#continued.push(pattern)
      return
    }
    const reply = await this.#reply()
    const before = this.#continued
    this.#continued = []
    if (this.#target.codesOnly) {
      if (reply.code !== Number(pattern.slice(0, 3)))
        throw new Error(`got ${reply.lines.join(' / ')}`)
      return
    }
    if (before.length > 0) {
      const same =
        before.length === reply.lines.length - 1 &&
        before.every((one, at) => matches(one, reply.lines[at] ?? ''))
      if (!same) throw new Error(`got ${reply.lines.join(' / ')}`)
    }
    this.#match(pattern, reply)
  }

  #match(pattern: string, reply: WireReply): void {
    const line = reply.lines.at(-1) ?? ''
    // RFC 5321 section 4.2: a reply may end after its code; we always say more.
    if (!matches(substitute(pattern, this.#variables), line))
      throw new Error(`got ${reply.lines.join(' / ')}`)
  }

  async #reply(): Promise<WireReply> {
    this.#last = await this.#open.reply(this.#waitMs)
    return this.#last
  }

  #offers(words: string): void {
    if (this.#target.codesOnly) return
    const wanted = (words.match(/"[^"]*"/g) ?? []).map((word) => word.slice(1, -1))
    const got = (this.#last?.lines ?? []).slice(1).map((line) => line.slice(4))
    if ([...wanted].sort().join('\n') !== [...got].sort().join('\n'))
      throw new Error(`offered ${got.join(', ')}`)
  }

  /** Asks again and again until `question` gives null. @throws its last answer after the wait */
  async #until(question: () => Promise<string | null>): Promise<void> {
    const deadline = clock.monoMs() + this.#waitMs
    for (;;) {
      const answer = await question()
      if (answer === null) return
      if (clock.monoMs() > deadline) throw new Error(answer)
      await pause(clock, 20)
    }
  }

  async #lastOf(pattern: string): Promise<void> {
    for (;;) {
      const reply = await this.#reply()
      if (matches(pattern, reply.lines.at(-1) ?? '')) return
    }
  }

  async #message(): Promise<void> {
    const lines: [string, number][] = [
      [`MAIL FROM:<s-${this.#token}@client.example>`, 250],
      [`RCPT TO:<r-${this.#token}@example.com>`, 250],
      ['DATA', 354],
      [`X-Token: ${this.#token}\r\n\r\nx\r\n.`, 250],
    ]
    for (const [line, code] of lines) {
      this.#open.send(`${line}\r\n`)
      const reply = await this.#reply()
      if (reply.code !== code) throw new Error(`${line}: got ${reply.lines.join(' / ')}`)
    }
  }

  async #mail(words: string): Promise<void> {
    const [, kind = '', quoted = ''] = /^(\S+) (.*)$/s.exec(words) ?? []
    const text = Buffer.concat(parseBytes(quoted, this.#variables)).toString('latin1')
    const all = await this.#target.arrivals(this.#token, 0, 0)
    if (all.length === 0) throw new Error('no mail arrived')
    for (const arrival of all) {
      const body = arrival.body?.toString('latin1') ?? arrival.head
      if (!holds(kind, text, arrival, body))
        throw new Error(`${summary(arrival)}: ${JSON.stringify(body.slice(0, 600))}`)
    }
  }
}

function holds(kind: string, text: string, arrival: Arrival, body: string): boolean {
  switch (kind) {
    case 'sender':
      return arrival.sender === text
    case 'parameters':
      return matches(text, arrival.senderParameters)
    case 'recipient':
      return arrival.recipients.some(({ address }) => address === text)
    case 'asked':
      return arrival.recipients.every(({ parameters }) => matches(text, parameters))
    case 'contains':
      return body.includes(text)
    case 'lacks':
      return !body.includes(text)
    case 'ends':
      return body.endsWith(text)
    case 'top':
      // Folded lines count as one.
      return matches(`${text}*`, body.replace(/\r\n[ \t]+/g, ' '))
    default:
      throw new Error(`no such question: mail ${kind}`)
  }
}

function summary(arrival: Arrival): string {
  return `<${arrival.sender}> to ${arrival.recipients.map(({ address }) => address).join(' ')}, ${arrival.sizeBytes} bytes`
}
