/**
 * The name client: questions to the name servers of the settings, or of the system. Servers that
 * are silent or know nothing are passed over; equal questions at a time are one; what was answered
 * is remembered for as long as it holds. Nothing waits longer than `timeoutMs`; and nothing waits at
 * all while no server answers anything, until one does.
 */
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import type { Clock, Timer } from './clock.ts'
import { plainName, questionBytes, readAnswer } from './dns-message.ts'
import type { DnsWire, NameServer } from './dns-wire.ts'
import { NameCache } from './name-cache.ts'
import { type DnsAnswer, type DnsQuestion, keyOf, type Names } from './names.ts'
import type { Observer } from './observe.ts'
import type { Random } from './random.ts'

/** Questions at a time: each has a socket, or three of servers that are silent. */
const RUNNING_MAX = 64
/** Questions that wait for their turn; beyond it nobody knows. */
const WAITING_MAX = 4_000
/** Servers asked in turn for one question; each at most twice. */
const TRIES_MAX = 6
const TRIES_MIN = 3
/** Silence of a server after which the next one is asked too; the first may still answer. */
const NEXT_MS_MAX = 2_000
/** A server that was silent is asked last for so long. */
const AVOIDED_MS = 30_000
/** While nobody answers, the servers are tried again after this, doubled each time up to the last. */
const PROBE_MS_FIRST = 1_000
const PROBE_MS_MAX = 10_000
/**
 * Questions in a row, those of the probes included, that nobody answered: from then on others fail
 * at once. Fewer may all be about one domain that is dead.
 */
const FAILURES_MAX = 5

export type NameServersDeps = {
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  readonly wire: DnsWire
  /** In order of preference; the same array as long as they are the same. */
  readonly servers: () => readonly NameServer[]
  readonly timeoutMs: () => number
}

/** That nobody answers at all, since when, and why. */
export type NamesTrouble = { readonly sinceMs: number; readonly cause: string }

/** Whether anybody answers is not known; one probe at a time tries. */
type Doubt = { timer: Timer; waitMs: number; probes: number }

type Asked = { readonly question: DnsQuestion; readonly key: string }
type Ended = {
  readonly answer: DnsAnswer
  readonly ttlMs: number | null
  /** False: no server knew anything. Null: none was asked, for want of room. */
  readonly isHeard: boolean | null
}

export class NameServers implements Names {
  readonly #deps: NameServersDeps
  readonly #cache: NameCache
  readonly #underWay = new Map<string, Promise<DnsAnswer>>()
  readonly #waiting: (() => void)[] = []
  #running = 0
  #servers: readonly NameServer[] = []
  readonly #avoidUntilMono = new Map<string, number>()
  /** Those that cannot read EDNS. */
  readonly #plain = new Set<string>()
  /** The last question that was answered: what a server that works can answer again. */
  #known: DnsQuestion | null = null
  #trouble: NamesTrouble | null = null
  #doubt: Doubt | null = null
  /** In a row. */
  #failures = 0
  /** The last question that failed at once. */
  #refused: DnsQuestion | null = null
  #isClosed = false

  constructor(deps: NameServersDeps) {
    this.#deps = deps
    this.#cache = new NameCache(deps.clock)
  }

  query({ name, type }: DnsQuestion, fresh?: 'fresh'): Promise<DnsAnswer> {
    const plain = plainName(name)
    if (plain === null) return Promise.resolve({ status: 'absent' })
    const question = { name: plain, type }
    const key = keyOf(question)
    this.#look()
    const known = fresh === undefined ? this.#cache.get(key) : null
    if (known !== null) return Promise.resolve(known)
    if (fresh === undefined && this.#trouble !== null && this.#failures >= FAILURES_MAX) {
      return Promise.resolve(this.#refuse(question, this.#trouble))
    }
    const same = this.#underWay.get(key)
    if (same !== undefined) return same
    const answer = this.#ask({ question, key }).finally(() => this.#underWay.delete(key))
    this.#underWay.set(key, answer)
    return answer
  }

  /** Null: they answer, or nobody asked. */
  get trouble(): NamesTrouble | null {
    return this.#trouble
  }

  close(): void {
    this.#isClosed = true
    this.#doubt?.timer.cancel()
  }

  /** Ends as if it had waited. */
  #refuse(question: DnsQuestion, { cause }: NamesTrouble): DnsAnswer {
    this.#refused = question
    const why = `no name server answers: ${cause}`
    this.#deps.observer.emit('names.failed', { name: question.name, cause: why })
    return { status: 'failed', cause: why }
  }

  /** Other servers may know other things. */
  #look(): void {
    const servers = this.#deps.servers()
    if (servers === this.#servers) return
    this.#servers = servers
    this.#cache.clear()
    this.#avoidUntilMono.clear()
    this.#plain.clear()
    this.#failures = 0
  }

  async #ask(asked: Asked): Promise<DnsAnswer> {
    const { observer } = this.#deps
    const servers = this.#servers
    const { answer, ttlMs, isHeard } = await this.#inTurn(asked)
    if (servers === this.#servers) this.#cache.put(asked.key, answer, ttlMs)
    if (answer.status === 'failed') {
      observer.emit('names.failed', { name: asked.question.name, cause: answer.cause })
    }
    if (isHeard === true) this.#answered(asked.question)
    else if (isHeard === false && !this.#isClosed) this.#failed(asked.question)
    return answer
  }

  /** As soon as there is room; the time that it may take runs from now. */
  #inTurn({ question }: Asked): Promise<Ended> {
    const { clock, timeoutMs } = this.#deps
    return new Promise((resolve) => {
      const deadlineMono = clock.monoMs() + timeoutMs()
      const begin = (): void => {
        this.#running += 1
        this.#try(question, deadlineMono, (ended) => {
          this.#running -= 1
          resolve(ended)
          const next = this.#waiting.shift()
          // Thousands that came too late end one after the other, not in each other.
          if (next !== undefined) queueMicrotask(next)
        })
      }
      if (this.#running < RUNNING_MAX) begin()
      else if (this.#waiting.length < WAITING_MAX) this.#waiting.push(begin)
      else resolve(UNASKED)
    })
  }

  /** Calls `done` once, by the deadline. Each server that is asked may answer until then. */
  #try(question: DnsQuestion, deadlineMono: number, done: (ended: Ended) => void): void {
    const { clock } = this.#deps
    const servers = this.#inOrder()
    const leftMs = deadlineMono - clock.monoMs()
    if (servers.length === 0) return done(nobody('there is no name server to ask'))
    if (leftMs <= 0) return done(UNASKED)
    const tries = Math.min(TRIES_MAX, Math.max(TRIES_MIN, servers.length))
    const stepMs = Math.min(NEXT_MS_MAX, leftMs / tries)
    const closes: (() => void)[] = []
    const causes: string[] = []
    let begun = 0
    let isOver = false
    let next: Timer | null = null
    const end = (ended: Ended): void => {
      if (isOver) return
      isOver = true
      next?.cancel()
      deadline.cancel()
      for (const close of closes) close()
      done(ended)
    }
    const deadline = clock.after(leftMs, () => {
      const silent = `no answer within ${Math.round(leftMs)} ms`
      end(nobody([...new Set([...causes, silent])].join('; ')))
    })
    const go = (): void => {
      next?.cancel()
      const server = servers[begun % servers.length]
      if (isOver || server === undefined || begun >= tries) return
      begun += 1
      let isOut = false
      const out = (cause: string): void => {
        if (isOut) return
        isOut = true
        causes.push(`${labelOf(server)}: ${cause}`)
        if (causes.length === tries) end(nobody([...new Set(causes)].join('; ')))
        else go()
      }
      closes.push(this.#exchange(server, question, end, out))
      next = clock.after(stepMs, () => {
        this.#avoidUntilMono.set(labelOf(server), clock.monoMs() + AVOIDED_MS)
        go()
      })
    }
    go()
  }

  /** By datagram, and by TCP when the answer does not fit. */
  #exchange(
    server: NameServer,
    question: DnsQuestion,
    end: (ended: Ended) => void,
    out: (cause: string) => void,
  ): () => void {
    const { wire, random } = this.#deps
    const label = labelOf(server)
    const id = random.below(0x1_0000)
    const bytes = questionBytes(question, id, !this.#plain.has(label))
    let isStream = false
    let close: () => void = () => {}
    const heard = (message: Uint8Array): void => {
      const said = readAnswer(message, question, id)
      switch (said.kind) {
        case 'foreign':
          if (isStream) out('an answer to something else')
          return
        case 'truncated':
          close()
          if (isStream) return out('an answer that is cut off')
          isStream = true
          close = wire.stream(server, bytes, { heard, failed: out })
          return
        case 'refusal':
          close()
          if (said.plain) this.#plain.add(label)
          return out(said.cause)
        case 'answer':
          this.#avoidUntilMono.delete(label)
          return end({ answer: said.answer, ttlMs: said.ttlMs, isHeard: true })
      }
    }
    close = wire.datagram(server, bytes, { heard, failed: out })
    return () => close()
  }

  /** Those that were silent lately come last. */
  #inOrder(): readonly NameServer[] {
    const nowMono = this.#deps.clock.monoMs()
    const isAvoided = (server: NameServer): boolean =>
      (this.#avoidUntilMono.get(labelOf(server)) ?? 0) > nowMono
    return [
      ...this.#servers.filter((server) => !isAvoided(server)),
      ...this.#servers.filter(isAvoided),
    ]
  }

  #answered(question: DnsQuestion): void {
    this.#known = question
    this.#failures = 0
    this.#refused = null
    this.#doubt?.timer.cancel()
    this.#doubt = null
    if (this.#trouble === null) return
    this.#trouble = null
    this.#deps.observer.emit('names.answering')
  }

  /** One name that nobody knows may be at fault itself: others are asked until one is answered. */
  #failed(question: DnsQuestion): void {
    this.#failures += 1
    if (this.#doubt !== null) return
    const doubt: Doubt = {
      timer: this.#deps.clock.after(0, () => void this.#probe(doubt, question)),
      waitMs: PROBE_MS_FIRST,
      probes: 0,
    }
    this.#doubt = doubt
  }

  /**
   * Asks what was known before, and every other time what somebody wants to know now: either may
   * be of a domain that is dead.
   */
  async #probe(doubt: Doubt, failed: DnsQuestion): Promise<void> {
    const { clock, observer } = this.#deps
    const wanted = doubt.probes % 2 === 1 ? this.#refused : null
    const question = wanted ?? this.#known ?? failed
    doubt.probes += 1
    const { answer, isHeard } = await this.#inTurn({ question, key: keyOf(question) })
    if (this.#isClosed || this.#doubt !== doubt) return
    if (isHeard === true) return this.#answered(question)
    if (isHeard === false) {
      this.#failures += 1
      if (this.#trouble === null) {
        const cause = answer.status === 'failed' ? answer.cause : ''
        this.#trouble = { sinceMs: clock.wallMs(), cause }
        observer.emit('names.silent', { cause })
      }
    }
    doubt.timer = clock.after(doubt.waitMs, () => void this.#probe(doubt, failed))
    doubt.waitMs = Math.min(PROBE_MS_MAX, 2 * doubt.waitMs)
  }
}

const UNASKED: Ended = {
  answer: { status: 'failed', cause: 'too many questions at a time' },
  ttlMs: null,
  isHeard: null,
}

function nobody(cause: string): Ended {
  return { answer: { status: 'failed', cause }, ttlMs: null, isHeard: false }
}

function labelOf({ host, port }: NameServer): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** How often the file is looked at again. */
const REREAD_MS = 30_000
/** resolv.conf(5): further ones are ignored. */
const SYSTEM_MAX = 3
const LOCAL: readonly NameServer[] = [{ host: '127.0.0.1', port: 53 }]

/** The name servers of /etc/resolv.conf, looked at now and then. */
export function systemServers(
  clock: Clock,
  path = '/etc/resolv.conf',
): () => readonly NameServer[] {
  let text: string | null = null
  let servers = LOCAL
  let readMono = Number.NEGATIVE_INFINITY
  return () => {
    if (clock.monoMs() - readMono < REREAD_MS) return servers
    readMono = clock.monoMs()
    const before = text
    try {
      text = readFileSync(path, 'utf8')
    } catch {
      text = ''
    }
    if (text !== before) servers = serversIn(text)
    return servers
  }
}

function serversIn(text: string): readonly NameServer[] {
  const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)]
    .map(([, host = '']) => ({ host, port: 53 }))
    .filter(({ host }) => isIP(host.split('%')[0] ?? '') !== 0)
    .slice(0, SYSTEM_MAX)
  return servers.length === 0 ? LOCAL : servers
}
